"""What the contract says of HTTP, request by request: the real listener, with Kafka and the disk in memory."""

import asyncio
import base64
import dataclasses
import gc
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import uvicorn
import yaml
from structlog.testing import capture_logs
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import Duplicates
from connector.delivery.lanes import LaneCounts
from connector.delivery.order import LocalOrder
from connector.errors import Defect
from connector.intake import dead_letters
from connector.intake.pipeline import Pipeline
from connector.message import decoding, encoding, events
from connector.message.decoding import MessageDecoder
from connector.message.encoding import SingleObjectFraming
from connector.message.ingest_ids import IngestIds
from connector.message.routes import Routes
from connector.receiver import application
from connector.receiver.application import Call, Receiver
from connector.receiver.authentication import Authentication, Credentials, RejectionDelay
from connector.receiver.connection import PAUSE_SECONDS, ConnectionBounds
from connector.receiver.limits import RateLimiter
from connector.receiver.replay_protection import ReplayProtection
from connector.telemetry.health import Health
from connector.telemetry.metrics import OUTCOMES, Metrics
from connector.telemetry.recent import Recent
from connector.testing import InMemoryJournal, InMemoryPublisher
from tests.waiting import PATIENCE_SECONDS, NotInTime, equals, until

TABLE = yaml.safe_load((Path(__file__).parents[1] / "data" / "bodies.yaml").read_text(encoding="utf-8"))
ROWS = [pytest.param(row, id=f"{about}: {row['name']}") for about, rows in TABLE.items() for row in rows]
REFUSED = [row for row in ROWS if "status" in row.values[0]]
TOKENS = {"default": ["t-default", "t-new"], "hr": ["t-hr"], "locked": []}
STREAMS = ("events", "instances", "tasks")
OUTCOME = {
    **dict.fromkeys((401, 403, 404, 405, 408, 413, 415), "rejected"),
    **dict.fromkeys((429, 503), "refused"),
    **dict.fromkeys((400, 422), "dead_lettered"),
    200: "accepted",
    500: "failed",
}
EMPTY_BODY = 40000
ID = "x-request-id"


@dataclass(frozen=True)
class Answer:
    """What came back: ``fields`` is the body's JSON, empty where there is no body."""

    status: int
    headers: Mapping[str, str]
    fields: Mapping[str, Any]

    @property
    def code(self):
        return self.fields["code"]


def outcome_of(answer: Answer) -> str:
    """The label of metrics and log: of an empty body there is nothing that a dead letter could hold."""
    return "rejected" if answer.status == 400 and answer.code == EMPTY_BODY else OUTCOME[answer.status]


class Served:
    """A receiver on a port of this machine, and the parts behind it.

    ``by_asgi_alone``: without the short way for requests that are whole.
    """

    by_asgi_alone = False

    def __init__(
        self,
        *,
        tokens=TOKENS,
        sources=None,
        framing=None,
        limits=None,
        max_in_flight=64,
        publish_wait=60,
        reply_deadline=60,
        rates=None,
        trusted_proxies=(),
        privacy=None,
        max_connections=64,
        code_only=frozenset(),
    ):
        self.sources = sources or {name: Credentials(tokens=tuple(each)) for name, each in tokens.items()}
        self.publisher = InMemoryPublisher()
        self.journal = InMemoryJournal()
        self.routes = Routes(STREAMS, "weda.workflow", dict.fromkeys(self.sources, ()))
        self.metrics = Metrics(version="0", sources=self.sources, streams=STREAMS)
        self.limits = limits or {}
        self._rates = rates or {}
        self._trusted_proxies = trusted_proxies
        self._privacy = privacy
        self._max_connections = max_connections
        self._code_only = frozenset(code_only)
        self._framing = framing or SingleObjectFraming()
        self.health = Health(1 << 30, is_open=True)
        self._max_in_flight = max_in_flight
        self._publish_wait = publish_wait
        self._reply_deadline = reply_deadline

    async def start(self):
        contents = await self.journal.open()
        counts = LaneCounts(contents.lanes)
        self.delivery = Delivery(
            self.publisher,
            self.journal,
            contents,
            ledger=self.metrics,
            make_dead_letter=partial(dead_letters.for_rejection, self.routes.dead_letter_topic),
            publish_wait_seconds=self._publish_wait,
            journaled=counts,
        )
        duplicates = Duplicates(window_seconds=3600, max_entries=1000)
        order = LocalOrder(self.delivery, duplicates, counts, contents.next_sequence)
        decoder = MessageDecoder(ZoneInfo("Asia/Shanghai"), self._privacy)
        pipeline = Pipeline(
            routes=self.routes,
            framing=self._framing,
            order=order,
            duplicates=duplicates,
            ingest_ids=IngestIds(),
            metrics=self.metrics,
            decoder=decoder,
            max_in_flight=self._max_in_flight,
            reply_deadline_seconds=self._reply_deadline,
            topic_limits=self.limits,
            write_note=self.journal.write_note,
        )
        self.receiver = Receiver(
            Authentication(self.sources, allow_anonymous=not any(one.any_configured for one in self.sources.values())),
            pipeline,
            self.metrics,
            Recent(self.sources, decoder.decode),
            max_body_bytes=512 * 1024,
            max_in_flight=self._max_in_flight,
            rate_limiter=RateLimiter(self._rates),
            replay_protection=ReplayProtection(order, reply_deadline_seconds=self._reply_deadline),
            health=self.health,
            trusted_proxies=self._trusted_proxies,
            rejection_delay=RejectionDelay(0.01),
            code_only=self._code_only,
        )
        self.delivery.start_publishing()
        await self._listen()

    async def _listen(self):
        turned_away = self.metrics.connection_turned_away
        bounds = ConnectionBounds.public(self.receiver, self._max_connections, turned_away)
        if self.by_asgi_alone:
            bounds = dataclasses.replace(bounds, receiver=None)
        config = uvicorn.Config(self.receiver, http=bounds.protocol, ws="none", lifespan="off", log_config=None)
        config.load()
        self.config = config
        self.state = ServerState()
        made = partial(config.http_protocol_class, config=config, server_state=self.state, app_state={})
        self._server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        await self.delivery.stop(1)
        self._server.close()
        await self._server.wait_closed()
        for connection in self.state.connections:
            connection.transport.abort()
        await asyncio.sleep(0)

    async def ask(self, body=b"", *, method="POST", path="/messageDeliver", chunked=False, **headers):
        """Send one request and read its answer; ``None`` leaves a header out."""
        headers = {"host": "x", "content-type": "application/json", "authorization": "Bearer t-default"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        if chunked:
            headers["transfer-encoding"] = "chunked"
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _cut(body)) + b"0\r\n\r\n"
        else:
            headers["content-length"] = str(len(body))
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items() if value is not None),
        ]
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + body, method)

    async def _exchange(self, raw, method):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            length = 0 if method == "HEAD" else int(headers["content-length"])
            fields = json.loads(await reader.readexactly(length) or b"{}")
            return Answer(int(first.split()[1]), headers, fields)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    def values(self, stream="events"):
        return [encoding.decode(record.value) for record in self.publisher.of(stream)]

    @property
    def letters(self):
        return self.publisher.of("dead-letters")

    def outcomes(self):
        """Outcome → requests, over all sources, those that there were."""
        counted = {}
        for source in (*self.sources, "unknown"):
            for outcome in OUTCOMES:
                count = self.metrics.requests.counts[source, outcome]
                counted[outcome] = counted.get(outcome, 0) + count
        return {outcome: count for outcome, count in counted.items() if count}


@pytest.fixture(params=[True, False], ids=["asgi", "whole"], autouse=True)
def _both_ways(request, monkeypatch):
    """Whatever is promised here holds on both ways into the receiver."""
    monkeypatch.setattr(Served, "by_asgi_alone", request.param)


@asynccontextmanager
async def serving(**changes):
    served = Served(**changes)
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


@pytest.fixture
async def served():
    async with serving() as one:
        yield one


def text(pieces):
    """The bytes that a row writes as text, as base64, or as a list of pieces."""
    if isinstance(pieces, str):
        return pieces.encode()
    if isinstance(pieces, list):
        return b"".join(map(text, pieces))
    return base64.b64decode(pieces["base64"]) if "base64" in pieces else text(pieces["repeat"]) * pieces["times"]


def body_of(row):
    if "with" in row:
        return b'{"msgType":"Task","instanceId":"i-1",%s}' % text(row["with"])
    return text(row["body"])


def unfolded(value):
    """An expected value, its pieces put together."""
    is_pieces = isinstance(value, list) and any(isinstance(one, dict) and "repeat" in one for one in value)
    return text(value).decode() if is_pieces else value


def message(**fields):
    return json.dumps({"msgType": "Task", "instanceId": "i-1", **fields}, ensure_ascii=False).encode()


def header(record, name):
    return dict(record.headers)[name].decode()


def _cut(body):
    return [body[start : start + 50_000] for start in range(0, len(body), 50_000)]


async def send(served, row):
    token = {"authorization": f"Bearer {row['token']}" if row["token"] else None} if "token" in row else {}
    return await served.ask(
        body_of(row),
        method=row.get("method", "POST"),
        path=text(row.get("path", "/messageDeliver")).decode(),
        chunked=row.get("chunked", False),
        **token | row.get("headers", {}),
    )


@pytest.mark.parametrize("row", ROWS)
async def test_a_request_becomes_what_the_contract_says(served, row):
    answer = await send(served, row)

    assert row.get("status", 200) == answer.status
    assert {outcome_of(answer): 1} == served.outcomes()
    if "status" in row:
        assert_refused(row, answer)
        assert_kept(row, served, answer)
    else:
        assert answer.fields == {"code": 0}
        assert_published(row, served)


@pytest.mark.parametrize("row", REFUSED)
async def test_a_code_only_source_gets_the_same_answer_with_status_200(row):
    """Where the path names no source that there is, and where an answer has no body, the status is what it was."""
    async with serving() as plain, serving(code_only=TOKENS) as served:
        as_ever, answer = await send(plain, row), await send(served, row)
        is_kept = row.get("status") == 404 or row.get("method") == "HEAD" or "/nobody/" in str(row.get("path"))

        assert answer.fields == as_ever.fields
        assert answer.status == (as_ever.status if is_kept else 200)
        assert {**answer.headers, ID: ""} == {**as_ever.headers, ID: ""}
        assert served.outcomes() == plain.outcomes()
        assert len(served.letters) == len(plain.letters)


async def test_only_the_sources_that_are_code_only_get_status_200():
    async with serving(code_only=("hr",)) as served:
        hr, default = [
            await served.ask(b"[", path=path, authorization=f"Bearer {token}")
            for path, token in (("/sources/hr/messageDeliver", "t-hr"), ("/messageDeliver", "t-default"))
        ]
        stranger = await served.ask(b"[", path="/sources/hr/messageDeliver", authorization="Bearer wrong")
        served.receiver.replace_code_only(frozenset())
        later = await served.ask(b"[", path="/sources/hr/messageDeliver", authorization="Bearer t-hr")

        assert [(one.status, one.code) for one in (hr, default, stranger, later)] == [
            (200, 40003),
            (400, 40003),
            (200, 40100),
            (400, 40003),
        ]
        assert stranger.headers["www-authenticate"] == "bearer"


def assert_published(row, served):
    (value,) = served.values()
    assert {name: unfolded(wanted) for name, wanted in row.get("record", {}).items()} == {
        name: value[name] for name in row.get("record", {})
    }
    assert {name: unfolded(token) for name, token in row.get("extras", value["extras"]).items()} == value["extras"]
    assert served.letters == []
    assert {value["instanceId"].encode()} == {record.key for record in served.publisher.published}


def assert_refused(row, answer):
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get("allow") == ("get, post, put" if answer.status == 405 else None)
    assert answer.headers.get("retry-after") is None
    if row.get("method") == "HEAD":
        return
    assert {"code", "message", "stage", "retriable"} == set(answer.fields)
    assert answer.code // 100 == answer.status
    assert row.get("code", answer.code) == answer.code
    assert answer.fields["retriable"] is False
    assert answer.status in {400, 422} or answer.code % 100 == 0


def assert_kept(row, served, answer):
    """Only what is let in and is not empty is kept, byte for byte."""
    assert served.values() == []
    if answer.status not in {400, 422} or not row.get("kept", True):
        assert served.letters == []
        return
    (letter,) = served.letters
    query = text(row.get("path", "")).partition(b"?")[2]
    assert (query if row.get("method") == "GET" else body_of(row)) == letter.value
    assert str(answer.code) == header(letter, "weda.error.code")
    assert answer.fields["stage"] == header(letter, "weda.error.stage")
    if "key" in row:
        assert row["key"].encode() == letter.key


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_load_balancer_asks_for_health_without_a_credential_and_learns_nothing_else(served, method):
    for is_ready, status in ((True, 200), (False, 503)):
        served.health.is_open = is_ready
        answer = await served.ask(method=method, path="/healthz", authorization=None, content_type=None)
        assert (answer.status, answer.fields) == (status, {})
    assert (await served.ask(b"{}", path="/healthz")).status == 404
    assert served.metrics.credentials_refused.labels("default", "missing")._value.get() == 0
    assert "outcome" not in str(answer.headers)


async def test_of_no_request_anything_is_held_once_it_is_answered(served):
    """Whatever its end: bodies that wait for the garbage collector are memory that a sender chooses."""

    def held():
        return [one for one in gc.get_objects() if isinstance(one, Call | RequestResponseCycle)]

    gc.collect()
    gc.disable()
    gc.freeze()  # what was there before need not be looked at
    held_by = []
    try:
        for row in ROWS:
            await send(served, row.values[0])
            try:
                await until(lambda: not held(), seconds=20)  # not the answer itself: waiting would hold it
            except NotInTime:
                held_by.append(row.id)
    finally:
        gc.unfreeze()
        gc.enable()

    assert held_by == []


def test_the_table_is_as_long_as_the_contract_is_odd():
    names = [row.id for row in ROWS]

    assert len(names) >= 90
    assert len(names) == len(set(names))


async def test_a_record_tells_who_sent_it_and_when(served):
    body = message(msgId="m-1", envType="pre/x", comment="同意")
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await served.ask(body, traceparent=parent, x_request_id="request-1")
    fingerprint = hashlib.sha256(
        json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()[:32]
    (record,), (value,) = served.publisher.of("events"), served.values()

    assert record.topic == "weda.workflow.events"
    assert record.key == b"i-1"
    assert record.timestamp == value["receivedAt"]
    fields = {name: text.decode() for name, text in record.headers}
    assert fields.pop("ce_time").endswith("Z")
    assert fields == {
        "ce_specversion": "1.0",
        "ce_id": "m-1",
        "ce_type": "io.weda.workflow.task.v1",
        "ce_source": "/sources/default/pre%2Fx",
        "ce_subject": "i-1",
        "content-type": "application/avro",
        "weda.fingerprint": fingerprint,
        "weda.request-id": "request-1",
        "traceparent": parent,
    }


@pytest.mark.parametrize(
    "given", ["planted-person", "张三", "a" * 60_000, "00-a b-01"], ids=["a word", "a name", "long", "two"]
)
async def test_what_is_no_trace_context_is_in_no_record(served, given):
    """Whatever stood there went into each record's headers: past redaction, and 60 KB of it for each 60 bytes."""
    answer = await served.ask(message(), traceparent=given)

    assert answer.code == 0
    assert ["traceparent" in dict(record.headers) for record in served.publisher.published] == [False, False]


async def test_a_message_without_an_id_gets_ours(served):
    await served.ask(message(msgId=""))
    (record,), (value,) = served.publisher.of("events"), served.values()

    assert header(record, "ce_id") == value["ingestId"]
    assert header(record, "ce_source") == "/sources/default"


@pytest.mark.parametrize(
    ("kind", "stream", "other"), [("Instance", "instances", "tasks"), ("Task", "tasks", "instances")]
)
async def test_a_message_goes_to_the_stream_of_all_and_to_that_of_its_type(served, kind, stream, other):
    await served.ask(message(msgType=kind, comment="x", instanceStatus=3))
    (every,), (own,) = served.values(), served.values(stream)

    assert served.values(other) == []
    assert (every["comment"], every["instanceStatus"], every["extras"]) == ("x", 3, {})
    assert own["extras"] == ({"comment": '"x"'} if kind == "Instance" else {"instanceStatus": "3"})
    assert own["ingestId"] == every["ingestId"]


async def test_a_repeat_is_accepted_and_published_once(served):
    answers = [await served.ask(message(msgId="m-1", action=2)) for _ in range(3)]

    assert [answer.fields for answer in answers] == [{"code": 0}] * 3
    assert len(served.values()) == 1
    assert served.outcomes() == {"accepted": 1, "duplicate": 2}


async def test_repeats_at_once_are_published_once(served):
    served.publisher.hold()
    asked = [asyncio.create_task(served.ask(message(msgId="m-1"))) for _ in range(5)]
    await until(lambda: served.receiver._open_requests, equals(5))
    served.publisher.release()
    answers = await asyncio.gather(*asked)

    assert [answer.fields for answer in answers] == [{"code": 0}] * 5
    assert len(served.values()) == 1
    assert served.outcomes() == {"accepted": 1, "duplicate": 4}


async def test_a_message_without_an_id_is_never_a_repeat(served):
    for _ in range(2):
        await served.ask(message())

    assert len(served.values()) == 2


async def test_a_repeat_from_another_source_is_another_message(served):
    await served.ask(message(msgId="m-1"))
    await served.ask(message(msgId="m-1"), path="/sources/hr/messageDeliver", authorization="Bearer t-hr")

    assert [value["source"] for value in served.values()] == ["default", "hr"]


async def test_the_same_id_with_other_content_is_published_under_an_id_of_its_own(served):
    await served.ask(message(msgId="m-1", action=1))
    await served.ask(message(msgId="m-1", action=2))
    first, second = served.publisher.of("events")

    assert header(first, "ce_id") == "m-1"
    assert header(second, "ce_id") == f"m-1~{header(second, 'weda.fingerprint')[:8]}"


async def test_the_same_id_with_other_content_at_once_is_published_under_an_id_of_its_own(served):
    served.publisher.hold()
    first = asyncio.create_task(served.ask(message(instanceId="a", msgId="m-1")))
    await until(lambda: served.publisher.published)
    second = asyncio.create_task(served.ask(message(instanceId="b", msgId="m-1")))
    await until(lambda: len(served.publisher.of("events")) == 2)
    served.publisher.release()
    await asyncio.gather(first, second)
    ids = [header(record, "ce_id") for record in served.publisher.of("events")]

    assert ids[0] == "m-1"
    assert ids[1].startswith("m-1~")


async def test_a_dead_letter_tells_why_and_from_whom(served):
    answer = await served.ask(
        b'{"instanceId":"i-7"}', content_type="text/plain; charset=utf-8", x_request_id="request-1"
    )
    (letter,) = served.letters
    fields = {name: text.decode() for name, text in letter.headers}

    assert letter.topic == "weda.workflow.dead-letters"
    assert letter.key == b"i-7"
    assert fields == {
        "weda.error.code": str(answer.code),
        "weda.error.stage": "convert",
        "weda.error.message": answer.fields["message"],
        "weda.source": "default",
        "weda.received-at": str(letter.timestamp),
        "weda.content-type": "text/plain; charset=utf-8",
        "weda.attempt": "1",
        "weda.request-id": "request-1",
    }


async def test_identical_bytes_are_one_dead_letter_and_counted_again(served):
    answers = [await served.ask(b'{"instanceId":"i-7"}') for _ in range(3)]
    code = answers[0].code

    assert [answer.status for answer in answers] == [422] * 3
    assert len(served.letters) == 1
    assert served.metrics.dead_letters.labels("default", "convert", str(code))._value.get() == 3


async def test_a_name_that_a_source_made_up_is_a_label_only_if_it_is_short(served):
    await served.ask(message(**{"x" * 64: 1, "y" * 65: 1, "z" * 500_000: 1}))
    [counted] = served.metrics.unknown_fields.collect()

    assert {one.labels["field"]: one.value for one in counted.samples if one.name.endswith("_total")} == {
        "x" * 64: 1,
        "other": 2,
    }


async def test_nothing_of_a_message_is_in_the_answer_or_the_log_that_refuse_it(served):
    secret = "hunter2"
    fields = [
        {"action": secret},
        {"isCcTask": secret},
        {"startTime": secret},
        {"taskMap": secret},
        {"msgType": secret},
        {secret: "\ud800"},
    ]
    bodies = [json.dumps({"msgType": "Task", "instanceId": "i-1", "comment": secret, **one}).encode() for one in fields]
    with capture_logs() as logs:
        answers = [
            await served.ask(body) for body in (*bodies, b'{"hunter2":hunter2}', b'{"hunter2":1}', b"hunter2=%ff")
        ]

    assert {answer.status for answer in answers} == {400, 422}
    assert secret not in str([answer.fields for answer in answers])
    assert secret not in str(logs)


@pytest.mark.parametrize(
    "parameters",
    ["charset*" + "9" * 5_000 + "=x", 'a="' + ";" * 60_000, ";" * 60_000],
    ids=["a number without an end", "a text without an end", "many"],
)
async def test_a_media_type_that_takes_long_to_read_is_415(served, parameters):
    """The first was answered with 500 and kept nowhere; the second took two seconds of everybody's time."""
    answer = await served.ask(message(), content_type=f"application/json; {parameters}")

    assert (answer.status, answer.code) == (415, 41500)
    assert served.outcomes() == {"rejected": 1}


async def test_a_record_that_its_topic_would_refuse_is_413_and_not_kept():
    async with serving(limits={"weda.workflow.events": 2000}) as served:
        answer = await served.ask(message(comment="x" * 2000))
        small = await served.ask(message(comment="x"))

        assert (answer.status, answer.code) == (413, 41300)
        assert small.code == 0
        assert len(served.publisher.published) == 2
        assert served.outcomes() == {"rejected": 1, "accepted": 1}


async def test_a_dead_letter_that_its_topic_would_refuse_is_413_and_not_kept():
    async with serving(limits={"weda.workflow.dead-letters": 2000}) as served:
        answer = await served.ask(b"x" * 2000)

        assert (answer.status, answer.code) == (413, 41300)
        assert served.publisher.published == []


async def test_over_the_in_flight_bound_is_429_with_retry_after():
    async with serving(max_in_flight=1) as served:
        served.publisher.hold()
        first = asyncio.create_task(served.ask(message(instanceId="a")))
        await until(lambda: served.publisher.published)
        second = await served.ask(message(instanceId="b"))
        served.publisher.release()

        assert (second.status, second.code, second.fields["retriable"]) == (429, 42900, True)
        assert int(second.headers["retry-after"]) > 0
        assert (await first).code == 0
        assert [value["instanceId"] for value in served.values()] == ["a"]


async def test_without_kafka_and_without_room_in_the_journal_is_503_with_retry_after(served):
    served.publisher.close()
    served.journal.is_full = True
    for body in (message(msgId="m-1"), b"not a message"):
        answer = await served.ask(body)

        assert (answer.status, answer.code, answer.fields["retriable"]) == (503, 50300, True)
        assert answer.headers["x-weda-outcome"] == "refused"
        assert int(answer.headers["retry-after"]) > 0
    served.journal.is_full = False
    served.publisher.reopen()
    again = await served.ask(message(msgId="m-1"))

    assert again.code == 0
    assert len(served.values()) == 1
    assert served.letters == []


async def test_while_the_connector_shuts_down_is_503_with_retry_after(served):
    served.health.is_closing = True
    answer = await served.ask(message())

    assert (answer.status, answer.code) == (503, 50300)
    assert int(answer.headers["retry-after"]) > 0


async def test_without_kafka_a_message_is_accepted_into_the_journal_and_published_later(served):
    served.publisher.close()
    answers = [await served.ask(message(action=action)) for action in range(3)]
    waiting = len(served.journal.rows)
    served.publisher.reopen()
    await until(lambda: not served.journal.rows)

    assert [answer.code for answer in answers] == [0, 0, 0]
    assert waiting == 3
    assert [value["action"] for value in served.values()] == [0, 1, 2]


class Failing:
    """A framing with a defect."""

    def __init__(self, error):
        self._error = error

    def header(self, topic, schema):
        raise self._error()  # a new one each time: a traceback keeps what it saw


@pytest.mark.parametrize(
    "error", [partial(RuntimeError, "hunter2"), partial(Defect, "a record does not fit the schema")]
)
async def test_a_defect_of_ours_is_500_and_the_request_is_kept(error):
    async with serving(framing=Failing(error)) as served:
        answer = await served.ask(message())

        assert (answer.status, answer.code, answer.fields["retriable"]) == (500, 50000, True)
        assert "hunter2" not in str(answer.fields)
        assert [letter.value for letter in served.letters] == [message()]
        assert [letter.key for letter in served.letters] == [b"i-1"]
        assert served.outcomes() == {"failed": 1}


@pytest.mark.parametrize(("module", "name", "key"), [(decoding, "parse", None), (events, "convert", b"i-1")])
async def test_what_cannot_be_read_for_a_defect_of_ours_is_kept(served, monkeypatch, module, name, key):
    """As long as the parser is broken nothing of a message is known, not even whose it is."""

    def broken(*_):
        raise RuntimeError("hunter2")

    monkeypatch.setattr(module, name, broken)
    answer = await served.ask(message())

    assert (answer.status, answer.code) == (500, 50000)
    assert "hunter2" not in str(answer.fields)
    assert [(letter.key, letter.value) for letter in served.letters] == [(key, message())]


async def test_a_connector_without_any_credential_takes_messages_from_everyone():
    async with serving(tokens={"default": []}) as served:
        answer = await served.ask(message(), authorization=None)
        unknown = await served.ask(message(), authorization=None, path="/sources/hr/messageDeliver")

        assert answer.code == 0
        assert unknown.status == 401


async def test_a_401_names_the_scheme(served):
    answer = await served.ask(message(), authorization=None)

    assert answer.headers["www-authenticate"] == "bearer"


async def test_a_body_that_does_not_arrive_is_408(served, monkeypatch):
    monkeypatch.setattr(application, "BODY_SECONDS", 0.05)
    answer = await served._exchange(
        b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t-new\r\ncontent-length: 9\r\n\r\n{", "POST"
    )

    assert (answer.status, answer.code, answer.fields["retriable"]) == (408, 40800, True)
    assert served.publisher.published == []


async def test_a_sender_that_hangs_up_leaves_nothing_behind(served):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t-new\r\ncontent-length: 9\r\n\r\n{"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    answer = await served.ask(message())

    assert answer.code == 0
    assert len(served.values()) == 1
    assert served.letters == []
    assert served.receiver._open_requests == 0


# --- connections ---


def posted(instance, *, version="1.1", **headers):
    """One request as bytes: head, body."""
    body = b'{"msgType":"Task","instanceId":"%s"}' % instance.encode()
    fixed = {"host": "x", "content-type": "application/json", "authorization": "Bearer t-default"}
    lines = [f"POST /messageDeliver HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in (fixed | headers | {"content-length": len(body)}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n", body


@asynccontextmanager
async def connected(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def one_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def test_a_connection_takes_one_request_after_the_other(served):
    async with connected(served) as (reader, writer):
        for number in range(3):
            writer.write(b"".join(posted(f"i-{number}")))
            assert (await one_answer(reader))[1] == b'{"code":0}'

    assert [value["instanceId"] for value in served.values()] == ["i-0", "i-1", "i-2"]


@pytest.mark.parametrize("cut", [10, 60, -20, -1])
async def test_a_request_may_arrive_in_pieces_and_the_next_one_whole(served, cut):
    raw = b"".join(posted("i-0"))
    async with connected(served) as (reader, writer):
        writer.write(raw[:cut])
        await asyncio.sleep(0.02)
        writer.write(raw[cut:])
        first = await one_answer(reader)
        writer.write(b"".join(posted("i-1")))
        second = await one_answer(reader)

    assert first[1] == second[1] == b'{"code":0}'
    assert [value["instanceId"] for value in served.values()] == ["i-0", "i-1"]


async def test_requests_that_are_sent_at_once_are_answered_in_their_order(served):
    """The second is refused at the door and could be answered before the first; the connection goes on after it."""
    served.publisher.hold()
    async with connected(served) as (reader, writer):
        writer.write(b"".join((*posted("i-0"), *posted("i-1", **{"content-type": "text/xml"}), *posted("i-2"))))
        await asyncio.sleep(0.05)
        served.publisher.release()
        answers = [await one_answer(reader) for _ in range(3)]

    assert [int(head.split()[1]) for head, _ in answers] == [200, 415, 200]
    assert [value["instanceId"] for value in served.values()] == ["i-0", "i-2"]


@pytest.mark.parametrize(("version", "headers"), [("1.1", {"connection": "close"}), ("1.0", {})])
async def test_a_connection_that_is_to_close_is_closed_after_the_answer(served, version, headers):
    async with connected(served) as (reader, writer):
        writer.write(b"".join(posted("i-0", version=version, **headers)))
        assert (await one_answer(reader))[1] == b'{"code":0}'
        assert await reader.read() == b""


async def test_a_sender_that_asks_first_is_answered_to_go_on(served):
    head, body = posted("i-0", expect="100-continue")
    async with connected(served) as (reader, writer):
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await one_answer(reader))[1] == b'{"code":0}'


async def test_a_sender_that_hangs_up_before_the_answer_has_sent_its_message_all_the_same(served):
    served.publisher.hold()
    async with connected(served) as (_, writer):
        writer.write(b"".join(posted("i-0")))
        await until(served.values)
    served.publisher.release()
    await until(served.outcomes)

    assert (await served.ask(b'{"msgType":"Task","instanceId":"i-1"}')).fields == {"code": 0}
    assert [value["instanceId"] for value in served.values()] == ["i-0", "i-1"]


async def test_an_answer_has_the_same_head_on_both_ways(served):
    pieces = posted("i-0", **{"authorization": "Bearer wrong", "x-request-id": "one-and-the-same"})
    whole = b"".join(pieces)
    async with connected(served) as (reader, writer):
        writer.write(whole)
        first = await one_answer(reader)
        assert await reader.read() == b""
    async with connected(served) as (reader, writer):
        writer.write(pieces[0])
        await asyncio.sleep(0.02)
        writer.write(pieces[1])
        second = await one_answer(reader)

    assert first == second
    assert b"www-authenticate: Bearer" in first[0]


async def test_a_request_id_is_taken_over_and_sent_in_the_answer(served):
    given = "7f3a:proxy/2026+1.a_b=c@d-e"

    assert (await served.ask(b'{"msgType":"Task","instanceId":"i-0"}', x_request_id=given)).headers[ID] == given
    assert (await served.ask(b"no JSON", x_request_id=given)).headers[ID] == given
    assert (await served.ask(method="GET", path="/elsewhere", x_request_id=given)).headers[ID] == given


@pytest.mark.parametrize("given", [None, "", "a b", 'a"b', "ä", "x" * 129, "a,b", "a;b"])
async def test_without_a_fit_request_id_each_request_gets_one_of_its_own(served, given):
    """And none is in Kafka: neither one that could be anything, nor ours, which nobody else knows."""
    ids = {(await served.ask(b'{"msgType":"Task","instanceId":"i"}', x_request_id=given)).headers[ID] for _ in range(3)}
    await served.ask(b"no JSON", x_request_id=given)

    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", one) for one in ids)
    headers = [dict(record.headers) for record in (*served.publisher.of("events"), *served.letters)]
    assert ["weda.request-id" in one for one in headers] == [False] * 4


async def test_a_connection_that_rests_is_closed():
    async with serving() as served:
        served.config.timeout_keep_alive = 4
        async with connected(served) as (reader, writer):
            for _ in range(2):
                writer.write(b"".join(posted("i-0")))
                await one_answer(reader)
                await asyncio.sleep(2.2)  # both together are longer than it may rest
            assert await reader.read() == b""


@pytest.mark.parametrize(("code_only", "status"), [((), b"429"), (("default",), b"200")])
async def test_a_connection_that_was_refused_for_want_of_room_is_left_alone_for_a_while(monkeypatch, code_only, status):
    """P7: refusing must not take the time in which others are accepted; the first refusal comes at once."""
    monkeypatch.setattr(Served, "by_asgi_alone", False)
    async with (
        serving(max_in_flight=1, code_only=code_only) as served,
        connected(served) as (one, one_writer),
    ):
        served.publisher.hold()
        one_writer.write(b"".join(posted("i-0")))
        await until(lambda: served.publisher.published)
        async with connected(served) as (two, two_writer):
            began = asyncio.get_running_loop().time()
            for _ in range(2):
                two_writer.write(b"".join(posted("i-1")))
                head, fields = await one_answer(two)
                assert head.startswith(b"HTTP/1.1 %b " % status)
                assert json.loads(fields)["code"] == 42900
            assert asyncio.get_running_loop().time() - began >= 0.9 * PAUSE_SECONDS
            served.publisher.release()
            assert (await one_answer(one))[1] == b'{"code":0}'
            two_writer.write(b"".join(posted("i-1")))
            assert (await one_answer(two))[1] == b'{"code":0}'
