"""A journal that is not as it was written: what can be saved is saved, the rest is counted and set aside."""

import asyncio
import contextlib
import os
import random
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path

import apsw
import pytest

from connector.errors import ConfigurationError
from connector.journal.model import Account, Admission, Contents
from connector.journal.recovery import salvage
from connector.journal.sqlite import SqliteJournal
from connector.values import ProducibleRecord, Request
from tests.integration.test_journal import LIMIT, opened

PAGE = 4096
ROWS = 400


def admission(sequence: int) -> Admission:
    """Rows of very different sizes, some over several pages, all different."""
    body = random.Random(sequence).randbytes(sequence * 37 % 9_000)
    request = Request("default", body, "application/json", 1_763_000_000_000 + sequence)
    lane = f"lane-{sequence % 20}"
    record = ProducibleRecord("events", "t", lane.encode(), body[:50], (("h", b"1"),), request.received_at)
    return Admission(sequence, lane, request, (record,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def backlog(path: Path) -> Path:
    """A journal from which every third row was removed, closed in good order."""
    async with opened(path) as journal:
        await journal.write_note("ingest_floor", 77)
        await asyncio.gather(*(journal.store(admission(number)) for number in range(1, ROWS + 1)))
        await asyncio.gather(*(journal.remove(number) for number in range(3, ROWS + 1, 3)))
    return path


WAITING = {number for number in range(1, ROWS + 1) if number % 3}


async def read(path: Path) -> tuple[Contents, dict[int, Admission]]:
    """What the journal gives back, however it was found."""
    journal = SqliteJournal(path, max_bytes=LIMIT)
    contents = await journal.open()
    try:
        return contents, {one.sequence: one for lane in await journal.first_rows("", 10_000, 10_000) for one in lane}
    finally:
        await journal.close()


def set_aside(path: Path) -> list[Path]:
    return salvage.set_aside_files(path)


def scramble(path: Path, *numbers: int) -> None:
    with path.open("r+b") as file:
        for number in numbers:
            file.seek((number - 1) * PAGE)
            file.write(os.urandom(PAGE))


def pages_of(path: Path, kind: str) -> list[int]:
    """The numbers of the pages that a table or index takes."""
    database = apsw.Connection(str(path))
    found = [row[0] for row in database.execute("SELECT pageno FROM dbstat WHERE name = ?", (kind,))]
    database.close()
    return found


async def assert_saved(path: Path, *, at_most_lost: int) -> int:
    """Every row that is there is whole, the missing ones are counted, and the next opening finds nothing wrong."""
    contents, rows = await read(path)
    lost = len(WAITING) - len(rows)

    assert rows == {number: admission(number) for number in rows}
    assert set(rows) <= WAITING
    assert lost <= at_most_lost
    assert contents.accounts["default"] == Account(ROWS, ROWS - len(WAITING), 0, lost)
    assert len(set_aside(path)) == 1
    assert (await read(path))[1] == rows
    assert len(set_aside(path)) == 1, "a salvaged journal is not damaged"
    return lost


@pytest.mark.parametrize("number", [1, 2, 5, 40])
async def test_a_scrambled_page_costs_no_row_but_its_own(backlog, number, seed):
    random.seed(seed)
    scramble(backlog, number)
    backlog.with_name("journal.db.repeats").touch()

    await assert_saved(backlog, at_most_lost=20)


async def test_scrambled_indexes_and_inner_pages_cost_nothing(backlog):
    table, index = pages_of(backlog, "message"), pages_of(backlog, "message_by_lane")
    scramble(backlog, table[0], index[0])  # the roots: all that says where the rest is

    assert await assert_saved(backlog, at_most_lost=0) == 0


async def test_many_scrambled_pages_are_survived(backlog, seed):
    chance = random.Random(seed)
    pages = backlog.stat().st_size // PAGE
    scramble(backlog, *chance.sample(range(1, pages + 1), pages // 3))
    backlog.with_name("journal.db.repeats").touch()

    contents, rows = await read(backlog)

    assert rows == {number: admission(number) for number in rows}
    assert contents.sources.get("default", 0) == len(rows) <= len(WAITING)
    assert len(set_aside(backlog)) == 1


async def test_one_changed_byte_in_a_message_is_found(backlog):
    body = admission(ROWS).request.body
    content = backlog.read_bytes()
    place = content.index(body[:200])
    backlog.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])

    assert await assert_saved(backlog, at_most_lost=1) == 1


async def test_text_that_is_no_text_any_more_is_damage(backlog):
    content = backlog.read_bytes()
    place = content.index(b"lane-7default")
    backlog.write_bytes(content[:place] + b"\xff" + content[place + 1 :])

    assert await assert_saved(backlog, at_most_lost=1) == 1


async def test_a_journal_over_a_limit_that_was_lowered_since_loses_nothing(backlog):
    scramble(backlog, pages_of(backlog, "message")[0])

    journal = SqliteJournal(backlog, max_bytes=1024)
    contents = await journal.open()
    await journal.close()

    assert contents.sources == {"default": len(WAITING)}


async def test_a_truncated_file_gives_back_what_is_left(backlog):
    size = backlog.stat().st_size
    os.truncate(backlog, size // 2 // PAGE * PAGE)

    contents, rows = await read(backlog)

    assert rows == {number: admission(number) for number in rows}
    assert contents.accounts["default"].lost == len(WAITING) - len(rows)
    assert 0 < len(rows) < len(WAITING)


async def test_the_reserved_ids_are_saved_too(backlog):
    scramble(backlog, pages_of(backlog, "message")[0])
    async with opened(backlog) as journal:
        assert await journal.read_note("ingest_floor") == 77


async def test_only_so_many_damaged_files_are_kept(backlog):
    made = []
    for _ in range(salvage.MAX_SET_ASIDE + 2):
        scramble(backlog, pages_of(backlog, "message")[0])
        await read(backlog)
        made.append(set_aside(backlog)[-1])

    assert set_aside(backlog) == made[-salvage.MAX_SET_ASIDE :]


async def test_a_loss_is_reported_until_the_damaged_files_are_removed(backlog):
    scramble(backlog, pages_of(backlog, "message")[-1])
    contents, rows = await read(backlog)
    lost = len(WAITING) - len(rows)
    assert contents.accounts["default"].lost == lost > 0

    for file in backlog.parent.glob("*.damaged-*"):
        file.unlink()
    contents, _ = await read(backlog)

    assert contents.accounts["default"] == Account(ROWS - lost, ROWS - len(WAITING))


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["replace", "hardlink_to", "unlink"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_salvage_that_is_cut_short_is_ended_by_the_next_start(backlog, monkeypatch, step, number):
    scramble(backlog, pages_of(backlog, "message")[0])

    with monkeypatch.context() as patched:
        patched.setattr(Path, step, crashing(getattr(Path, step), number))
        with contextlib.suppress(Crash):
            await read(backlog)

    _, rows = await read(backlog)
    assert set(rows) == WAITING


def crashing(real: Callable[..., object], at: int) -> Callable[..., object]:
    """The function, but for one call, which does not come back."""
    calls = count(1)

    def step(*arguments: object, **options: object) -> object:
        if next(calls) == at:
            raise Crash
        return real(*arguments, **options)

    return step


# --- the write-ahead log ---


async def left_by_a_crash(path: Path, commits: int) -> tuple[bytes, bytes]:
    """Database and log of a process that ended after so many commits of ten rows each."""
    journal = SqliteJournal(path, max_bytes=LIMIT)
    await journal.open()
    for commit in range(commits):
        await asyncio.gather(*(journal.store(admission(commit * 10 + number)) for number in range(1, 11)))
    left = contents_of(path)
    await journal.close()
    return left


def contents_of(path: Path) -> tuple[bytes, bytes]:
    return path.read_bytes(), path.with_name("journal.db-wal").read_bytes()


def lay_down(folder: Path, database: bytes, log: bytes) -> Path:
    path = folder / "left" / "journal.db"
    path.parent.mkdir()
    path.write_bytes(database)
    path.with_name("journal.db-wal").write_bytes(log)
    return path


def commit_ends(log: bytes) -> list[int]:
    """Where in the log the frames end that end a transaction."""
    (size,) = struct.unpack(">I", log[8:12])
    starts = range(32, len(log), 24 + size)
    return [start + 24 + size for start in starts if log[start + 4 : start + 8] != bytes(4)]


@pytest.mark.parametrize(
    "tear",
    [
        lambda log, end: log[: end + 1000],
        lambda log, end: log[:end] + os.urandom(len(log) - end),
        lambda log, end: log[:end] + bytes(len(log) - end),
        lambda log, end: log[: end + 30] + os.urandom(100) + log[end + 130 :],
    ],
    ids=["cut", "garbage", "zeros", "one frame"],
)
async def test_a_torn_tail_costs_only_what_was_not_answered(path, tear: Callable[[bytes, int], bytes]):
    database, log = await left_by_a_crash(path, 5)
    end = commit_ends(log)[-2]

    torn = lay_down(path.parent, database, tear(log, end))
    contents, rows = await read(torn)

    assert set(rows) >= set(range(1, 41))
    assert contents.accounts == {"default": Account(accepted=len(rows))}
    assert set_aside(torn) == [], "what a crash leaves is no damage"


async def test_a_broken_frame_under_later_commits_is_damage(path):
    """SQLite would silently end the log there; the commits behind it had been answered."""
    database, log = await left_by_a_crash(path, 6)
    second, third = commit_ends(log)[1:3]

    broken = lay_down(path.parent, database, log[: second + 24] + os.urandom(third - second - 24) + log[third:])
    contents, rows = await read(broken)

    assert set(rows) >= set(range(31, 61)), "what was committed later is saved"
    assert contents.accounts == {"default": Account(60, lost=60 - len(rows))}
    assert rows == {number: admission(number) for number in rows}
    assert len(set_aside(broken)) == 1


async def test_an_emptied_database_with_a_log_is_salvaged_from_the_log(path):
    _, log = await left_by_a_crash(path, 5)

    _, rows = await read(lay_down(path.parent, b"", log))

    assert set(rows) == set(range(1, 51))


# --- other versions, other files ---


@pytest.mark.parametrize("version", [1, 99])
async def test_a_file_of_another_format_is_not_touched(path, version):
    async with opened(path):
        pass
    database = apsw.Connection(str(path))
    database.pragma("user_version", version)
    database.close()
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=rf"WEDA_JOURNAL__PATH.*format {version}"):
        await SqliteJournal(path, max_bytes=LIMIT).open()
    assert path.read_bytes() == before
    assert set_aside(path) == []


async def test_the_database_of_another_program_is_not_touched(path):
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE recipe (name TEXT); INSERT INTO recipe VALUES ('soup')")
    other.close()
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=r"WEDA_JOURNAL__PATH.*another program"):
        await SqliteJournal(path, max_bytes=LIMIT).open()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_journal_is_not_touched_and_stops_the_start_with_one_line(path):
    path.write_bytes(b"this is no database at all, but it is long enough" * 100)
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=r"WEDA_JOURNAL__PATH.*no journal") as refusal:
        await SqliteJournal(path, max_bytes=LIMIT).open()
    assert "\n" not in refusal.value.message
    assert path.read_bytes() == before
    assert {one.name for one in path.parent.iterdir()} == {"journal.db", "journal.db.lock"}


async def test_damage_to_an_open_journal_is_reported_to_its_owner_once(backlog):
    reported = []
    journal = SqliteJournal(backlog, max_bytes=LIMIT, on_damage=lambda: reported.append(1))
    await journal.open()
    scramble(backlog, *pages_of_open(backlog))

    for _ in range(3):
        with pytest.raises(Exception, match="damaged"):
            await journal.first_rows("", 10_000, 10_000)
    with pytest.raises(Exception, match="damaged"):
        await journal.remove(1)
    await journal.close()

    assert reported == [1]
    _, rows = await read(backlog)
    assert rows == {number: admission(number) for number in rows}


def pages_of_open(path: Path) -> range:
    """All but the first pages, which SQLite has in memory."""
    return range(10, path.stat().st_size // PAGE + 1)
