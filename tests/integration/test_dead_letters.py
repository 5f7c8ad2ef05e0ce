"""Dead letters that are mended: listed by reason, replayed once, in order, whatever happens in between."""

import asyncio
import json
import os
import random
import secrets
import subprocess
import sys
import threading
from collections import defaultdict
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from connector.admin.client import OperationsClient
from connector.errors import ConnectorError
from connector.intake.dead_letters import Selection
from connector.journal.file import JournalFile, StoredRow
from connector.journal.model import Note
from connector.kafka.topics import TopicAdmin
from tests.faults.stage import TOKEN as STAGE_TOKEN
from tests.faults.stage import Connector as Process
from tests.integration.test_main_job import decode
from tests.running import PATIENT_ENVIRONMENT, TOKEN, Running
from tests.servers import KafkaCluster, produce
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS, until

MANY = 1_000
INSTANCES = 40
NOT_ALLOWED = {"sources": {"default": {"tokens": [TOKEN], "env_types": ["prod"]}}}
ALLOWED = {"sources": {"default": {"tokens": [TOKEN], "env_types": ["prod", "pre"]}}}


def message(instance: str, number: int, **fields: Any) -> dict[str, Any]:
    known = {"msgType": "Task", "instanceId": instance, "msgId": f"{instance}-{number}", "envType": "pre"}
    return {**known, "comment": str(number), **fields}


def run(running: Running, *arguments: str, code: int = 0, **environment: str) -> Any:
    """A command of ``dead-letters`` against the connector; its last line as JSON."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    ended = subprocess.run(
        [sys.executable, "-m", "connector", "dead-letters", *arguments, "--json"],
        capture_output=True,
        text=True,
        env={**known, "WEDA_OPERATIONS__URL": running.connector.operations_url, **environment},
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]) if ended.stdout else ended.stderr


async def ask(running: Running, *arguments: str, **how: Any) -> Any:
    return await asyncio.to_thread(run, running, *arguments, **how)


def remote(running: Running) -> OperationsClient:
    settings = running.connector._settings.operations
    return OperationsClient(settings.model_copy(update={"url": running.connector.operations_url}))


async def listed(running: Running, **selected: Any) -> dict[str, Any]:
    async with remote(running) as connector:
        return await connector.dead_letters(selected)


async def replayed(running: Running, **order: Any) -> dict[str, Any]:
    async with remote(running) as connector:
        return await connector.reprocess(order, lambda _: None)


async def records(running: Running, topic: str, count: int | None = None) -> list[Any]:
    return await asyncio.to_thread(read_topic, running.connector.bootstrap_servers, topic, count)


async def refuse(running: Running, *messages: dict[str, Any]) -> None:
    """Send messages, those of an instance one after the other; each becomes a dead letter."""
    lanes: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in messages:
        lanes[one["instanceId"]].append(one)

    async def send(lane: list[dict[str, Any]]) -> None:
        for one in lane:
            while await send_one(one) == 503:
                await asyncio.sleep(0.1)  # a busy machine: as a source would, send it again

    async def send_one(one: dict[str, Any]) -> int:
        async with session.post(running.url, json=one, headers={"x-weda-token": TOKEN}) as answer:
            assert answer.status in {422, 503}, await answer.text()
            return answer.status

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*map(send, lanes.values()))


def numbers(found: list[Any]) -> dict[str, list[str]]:
    """The ``ce_id`` of each instance's records, in the order of their partition."""
    by_instance: defaultdict[str, list[str]] = defaultdict(list)
    for record in found:
        by_instance[record.key().decode()].append(dict(record.headers())["ce_id"].decode())
    return by_instance


@pytest.fixture(params=["own", "shared"])
def journal(request) -> dict[str, str]:
    """Settings of a connector with a journal of its own, or of a replica."""
    return {} if request.param == "own" else {"journal.url": request.getfixturevalue("database").url()}


async def test_a_thousand_mended_letters_are_found_in_order_once_each(start, topic_prefix, journal):
    """A setting was wrong; it is mended, the connector restarted, and what it had refused is replayed."""
    running = await start(**NOT_ALLOWED, **journal)
    await refuse(running, *(message(f"i-{number % INSTANCES}", number) for number in range(MANY)))
    refused = await records(running, f"{topic_prefix}.dead-letters", MANY)
    reported = await ask(running, "list", "--limit", "3")
    assert (reported["total"], len(reported["letters"])) == (MANY, 3)
    assert [(one["code"], one["waiting"], one["replayed"]) for one in reported["reasons"]] == [(42201, MANY, 0)]
    dry_run_of = await ask(running, "replay", "--dry-run", code=1)
    assert (dry_run_of["accepted"], dry_run_of["failed"], dry_run_of["dry_run"]) == (0, INSTANCES, True)
    await running.connector.stop()

    mended = await start(**ALLOWED, **journal)
    async with remote(mended) as connector:
        assert (await connector.dry_run({}))["accepted"] == MANY
    assert await records(mended, f"{topic_prefix}.events") == []
    assert (await ask(mended, "replay"))["accepted"] == MANY
    await mended.drained()

    found = await records(mended, f"{topic_prefix}.events", MANY)
    sent = {f"i-{lane}": [f"i-{lane}-{number}" for number in range(lane, MANY, INSTANCES)] for lane in range(INSTANCES)}
    assert numbers(found) == sent
    received = {one.value(): dict(one.headers())["weda.received-at"] for one in refused}
    assert sorted(record.timestamp()[1] for record in found) == sorted(int(one) for one in received.values())
    assert (await replayed(mended))["total"] == 0
    assert [one["replayed"] for one in (await listed(mended))["reasons"]] == [MANY]
    waiting = await ask(mended, "list", "--waiting")
    assert (waiting["total"], waiting["reasons"], waiting["letters"]) == (0, [], [])
    assert len(await records(mended, f"{topic_prefix}.events")) == MANY


async def test_what_is_replayed_is_published_without_what_must_not_be(start, topic_prefix):
    """A dead letter holds the bytes as received; its record is made as that of any message is."""
    redacting = {"privacy.redact": ["comment"]}
    running = await start(**NOT_ALLOWED, **redacting)
    await refuse(running, message("i-1", 1, comment="planted"))
    await running.connector.stop()

    mended = await start(**ALLOWED, **redacting)
    assert (await ask(mended, "replay"))["accepted"] == 1
    await mended.drained()

    (found,) = await records(mended, f"{topic_prefix}.events", 1)
    value = decode("WorkflowEvent", found.value())
    assert (value["msgId"], value["comment"]) == ("i-1-1", None)
    assert b"planted" not in found.value()


async def test_a_replay_that_is_killed_again_and_again_loses_nothing_and_repeats_only_what_was_not_acknowledged(
    kafka, topic_prefix, tmp_path, seed, journal
):
    """P1, P3, P4: each message has one ingestId, so none was taken in twice, and each is in its order."""
    chance, count = random.Random(seed), 400
    more = {name.replace("journal.url", "WEDA_JOURNAL__URL"): url for name, url in journal.items()}
    more |= PATIENT_ENVIRONMENT
    wrong = Process(tmp_path, kafka.bootstrap_servers, topic_prefix, more=sources("prod") | more)
    mended = Process(tmp_path, kafka.bootstrap_servers, topic_prefix, more=sources("prod", "pre") | more)
    await wrong.start()
    await wrong.wait_until_up()
    async with aiohttp.ClientSession(headers={"x-weda-token": STAGE_TOKEN}) as session:
        for number in range(count):
            status = 503
            while status == 503:
                sent = message(f"i-{number % 8}", number)
                async with session.post(f"{wrong.url}/messageDeliver", json=sent) as answer:
                    status = answer.status
            assert status == 422
        await wrong.terminate()
        kills = 0
        try:
            while True:
                await mended.start()
                await mended.wait_until_up()
                reported = await replay_until(session, mended, chance.randrange(1, 40) if kills < 3 else count)
                if reported["state"] != "running":
                    break
                await mended.kill()
                kills += 1
            assert (reported["state"], reported["failed"], reported["held_back"], kills) == ("ended", 0, 0, 3)
            await until(
                partial(all_of, kafka, topic_prefix),
                lambda found: len(set(chain.from_iterable(numbers(found).values()))) == count,
            )
        finally:
            await mended.terminate()

    found = await all_of(kafka, topic_prefix)
    taken_in = defaultdict(set)
    for record in found:
        taken_in[dict(record.headers())["ce_id"].decode()].add(decode("WorkflowEvent", record.value())["ingestId"])
    assert {len(one) for one in taken_in.values()} == {1}
    first = {lane: list(dict.fromkeys(ids)) for lane, ids in numbers(found).items()}
    assert first == {f"i-{lane}": [f"i-{lane}-{number}" for number in range(lane, count, 8)] for lane in range(8)}


async def test_replicas_that_replay_at_once_replay_each_letter_once_and_in_order(start, topic_prefix, database):
    shared = {"journal.url": database.url()}
    running = await start(**NOT_ALLOWED, **shared)
    await refuse(running, *(message(f"i-{number % 8}", number, msgId=None) for number in range(200)))
    await running.connector.stop()
    pair = [await start(**ALLOWED, **shared) for _ in range(2)]

    reported = await asyncio.gather(*map(replayed, pair))

    assert sum(one["accepted"] for one in reported) == 200
    assert all(one["failed"] + one["held_back"] == 0 for one in reported)
    assert (await replayed(pair[0]))["total"] == 0
    await pair[0].drained()
    found = await records(pair[0], f"{topic_prefix}.events", 200)
    comments = defaultdict(list)
    for record in found:
        comments[record.key().decode()].append(decode("WorkflowEvent", record.value())["comment"])
    assert comments == {f"i-{lane}": [str(number) for number in range(lane, 200, 8)] for lane in range(8)}


async def test_what_fails_at_one_replica_is_overtaken_at_no_other(start, topic_prefix, database):
    shared = {"journal.url": database.url()}
    running = await start(**NOT_ALLOWED, **shared)
    pairs = [(message(f"i-{number}", 1, msgType="Nothing"), message(f"i-{number}", 2)) for number in range(20)]
    await refuse(running, *chain.from_iterable(pairs))
    await running.connector.stop()
    pair = [await start(**ALLOWED, **shared) for _ in range(2)]

    reported = await asyncio.gather(*map(replayed, pair))

    assert (sum(one["accepted"] for one in reported), sum(one["failed"] for one in reported)) == (0, 20)
    assert await records(pair[0], f"{topic_prefix}.events") == []


async def test_a_replay_that_is_stopped_and_begun_again_at_once_replays_each_letter_once(start, topic_prefix, journal):
    running = await start(**NOT_ALLOWED, **journal)
    await refuse(running, *(message(f"i-{number % 8}", number, msgId=None) for number in range(100)))
    await running.connector.stop()
    mended = await start(**ALLOWED, **journal)
    letters = mended.connector.context.letters
    for _ in range(5):
        letters.start(Selection(), 5)
        await asyncio.sleep(0.15)
        await letters.stop()

    assert (await replayed(mended))["failed"] == 0
    await mended.drained()

    found = [decode("WorkflowEvent", one.value())["comment"] for one in await records(mended, f"{topic_prefix}.events")]
    assert sorted(map(int, found)) == list(range(100))


async def test_what_fails_again_is_tried_so_often_and_holds_back_those_behind_it(start, topic_prefix, journal):
    running = await start(**NOT_ALLOWED, **journal)
    await refuse(
        running,
        message("a", 1, msgType="Nothing"),
        message("a", 2),
        message("b", 1),
        message("b", 2, msgType="Nothing"),
        message("b", 3),
    )
    await running.connector.stop()
    mended = await start(**ALLOWED, **journal)

    reported = await replayed(mended)
    assert (reported["accepted"], reported["failed"], reported["held_back"]) == (1, 2, 2)
    reported = await replayed(mended, reason="ENVTYPE")
    assert (reported["total"], reported["accepted"]) == (2, 2)
    assert (await replayed(mended, max_attempts=3))["failed"] == 2
    assert (await replayed(mended, max_attempts=3))["exhausted"] == 2

    letters = [one for one in (await listed(mended))["letters"] if not one["replayed"]]
    assert {(one["instance_id"], one["attempt"], one["code"]) for one in letters} == {("a", 3, 42202), ("b", 3, 42202)}
    first = await listed(mended, instance="a", codes=[422])
    assert [one["attempt"] for one in first["letters"] if "Nothing" in one["body"]] == [3, 2, 1]
    await mended.drained()
    found = numbers(await records(mended, f"{topic_prefix}.events"))
    assert found == {"a": ["a-2"], "b": ["b-1", "b-3"]}


async def test_what_was_accepted_meanwhile_is_not_published_again(start, topic_prefix, journal):
    running = await start(**NOT_ALLOWED, **journal)
    await refuse(running, message("a", 1))
    await running.connector.stop()
    mended = await start(**ALLOWED, **journal)
    assert await mended.post(message("a", 1)) == (200, {"code": 0})

    reported = await replayed(mended)

    assert (reported["accepted"], reported["repeats"]) == (0, 1)
    assert (await replayed(mended))["total"] == 0
    assert len(await records(mended, f"{topic_prefix}.events")) == 1


async def test_what_kafka_refused_goes_to_the_topics_that_lack_it(start, kafka, topic_prefix):
    topic = f"{topic_prefix}.events"
    kafka.create_topic(topic, config={"max.message.bytes": "1500"})
    running = await start()
    running.connector._topic_limits._max_bytes[topic] = 1_000_000  # as if it had been lowered since they were read
    assert await running.post(message("a", 1, comment=secrets.token_hex(2_000))) == (200, {"code": 0})
    await records(running, f"{topic_prefix}.dead-letters", 1)
    TopicAdmin(kafka.bootstrap_servers, {}).alter(topic, 60, config={"max.message.bytes": "1000000"})
    running.connector._topic_limits._max_bytes[topic] = 1_000_000  # it reads them again within half a minute

    async def replayed_and_found() -> list[Any]:
        await replayed(running, max_attempts=100)
        await running.drained()
        return await records(running, topic)

    await until(replayed_and_found)  # refused once more until the broker knows the new limit

    assert len(await records(running, topic)) == 1
    assert len(await records(running, f"{topic_prefix}.tasks")) == 1


def copy(kafka: KafkaCluster, found: list[Any]) -> None:
    """Put records into their topic once more, as a connector may after a crash (P4)."""
    records = (
        {
            "topic": one.topic(),
            "value": one.value(),
            "key": one.key(),
            "headers": one.headers(),
            "timestamp": one.timestamp()[1],
        }
        for one in found
    )
    produce(kafka.bootstrap_servers, records)


async def test_bodies_of_every_kind_come_back_as_they_were_and_one_that_stands_twice_once(start, kafka, topic_prefix):
    running = await start(**NOT_ALLOWED)
    bodies = {
        "application/x-www-form-urlencoded": urlencode({"msgContext": json.dumps(message("form", 1))}).encode(),
        "application/json": json.dumps({"msgContext": message("json", 1, msgId=None)}).encode(),
    }
    for content_type, body in bodies.items():
        assert (await running.post(body, **{"content-type": content_type}))[0] == 422
    query = {"msgContext": json.dumps(message("query", 1))}
    async with (
        aiohttp.ClientSession() as session,
        session.get(running.url, params=query, headers={"x-weda-token": TOKEN}) as answer,
    ):
        assert answer.status == 422
    letter = (await listed(running, instance="form"))["letters"][0]
    shown = await ask(running, "show", f"{letter['partition']}/{letter['offset']}")
    assert (shown["body"].encode(), shown["replayed"]) == (bodies["application/x-www-form-urlencoded"], False)
    assert "no such dead letter" in await ask(running, "show", "0/999999", code=1)
    latest = await ask(running, "show", "latest")
    assert latest["instance_id"] == "query"
    await running.connector.stop()
    copy(kafka, await records(running, f"{topic_prefix}.dead-letters"))

    mended = await start(**ALLOWED)
    assert (await replayed(mended))["accepted"] == 3
    assert (await replayed(mended))["total"] == 0
    await mended.drained()

    assert len(await records(mended, f"{topic_prefix}.events")) == 3
    assert set(numbers(await records(mended, f"{topic_prefix}.events", 3))) == {"form", "json", "query"}


async def test_the_token_is_needed_and_one_replay_runs_at_a_time(start, monkeypatch):
    running = await start(operations__token="an-operations-token", **NOT_ALLOWED)
    assert "WEDA_OPERATIONS__TOKEN" in await ask(running, "list", code=2)
    assert (await ask(running, "list", WEDA_OPERATIONS__TOKEN="an-operations-token"))["total"] == 0
    letters, may_read = running.connector.context.letters, threading.Event()
    read = letters._read
    monkeypatch.setattr(letters, "_read", lambda: may_read.wait(PATIENCE_SECONDS) and read())
    letters.start(Selection(), 5)
    with pytest.raises(ConnectorError, match="a replay is running"):
        await replayed(running)
    await letters.stop()
    may_read.set()
    assert letters.progress is not None
    assert letters.progress.state == "stopped"


async def test_an_open_listener_shows_contents_to_this_machine_only(start):
    running = await start(**NOT_ALLOWED)
    address = f"{running.connector.operations_url}/api/dead-letters"
    async with aiohttp.ClientSession() as session:
        for host, status in (("localhost", 200), ("attacker.example", 403)):
            async with session.get(address, headers={"host": host}) as answer:
                assert answer.status == status
        async with session.post(address.replace("dead-letters", "replays"), data=b"{}") as answer:
            assert answer.status == 422, "a form of another site is no order"
    await running.connector.stop()

    everywhere = await start(operations__host="0.0.0.0", **NOT_ALLOWED)
    url = everywhere.connector.operations_url.replace("0.0.0.0", "127.0.0.1")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/api/dead-letters") as answer:
            assert (answer.status, "WEDA_OPERATIONS__TOKEN" in await answer.text()) == (403, True)
        async with session.get(f"{url}/metrics") as answer:
            assert answer.status == 200


async def test_a_row_that_the_journal_disowns_takes_its_note_along(tmp_path):
    """A failed sync whose bytes reached the disk all the same: the letter is not lost for having been noted."""
    file = JournalFile(tmp_path / "journal.db", 1 << 30)
    row, note = StoredRow(1, "a", "default", 1, b"").sealed(), Note("replayed/t/0/7", 5)
    file.transact([partial(JournalFile.insert, row=row, note=note)])
    assert file.read_notes("replayed/") == {note.name: note.value}

    file.transact([partial(JournalFile.undo_insert, sequence=1, note=note)])

    assert (file.read_notes("replayed/"), list(file.rows())) == ({}, [])
    file.close()


async def all_of(kafka: KafkaCluster, topic_prefix: str) -> list[Any]:
    return await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events")


def sources(*environments: str) -> dict[str, str]:
    return {"WEDA_SOURCES": json.dumps({"default": {"tokens": [], "env_types": environments}})}


async def get(session: aiohttp.ClientSession, process: Process, path: str) -> dict[str, Any]:
    async with session.get(f"{process.operations_url}{path}") as answer:
        return await answer.json()


async def replay_until(session: aiohttp.ClientSession, process: Process, count: int) -> dict[str, Any]:
    """Replay until so many are accepted, or to the end; first let come to the topic what waits in the journal."""
    await until(partial(get, session, process, "/api/dead-letters?limit=0"), lambda listed: not listed["in_journal"])
    async with session.post(f"{process.operations_url}/api/replays", json={}) as answer:
        reported = await answer.json()
    while reported["state"] == "running" and reported["accepted"] < count:
        reported = await get(session, process, "/api/replays/current")
    return reported
