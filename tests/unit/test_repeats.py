"""A repeat inside the window is recognised; what was refused, or is too old, is not."""

import asyncio
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from connector.delivery.completion import Completion, Durability
from connector.delivery.duplicates import DedupState, Duplicates, DuplicatesFile, dedup_key_of
from connector.errors import Unavailable
from tests.waiting import PATIENCE_SECONDS, equals, until

ONE = dedup_key_of("message", "default", "m-1", b"a" * 16)
OTHER_CONTENT = dedup_key_of("message", "default", "m-1", b"b" * 16)
WINDOW = 3600.0


class Clock:
    """A monotonic clock that is set by hand, in seconds."""

    def __init__(self, monkeypatch):
        self.seconds = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def index(max_entries=1000):
    return Duplicates(window_seconds=WINDOW, max_entries=max_entries)


def numbered(count, start=0):
    return [dedup_key_of("message", "default", f"m-{number}", b"a" * 16) for number in range(start, start + count)]


def test_the_mark_is_of_kind_source_id_and_content():
    keys = {
        ONE,
        OTHER_CONTENT,
        dedup_key_of("dead letter", "default", "m-1", b"a" * 16),
        dedup_key_of("message", "hr", "m-1", b"a" * 16),
        dedup_key_of("message", "default", "m-2", b"a" * 16),
        dedup_key_of("message", "defaultm", "-1", b"a" * 16),
    }

    assert len(keys) == 6
    assert dedup_key_of("message", "default", "m-1", b"a" * 16) == ONE


def test_what_was_never_seen_is_new():
    assert index().dedup_state(ONE) is DedupState.NEW


def test_a_mark_is_forgotten_after_the_window_even_when_nothing_else_comes(clock):
    duplicates = index()
    duplicates.remember([ONE])
    clock.seconds += WINDOW
    assert duplicates.dedup_state(ONE) is DedupState.SAFE
    clock.seconds += WINDOW / 10
    assert duplicates.dedup_state(ONE) is DedupState.NEW
    assert len(duplicates) == 0


def test_what_is_safe_is_a_repeat_and_with_other_content_a_conflict():
    duplicates = index()
    duplicates.remember([ONE])

    assert duplicates.dedup_state(ONE) is DedupState.SAFE
    assert duplicates.dedup_state(OTHER_CONTENT) is DedupState.CONFLICT


def test_an_id_with_two_contents_is_a_repeat_of_both():
    duplicates = index()
    duplicates.remember([ONE, OTHER_CONTENT])

    assert duplicates.dedup_state(ONE) is duplicates.dedup_state(OTHER_CONTENT) is DedupState.SAFE


def test_an_id_with_endless_contents_takes_bounded_memory():
    duplicates = index()
    contents = [dedup_key_of("message", "default", "m-1", number.to_bytes(16)) for number in range(1000)]
    duplicates.remember(contents)

    assert duplicates.dedup_state(contents[-1]) is DedupState.SAFE
    assert sum(len(one.keys.get(ONE[0], ())) for one in duplicates._buckets) <= 8 * 16


def test_a_repeat_joins_the_one_that_is_on_its_way():
    duplicates = index()
    completion = Completion()
    duplicates.begin(ONE, completion)

    assert duplicates.dedup_state(ONE) is DedupState.PENDING
    assert duplicates.completion_of(ONE) is completion
    completion.complete(Durability.PUBLISHED)
    assert duplicates.dedup_state(ONE) is DedupState.SAFE
    assert duplicates.take_unwritten() == [ONE]
    assert duplicates.take_unwritten() == []


def test_other_content_is_a_conflict_while_the_first_is_on_its_way():
    duplicates = index()
    first, second = Completion(), Completion()
    duplicates.begin(ONE, first)
    dedup_state = duplicates.dedup_state(OTHER_CONTENT)
    duplicates.begin(OTHER_CONTENT, second)

    assert dedup_state is DedupState.CONFLICT
    assert duplicates.completion_of(ONE) is first
    assert duplicates.completion_of(OTHER_CONTENT) is second


def test_what_was_refused_is_forgotten():
    duplicates = index()
    completion = Completion()
    duplicates.begin(ONE, completion)
    completion.complete(Unavailable("full"))

    assert duplicates.dedup_state(ONE) is duplicates.dedup_state(OTHER_CONTENT) is DedupState.NEW
    assert duplicates.take_unwritten() == []
    with pytest.raises(KeyError):
        duplicates.completion_of(ONE)


@pytest.mark.parametrize("step", [1.0, WINDOW / 15, WINDOW / 2, WINDOW])
def test_a_mark_is_remembered_for_the_whole_window(clock, step):
    duplicates = index(max_entries=1_000_000)
    clock.seconds += WINDOW / 15 - 0.001
    duplicates.remember([ONE])
    ends = clock.seconds + WINDOW
    for number in range(int(WINDOW / step)):
        clock.seconds = min(clock.seconds + step, ends)
        duplicates.remember(numbered(1, start=10 + number))

    assert duplicates.dedup_state(ONE) is DedupState.SAFE


def test_a_mark_is_forgotten_some_time_after_the_window(clock):
    duplicates = index()
    duplicates.remember([ONE])
    for number in range(17):
        clock.seconds += WINDOW / 15
        duplicates.remember(numbered(1, start=10 + number))

    assert duplicates.dedup_state(ONE) is DedupState.NEW


def test_the_index_is_bounded_and_forgets_the_oldest_first():
    duplicates = index(max_entries=160)
    keys = numbered(1000)
    duplicates.remember(keys)
    known = [duplicates.dedup_state(one) is DedupState.SAFE for one in keys]

    assert 150 <= len(duplicates) <= 160
    assert known == sorted(known)
    assert known[-150:] == [True] * 150


# --- on disk ---


async def kept(path, *keys):
    """Start on a file, see which marks are known, add them all, stop."""
    duplicates = index()
    file = DuplicatesFile(path, duplicates)
    await file.start()
    known = [duplicates.dedup_state(one) for one in keys]
    for one in keys:
        completion = Completion()
        duplicates.begin(one, completion)
        completion.complete(Durability.PUBLISHED)
    await file.stop()
    return known


async def test_the_index_survives_a_restart(tmp_path):
    path = tmp_path / "repeats"

    assert await kept(path, ONE) == [DedupState.NEW]
    assert await kept(path, ONE, OTHER_CONTENT) == [DedupState.SAFE, DedupState.CONFLICT]


async def test_the_index_is_written_behind_while_the_connector_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("connector.delivery.duplicates._WRITE_SECONDS", 0.01)
    duplicates = index()
    file = DuplicatesFile(tmp_path / "repeats", duplicates)
    await file.start()
    completion = Completion()
    duplicates.begin(ONE, completion)
    completion.complete(Durability.PUBLISHED)
    reading = sqlite3.connect(tmp_path / "repeats")
    await until(lambda: reading.execute("SELECT id, fingerprint FROM mark").fetchall(), equals([ONE]))
    reading.close()
    await file.stop()


async def test_the_last_keys_are_written_behind_a_write_that_is_under_way(tmp_path, monkeypatch):
    """The connection is one thread's: a second one on it would lose the keys."""
    monkeypatch.setattr("connector.delivery.duplicates._WRITE_SECONDS", 0)
    duplicates = index()
    file = DuplicatesFile(tmp_path / "repeats", duplicates)
    append, begun, may_end, at_once = file._append, threading.Event(), threading.Event(), []

    def slow(keys):
        at_once.append(at_once[-1:] == ["begun"])
        at_once.append("begun")
        begun.set()
        may_end.wait(PATIENCE_SECONDS)
        append(keys)
        at_once.append("ended")

    monkeypatch.setattr(file, "_append", slow)
    await file.start()
    await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
    duplicates.remember([ONE])
    duplicates._unwritten.append(ONE)
    stopping = asyncio.create_task(file.stop())
    await asyncio.sleep(0.1)
    may_end.set()
    await stopping

    assert True not in at_once
    with closing(sqlite3.connect(tmp_path / "repeats")) as reading:
        assert ONE in reading.execute("SELECT id, fingerprint FROM mark").fetchall()


async def test_what_is_older_than_the_window_is_not_read_back_and_leaves_the_file(tmp_path, monkeypatch):
    path = tmp_path / "repeats"
    await kept(path, ONE)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + WINDOW + 2)

    assert await kept(path, numbered(1, start=7)[0], ONE) == [DedupState.NEW, DedupState.NEW]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM mark").fetchone() == (2,)
    database.close()


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\x00" + bytes(4000)])
async def test_a_file_that_is_not_readable_is_replaced_by_an_empty_one(tmp_path, content):
    path = tmp_path / "repeats"
    path.write_bytes(content)

    assert await kept(path, ONE) == [DedupState.NEW]
    assert await kept(path, ONE) == [DedupState.SAFE]


async def test_a_file_that_was_scrambled_is_replaced_by_an_empty_one(tmp_path):
    path = tmp_path / "repeats"
    await kept(path, *numbered(3000))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    path.write_bytes(content)

    assert await kept(path, ONE) == [DedupState.NEW]
    assert await kept(path, ONE) == [DedupState.SAFE]


async def test_the_file_is_for_its_owner_only(tmp_path):
    await kept(tmp_path / "repeats", ONE)

    assert (tmp_path / "repeats").stat().st_mode & 0o777 == 0o600
