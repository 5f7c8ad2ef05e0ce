"""The backlog of a lost connector: reported, exported and published, whole and in order, whatever happens meanwhile."""

import asyncio
import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import apsw
import pytest

from connector.intake.dead_letters import dead_letter
from connector.journal.model import Admission
from connector.journal.sqlite import SqliteJournal
from connector.message.headers import timestamp_text
from connector.values import ProducibleRecord, Request
from tests.faults.stage import Connector as Process
from tests.integration.test_damaged_journal import pages_of, scramble
from tests.integration.test_ledger import post
from tests.integration.test_outage import message
from tests.running import PATIENT_ENVIRONMENT
from tests.servers import KafkaCluster
from tests.servers.reading import end_offsets, read_topic
from tests.waiting import PATIENCE_SECONDS, at_least, until, wait_until

LIMIT = 1 << 30
NOBODY = "127.0.0.1:1"
RECEIVED_AT = int(time.time()) * 1_000 - 3_600_000  # records keep it: older than the topic's retention, they would go
CONTENT = "nobody-may-read-this"
MANY = 10_000
LANES = 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rescued" / "journal.db"


@pytest.fixture
def topic(kafka: KafkaCluster, topic_prefix: str) -> str:
    """The topics of a connector that is gone; gives that of its events."""
    kafka.create_topic(f"{topic_prefix}.dead-letters")
    kafka.create_topic(f"{topic_prefix}.events", partitions=3)
    return f"{topic_prefix}.events"


def admission(sequence: int, topic: str, *, lane: str | None = None, body: bytes = b"") -> Admission:
    """A message whose record says in a header which it is."""
    lane = lane or f"i-{sequence % LANES}"
    body = body or f'{{"n": {sequence}, "comment": "{CONTENT}"}}'.encode()
    request = Request("default", body, "application/json", RECEIVED_AT + sequence)
    record = ProducibleRecord(
        "events", topic, lane.encode(), body, (("n", str(sequence).encode()),), request.received_at
    )
    return Admission(sequence, lane, request, (record,))


def letter(sequence: int, topic: str, body: bytes) -> Admission:
    request = Request("other", body, "text/plain", RECEIVED_AT + sequence)
    record = dead_letter(topic, request, code=40003, stage="parse", reason="bad JSON", instance_id=None)
    return Admission(sequence, f"dead-letter/{sequence}", request, (record,))


async def fill(path: Path, admissions: list[Admission]) -> None:
    journal = SqliteJournal(path, max_bytes=LIMIT)
    await journal.open()
    await asyncio.gather(*(journal.store(one) for one in admissions))
    await journal.close()


async def rows_of(path: Path) -> dict[int, Admission]:
    journal = SqliteJournal(path, max_bytes=LIMIT)
    await journal.open()
    first_rows = await journal.first_rows("", MANY, MANY)
    await journal.close()
    return {one.sequence: one for lane in first_rows for one in lane}


def begin(command: str, *arguments: object, **settings: str) -> subprocess.Popen[str]:
    known = {name: text for name, text in os.environ.items() if not name.startswith("WEDA_")}
    return subprocess.Popen(
        [sys.executable, "-m", "connector", "journal", command, *map(str, arguments)],
        env={**known, "WEDA_OPERATIONS__URL": f"http://{NOBODY}", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: str, *arguments: object, **settings: str) -> tuple[int, str, str]:
    """Exit code, what it printed, what it said on standard error."""
    with begin(command, *arguments, **settings) as process:
        printed, said = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, printed, said


def drain(path: Path, servers: str, *arguments: object) -> tuple[int, dict[str, object], str]:
    """Exit code, the last line, what it said on standard error."""
    code, printed, said = run("drain", "--journal", path, "--bootstrap-servers", servers, "--json", *arguments)
    return code, json.loads(printed.splitlines()[-1]) if printed else {}, said


def numbers_by_key(servers: str, topic: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for record in read_topic(servers, topic):
        found[record.key().decode()].append(int(dict(record.headers())["n"]))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if not one.name.endswith(".lock")}


def assert_whole_and_in_order(found: dict[str, list[int]], expected: range) -> None:
    """Every number of every instance; what comes again begins no later than where the instance had come to."""
    assert sorted({number for numbers in found.values() for number in numbers}) == list(expected)
    for numbers in found.values():
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers))
        steps = {after - before for before, after in pairwise(numbers)}
        assert {step for step in steps if step > 0} <= {LANES}, "no gap"


# --- drain ---


async def test_the_volume_of_a_killed_connector_is_drained_in_order(kafka, topic_prefix, tmp_path, path):
    """Accepted in an outage, the node lost: a copy of its volume gives every message to Kafka, in order."""
    connector = Process(tmp_path, kafka.bootstrap_servers, topic_prefix, more=PATIENT_ENVIRONMENT)
    await connector.start()
    await connector.wait_until_up()
    kafka.pause(1)
    try:
        for number in range(60):
            assert await post(connector, number) == 0
        await connector.kill()
    finally:
        kafka.resume(1)
    path.parent.mkdir()
    for file in tmp_path.glob("journal.db*"):
        shutil.copy(file, path.parent)

    code, reported, _ = drain(path, kafka.bootstrap_servers)

    assert (code, reported["left"], reported["dead_lettered"]) == (0, 0, 0)
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events")
    found: dict[str, list[int]] = defaultdict(list)
    for record in records:
        found[record.key().decode()].append(int(dict(record.headers())["ce_id"].decode().split("-")[1]))
    assert {key: list(dict.fromkeys(ids)) for key, ids in found.items()} == {
        "abcdefghij"[digit]: list(range(digit, 60, 10)) for digit in range(10)
    }


def published(servers: str, topic: str) -> int:
    return sum(end_offsets(servers, topic).values())


async def interrupted(path: Path, servers: str, topic: str, number: signal.Signals) -> tuple[int, str, str]:
    """A drain that gets a signal once it has published so many that some are taken out of the journal."""
    with begin("drain", "--journal", path, "--bootstrap-servers", servers, "--json") as process:
        wait_until(lambda: published(servers, topic), at_least(MANY // 5))
        process.send_signal(number)
        printed, said = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, printed, said


async def test_a_drain_that_was_killed_goes_on_where_it_was(kafka, topic, path):
    """P4: what repeats is the unacknowledged tail of an instance, in order."""
    await fill(path, [admission(number, topic) for number in range(1, MANY + 1)])

    code, printed, _ = await interrupted(path, kafka.bootstrap_servers, topic, signal.SIGKILL)
    assert (code, printed) == (-signal.SIGKILL, "")
    code, reported, _ = drain(path, kafka.bootstrap_servers)

    assert (code, reported["left"]) == (0, 0)
    assert 0 < reported["published"] < MANY
    assert_whole_and_in_order(numbers_by_key(kafka.bootstrap_servers, topic), range(1, MANY + 1))


async def test_a_file_is_drained_though_the_settings_name_a_shared_journal(kafka, topic, path):
    """As after the change from the one to the other; the database is not asked."""
    await fill(path, [admission(number, topic) for number in range(1, 11)])
    arguments = ("drain", "--journal", path, "--bootstrap-servers", kafka.bootstrap_servers)
    nowhere = {"WEDA_JOURNAL__URL": f"postgresql://weda@{NOBODY}/weda"}

    assert run(*arguments, **nowhere)[0] == 0
    assert sum(map(len, numbers_by_key(kafka.bootstrap_servers, topic).values())) == 10
    assert run(*arguments[:1], *arguments[3:], **nowhere)[0] == 2, "without the file's name it is refused"


async def test_what_is_older_than_its_topic_takes_is_drained_with_the_current_time(kafka, topic_prefix, path):
    """`message.timestamp.before.max.ms`: the backlog of a connector that was lost long ago."""
    kafka.create_topic(f"{topic_prefix}.dead-letters")
    kafka.create_topic(f"{topic_prefix}.events", config={"message.timestamp.before.max.ms": "60000"})
    await fill(path, [admission(number, f"{topic_prefix}.events") for number in range(1, 101)])

    code, reported, _ = drain(path, kafka.bootstrap_servers)

    assert (code, reported["published"], reported["left"]) == (0, 100, 0)
    assert_whole_and_in_order(numbers_by_key(kafka.bootstrap_servers, f"{topic_prefix}.events"), range(1, 101))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_drain_that_is_stopped_says_how_many_are_left(kafka, topic, path, number):
    await fill(path, [admission(number, topic) for number in range(1, MANY + 1)])

    code, printed, _ = await interrupted(path, kafka.bootstrap_servers, topic, number)
    reported = json.loads(printed.splitlines()[-1])

    assert code == 1
    assert reported["published"] + reported["left"] == MANY
    assert len(await rows_of(path)) == reported["left"] > 0
    code, rest, _ = drain(path, kafka.bootstrap_servers)
    assert (code, rest["published"], rest["left"]) == (0, reported["left"], 0)
    found = numbers_by_key(kafka.bootstrap_servers, topic)
    assert_whole_and_in_order(found, range(1, MANY + 1))
    assert sum(map(len, found.values())) == MANY, "in good order nothing repeats"


async def test_a_drain_while_the_brokers_hang_gives_up_and_keeps_the_rest(kafka, topic, path):
    await fill(path, [admission(number, topic) for number in range(1, MANY + 1)])
    with begin(
        "drain", "--journal", path, "--bootstrap-servers", kafka.bootstrap_servers, "--json", "--give-up-seconds", 2
    ) as process:
        wait_until(lambda: published(kafka.bootstrap_servers, topic))
        kafka.pause(1)
        try:
            printed, said = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            kafka.resume(1)
    reported = json.loads(printed.splitlines()[-1])

    assert (process.returncode, reported["published"] + reported["left"]) == (3, MANY)
    assert reported["left"] > 0
    assert f"{reported['left']} are left" in said
    assert drain(path, kafka.bootstrap_servers)[:2][0] == 0
    assert_whole_and_in_order(numbers_by_key(kafka.bootstrap_servers, topic), range(1, MANY + 1))


async def test_without_brokers_nothing_is_touched(topic, path):
    await fill(path, [admission(1, topic)])
    before = contents(path.parent)

    code, reported, said = drain(path, NOBODY)

    assert (code, reported, said.count("\n")) == (3, {}, 1)
    assert NOBODY in said
    assert contents(path.parent) == before


async def test_a_missing_topic_is_named_before_anything_is_published(kafka, topic, topic_prefix, path):
    tasks = ProducibleRecord("tasks", f"{topic_prefix}.tasks", b"i", b"v", (), RECEIVED_AT)
    both = admission(1, topic)
    await fill(path, [Admission(1, "i", both.request, (*both.records, tasks))])

    for option in ((), ("--dry-run",)):
        code, reported, said = drain(path, kafka.bootstrap_servers, *option)
        assert (code, reported) == (1, {})
        assert f"missing in Kafka: {topic_prefix}.tasks;" in said
        assert "topics apply" in said
    assert published(kafka.bootstrap_servers, topic) == 0


async def test_a_dry_run_publishes_nothing_and_changes_nothing(kafka, topic, path):
    await fill(path, [admission(number, topic) for number in (1, 2, 3)])
    before = contents(path.parent)

    code, reported, _ = drain(path, kafka.bootstrap_servers, "--dry-run")

    assert (code, reported) == (0, {"published": 0, "left": 3, "seconds": 0.0, "dry_run": True})
    assert (contents(path.parent), published(kafka.bootstrap_servers, topic)) == (before, 0)


async def test_what_kafka_refuses_becomes_a_dead_letter_of_its_connector(kafka, topic_prefix, path):
    """P1: the request's bytes go to the dead letters beside the topic, whatever prefix this command's settings have."""
    kafka.create_topic(f"{topic_prefix}.dead-letters")
    kafka.create_topic(f"{topic_prefix}.events", config={"max.message.bytes": "1000"})
    large = os.urandom(5_000)
    rows = [admission(number, f"{topic_prefix}.events") for number in (1, 3)]
    await fill(path, [*rows, admission(2, f"{topic_prefix}.events", lane="i-1", body=large)])

    code, reported, _ = drain(path, kafka.bootstrap_servers)

    assert (code, reported["left"], reported["dead_lettered"]) == (0, 0, 1)
    (record,) = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.dead-letters")
    headers = dict(record.headers())
    assert (record.value(), record.key(), headers["weda.error.code"]) == (large, b"i-1", b"41300")
    assert numbers_by_key(kafka.bootstrap_servers, f"{topic_prefix}.events") == {"i-1": [1], "i-3": [3]}


async def test_a_damaged_journal_is_salvaged_and_drained(kafka, topic, path):
    """Status and export say that it is damaged and touch nothing; drain saves what a connector would."""
    await fill(path, [admission(number, topic, body=bytes(2_000) + bytes([number])) for number in range(1, 201)])
    scramble(path, pages_of(path, "message")[0])
    before = contents(path.parent)

    code, printed, _ = run("status", "--journal", path, "--json")
    assert (code, bool(json.loads(printed)["damaged"])) == (1, True)
    assert run("status", "--journal", path)[0] == 1
    assert run("export", "--journal", path, "--to", path.parent.parent / "out")[0] == 1
    assert drain(path, kafka.bootstrap_servers, "--dry-run")[0] == 1
    assert contents(path.parent) == before

    code, reported, _ = drain(path, kafka.bootstrap_servers)
    assert (code, reported["published"], reported["left"]) == (0, 200, 0)
    assert_whole_and_in_order(numbers_by_key(kafka.bootstrap_servers, topic), range(1, 201))
    assert list(path.parent.glob("journal.db.damaged-*"))


async def test_no_log_and_no_output_holds_a_message(kafka, topic, path):
    """P9."""
    await fill(path, [admission(number, topic) for number in range(1, 11)])

    for command in (
        ("status", "--journal", path),
        ("export", "--journal", path, "--to", path.parent / "out"),
        ("drain", "--journal", path, "--bootstrap-servers", kafka.bootstrap_servers),
    ):
        code, printed, said = run(*command, WEDA_LOG__LEVEL="debug")
        assert code == 0
        assert CONTENT not in printed + said
    assert CONTENT in (path.parent / "out").read_text()


# --- who may, and what is not there ---

COMMANDS = (("status",), ("export", "--to", "out"), ("drain", "--bootstrap-servers", NOBODY))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
async def test_a_journal_that_is_held_is_left_alone(path, topic_prefix, command):
    await fill(path, [admission(1, f"{topic_prefix}.events")])
    journal = SqliteJournal(path, max_bytes=LIMIT)
    await journal.open()

    code, printed, said = await asyncio.to_thread(run, *command, "--journal", path)

    await journal.close()
    assert (code, printed, said.count("\n")) == (3, "", 1)
    assert "--operations-url" in said


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_wrong_path_is_said_and_leaves_nothing_behind(path, command):
    code, printed, said = run(*command, "--journal", path)

    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert str(path) in said
    assert not path.parent.exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_another_program_s_database_is_refused(tmp_path, command):
    database = apsw.Connection(str(tmp_path / "other.db"))
    database.execute("CREATE TABLE theirs (a)")
    database.close()

    code, _, said = run(*command, "--journal", tmp_path / "other.db")

    assert (code, "another program" in said) == (2, True)


@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command[0])
async def test_a_newer_format_is_refused(path, command):
    await fill(path, [])
    database = apsw.Connection(str(path))
    database.pragma("user_version", 99)
    database.close()

    code, _, said = run(*command, "--journal", path)

    assert (code, "format 99" in said) == (2, True)


async def test_an_empty_journal_needs_no_brokers(path):
    await fill(path, [])

    code, reported, _ = drain(path, NOBODY)

    assert (code, reported["published"], reported["left"]) == (0, 0, 0)
    assert run("export", "--journal", path, "--to", path.parent / "out")[0] == 0
    assert (path.parent / "out").read_bytes() == b""


# --- status ---


async def test_status_tells_what_waits_in_a_file(path, topic_prefix):
    journal = SqliteJournal(path, max_bytes=LIMIT)
    await journal.open()
    for one in (*(admission(number, f"{topic_prefix}.events", lane="i") for number in (1, 2, 3)), admission(4, "t")):
        await journal.store(one)
    await journal.store(letter(5, f"{topic_prefix}.dead-letters", b"{"))
    await journal.remove(2)
    await journal.add_direct({"default": 10})
    await journal.close()

    code, printed, _ = run("status", "--journal", path, "--json")
    reported = json.loads(printed)

    assert code == 0
    assert reported["oldest_waiting_seconds"] > 3_000
    assert reported["journal_bytes"] > 4_096
    assert {name: reported[name] for name in reported if name not in {"oldest_waiting_seconds", "journal_bytes"}} == {
        "journal": str(path),
        "damaged": None,
        "journal_messages": 4,
        "journal_messages_by_source": {"default": 3, "other": 1},
        "journal_messages_by_stream": {"events": 3, "dead-letters": 1},
        "lanes": 3,
        "publish_rate": 0.0,
        "catch_up_seconds": None,
        "accounts": {
            "default": {"accepted": 14, "published": 11, "dead_lettered": 0, "waiting": 3, "lost": 0, "imbalance": 0},
            "other": {"accepted": 1, "published": 0, "dead_lettered": 0, "waiting": 1, "lost": 0, "imbalance": 0},
        },
    }
    lines = run("status", "--journal", path)[1].splitlines()
    assert "messages: 4" in lines
    assert "by source: default 3, other 1" in lines


async def test_status_is_shown_again_and_again_until_ctrl_c(path, topic_prefix):
    journal = SqliteJournal(path, max_bytes=1 << 20)
    await journal.open()
    await journal.close()
    command = [sys.executable, "-m", "connector", "journal", "status", "--watch", "--json", "--journal", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = [json.loads(process.stdout.readline())["journal_messages"] for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=PATIENCE_SECONDS)

    assert (reported, process.returncode, complaint) == ([0, 0], 0, "")


@pytest.fixture
async def crashed(path: Path, tmp_path: Path) -> Path:
    """A copy of an open journal is what a crash leaves: twenty commits stand in the write-ahead log."""
    journal = SqliteJournal(path, max_bytes=LIMIT)
    await journal.open()
    for number in range(1, 21):
        await journal.store(admission(number, "t"))
    shutil.copytree(path.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.lock"))
    await journal.close()
    return tmp_path / "copy" / "journal.db"


def test_status_reads_the_log_of_a_crash_and_leaves_everything_as_it_is(crashed):
    before = contents(crashed.parent)
    assert before["journal.db-wal"]

    code, printed, _ = run("status", "--journal", crashed, "--json")

    assert (code, json.loads(printed)["journal_messages"]) == (0, 20)
    assert contents(crashed.parent) == before


@pytest.mark.parametrize("place", [28, 100_000])
async def test_a_log_that_is_broken_is_damage(crashed, place):
    """In its header or in its middle: SQLite would silently take it for a shorter one."""
    log = crashed.with_name("journal.db-wal")
    content = bytearray(log.read_bytes())
    content[place] ^= 1
    log.write_bytes(content)

    code, printed, _ = run("status", "--journal", crashed, "--json")

    assert (code, "write-ahead log" in json.loads(printed)["damaged"]) == (1, True)
    assert await rows_of(crashed)
    assert list(crashed.parent.glob("*.damaged-*")), "the journal itself finds the same"


async def test_a_salvage_that_a_crash_cut_short_counts_as_done(path):
    """The new file is whole and not yet in its place: the next owner puts it there, whoever looks takes it as it is."""
    await fill(path, [admission(number, "t") for number in (1, 2)])
    path.rename(path.with_name("journal.db.salvaged"))
    path.write_bytes(b"what was damaged")
    before = contents(path.parent)

    code, printed, _ = run("status", "--journal", path, "--json")

    assert (code, json.loads(printed)["journal_messages"]) == (0, 2)
    assert contents(path.parent) == before


AS_NOBODY = """
import os, sys
from pathlib import Path
from connector.admin.backlog import status_of_file

if os.getuid() == 0:
    os.seteuid(65534)  # root may write everywhere
print(status_of_file(Path(sys.argv[1]))["journal_messages"])
"""


def test_a_volume_that_cannot_be_written_is_read_all_the_same(crashed):
    """The copy of a lost node's disk, mounted so that nothing can spoil it."""
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder)
        shutil.copytree(crashed.parent, volume, dirs_exist_ok=True)
        before = contents(volume)
        for file in volume.iterdir():
            file.chmod(0o444)
        volume.chmod(0o555)

        command = [sys.executable, "-c", AS_NOBODY, str(volume / "journal.db")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)

        volume.chmod(0o755)
        assert (ended.stdout, ended.stderr) == ("20\n", "")
        assert {file.name: file.read_bytes() for file in volume.iterdir()} == before


async def test_one_changed_byte_is_damage(path):
    await fill(path, [admission(1, "t", body=b"a body that stands out")])
    path.write_bytes(path.read_bytes().replace(b"stands out", b"stands oUt", 1))

    code, printed, _ = run("status", "--journal", path, "--json")

    assert (code, json.loads(printed)["damaged"]) == (1, "the checksum of row 1 is wrong")


async def test_status_asks_the_connector_that_runs(start, kafka, tmp_path):
    running = await start(operations__token="an-operations-token")
    kafka.pause(1)
    try:
        for number in range(5):
            await running.post(message("a", number))
        url, token = running.connector.operations_url, "an-operations-token"
        asked = ("--operations-url", url, "--token", token)

        async def is_reported() -> bool:
            _, printed, _ = await asyncio.to_thread(run, "status", *asked, "--json")
            return json.loads(printed).get("journal_messages_by_source") == {"default": 5}

        await until(is_reported)
        code, printed, _ = await asyncio.to_thread(run, "status", *asked)
        by_environment = await asyncio.to_thread(
            run, "status", "--json", WEDA_OPERATIONS__URL=url, WEDA_OPERATIONS__TOKEN=token
        )
        without_token = await asyncio.to_thread(run, "status", "--operations-url", url)
        by_file = await asyncio.to_thread(run, "status", "--journal", tmp_path / "journal.db")
    finally:
        kafka.resume(1)

    assert (code, f"connector: {url}" in printed, "messages: 5" in printed) == (0, True, True)
    assert "time to empty: unknown: nothing leaves it now" in printed
    assert (by_environment[0], json.loads(by_environment[1])["connector"]) == (0, url)
    assert (without_token[0], "WEDA_OPERATIONS__TOKEN" in without_token[2]) == (2, True)
    assert by_file[0] == 3


async def test_where_no_connector_answers_the_file_is_read(path):
    await fill(path, [admission(1, "t")])

    code, printed, _ = run("status", "--json", WEDA_JOURNAL__PATH=str(path))
    assert (code, json.loads(printed)["journal_messages"]) == (0, 1)

    code, _, said = run("status", "--operations-url", f"http://{NOBODY}", WEDA_JOURNAL__PATH=str(path))
    assert (code, NOBODY in said) == (3, True), "an address that was named has to answer"


# --- export ---

BODIES = {
    1: b'{"comment": "\xe9\x95\xbf\n\xe2\x80\xa8"}',
    2: bytes(range(256)),
    3: b"",
    4: b"a" * 500_000,
}


@pytest.fixture
async def mixed(path: Path) -> Path:
    """Messages of every kind of body, and a dead letter."""
    record = ProducibleRecord("events", "p.events", b"k", b"v", (), RECEIVED_AT)
    requests = {number: Request("s", body, "text/plain", RECEIVED_AT) for number, body in BODIES.items()}
    rows = [Admission(number, f"i-{number}", request, (record,)) for number, request in requests.items()]
    await fill(path, [*rows, letter(5, "p.dead-letters", b"{")])
    return path


def export(path: Path, to: Path) -> tuple[int, str]:
    code, _, said = run("export", "--journal", path, "--to", to)
    return code, said


def test_an_export_holds_every_body_byte_for_byte(mixed, tmp_path):
    before = contents(mixed.parent)
    to = tmp_path / "out.jsonl"

    assert run("export", "--journal", mixed, "--to", to, "--json") == (0, f'{{"exported": 5, "to": "{to}"}}\n', "")

    lines = [json.loads(line) for line in to.read_bytes().split(b"\n")[:-1]]
    bodies = [base64.b64decode(one["body"]) if one["bodyIsBase64"] else one["body"].encode() for one in lines]
    assert [one["sequence"] for one in lines] == [1, 2, 3, 4, 5]
    assert bodies == [*BODIES.values(), b"{"]
    assert lines[1]["bodyIsBase64"]
    assert lines[0] == {
        "sequence": 1,
        "instanceId": "i-1",
        "source": "s",
        "receivedAt": timestamp_text(RECEIVED_AT),
        "receivedAtMs": RECEIVED_AT,
        "contentType": "text/plain",
        "body": BODIES[1].decode(),
        "bodyIsBase64": False,
        "openStreams": [{"stream": "events", "topic": "p.events"}],
        "deadLetter": None,
    }
    assert (lines[4]["instanceId"], lines[4]["deadLetter"]) == (
        None,
        {"code": "40003", "stage": "parse", "message": "bad JSON"},
    )
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert contents(mixed.parent) == before
    assert [one.name for one in tmp_path.glob("out*")] == ["out.jsonl"]


def test_an_export_overwrites_nothing(mixed, tmp_path):
    to = tmp_path / "out.jsonl"
    to.write_text("mine")

    code, said = export(mixed, to)

    assert (code, to.read_text(), f"{to} exists" in said) == (2, "mine", True)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999, 1.0])
def test_an_export_that_was_cut_short_is_continued(mixed, tmp_path, share):
    to, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    export(mixed, whole)
    content = whole.read_bytes()
    (tmp_path / "out.jsonl.part").write_bytes(content[: int(len(content) * share)])

    assert export(mixed, to) == (0, "")

    assert to.read_bytes() == content
    assert stat.S_IMODE(to.stat().st_mode) == 0o600


@pytest.mark.parametrize("line", [b"what is this?\n", b'{"sequence": 2}\n', b'{"sequence": 77}\n'])
def test_a_part_of_something_else_is_left_alone(mixed, tmp_path, line):
    part = tmp_path / "out.jsonl.part"
    part.write_bytes(line)

    code, said = export(mixed, tmp_path / "out.jsonl")

    assert (code, part.read_bytes(), str(part) in said) == (2, line, True)


def test_an_export_to_nowhere_says_so(mixed, tmp_path):
    code, said = export(mixed, tmp_path / "missing" / "out.jsonl")

    assert (code, said.count("\n")) == (2, 1)
    assert "--to" in said
