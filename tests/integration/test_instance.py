"""`instance` tells where a message is: published, waiting, a dead letter, or that it never came."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC
from functools import partial
from typing import Any

import aiohttp
import pytest
from confluent_kafka import Message

from connector.kafka.partitions import partition_of
from connector.kafka.reader import OffsetRange, TopicReader
from connector.lookup import timeline, topics
from connector.message.encoding import MAGIC
from connector.message.events import convert
from connector.message.headers import headers
from connector.message.parsing import BodyKind, parse
from connector.message.routes import STREAMS, Route, Routes
from connector.operations import kafka_reader
from connector.values import IngestId, Request
from tests.running import TOKEN, Running
from tests.servers import KafkaCluster, produce
from tests.waiting import PATIENCE_SECONDS, at_least, until

NOBODY = "http://127.0.0.1:1"
ALLOWED = {"sources": {"default": {"tokens": [TOKEN], "env_types": ["prod"]}}}
MANY = 60_000


def task(instance: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    known = {"msgType": "Task", "instanceId": instance, "msgId": f"{instance}-m{number}", "envType": "prod"}
    return known | {"actionName": "同意", "flowTitle": f"{instance} 的请假申请"} | fields


def run(*arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    ended = subprocess.run(
        [sys.executable, "-m", "connector", "instance", *arguments, "--json"],
        capture_output=True,
        text=True,
        env=known | environment,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else {}, ended.stderr


def shown(*arguments: str, **environment: str) -> str:
    """What people see."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    command = [sys.executable, "-m", "connector", "instance", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=known | environment, timeout=PATIENCE_SECONDS, check=True
    ).stdout


def around(running: Running, prefix: str, servers: str | None = None) -> dict[str, str]:
    """The environment of a command beside a connector."""
    known = {"WEDA_OPERATIONS__URL": running.connector.operations_url, "WEDA_TOPICS__PREFIX": prefix}
    return known | ({} if servers is None else {"WEDA_KAFKA__BOOTSTRAP_SERVERS": servers})


async def ask(*arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    return await asyncio.to_thread(lambda: run(*arguments, **environment))


async def published(running: Running, count: int) -> None:
    await until(partial(running.metric, "weda_connector_messages_published_total"), at_least(count))


def states(report: dict[str, Any]) -> list[str]:
    return [one["state"] for one in report["found"]]


async def test_what_is_published_is_reported_with_its_places(start, kafka, topic_prefix):
    """By the instance, by a msgId, by a part of the title and by the id of the request; by each way of asking."""
    running = await start()
    assert (await running.post(task("i-1")))[0] == 200
    assert (await running.post(task("i-1", 2), **{"x-request-id": "request-7"}))[0] == 200
    assert (await running.post(task("i-10")))[0] == 200
    await published(running, 3)

    for servers in (kafka.bootstrap_servers, None):  # read by the command, or by the connector
        where = around(running, topic_prefix, servers)
        code, report, _ = await ask("i-1", **where)
        assert (code, states(report), report["whole"]) == (0, ["published"] * 2, True)
        drawn = await asyncio.to_thread(shown, "i-1", **where)
        head, *rows = drawn.splitlines()
        assert head == "i-1: 2 published"
        if servers is not None:
            assert rows[0].startswith("i-1 的请假申请 · ")
            assert [row.split()[-2:] for row in rows[1:3]] == [
                ["同意", f"[{partition_of(b'i-1', 12)}:{offset}]"] for offset in range(2)
            ]
        topics = [place["topic"] for place in report["found"][0]["places"]]
        assert topics == [f"{topic_prefix}.{stream}" for stream in ("events", "tasks")]
        assert {place["partition"] for place in report["found"][0]["places"]} == {partition_of(b"i-1", 12)}
        for text in ("i-1-m2", "request-7"):
            code, report, _ = await ask(text, **where)
            assert [(one["instance_id"], one["message_id"]) for one in report["found"]] == [("i-1", "i-1-m2")], text
        _, report, _ = await ask("的请假", **where)
        assert {one["instance_id"] for one in report["found"]} == {"i-1", "i-10"}


@pytest.mark.parametrize("by_connector", [True, False], ids=["asked of a connector", "read by the command"])
async def test_a_request_is_found_by_its_id_after_everybody_has_forgotten_it(
    start, kafka, topic_prefix, tmp_path, by_connector
):
    """By the Kafka header: its record, its dead letter, and what became of that when it was replayed."""
    running = await start(**ALLOWED)
    assert (await running.post(task("i-1"), **{"x-request-id": "request-1"}))[0] == 200
    assert (await running.post(task("i-2", envType="pre"), **{"x-request-id": "request-2"}))[0] == 422
    assert (await running.post(task("request-10", flowTitle="年假")))[0] == 200
    await published(running, 2)
    await running.connector.stop()
    running = await start(sources={"default": {"tokens": [TOKEN]}})
    replayed = (sys.executable, "-m", "connector", "dead-letters", "replay", "--operations-url")
    command = (*replayed, running.connector.operations_url)
    assert (await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)).returncode == 0
    await published(running, 1)
    await running.connector.stop()
    running = await start(journal__path=tmp_path / "another.db", sources={"default": {"tokens": [TOKEN]}})
    where = around(running, topic_prefix, kafka.bootstrap_servers)
    where |= (
        {} if by_connector else {"WEDA_OPERATIONS__URL": NOBODY, "WEDA_JOURNAL__PATH": str(tmp_path / "journal.db")}
    )

    for text, instance, expected in (
        ("request-1", "i-1", ["published"]),
        ("request-2", "i-2", ["dead letter" if by_connector else "replayed", "published"]),
        ("request-3", None, []),
    ):
        code, report, _ = await ask(text, **where)
        assert (code, sorted(states(report)), report.get("request")) == (1 - bool(expected), sorted(expected), None)
        assert {one["instance_id"] for one in report["found"]} == ({instance} if expected else set())


async def test_what_never_came_is_said_to_be_nowhere(start, kafka, topic_prefix):
    running = await start()
    assert (await running.post(task("i-1")))[0] == 200
    await published(running, 1)

    code, report, _ = await ask("no-such", **around(running, topic_prefix, kafka.bootstrap_servers))

    assert (code, report["found"], report["whole"]) == (1, [], True)
    assert report["verdict"].startswith("never came")
    everything = next(one for one in report["searched"] if one["place"] == f"{topic_prefix}.events")
    assert (len(everything["partitions"]), everything["records"]) == (12, 1)


async def test_a_dead_letter_is_reported_with_its_reason_and_what_to_do(start, kafka, topic_prefix):
    """One with an instance, one that nobody can read; and once it was replayed, that it was."""
    running = await start(**ALLOWED)
    where = around(running, topic_prefix, kafka.bootstrap_servers)
    assert (await running.post(task("i-1", envType="pre")))[0] == 422
    assert (await running.post(b'{"instanceId": "i-2"', **{"x-request-id": "torn"}))[0] == 400
    await until(partial(ask, "i-2", **where), lambda answer: answer[0] == 0)

    code, report, _ = await ask("i-1", **where)
    assert (code, states(report)) == (0, ["dead letter"])
    (found,) = report["found"]
    assert (found["code"], found["message_id"]) == (42201, "i-1-m1")
    assert "envType" in found["reason"]
    assert "env_types" in found["fix"]
    for text in ("i-2", "torn"):
        code, report, _ = await ask(text, **where)
        assert (code, states(report), report["found"][0]["code"]) == (0, ["dead letter"], 40003), text
    assert report["request"]["code"] == 40003


async def test_what_waits_in_the_journal_is_reported(start, topic_prefix):
    """Kafka is away: the live journal is asked, and says so; once the connector is gone, its file."""
    running = await start(kafka__bootstrap_servers="127.0.0.1:1")
    assert (await running.post(task("i-1"), **{"x-request-id": "request-1"}))[0] == 200
    assert (await running.post(b'{"instanceId": "i-1", "msgType": "none"}', **{"x-request-id": "request-2"}))[0] == 422
    journal = str(running.connector._settings.journal.path)

    code, report, _ = await ask("i-1", **around(running, topic_prefix))
    assert (code, states(report), report["whole"]) == (0, ["waiting", "waiting"], False)
    assert {one["code"] for one in report["found"]} == {0, 42202}
    code, report, _ = await ask("nothing", **around(running, topic_prefix))
    assert (code, report["verdict"]) == (3, "not found, and not everything was searched")

    await running.connector.stop()
    gone = {"WEDA_OPERATIONS__URL": NOBODY, "WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    for text, answered in (("i-1-m1", 0), ("request-1", 0), ("request-2", 42202)):
        code, report, _ = await ask(text, **gone, WEDA_JOURNAL__PATH=journal, WEDA_TOPICS__PREFIX=topic_prefix)
        assert (code, states(report), report["found"][0]["code"]) == (0, ["waiting"], answered), text


async def test_without_a_connector_the_dead_letters_are_read(start, kafka, topic_prefix):
    running = await start(**ALLOWED)
    assert (await running.post(task("i-1", envType="pre")))[0] == 422
    journal = str(running.connector._settings.journal.path)
    await running.connector.stop()

    where = {"WEDA_OPERATIONS__URL": NOBODY, "WEDA_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    code, report, _ = await ask("i-1", **where, WEDA_JOURNAL__PATH=journal, WEDA_TOPICS__PREFIX=topic_prefix)

    assert (code, states(report), report["whole"]) == (0, ["dead letter"], True)


async def test_the_api_and_the_console_tell_the_same(start, topic_prefix):
    running = await start(**ALLOWED)
    assert (await running.post(task("i-1")))[0] == 200
    assert (await running.post(task("i-1", 2, envType="pre")))[0] == 422
    await published(running, 1)

    async def get(path: str) -> str:
        address = f"{running.connector.operations_url}{path}"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    await until(partial(get, "/api/messages?text=i-1"), lambda text: len(json.loads(text)["found"]) == 2)
    page = await get("/console/instances?id=i-1")
    assert "同意" in page
    assert "42201" in page
    assert f"{topic_prefix}.dead-letters [" in page
    assert "never came" in await get("/console/instances?id=no-such")
    by_title = await get("/console/instances?id=" + "的请假")
    assert 'href="?id=i-1"' in by_title


class OneByOne(TopicReader):
    """Reads batches of one record, and no empty ones."""

    def batches(self, ranges: Iterable[OffsetRange]) -> Iterator[list[Message]]:
        for batch in super().batches(ranges):
            yield from ([message] for message in batch)


@pytest.mark.parametrize(
    ("seconds", "notices", "read"),
    [
        (0.0, {"en": "Not all records of this instance were read", "zh": "未能读完该流程实例的全部记录"}, 1),
        (PATIENCE_SECONDS, {}, 2),
    ],
)
async def test_a_timeline_that_is_not_whole_is_shown_as_such(seconds, notices, read, start, monkeypatch):
    """A search has a limited time; who sees only the first steps must not take them for all."""
    running = await start(**ALLOWED)
    for number in (1, 2):
        assert (await running.post(task("i-1", number, actionName=f"step {number}")))[0] == 200
    await published(running, 2)
    monkeypatch.setattr(topics, "TopicReader", OneByOne)
    monkeypatch.setattr(kafka_reader, "SEARCH_SECONDS", seconds)

    async def get(path: str) -> str:
        address = f"{running.connector.operations_url}{path}"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            return await answer.text()

    for language, unit, given_up in (("en", "records", "given up after 0 s"), ("zh", "条记录", "已在 0 秒后停止读取")):
        page = await get(f"/console/instances?id=i-1&lang={language}")
        assert ("step 1" in page, "step 2" in page) == (True, not notices)
        assert ("verdict-fair" in page, given_up in page) == (bool(notices), bool(notices))
        assert notices.get(language, "") in page
        assert re.search(rf"\.events · 1/\d+ [^·]+ · {read} {unit}", page)
    assert json.loads(await get("/api/messages?text=i-1"))["whole"] == (not notices)


async def test_a_full_page_of_a_timeline_is_no_search_that_was_given_up(start, monkeypatch):
    running = await start(**ALLOWED)
    for number in (1, 2):
        assert (await running.post(task("i-1", number)))[0] == 200
    await published(running, 2)
    monkeypatch.setattr(topics, "TopicReader", OneByOne)
    monkeypatch.setattr(timeline, "MAX_STEPS", 1)

    address = f"{running.connector.operations_url}/console/instances?id=i-1"
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        page = await answer.text()

    assert ("Later steps" in page, "verdict-fair" in page, "2 records" in page) == (True, False, True)


def fill(kafka: KafkaCluster, prefix: str, count: int) -> None:
    """Records as the connector publishes them, of five messages an instance."""
    routes = Routes(STREAMS, prefix)
    route = next(one for one in routes.all if one.stream.name == "events")
    for stream in (*STREAMS, "dead-letters"):
        kafka.create_topic(routes.topic(stream), partitions=12)
    produce(kafka.bootstrap_servers, _records(route, count))


def _records(route: Route, count: int) -> Iterator[dict[str, Any]]:
    at = time.time_ns() // 1_000_000
    for number in range(count):
        body = json.dumps(task(f"i-{number // 5}", number)).encode()
        request = Request("default", body, "application/json", at + number)
        event, ingest_id = convert(parse(body, BodyKind.JSON), UTC), IngestId(f"0190-{number}")
        value = event.encode(route.schema, MAGIC + route.schema.fingerprint, request, ingest_id)
        yield {
            "topic": route.topic,
            "value": value,
            "key": event.instance_id.encode(),
            "headers": list(headers(event, request, ingest_id)),
            "timestamp": request.received_at,
        }


@pytest.mark.parametrize(
    ("asked", "found", "read"),
    [("i-2", 5, MANY // 3), ("i-11999-m59999", 1, MANY), ("i-700 的请假", 5, MANY), ("never", 0, MANY)],
)
def test_there_is_no_look_back(big_topic, asked, found, read):
    """The first instance of a topic is found as the last one is, and only its own partition is read for it."""
    servers, prefix = big_topic
    where = {"WEDA_OPERATIONS__URL": NOBODY, "WEDA_KAFKA__BOOTSTRAP_SERVERS": servers, "WEDA_TOPICS__PREFIX": prefix}

    _, report, _ = run(asked, "--timeout", "100", **where)

    events = [one for one in report["searched"] if one["place"].endswith(".events")]
    assert len(report["found"]) == found
    assert 0 < sum(one["records"] for one in events) <= read


def test_since_leaves_out_what_is_older(big_topic):
    servers, prefix = big_topic
    where = {"WEDA_OPERATIONS__URL": NOBODY, "WEDA_KAFKA__BOOTSTRAP_SERVERS": servers, "WEDA_TOPICS__PREFIX": prefix}
    _, whole, _ = run("的请假", "--timeout", "100", **where)
    assert len(whole["found"]) == 1_000  # and no more: it ends there, and says so
    assert any("ended at 1000" in one["note"] for one in whole["searched"])

    _, report, _ = run("i-2", "--since", "2099-01-01", **where)

    assert (report["found"], sum(one["records"] for one in report["searched"])) == ([], 0)


@pytest.fixture(scope="module")
def big_topic(kafka: KafkaCluster) -> tuple[str, str]:
    """A topic of many records on the session's broker: its address, and the topics' prefix."""
    prefix = f"big-{time.time_ns()}"
    fill(kafka, prefix, MANY)
    return kafka.bootstrap_servers, prefix


def test_a_connector_is_needed_where_no_brokers_are_named():
    code, _, complaint = run("i-1", WEDA_OPERATIONS__URL=NOBODY)

    assert code == 2
    assert "WEDA_KAFKA__BOOTSTRAP_SERVERS" in complaint
