"""The main job on a real broker: what is posted is in the topics, equal, keyed, in order."""

import asyncio
import json
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest

from connector.app.connector import Connector
from connector.simulator import Plan, play
from tests.running import TOKEN, Running
from tests.servers.reading import read_topic

AVRO = Path(__file__).parents[2] / "avro"


def decode(name: str, value: bytes) -> dict[str, Any]:
    """What Apache's implementation reads from the bytes after the ten of the single-object header."""
    assert value[:2] == b"\xc3\x01"
    schema = avro.schema.parse((AVRO / f"io.weda.workflow.{name}.avsc").read_text())
    return avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(BytesIO(value[10:])))


def murmur2(key: bytes) -> int:
    """Apache Kafka's Utils.murmur2 (Java), for 32-bit arithmetic written out."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    state = 0x9747B28C ^ len(key)
    for at in range(0, len(key) & ~3, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        state = state * multiplier & mask ^ word
    rest = key[len(key) & ~3 :]
    if rest:
        state = (state ^ int.from_bytes(rest, "little")) * multiplier & mask
    state = (state ^ state >> 13) * multiplier & mask
    return state ^ state >> 15


@pytest.fixture
async def running(start) -> Running:
    return await start()


@pytest.fixture
def connector(running) -> Connector:
    return running.connector


async def read(connector: Connector, stream: str, count: int) -> list[Any]:
    topic = f"{connector.routes.dead_letter_topic('default').removesuffix('.dead-letters')}.{stream}"
    return await asyncio.to_thread(read_topic, connector.bootstrap_servers, topic, count)


async def test_a_task_message_stands_in_events_and_tasks(running, connector):
    """P2: the content equals what was sent, field by field, unknown fields included."""
    message = {
        "msgType": "Task",
        "instanceId": "i-1",
        "msgId": "m-1",
        "action": "2",
        "envType": "prod",
        "taskStatus": 3,
    }
    message |= {"approverMap": {"u1": "王芳"}, "isCcTask": 0, "startTime": 1763000000000, "weight": 1.0}

    assert await running.post(message, traceparent="00-11-22-01") == (200, {"code": 0})

    (event,) = await read(connector, "events", 1)
    (task,) = await read(connector, "tasks", 1)
    for record, name in ((event, "WorkflowEvent"), (task, "TaskEvent")):
        value = decode(name, record.value())
        assert (value["instanceId"], value["action"], value["taskStatus"], value["isCcTask"]) == ("i-1", 2, 3, False)
        assert value["approverMap"] == [{"u1": "王芳"}]
        assert value["extras"] == {"weight": "1.0"}
        assert int(value["startTime"].timestamp() * 1000) == 1763000000000
        assert (value["source"], record.key()) == ("default", b"i-1")
        assert int(value["receivedAt"].timestamp() * 1000) == record.timestamp()[1]


async def test_headers_are_cloud_events_with_fingerprint_and_trace(running, connector):
    await running.post({"msgType": "instance", "instanceId": "i/1", "msgId": "m", "envType": "pre"}, traceparent="00-a")

    (record,) = await read(connector, "instances", 1)
    headers = {name: value.decode() for name, value in record.headers()}

    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_id"] == "m"
    assert headers["ce_type"] == "io.weda.workflow.instance.v1"
    assert headers["ce_source"] == "/sources/default/pre"
    assert headers["ce_subject"] == "i/1"
    assert headers["ce_time"].endswith("Z")
    assert headers["content-type"] == "application/avro"
    assert len(bytes.fromhex(headers["weda.fingerprint"])) == 16
    assert headers["traceparent"] == "00-a"


async def test_the_same_id_with_other_content_gets_an_id_of_its_own(running, connector):
    """Treat two messages as the same only when id and content are the same."""
    first = {"msgType": "Task", "instanceId": "i", "msgId": "m", "comment": "a"}
    for message in (first, first, first | {"comment": "b"}):
        assert await running.post(message) == (200, {"code": 0})

    records = await read(connector, "events", 2)
    ids = [dict(record.headers())["ce_id"].decode() for record in records]
    fingerprint = dict(records[1].headers())["weda.fingerprint"].decode()

    assert ids == ["m", f"m~{fingerprint[:8]}"]


async def test_keys_lie_where_java_clients_put_them(running, connector, kafka):
    """``murmur2_random``: a Java producer or a join with another topic finds the same partition."""
    ids = [f"实例-{number}" for number in range(60)]
    for one in ids:
        await running.post({"msgType": "Task", "instanceId": one})

    records = await read(connector, "events", len(ids))

    assert {record.key().decode() for record in records} == set(ids)
    assert [record.partition() for record in records] == [
        (murmur2(record.key()) & 0x7FFFFFFF) % 12 for record in records
    ]


async def test_what_cannot_be_a_record_is_a_dead_letter_with_its_bytes(running, connector):
    """P5: kept byte for byte, with the reason, keyed where the instance is readable; identical bytes once."""
    unreadable, wrong = b'{"msgContext": "{', json.dumps({"msgType": "Nothing", "instanceId": "i-9"}).encode()
    for body, code in ((unreadable, 40003), (wrong, 42202), (wrong, 42202)):
        status, answer = await running.post(body)
        assert (status, answer["code"]) == (code // 100, code)

    records = sorted(await read(connector, "dead-letters", 2), key=lambda record: record.value())
    assert [(record.key(), record.value()) for record in records] == [(None, unreadable), (b"i-9", wrong)]
    headers = {name: value.decode() for name, value in records[1].headers()}
    assert headers["weda.error.code"] == "42202"
    assert headers["weda.error.stage"] == "convert"
    assert headers["weda.source"] == "default"
    assert headers["weda.attempt"] == "1"
    assert int(headers["weda.received-at"]) == records[1].timestamp()[1]


async def test_a_record_over_its_topics_limit_is_refused_and_not_kept(running, connector):
    connector._topic_limits._max_bytes[connector.routes.all[0].topic] = 2_000

    status, answer = await running.post({"msgType": "Task", "instanceId": "i", "comment": "长" * 1000})

    assert (status, answer["code"]) == (413, 41300)
    assert await running.post({"msgType": "Task", "instanceId": "j"}) == (200, {"code": 0})
    assert [record.key() for record in await read(connector, "events", 1)] == [b"j"]


async def test_every_instance_is_in_order_under_sixty_four_connections(connector, tmp_path, seed):
    """P3, and P2 by identity: everything accepted is there, once, in the order in which it was sent."""
    sent: dict[str, list[str]] = defaultdict(list)

    def note(answer: Any) -> None:
        assert answer.outcome == "accepted"
        sent[str(answer.message["instanceId"])].append(answer.message["msgId"])

    plan = Plan(url=f"{connector.url}/messageDeliver", token=TOKEN, seed=seed, instances=120, concurrency=64)
    summary = await play(plan, on_answer=note)

    records = await read(connector, "events", summary.accepted)
    found: dict[str, list[str]] = defaultdict(list)
    for record in records:
        found[record.key().decode()].append(decode("WorkflowEvent", record.value())["msgId"])
    assert summary.accepted == summary.sent > 1_000
    assert found == sent


async def test_a_stopped_connector_leaves_nothing_behind(start):
    """Start and stop twice on the same journal: every step is undone."""
    for number in range(2):
        running = await start()
        assert (await running.post({"msgType": "Task", "instanceId": f"i-{number}"}))[0] == 200
        await running.connector.stop()

    records = await read(running.connector, "events", 2)
    assert {record.key() for record in records} == {b"i-0", b"i-1"}
