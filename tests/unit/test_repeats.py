"""A repeat inside the window is recognised; what was refused, or is too old, is not."""

import asyncio
import sqlite3
import time

import pytest

from connector.errors import Unavailable
from connector.lanes import Fate, Safety
from connector.repeats import Repeats, RepeatsFile, Standing, mark

ONE = mark("message", "default", "m-1", b"a" * 16)
OTHER_CONTENT = mark("message", "default", "m-1", b"b" * 16)
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
    return Repeats(window_seconds=WINDOW, max_entries=max_entries)


def numbered(count, start=0):
    return [mark("message", "default", f"m-{number}", b"a" * 16) for number in range(start, start + count)]


def test_the_mark_is_of_kind_source_id_and_content():
    marks = {
        ONE,
        OTHER_CONTENT,
        mark("dead letter", "default", "m-1", b"a" * 16),
        mark("message", "hr", "m-1", b"a" * 16),
        mark("message", "default", "m-2", b"a" * 16),
        mark("message", "defaultm", "-1", b"a" * 16),
    }

    assert len(marks) == 6
    assert mark("message", "default", "m-1", b"a" * 16) == ONE


def test_what_was_never_seen_is_new():
    assert index().standing(ONE) is Standing.NEW


def test_a_mark_is_forgotten_after_the_window_even_when_nothing_else_comes(clock):
    repeats = index()
    repeats.remember([ONE])
    clock.seconds += WINDOW
    assert repeats.standing(ONE) is Standing.SAFE
    clock.seconds += WINDOW / 10
    assert repeats.standing(ONE) is Standing.NEW
    assert len(repeats) == 0


def test_what_is_safe_is_a_repeat_and_with_other_content_a_conflict():
    repeats = index()
    repeats.remember([ONE])

    assert repeats.standing(ONE) is Standing.SAFE
    assert repeats.standing(OTHER_CONTENT) is Standing.CONFLICT


def test_an_id_with_two_contents_is_a_repeat_of_both():
    repeats = index()
    repeats.remember([ONE, OTHER_CONTENT])

    assert repeats.standing(ONE) is repeats.standing(OTHER_CONTENT) is Standing.SAFE


def test_an_id_with_endless_contents_takes_bounded_memory():
    repeats = index()
    contents = [mark("message", "default", "m-1", number.to_bytes(16)) for number in range(1000)]
    repeats.remember(contents)

    assert repeats.standing(contents[-1]) is Standing.SAFE
    assert sum(len(one.marks.get(ONE[0], ())) for one in repeats._generations) <= 8 * 16


def test_a_repeat_joins_the_one_that_is_on_its_way():
    repeats = index()
    fate = Fate()
    repeats.begin(ONE, fate)

    assert repeats.standing(ONE) is Standing.PENDING
    assert repeats.outcome(ONE) is fate
    fate.decide(Safety.PUBLISHED)
    assert repeats.standing(ONE) is Standing.SAFE
    assert repeats.take_unwritten() == [ONE]
    assert repeats.take_unwritten() == []


def test_other_content_is_a_conflict_while_the_first_is_on_its_way():
    repeats = index()
    first, second = Fate(), Fate()
    repeats.begin(ONE, first)
    standing = repeats.standing(OTHER_CONTENT)
    repeats.begin(OTHER_CONTENT, second)

    assert standing is Standing.CONFLICT
    assert repeats.outcome(ONE) is first
    assert repeats.outcome(OTHER_CONTENT) is second


def test_what_was_refused_is_forgotten():
    repeats = index()
    fate = Fate()
    repeats.begin(ONE, fate)
    fate.decide(Unavailable("full"))

    assert repeats.standing(ONE) is repeats.standing(OTHER_CONTENT) is Standing.NEW
    assert repeats.take_unwritten() == []
    with pytest.raises(KeyError):
        repeats.outcome(ONE)


@pytest.mark.parametrize("step", [1.0, WINDOW / 15, WINDOW / 2, WINDOW])
def test_a_mark_is_remembered_for_the_whole_window(clock, step):
    repeats = index(max_entries=1_000_000)
    clock.seconds += WINDOW / 15 - 0.001
    repeats.remember([ONE])
    ends = clock.seconds + WINDOW
    for number in range(int(WINDOW / step)):
        clock.seconds = min(clock.seconds + step, ends)
        repeats.remember(numbered(1, start=10 + number))

    assert repeats.standing(ONE) is Standing.SAFE


def test_a_mark_is_forgotten_some_time_after_the_window(clock):
    repeats = index()
    repeats.remember([ONE])
    for number in range(17):
        clock.seconds += WINDOW / 15
        repeats.remember(numbered(1, start=10 + number))

    assert repeats.standing(ONE) is Standing.NEW


def test_the_index_is_bounded_and_forgets_the_oldest_first():
    repeats = index(max_entries=160)
    marks = numbered(1000)
    repeats.remember(marks)
    known = [repeats.standing(one) is Standing.SAFE for one in marks]

    assert 150 <= len(repeats) <= 160
    assert known == sorted(known)
    assert known[-150:] == [True] * 150


# --- on disk ---


async def kept(path, *marks):
    """Start on a file, see which marks are known, add them all, stop."""
    repeats = index()
    file = RepeatsFile(path, repeats)
    await file.start()
    known = [repeats.standing(one) for one in marks]
    for one in marks:
        fate = Fate()
        repeats.begin(one, fate)
        fate.decide(Safety.PUBLISHED)
    await file.stop()
    return known


async def test_the_index_survives_a_restart(tmp_path):
    path = tmp_path / "repeats"

    assert await kept(path, ONE) == [Standing.NEW]
    assert await kept(path, ONE, OTHER_CONTENT) == [Standing.SAFE, Standing.CONFLICT]


async def test_the_index_is_written_behind_while_the_connector_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("connector.repeats._WRITE_SECONDS", 0.01)
    repeats = index()
    file = RepeatsFile(tmp_path / "repeats", repeats)
    await file.start()
    fate = Fate()
    repeats.begin(ONE, fate)
    fate.decide(Safety.PUBLISHED)
    await asyncio.sleep(0.2)
    copied = sqlite3.connect(tmp_path / "repeats").execute("SELECT id, fingerprint FROM mark").fetchall()
    await file.stop()

    assert copied == [ONE]


async def test_what_is_older_than_the_window_is_not_read_back_and_leaves_the_file(tmp_path, monkeypatch):
    path = tmp_path / "repeats"
    await kept(path, ONE)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + WINDOW + 2)

    assert await kept(path, numbered(1, start=7)[0], ONE) == [Standing.NEW, Standing.NEW]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM mark").fetchone() == (2,)
    database.close()


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\x00" + bytes(4000)])
async def test_a_file_that_is_not_readable_is_replaced_by_an_empty_one(tmp_path, content):
    path = tmp_path / "repeats"
    path.write_bytes(content)

    assert await kept(path, ONE) == [Standing.NEW]
    assert await kept(path, ONE) == [Standing.SAFE]


async def test_a_file_that_was_scrambled_is_replaced_by_an_empty_one(tmp_path):
    path = tmp_path / "repeats"
    await kept(path, *numbered(3000))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    path.write_bytes(content)

    assert await kept(path, ONE) == [Standing.NEW]
    assert await kept(path, ONE) == [Standing.SAFE]


async def test_the_file_is_for_its_owner_only(tmp_path):
    await kept(tmp_path / "repeats", ONE)

    assert (tmp_path / "repeats").stat().st_mode & 0o777 == 0o600
