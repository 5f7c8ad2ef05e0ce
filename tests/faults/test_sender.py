"""The sender and the consumer write down what happened, and nothing else."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import islice
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import to_parsing_canonical_form

from tests.faults.consumer import RECORD_TYPE_OF, SCHEMAS, field_names, read
from tests.faults.messages import Message, messages
from tests.faults.sender import Load, Sender
from tests.servers import KafkaCluster, produce
from tests.servers.ports import LOOPBACK, free_ports
from tests.waiting import until

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def receiver(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/messageDeliver", answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, LOOPBACK, port).start()
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        await runner.cleanup()


def has_sent_some(sender: Sender) -> bool:
    return len(list(sender.ledger.attempts())) > 20


async def send(url: str, *, instances: int = 5, enough: Callable[[Sender], object] = has_sent_some) -> Sender:
    async with Sender([url], "token", Load("run", 1, instances, rate=instances * 50)) as sender:
        sending = asyncio.create_task(sender.run())
        await until(lambda: enough(sender))
        sender.stop()
        await sending
    return sender


async def test_each_instance_has_one_request_at_a_time() -> None:
    under_way: set[str] = set()
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        instance = str(_wire(await request.text(), request.content_type)["instanceId"])
        assert instance not in under_way
        under_way.add(instance)
        await asyncio.sleep(0.01)
        under_way.discard(instance)
        seen.append(instance)
        return web.json_response({"code": 0})

    async with receiver(answer) as url:
        sender = await send(url)

    assert len(seen) == len(list(sender.ledger.attempts())) > 20
    assert len(set(seen)) == 5
    assert sender.ledger.count("accepted") == len(sender.ledger.issued)


@pytest.mark.parametrize(
    ("body", "outcome", "code"),
    [
        (b'{"code":0}', "accepted", 0),
        (b'{"code":50300}', "refused", 50300),
        (b"{}", "refused", -1),
        (b"no JSON", "refused", -1),
    ],
)
async def test_what_was_answered_is_written_down(body: bytes, outcome: str, code: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async with receiver(answer) as url:
        sender = await send(url)

    attempts = list(sender.ledger.attempts())
    assert attempts
    assert {(attempt.outcome, attempt.code) for attempt in attempts} == {(outcome, code)}
    assert all(attempt.sent < attempt.ended for attempt in attempts)


async def test_a_connection_that_breaks_leaves_the_outcome_unknown_and_the_same_bytes_are_sent_again() -> None:
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        assert request.transport
        request.transport.abort()
        return web.Response()

    async with receiver(answer) as url:
        sender = await send(url, instances=1)

    assert {attempt.outcome for attempt in sender.ledger.attempts()} == {"unknown"}
    first = next(iter(sender.ledger.issued.values()))
    assert bodies[: len(first.attempts)] == [first.message.body] * len(first.attempts)
    assert len(bodies) == len(list(sender.ledger.attempts()))


async def test_without_a_connection_nothing_was_sent() -> None:
    (port,) = free_ports(1)

    sender = await send(f"http://{LOOPBACK}:{port}", enough=lambda sender: sender.ledger.never_sent)

    assert list(sender.ledger.attempts()) == []


def test_a_seed_draws_the_same_messages_again() -> None:
    def drawn(seed: int) -> list[Message]:
        return list(islice(messages("run", "instance", random.Random(seed)), 50))

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_body_holds_the_message() -> None:
    for message in islice(messages("run", "instance", random.Random(3)), 200):
        assert _wire(message.body.decode(), message.content_type) == message.wire


def test_the_fingerprint_is_avros() -> None:
    assert _fingerprint("int") == 0x7275D51A3F395C8F.to_bytes(8, "little")


def test_records_are_read_with_their_place(kafka: KafkaCluster, topic_prefix: str) -> None:
    for stream in RECORD_TYPE_OF:
        kafka.create_topic(f"{topic_prefix}.{stream}")
    _produce(kafka, f"{topic_prefix}.tasks", _encoded("tasks"))

    (record,) = read(kafka.bootstrap_servers, topic_prefix)

    assert (record.where, record.key, record.timestamp) == ("tasks/0@0", "i", 1_772_415_000_000)
    assert record.headers == {"ce_id": "Ü"}
    assert record.value == dict.fromkeys(field_names("tasks")) | _task()


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (lambda value: b"\xc3\x02" + value[2:], "starts with c302"),
        (lambda value: value[:2] + bytes(8) + value[10:], "starts with c3010000"),
        (lambda value: value + b"more", "bytes after its record"),
    ],
)
def test_a_value_of_another_framing_is_reported(
    kafka: KafkaCluster, topic_prefix: str, broken: Callable[[bytes], bytes], what: str
) -> None:
    for stream in RECORD_TYPE_OF:
        kafka.create_topic(f"{topic_prefix}.{stream}")
    _produce(kafka, f"{topic_prefix}.tasks", broken(_encoded("tasks")))

    with pytest.raises(ValueError, match=what):
        read(kafka.bootstrap_servers, topic_prefix)


def _wire(body: str, content_type: str) -> dict[str, Any]:
    if content_type.startswith("application/x-www-form-urlencoded"):
        body = parse_qs(body, keep_blank_values=True)["msgContext"][0]
    outer = json.loads(body)
    inner = outer.get("msgContext", outer)
    wire: dict[str, Any] = json.loads(inner) if isinstance(inner, str) else inner
    return wire


def _task() -> dict[str, Any]:
    ours = {"source": "default", "receivedAt": 1_772_415_000_000, "ingestId": "id", "extras": {"new": "7"}}
    return {"instanceId": "i", "msgType": "Task", "startTime": 1_772_415_000_123, "approverMap": [{"1": "一"}], **ours}


def _encoded(stream: str) -> bytes:
    written = BytesIO()
    schemaless_writer(written, parse_schema(_schema_of(stream)), _task())
    return b"\xc3\x01" + _fingerprint(_schema_of(stream)) + written.getvalue()


def _schema_of(stream: str) -> Any:
    return json.loads((SCHEMAS / f"{RECORD_TYPE_OF[stream]}.avsc").read_text())


def _fingerprint(schema: Any) -> bytes:
    """CRC-64-AVRO in little-endian, written out as in Avro's specification."""
    empty = mark = 0xC15D213AA4D7A795
    for byte in to_parsing_canonical_form(schema).encode():
        mark ^= byte
        for _ in range(8):
            mark = (mark >> 1) ^ (empty if mark & 1 else 0)
    return mark.to_bytes(8, "little")


def _produce(kafka: KafkaCluster, topic: str, value: bytes) -> None:
    record = {"topic": topic, "value": value, "key": b"i", "headers": {"ce_id": "Ü".encode()}}
    produce(kafka.bootstrap_servers, [record | {"timestamp": 1_772_415_000_000}])
