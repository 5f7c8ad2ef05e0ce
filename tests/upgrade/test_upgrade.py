"""From the version before to this one and back: the journal, what was seen, the ids of schemas, the topics."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import defaultdict
from io import BytesIO
from pathlib import Path

import fastavro
import pytest

from connector.kafka.topics import TopicAdmin, desired_topics, plan
from connector.message.schemas import WORKFLOW_EVENT, load
from connector.settings import Settings
from tests.faults.stage import Connector
from tests.running import PATIENT_ENVIRONMENT
from tests.servers.reading import read_topic
from tests.upgrade import format_2
from tests.upgrade.freeze import DATA, NOBODY, PUBLISHED, UNREADABLE, WAITING, message, post, post_message
from tests.waiting import equals, until

RELEASES = sorted(path.name for path in DATA.iterdir() if path.is_dir())
ALL_TIMES = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)}
"""Records keep the day of the freezing, whatever day it is where the test runs."""

LONG_AGO = {"WEDA_REPEATS__WINDOW_SECONDS": "2000000000"}


@pytest.fixture(params=RELEASES)
def frozen(request, tmp_path) -> Path:
    """A copy of what a release has left; its journal is ``journal.db``."""
    shutil.copytree(DATA / request.param, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def facts(frozen):
    return json.loads((frozen / "facts.json").read_text())


@pytest.fixture
def topics(kafka, facts):
    """The release's topics, empty and as it made them; gone again afterwards."""
    for name, topic in facts["topics"].items():
        kafka.create_topic(name, partitions=topic["partitions"], config={**topic["config"], **ALL_TIMES})
    yield list(facts["topics"])
    admin = kafka.admin()
    for deleted in admin.delete_topics(list(facts["topics"])).values():
        deleted.result(120)


def connector(folder, facts, bootstrap_servers) -> Connector:
    """This version, in the place of the one that was killed; the registry is away."""
    return Connector(
        folder,
        bootstrap_servers,
        facts["prefix"],
        more={"WEDA_REGISTRY__URL": NOBODY, **LONG_AGO, **PATIENT_ENVIRONMENT},
    )


def test_something_is_frozen():
    assert "0.1.0" in RELEASES


async def test_what_an_earlier_version_has_left_is_published_by_this_one(kafka, frozen, facts, topics):
    """Forward: whole, in order, with the ids of schemas that it knew; what it had seen is known as repeats."""
    before = format_2.read(frozen / "journal.db")
    running = connector(frozen, facts, kafka.bootstrap_servers)
    await running.start()
    await running.wait_until_up()
    try:
        for number in (*PUBLISHED, *WAITING):
            await post_message(running, number)  # a repeat, each of them
        await post_message(running, WAITING.stop)
        await until(running.is_drained)
    finally:
        await running.terminate()

    events = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{facts['prefix']}.events")
    found = defaultdict(list)
    for record in events:
        found[record.key().decode()].append(event(record, frozen))
    assert {key: [each["msgId"] for each in those] for key, those in found.items()} == {
        f"i-{one}": [f"m-{number}" for number in (*WAITING, WAITING.stop) if number % 3 == one] for one in range(3)
    }
    for each in (one for those in found.values() for one in those):
        sent = message(int(each["msgId"].removeprefix("m-")))
        assert {name: json.loads(text) for name, text in each["extras"].items()} == {
            "title": sent["title"],
            "added": sent["added"],
        }
    for those in found.values():
        ids = [each["ingestId"] for each in those]
        assert ids == sorted(ids)
    [letter] = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{facts['prefix']}.dead-letters")
    assert letter.value() == UNREADABLE
    assert dict(letter.headers())["weda.error.code"] == str(facts["answer_to_unreadable"]).encode()
    after = format_2.read(frozen / "journal.db")
    assert after.rows == []
    assert after.floor >= before.floor
    accepted, published, dead_lettered, lost = after.accounts["default"]
    assert (accepted, dead_lettered, lost) == (published, 0, 0)
    assert published == before.accounts["default"][1] + len(before.rows) + 1


def event(record, folder):
    """A record's event, by the schema id that the release had from its registry."""
    [(_, ids)] = json.loads((folder / "journal.db.schemas").read_text()).items()
    [schema_id] = [one for mark, one in ids.items() if mark.startswith(f"{record.topic()}-value ")]
    assert record.value()[:5] == b"\0" + schema_id.to_bytes(4, "big")
    return fastavro.schemaless_reader(BytesIO(record.value()[5:]), json.loads(load(WORKFLOW_EVENT).text), None)


async def test_what_this_version_leaves_is_read_by_the_one_before(frozen, facts):
    """Back: after a kill of this version in an outage, everything is where the rules of 0.1.0 look for it."""
    before = format_2.read(frozen / "journal.db")
    running = connector(frozen, facts, "127.0.0.1:1")
    await running.start()
    await running.wait_until_up()
    added = range(WAITING.stop, WAITING.stop + 10)
    for number in added:
        await post_message(running, number)
    assert (await post(running, UNREADABLE + b" "))["code"] == facts["answer_to_unreadable"]
    await until(lambda: marks_of(frozen / "journal.db"), equals(before.marks + len(added) + 1))  # written behind
    await running.kill()

    after = format_2.read(frozen / "journal.db")

    assert after.rows[: len(before.rows)] == before.rows
    new = after.rows[len(before.rows) :]
    assert [json.loads(row.body) for row in new[:-1]] == [message(number) for number in added]
    assert [row.lane for row in new[:-1]] == [message(number)["instanceId"] for number in added]
    assert [len(row.records) for row in new[:-1]] == [2] * len(added)
    assert new[-1].body == UNREADABLE + b" "
    assert after.marks == before.marks + len(new)
    assert after.floor >= before.floor
    accepted, published, dead_lettered, lost = after.accounts["default"]
    assert (accepted - published - dead_lettered, lost) == (len(after.rows), 0)
    ids = "journal.db.schemas"
    assert json.loads((frozen / ids).read_text()) == json.loads((DATA / frozen_name(facts) / ids).read_text())


def marks_of(journal) -> int:
    database = sqlite3.connect(f"file:{journal}.repeats?mode=ro", uri=True)
    try:
        [(count,)] = database.execute("SELECT count(*) FROM mark WHERE seen_at > 0")
    finally:
        database.close()
    return count


def frozen_name(facts) -> str:
    return facts["prefix"].partition(".")[2]


def test_the_topics_of_an_earlier_version_are_as_this_one_wants_them(kafka, facts, topics):
    """Nothing is to be mended after an upgrade, and nothing after a rollback."""
    settings = Settings.load(environment={"WEDA_TOPICS__PREFIX": facts["prefix"], "WEDA_TOPICS__RETENTION_MS": "-1"})

    differences = plan(desired_topics(settings), TopicAdmin(kafka.bootstrap_servers, {}).describe(topics, 30))

    assert differences == ()


def test_a_journal_of_a_newer_version_stops_the_start_and_is_not_touched(frozen):
    """After a rollback over a change of the format: exit code 2, the message names both formats."""
    journal = frozen / "journal.db"
    database = sqlite3.connect(journal)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = journal.read_bytes()

    started = subprocess.run(
        [sys.executable, "-m", "connector", "serve"],
        env={
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "WEDA_JOURNAL__PATH": str(journal),
            "WEDA_RECEIVER__PORT": "0",
            "WEDA_OPERATIONS__PORT": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert started.returncode == 2
    assert "has format 99, this version knows 2: run the version that wrote it" in started.stderr
    assert journal.read_bytes() == before
