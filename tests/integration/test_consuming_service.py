"""`Events` as the base of a service: what is handled is committed, whatever kills it; nothing is lost."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connector.consuming import Events, PartitionsLost, Person, SqliteStore
from connector.consuming import event as events_module
from connector.consuming.stores import MemoryStore
from connector.errors import ConfigurationError
from tests.integration.test_consuming import ids, message, read, send
from tests.running import Start
from tests.waiting import PATIENCE_SECONDS

IDLE_SECONDS = 8.0
IMPATIENT_GROUP = {"max.poll.interval.ms": 6000, "session.timeout.ms": 6000}
"""A group that gives up a member that handles an event for longer than these milliseconds."""

SCRIPT = Path(__file__).with_name("service.py")
COUNT = 24


def run_service(bootstrap: str, prefix: str, folder: Path, stage: str = "none", at: int = 0, **how: object) -> int:
    reported = {"bootstrap_servers": bootstrap, "prefix": prefix, "folder": str(folder), "stage": stage, "at": at}
    reported |= {"effects": "store", "idle": IDLE_SECONDS} | how
    done = subprocess.run([sys.executable, SCRIPT, json.dumps(reported)], timeout=120, check=False)
    return done.returncode


def effects(folder: Path) -> Counter[str]:
    database = sqlite3.connect(folder / "effects.db")
    stored = [name for (name,) in database.execute("SELECT message FROM effect")]
    database.close()
    return Counter(stored + (folder / "effects.txt").read_text(encoding="utf-8").split())


STAGES = ("given", "handled", "stored", "committed")


@pytest.mark.parametrize("kind", ["store", "file"])
async def test_a_service_that_is_killed_at_each_stage_loses_nothing(kind, start: Start, topic_prefix: str, tmp_path):
    """Twice only what was done outside the store by a process that died before it committed: one event a kill."""
    running = await start()
    await send(running, *(message("abc"[number % 3], number) for number in range(COUNT)))
    bootstrap = running.connector.bootstrap_servers

    for at, stage in enumerate(STAGES, start=2):
        code = await asyncio.to_thread(run_service, bootstrap, topic_prefix, tmp_path, stage, at, effects=kind)
        assert code == -signal.SIGKILL
    assert await asyncio.to_thread(run_service, bootstrap, topic_prefix, tmp_path, effects=kind) == 0

    found = effects(tmp_path)
    assert set(found) == {f"{'abc'[number % 3]}-{number}" for number in range(COUNT)}
    assert found.total() - len(found) == (0 if kind == "store" else 1)  # the one that died as "handled"


async def test_a_named_member_goes_on_at_once_after_a_crash(start: Start, topic_prefix: str, tmp_path):
    running = await start()
    await send(running, *(message("a", number) for number in range(6)))
    bootstrap = running.connector.bootstrap_servers
    await asyncio.to_thread(run_service, bootstrap, topic_prefix, tmp_path, "handled", 3)

    began = time.monotonic()
    await asyncio.to_thread(run_service, bootstrap, topic_prefix, tmp_path)

    assert time.monotonic() - began < 40, "it has not waited for the dead member's session of 45 s"
    assert effects(tmp_path).total() == 6


async def test_the_idle_clock_runs_from_when_the_group_gives_partitions(start: Start, topic_prefix: str):
    """A member that died holds them until its session ends: who idles out before has read nothing, and says "done"."""
    running = await start()
    await send(running, *(message("a", number) for number in range(4)))
    properties = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    how = {"prefix": topic_prefix, "group": f"{topic_prefix}-group", "properties": properties}
    program = (
        "import os, sys, json; from connector.consuming import Events\n"
        "for event in Events(sys.argv[1], **json.loads(sys.argv[2])): os._exit(9)"
    )
    arguments = [sys.executable, "-c", program, running.connector.bootstrap_servers, json.dumps(how)]
    dead = await asyncio.to_thread(subprocess.run, arguments, timeout=PATIENCE_SECONDS, check=False)
    assert dead.returncode == 9

    found = await asyncio.to_thread(read, running, idle_seconds=IDLE_SECONDS, **how)

    assert ids(found) == [f"a-{number}" for number in range(4)]


async def test_a_slow_handler_rejoins_and_nothing_is_handled_twice(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(4)))
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "properties": IMPATIENT_GROUP}

    def handle() -> list[str]:
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, **how) as events:
            found = []
            for event in events:
                found += ids([event])
                if event.offset == 1:
                    time.sleep(9)
            return found

    assert await asyncio.to_thread(handle) == [f"a-{number}" for number in range(4)]


async def test_a_commit_after_too_long_names_the_limit_and_reading_goes_on(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(4)))
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "properties": IMPATIENT_GROUP}
    lost: list[str] = []

    def handle() -> list[str]:
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, auto_commit=False, **how) as events:
            found = []
            for event in events:
                found += ids([event])
                if event.offset == 1:
                    time.sleep(9)
                try:
                    events.commit()
                except PartitionsLost as error:
                    lost.append(error.message)
            return found

    assert await asyncio.to_thread(handle) == [f"a-{number}" for number in range(4)]
    assert len(lost) == 1
    assert "max.poll.interval.ms (6000)" in lost[0]


async def test_events_sleep_keeps_the_partitions(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(3)))
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "properties": IMPATIENT_GROUP}

    def handle() -> list[str]:
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, auto_commit=False, **how) as events:
            found = []
            for event in events:
                found += ids([event])
                if event.offset == 1:
                    events.sleep(9)
                events.commit()
            return found

    assert await asyncio.to_thread(handle) == [f"a-{number}" for number in range(3)]


async def test_batches_are_committed_as_a_whole(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(7)))
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "auto_commit": False}

    def two_batches(commits: int) -> list[list[str]]:
        found = []
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, **how) as events:
            for batch in events.batches(3):
                found.append(ids(batch))
                if len(found) <= commits:
                    events.commit()
        return found

    assert await asyncio.to_thread(two_batches, 1) == [["a-0", "a-1", "a-2"], ["a-3", "a-4", "a-5"], ["a-6"]]
    assert await asyncio.to_thread(two_batches, 9) == [["a-3", "a-4", "a-5"], ["a-6"]]


async def test_asyncio_reads_batches_and_commits(start: Start, topic_prefix: str, tmp_path):
    running = await start()
    await send(running, *(message("a", number) for number in range(5)))
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "auto_commit": False}
    found = []
    with SqliteStore(tmp_path / "seen.db") as store:
        async with Events(running.connector.bootstrap_servers, prefix=topic_prefix, store=store, **how) as events:
            async for batch in events.batches(2):
                found += ids(batch)
                await asyncio.to_thread(events.commit)

    assert found == [f"a-{number}" for number in range(5)]
    assert await asyncio.to_thread(read, running, topic_prefix, **how) == []


async def test_a_restart_with_a_durable_store_gives_nothing_twice_that_kafka_forgot(
    start: Start, topic_prefix: str, tmp_path
):
    """Another group stands for offsets that are lost: the store alone knows what was handled."""
    running = await start()
    await send(running, *(message("a", number) for number in range(4)))

    def names(group: str) -> list[str]:
        with SqliteStore(tmp_path / "seen.db") as store:
            return ids(read(running, topic_prefix, group=group, idle_seconds=IDLE_SECONDS, store=store))

    assert await asyncio.to_thread(names, f"{topic_prefix}-1") == [f"a-{number}" for number in range(4)]
    await send(running, message("a", 4))
    assert await asyncio.to_thread(names, f"{topic_prefix}-2") == ["a-4"]


async def test_a_parked_event_is_kept_with_its_reason_and_does_not_come_again(
    start: Start, topic_prefix: str, tmp_path
):
    running = await start()
    await send(running, *(message("a", number) for number in range(3)))
    store = SqliteStore(tmp_path / "seen.db")
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "auto_commit": False, "store": store}

    def handle() -> list[str]:
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, **how) as events:
            found = []
            for event in events:
                if event.offset == 1:
                    events.park(event, "no such customer")
                else:
                    found += ids([event])
                events.commit()
            return found

    assert await asyncio.to_thread(handle) == ["a-0", "a-2"]
    assert await asyncio.to_thread(handle) == []
    store.close()
    with SqliteStore(tmp_path / "seen.db") as again:
        (parked,) = again.parked()
        assert (parked.reason, ids([parked.event]), parked.event.ce_id) == ("no such customer", ["a-1"], "a-1")
        again.release(parked)
        assert list(again.parked()) == []


async def test_since_starts_at_a_time_and_lag_counts_what_is_left(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(3)))
    await asyncio.sleep(0.1)
    since = datetime.now(UTC)
    await send(running, *(message("a", number) for number in range(3, 5)))

    alone = await asyncio.to_thread(read, running, topic_prefix, until_end=True, since=since)
    later = await asyncio.to_thread(read, running, topic_prefix, until_end=True, since=since + timedelta(days=1))

    def of_a_group() -> tuple[list[str], list[int]]:
        how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS, "since": since}
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, **how) as events:
            lags, found = [], []
            for event in events:
                found += ids([event])
                lags.append(events.lag())
            return found, lags

    assert (ids(alone), ids(later)) == (["a-3", "a-4"], [])
    assert await asyncio.to_thread(of_a_group) == (["a-3", "a-4"], [1, 0])


async def test_several_streams_come_in_the_order_in_which_the_messages_came(start: Start, topic_prefix: str):
    running = await start(streams=["instances", "tasks", "state"])
    kinds = ["Instance", "Task", "Task", "Instance", "Task", "Instance"]
    await send(running, *(message("a", number, msgType=kind) for number, kind in enumerate(kinds)))
    how = {"stream": ["instances", "tasks"]}

    found = await asyncio.to_thread(read, running, topic_prefix, until_end=True, **how)
    group = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS}
    of_a_group = await asyncio.to_thread(read, running, topic_prefix, **group, **how)

    assert ids(found) == ids(of_a_group) == [f"a-{number}" for number in range(6)]
    assert [event.stream for event in found] == [kind.lower() + "s" for kind in kinds]
    assert found[0].headers["ce_type"] == "io.weda.workflow.instance.v1"


async def test_several_streams_are_followed_in_order_while_they_are_written(start: Start, topic_prefix: str):
    running = await start(streams=["instances", "tasks"])
    count, how = 60, {"stream": ["instances", "tasks"], "group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS}
    reading = asyncio.create_task(asyncio.to_thread(read, running, topic_prefix, **how))
    for number in range(count):
        await send(running, message("ab"[number % 2], number, msgType=("Instance", "Task")[number // 2 % 2]))

    found = await reading

    for instance in "ab":
        numbers = [int(each.split("-")[1]) for each in ids(found) if each.startswith(instance)]
        assert numbers == sorted(numbers)
    assert len(found) == count


async def test_a_table_has_the_schema_s_types(start: Start, topic_prefix: str):
    running = await start(streams=["events", "state"])
    people = {"approverMap": [{"userId": "1", "userName": "王芳"}], "startTime": 1_772_415_000_000, "weight": 1}
    await send(running, message("a", 1, **people), message("a", 2, action=18))

    def frames():
        where = {"prefix": topic_prefix, "until_end": True}
        with Events(running.connector.bootstrap_servers, **where) as events:
            table = events.to_arrow()
        with Events(running.connector.bootstrap_servers, stream="state", **where) as events:
            return table, events.to_polars()

    table, frame = await asyncio.to_thread(frames)

    assert str(table.schema.field("startTime").type) == "timestamp[ms, tz=UTC]"
    first = table.slice(0, 1).to_pylist()[0]
    assert first["approverMap"] == [[("userId", "1"), ("userName", "王芳")]]
    assert first["startTime"] == datetime.fromtimestamp(1_772_415_000, UTC)
    assert (first["extras"], len(first["fingerprint"])) == ([("weight", "1")], 32)
    assert frame["instanceId"].to_list() == ["a", "a"]
    assert frame["msgId"].to_list() == ["a-1", None]


def test_a_table_needs_an_end_and_its_package(monkeypatch):
    with Events("127.0.0.1:1") as events, pytest.raises(ValueError, match="until_end"):
        events.to_arrow()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with Events("127.0.0.1:1", until_end=True) as events, pytest.raises(ConfigurationError, match="extra `arrow`"):
        events.to_arrow()


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ([{"userId": "1", "userName": "王芳"}, {"userId": "level", "userName": "3"}], ["王芳"]),
        ([{"1": "王芳", "2": "张伟", "active": "true", "mobile": "null", "score": "4.5"}], ["王芳", "张伟"]),
        ([{"1": "王芳", "department": '{"id":"d-17"}'}, {"1": "王芳"}], ["王芳"]),
        ([{"userId": "1"}], ["1"]),
        ([], []),
        (None, []),
    ],
)
def test_persons_are_read_from_either_shape_without_what_is_no_person(maps, expected):
    assert [person.name for person in events_module.persons({"approverMap": maps}, "approverMap")] == expected
    assert all(isinstance(person, Person) for person in events_module.persons({"approverMap": maps}, "approverMap"))


def test_a_store_forgets_the_oldest_first(tmp_path):
    marks = [events_module.Mark(bytes([number])) for number in range(5)]
    with SqliteStore(tmp_path / "seen.db", most=3) as durable:
        for store in (durable, MemoryStore(3)):
            for mark in marks:
                store.add([mark], [])
            assert [store.knows(mark) for mark in marks] == [False, False, True, True, True]


def test_a_file_that_is_no_store_is_said(tmp_path):
    (tmp_path / "seen.db").write_text("no database at all, and long enough to look at" * 50)
    with pytest.raises(ConfigurationError, match=r"seen\.db cannot be opened"):
        SqliteStore(tmp_path / "seen.db")
