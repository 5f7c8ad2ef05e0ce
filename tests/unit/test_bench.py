"""The benchmarks' own parts; nothing here is timed."""

import asyncio
import re
import time
import xml.etree.ElementTree as ET

import msgspec
import pytest

from bench import pictures
from bench.__main__ import parser
from bench.experiments import NAMES
from bench.load import Pace, answer_body
from bench.message import INSTANCE_ID, MESSAGE_ID, TASK, body
from bench.results import Growth, Outage, Overload, Results, render
from bench.sample import Sample, percentile
from bench.traffic import FIXED, SEED, SIMULATED, Traffic, simulated
from connector.message.parsing import BodyKind, parse
from connector.simulator.runs import runs

SAMPLE = Sample(accepted=1000, refused=0, seconds=2.0, p50=1.0, p99=2.0, p999=3.0, cpu_seconds=0.1, rss=50 * 2**20)
SLOWER = msgspec.structs.replace(SAMPLE, accepted=500, cpu_seconds=0.2)
OUTAGE = Outage(
    up=SAMPLE, down=SLOWER, backlog=900, pause_seconds=1.5, replayed=800, replay_seconds=0.5, replay_cpu_seconds=0.1
)
RESULTS = Results(
    command="python -m bench",
    machine={"python": "CPython 3.11"},
    speed={"bare": [SAMPLE, SAMPLE], "connector": [SLOWER, SAMPLE], "librdkafka": [SAMPLE, SAMPLE]},
    outages=[OUTAGE],
    growth=[Growth("instances", 100, SAMPLE), Growth("messages in the journal", 1_000, SLOWER, 750.0)],
    latency=[msgspec.structs.replace(SAMPLE, offered=250.0)],
    overloads=[Overload(SAMPLE, msgspec.structs.replace(SLOWER, offered=1500.0, refused=700, refused_p99=1.5))],
    soak=[SAMPLE, SLOWER],
)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"code":0}',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{"code":0}\r\n0\r\n\r\n',
    ],
    ids=["with its length", "in a chunk"],
)
def test_an_answer_is_read_once_it_is_whole(answer: bytes) -> None:
    assert [answer_body(answer[:end]) for end in range(len(answer))] == [None] * len(answer)
    assert answer_body(answer) == b'{"code":0}'


def test_everything_is_measured_unless_some_is_chosen() -> None:
    assert list(NAMES) == parser().parse_args([]).only
    assert parser().parse_args(["--only", "bare", "journal"]).only == ["bare", "journal"]


def test_an_unknown_name_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--only", "nonesuch"])

    assert ended.value.code == 2
    assert "nonesuch" in capsys.readouterr().err


def test_ratios_stand_before_absolute_figures_and_compare_within_a_round() -> None:
    text = render(RESULTS)

    assert "| connector, the three default streams | 1.00 – **2.50** – 4.00 | 0.50 – **0.75** – 1.00 |" in text
    assert text.index("Ratios to the bare app") < text.index("Medians of the rounds")


def test_replay_is_compared_with_librdkafka_alone() -> None:
    assert "| replay rate ÷ librdkafka alone | 3.200 – **3.200** – 3.200 |" in render(RESULTS)


HEADS = {
    "speed": "## Speed",
    "latency": "## Latency at half load",
    "overloads": "## Overload",
    "outages": "## Journal",
    "growth": "## Growth",
    "soak": "## Soak",
}


@pytest.mark.parametrize("left_out", HEADS)
def test_what_was_not_measured_is_not_shown(left_out: str) -> None:
    text = render(msgspec.structs.replace(RESULTS, **{left_out: {} if left_out == "speed" else []}))

    assert [head for key, head in HEADS.items() if key != left_out] == re.findall("^## .*$", text, re.MULTILINE)


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", render(RESULTS), re.MULTILINE)

    assert tables
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_message_is_about_one_kilobyte_and_the_connector_reads_it() -> None:
    message = parse(body(), BodyKind.JSON)

    assert dict(TASK) == dict(message.fields)
    assert 900 <= len(msgspec.json.encode(TASK)) <= 1100


@pytest.mark.parametrize("size", [512, 8 * 1024, 128 * 1024])
def test_a_message_of_another_size_is_as_large_as_asked_for(size: int) -> None:
    message = parse(body(size), BodyKind.JSON)

    assert 0.8 * size <= len(msgspec.json.encode(message.fields)) <= 1.05 * size
    assert (message.fields["msgId"], message.fields["instanceId"]) == (MESSAGE_ID, INSTANCE_ID)


@pytest.mark.parametrize("kind", [SIMULATED, FIXED])
def test_requests_have_the_length_they_declare_and_ids_of_their_own(kind: str) -> None:
    traffic = Traffic(kind, "x", instances=2)
    one, other = traffic.requests(), traffic.requests()
    sent = [next(each) for each in (one, other) for _ in range(40)]
    heads, bodies = zip(*(each.split(b"\r\n\r\n") for each in sent), strict=True)
    messages = [parse(each, BodyKind.JSON).fields for each in bodies]

    assert all(f"Content-Length: {len(each)}".encode() in head for head, each in zip(heads, bodies, strict=True))
    assert len({each["msgId"] for each in messages}) == 80
    assert len({head.partition(b"X-Request-Id: ")[2][:32] for head in heads}) == 80
    assert len({each["instanceId"] for each in messages}) == 2


def test_the_traffic_is_the_simulators_in_its_default_mix() -> None:
    """Every run whole and in order, whatever its values; only the ids are others."""
    for run, bodies in zip(runs(SEED, 20, 1_790_000_000_000), simulated(count=20), strict=True):
        for message, template in zip(run.messages, bodies, strict=True):
            sent = parse(template % {b"message": b"m", b"instance": b"i"}, BodyKind.JSON).fields
            assert dict(sent) == {**message, "msgId": "m", "instanceId": "i"}


def test_percentiles_of_nothing_are_unknown() -> None:
    assert percentile([], 0.99) is None
    assert percentile([float(number) for number in range(100)], 0.99) == 99.0


def test_every_picture_is_drawn_and_nothing_of_what_was_not_measured() -> None:
    drawn = pictures.draw(RESULTS)

    assert sorted(drawn) == ["growth.svg", "soak.svg", "speed.svg"]
    assert [ET.fromstring(picture).tag for picture in drawn.values()] == ["{http://www.w3.org/2000/svg}svg"] * 3
    assert pictures.draw(msgspec.structs.replace(RESULTS, speed={}, growth=[], soak=[])) == {}


def test_what_comes_due_while_no_connection_is_free_is_sent_later_and_counts_from_then() -> None:
    class Sent:
        def __init__(self) -> None:
            self.due: list[float] = []

        def send(self, due: float) -> None:
            self.due.append(due)

    async def run() -> tuple[list[float], float]:
        pace, connection = Pace(rate=1000.0), Sent()
        keeping = asyncio.create_task(pace.keep())
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        for _ in range(3):
            pace.next(connection)  # type: ignore[arg-type]
        keeping.cancel()
        return connection.due, began

    due, began = asyncio.run(run())
    assert due == sorted(due)
    assert due[0] < began - 0.01
