"""The journal on a disk whose power fails: what had returned is there, the rest is there as a whole or not at all.

Two ways to look at it: the file alone, and the journal with its thread, where answers are what counts. That the model
finds what is wrong is shown by journals that leave out a sync.
"""

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import apsw
import hypothesis
import pytest
import structlog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connector.errors import ConfigurationError, OutcomeUnknown, Unavailable
from connector.journal import file, sqlite
from connector.journal.file import JournalFile, StoredRow
from connector.journal.model import Account, Admission
from connector.journal.recovery import salvage
from connector.journal.sqlite import SqliteJournal
from connector.values import ProducibleRecord, Request
from tests.properties.crash_disk import CrashDisk, Fault
from tests.waiting import PATIENCE_SECONDS

HISTORIES: Final = int(os.environ.get("WEDA_TEST_HISTORIES", "600"))
"""How many histories of the file are played; those of the whole journal are a sixth of it."""

MAX_BYTES: Final = 512 * 1024
"""So small that the write-ahead log is moved into the database every few transactions (64 KiB)."""

SOURCES: Final = ("a", "b")
_TROUBLED_SECONDS: Final = 0.05
ANY_CHANCE: Final = st.integers(0, 2**32 - 1)
ANY_FAULT: Final = st.sampled_from(list(Fault))


@dataclass(frozen=True)
class Trouble:
    """What happens to the disk during a step: so many operations later one fails, or every one from then on."""

    after: int
    fault: Fault
    lasts: bool = False


ANY_TROUBLE: Final = st.none() | st.builds(Trouble, st.integers(0, 9), ANY_FAULT, lasts=st.booleans())


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that is to be had: what survives is the model's affair, not the machine's."""
    memory = Path("/dev/shm")
    made = tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None)
    yield Path(made)
    shutil.rmtree(made)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that reopens a failed file at once, and does not tell of it."""
    silent = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    monkeypatch.setattr(sqlite, "_REOPEN_SECONDS", 0.001)
    monkeypatch.setattr(sqlite, "_LOG", silent)
    monkeypatch.setattr(file, "_LOG", silent)


def played(
    check: Callable[..., None], strategy: st.SearchStrategy[Any], seed: int, histories: int, **options: Any
) -> None:
    """Play so many histories from a seed."""

    @settings(max_examples=histories, suppress_health_check=list(HealthCheck), **options)
    @hypothesis.seed(seed)
    @given(history=strategy)
    def play(history: Any) -> None:
        check(history)

    play()


# --- the file ---


@dataclass
class State:
    """What a journal's file holds."""

    rows: dict[int, StoredRow] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    remembered: int = 0

    @staticmethod
    def of(file: JournalFile) -> "State":
        """What can be read of it."""
        rows = {row.sequence: row for row in file.rows()}
        return State(rows, file.accounts(), file.read_note("floor"))

    def count(self, source: str, *, accepted: int = 0, published: int = 0, dead_lettered: int = 0) -> None:
        before = self.accounts.get(source, Account())
        self.accounts[source] = before.plus(accepted=accepted, published=published, dead_lettered=dead_lettered)

    @property
    def is_balanced(self) -> bool:
        """accepted = published + dead-lettered + rows, for each source."""
        rows = dict.fromkeys(self.accounts, 0)
        for row in self.rows.values():
            rows[row.source] = rows.get(row.source, 0) + 1
        known = {name: one.accepted - one.published - one.dead_lettered for name, one in self.accounts.items()}
        return known == rows and not any(one.lost for one in self.accounts.values())


@dataclass(frozen=True)
class Insert:
    size: int
    lane: int

    def run(self, state: State) -> Callable[[JournalFile], Any]:
        sequence = max([*state.rows, 0]) + 1
        source = SOURCES[self.lane % 2]
        content = Random(sequence + self.size).randbytes(self.size)
        row = StoredRow(sequence, f"lane-{self.lane}", source, 1_763_000_000_000, content).sealed()
        state.rows[sequence] = row
        state.count(source, accepted=1)
        return partial(JournalFile.insert, row=row)


@dataclass(frozen=True)
class Delete:
    which: int

    def run(self, state: State) -> Callable[[JournalFile], Any]:
        sequence = _chosen(state, self.which)
        row = state.rows.pop(sequence, None)
        if row is not None:
            state.count(row.source, published=1)
        return partial(JournalFile.delete, sequence=sequence)


@dataclass(frozen=True)
class Disown:
    which: int

    def run(self, state: State) -> Callable[[JournalFile], Any]:
        sequence = _chosen(state, self.which)
        row = state.rows.pop(sequence, None)
        if row is not None:
            state.count(row.source, accepted=-1)
        return partial(JournalFile.undo_insert, sequence=sequence)


@dataclass(frozen=True)
class Replace:
    which: int
    size: int
    buries: bool

    def run(self, state: State) -> Callable[[JournalFile], Any]:
        sequence = _chosen(state, self.which)
        before = state.rows.get(sequence, StoredRow(sequence, "none", "a", 0, b""))
        lane = f"dead-letter/{sequence}" if self.buries else before.lane
        row = before._replace(lane=lane, content=bytes(self.size)).sealed()
        if sequence in state.rows:
            state.rows[sequence] = row
            if lane != before.lane:
                state.count(row.source, accepted=1, dead_lettered=1)
        return partial(JournalFile.replace, row=row)


@dataclass(frozen=True)
class PublishedDirectly:
    count: int

    def run(self, state: State) -> Callable[[JournalFile], Any]:
        source = SOURCES[self.count % 2]
        state.count(source, accepted=self.count, published=self.count)
        return partial(JournalFile.add_direct, source=source, published=self.count)


@dataclass(frozen=True)
class Remember:
    value: int

    def run(self, state: State) -> Callable[[JournalFile], Any]:
        state.remembered = self.value
        return partial(JournalFile.write_note, name="floor", value=self.value)


def _chosen(state: State, which: int) -> int:
    """One of the rows there are; now and then one that there is not."""
    known = [*sorted(state.rows), 10_000]
    return known[which % len(known)]


@dataclass(frozen=True)
class Commit:
    """One transaction, which may meet trouble; then the log is moved if it is long."""

    changes: tuple[Any, ...]
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Reopen:
    """A stop in good order and a start, either of which may meet trouble."""

    trouble: Trouble | None = None


@dataclass(frozen=True)
class Crash:
    """The power fails while nothing is going on; the start may meet trouble."""

    trouble: Trouble | None = None


SIZES = st.sampled_from([10, 300, 2_000, 9_000])
PICKS = st.integers(0, 9)
CHANGES = st.one_of(
    st.builds(Insert, SIZES, st.integers(0, 5)),
    st.builds(Insert, SIZES, st.integers(0, 5)),
    st.builds(Delete, PICKS),
    st.builds(Replace, PICKS, SIZES, st.booleans()),
    st.builds(PublishedDirectly, st.integers(1, 9)),
    st.builds(Remember, st.integers(0, 99)),
    st.builds(Disown, PICKS),
)
FILE_STEPS = st.one_of(
    st.builds(Commit, st.lists(CHANGES, min_size=1, max_size=6).map(tuple), ANY_TROUBLE),
    st.builds(Reopen, ANY_TROUBLE),
    st.builds(Crash, ANY_TROUBLE),
)
FILE_HISTORIES = st.tuples(ANY_CHANCE, st.lists(FILE_STEPS, min_size=1, max_size=40))


class FileOnDisk:
    """A journal's file through starts, stops, failures and power cuts, and what it may hold.

    Args:
        folder: An empty folder.
        chance: Decides what survives a power cut.
        open_file: Opens the file on a file system.
    """

    def __init__(self, folder: Path, chance: int, open_file: Callable[[Path, str], JournalFile]) -> None:
        self.path = folder / "journal.db"
        self.disk = CrashDisk(folder, Random(chance))
        self.possible = [State()]
        self._open_file = open_file
        self._mount = self.disk.mounted()
        self._vfs = self._mount.__enter__()
        self._file = self._opened()

    def play(self, step: Any) -> None:
        """One step; afterwards the file is open, and holds what is possible."""
        match step:
            case Commit(changes, trouble):
                self._commit(changes, trouble)
            case Reopen(trouble):
                self._beset(trouble)
                with suppress(apsw.Error):
                    self._file.close()
                self._start()
            case Crash(trouble):
                self.disk.is_off = True
                self._start(trouble)

    def end(self) -> None:
        """Give everything back."""
        self.disk.is_off = True
        self._file.abandon()
        self._mount.__exit__(None, None, None)

    def _commit(self, changes: Sequence[Any], trouble: Trouble | None) -> None:
        after = deepcopy(self.possible[0])
        runs = [change.run(after) for change in changes]
        self._beset(trouble)
        try:
            outcomes = self._file.transact(runs)
        except apsw.Error:
            self.possible.append(after)
            self._start()
            return
        if any(isinstance(outcome, Unavailable) for outcome in outcomes):
            after = State.of(self._file)  # some had no room: the file's own affair
        self.possible = [after]
        try:
            self._file.checkpoint()
        except apsw.Error:
            self._start()

    def _start(self, trouble: Trouble | None = None) -> None:
        """After whatever happened: a restart where the power failed, else the file opened again once the disk works."""
        self._file.abandon()
        self._opened_in(trouble)
        assert salvage.set_aside_files(self.path) == []

    def _opened_in(self, trouble: Trouble | None) -> None:
        self._restart()
        self._beset(trouble)
        try:
            self._file = self._opened()
        except (ConfigurationError, apsw.Error):
            self._restart()
            self._file = self._opened()
        self.disk.mend()

    def _restart(self) -> None:
        self.disk.mend()
        if self.disk.is_off:
            self._mount.__exit__(None, None, None)
            self.disk.crash()
            self._mount = self.disk.mounted()
            self._vfs = self._mount.__enter__()

    def _opened(self) -> JournalFile:
        file = self._open_file(self.path, self._vfs)
        try:
            file.verify()
            found = State.of(file)
        except BaseException:
            file.abandon()
            raise
        try:
            assert found in self.possible, "the file holds neither what was before the failure nor what was after it"
            assert found.is_balanced
        except AssertionError:
            file.abandon()
            raise
        self.possible = [found]
        return file

    def _beset(self, trouble: Trouble | None) -> None:
        if trouble is not None:
            self.disk.fail(trouble.after, trouble.fault, lasts=trouble.lasts)


def open_file(path: Path, vfs: str) -> JournalFile:
    return JournalFile(path, MAX_BYTES, vfs)


def check_file(folder: Path, opening: Callable[[Path, str], JournalFile], history: tuple[int, list[Any]]) -> None:
    chance, steps = history
    place = Path(tempfile.mkdtemp(dir=folder))
    on_disk = FileOnDisk(place, chance, opening)
    try:
        for step in [*steps, Crash()]:
            on_disk.play(step)
    finally:
        on_disk.end()
        shutil.rmtree(place)


def test_whatever_fails_the_file_holds_what_was_committed(folder: Path, seed: int) -> None:
    """P1: each transaction is on the disk as a whole once it returned, and never in part."""
    played(partial(check_file, folder, open_file), FILE_HISTORIES, seed, HISTORIES)


class Unsynced(JournalFile):
    """Trusts what it wrote before it is on the disk."""

    def _prepare(self, database: apsw.Connection) -> None:
        super()._prepare(database)
        database.pragma("synchronous", "off")


class TrustingItsLog(JournalFile):
    """Goes on in a log of which a failed sync may have left a part in memory alone."""

    def _secure_log(self) -> None:
        pass

    def _begin_log(self, database: apsw.Connection) -> None:
        pass


@pytest.mark.parametrize("defective", [Unsynced, TrustingItsLog])
def test_the_model_finds_a_sync_that_is_left_out(folder: Path, seed: int, defective: type[JournalFile]) -> None:
    def opening(path: Path, vfs: str) -> JournalFile:
        return defective(path, MAX_BYTES, vfs)

    with pytest.raises(AssertionError, match="neither what was before"):
        played(
            partial(check_file, folder, opening),
            FILE_HISTORIES,
            seed,
            2_000,
            phases=[Phase.generate],
            report_multiple_bugs=False,
        )


# --- the journal with its thread: what was answered is what counts ---


@dataclass
class Promise:
    """What was asked of the journal about one message, and what it answered.

    Attributes:
        versions: What the row may hold: as admitted or, once that was asked, as amended.
        admitted: True once that was answered, False once it was refused, None while it is open.
        is_in_doubt: Its outcome was unknown, and nothing was committed since that would have removed it from the disk.
        remove: None where none was asked, False while it is open, True once it was answered.
    """

    versions: list[Admission]
    admitted: bool | None = None
    is_in_doubt: bool = False
    remove: bool | None = None

    def permits(self, row: Admission | None) -> bool:
        """Whether a restart may find this of it."""
        if row is None:
            return self.admitted is not True or self.remove is not None
        if self.remove is True or (self.admitted is False and not self.is_in_doubt):
            return False
        return row in self.versions


def admission(sequence: int, size: int) -> Admission:
    body = Random(sequence).randbytes(size)
    request = Request(SOURCES[sequence % 2], body, "application/json", 1_763_000_000_000 + sequence)
    lane = f"lane-{sequence % 5}"
    return Admission(sequence, lane, request, (ProducibleRecord("events", "t", lane.encode(), b"v", (), 1),))


@dataclass(frozen=True)
class Admit:
    size: int


@dataclass(frozen=True)
class Remove:
    which: int


@dataclass(frozen=True)
class Amend:
    which: int


@dataclass(frozen=True)
class Together:
    """What is asked at once, and may meet trouble; whatever fails for good is mended once nobody is answered."""

    asked: tuple[Admit | Remove | Amend | PublishedDirectly | Remember, ...]
    trouble: Trouble | None = None


ASKED = st.one_of(
    st.builds(Admit, SIZES),
    st.builds(Admit, SIZES),
    st.builds(Remove, PICKS),
    st.builds(Amend, PICKS),
    st.builds(PublishedDirectly, st.integers(1, 9)),
    st.builds(Remember, st.integers(0, 99)),
)
JOURNAL_STEPS = st.one_of(
    st.builds(Together, st.lists(ASKED, min_size=1, max_size=6).map(tuple), ANY_TROUBLE),
    st.builds(Together, st.lists(ASKED, min_size=1, max_size=6).map(tuple), ANY_TROUBLE),
    st.builds(Reopen),
    st.builds(Crash),
)
JOURNAL_HISTORIES = st.tuples(ANY_CHANCE, st.lists(JOURNAL_STEPS, min_size=1, max_size=12))


class JournalOnDisk:
    """A journal through starts, stops, failures and power cuts, and what was asked of it."""

    def __init__(self, folder: Path, chance: int) -> None:
        self.path = folder / "journal.db"
        self.disk = CrashDisk(folder, Random(chance))
        self.promises: dict[int, Promise] = {}
        self._next = 1

    async def play(self, steps: Sequence[Any]) -> None:
        """Every life of the journal, one after the other; each start finds what may be there."""
        remaining = list(steps)
        while remaining:
            with self.disk.mounted() as vfs:
                self._journal = SqliteJournal(self.path, max_bytes=MAX_BYTES, vfs=vfs)
                self._check(await self._journal.open(), await self._rows())
                await self._live(remaining)
            if self.disk.is_off:
                self.disk.crash()
        with self.disk.mounted() as vfs:
            self._journal = SqliteJournal(self.path, max_bytes=MAX_BYTES, vfs=vfs)
            self._check(await self._journal.open(), await self._rows())
            await self._journal.close()
        assert salvage.set_aside_files(self.path) == [], "what a crash leaves is no damage"

    async def _live(self, remaining: list[Any]) -> None:
        while remaining and not self.disk.is_off:
            match remaining.pop(0):
                case Together(asked, trouble):
                    await self._ask(asked, trouble)
                case Crash():
                    self.disk.is_off = True
                case Reopen():
                    break
        if self.disk.is_off:
            with suppress(Unavailable):
                await self._journal.write_note("the power", 0)
        await self._journal.close()

    async def _ask(self, asked: Sequence[Any], trouble: Trouble | None) -> None:
        if trouble is not None:
            self.disk.fail(trouble.after, trouble.fault, lasts=trouble.lasts)
        work = [asyncio.create_task(self._one(one)) for one in asked]
        _, waiting = await asyncio.wait(work, timeout=_TROUBLED_SECONDS if trouble else PATIENCE_SECONDS)
        if waiting and not self.disk.is_off:
            self.disk.mend()
            _, waiting = await asyncio.wait(work, timeout=PATIENCE_SECONDS)
            assert not waiting, "the disk works again, and nobody is answered"
        for task in waiting:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self.disk.mend()

    async def _one(self, one: Any) -> None:
        match one:
            case Admit(size):
                await self._admit(size)
            case Remove(which):
                await self._remove(which)
            case Amend(which):
                await self._amend(which)
            case PublishedDirectly(count):
                with suppress(Unavailable):
                    await self._journal.add_direct({SOURCES[count % 2]: count})
            case Remember(value):
                with suppress(Unavailable):
                    await self._journal.write_note("floor", value)

    async def _admit(self, size: int) -> None:
        asked = admission(self._next, size)
        promise = self.promises[self._next] = Promise([asked])
        self._next += 1
        try:
            await self._journal.store(asked)
        except Unavailable as refusal:
            promise.admitted = False
            promise.is_in_doubt = isinstance(refusal, OutcomeUnknown)
        else:
            promise.admitted = True
            self._settle_doubts()

    async def _remove(self, which: int) -> None:
        promise = self._admitted(which)
        if promise is None:
            return
        promise.remove = promise.remove or False
        with suppress(Unavailable):
            await self._journal.remove(promise.versions[0].sequence)
            promise.remove = True

    async def _amend(self, which: int) -> None:
        promise = self._admitted(which)
        if promise is None:
            return
        before = promise.versions[-1]
        after = Admission(before.sequence, f"dead-letter/{before.sequence}", before.request, ())
        promise.versions.append(after)
        with suppress(Unavailable):
            await self._journal.amend(after)
            promise.versions = [after]

    def _admitted(self, which: int) -> Promise | None:
        known = [promise for promise in self.promises.values() if promise.admitted]
        return known[which % len(known)] if known else None

    def _settle_doubts(self) -> None:
        """A later admission is on the disk: what was refused before it is not."""
        for promise in self.promises.values():
            promise.is_in_doubt = False

    async def _rows(self) -> dict[int, Admission]:
        lanes = await self._journal.first_rows("", 1_000, 1_000)
        return {row.sequence: row for lane in lanes for row in lane}

    def _check(self, contents: sqlite.Contents, rows: dict[int, Admission]) -> None:
        for sequence, promise in self.promises.items():
            found = rows.get(sequence)
            assert promise.permits(found), f"{promise} does not permit {found}"
        assert set(rows) <= set(self.promises)
        for source, account in contents.accounts.items():
            waiting = contents.sources.get(source, 0)
            assert account == Account(
                account.published + account.dead_lettered + waiting, account.published, account.dead_lettered, 0
            )
        self._settle(rows)

    def _settle(self, rows: dict[int, Admission]) -> None:
        """What the start has found is what is promised from now on."""
        for sequence, promise in list(self.promises.items()):
            if sequence in rows:
                self.promises[sequence] = Promise([rows[sequence]], admitted=True)
            else:
                self.promises[sequence] = replace(promise, admitted=False, is_in_doubt=False, remove=True)


def check_journal(folder: Path, history: tuple[int, list[Any]]) -> None:
    chance, steps = history
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        asyncio.run(JournalOnDisk(place, chance).play(steps))
    finally:
        shutil.rmtree(place)


def test_whatever_fails_the_journal_keeps_what_it_answered(folder: Path, seed: int) -> None:
    """P1, P6: what was admitted is there, what was removed or refused is not, what was open is whole or not there."""
    played(partial(check_journal, folder), JOURNAL_HISTORIES, seed, HISTORIES // 6)


@pytest.mark.parametrize("operations", range(8))
def test_a_page_torn_while_a_log_is_moved_whose_sync_had_failed_is_mended_by_the_log(
    folder: Path, operations: int
) -> None:
    """P1: three faults one after the other, once found by chance: no room, a failing device, the power."""
    steps = [
        Together((Admit(10),)),
        Reopen(),
        Together((Remember(0),), Trouble(4, Fault.FULL)),
        Together((Admit(10),), Trouble(operations, Fault.BROKEN)),
        Crash(),
    ]
    for chance in range(20):
        check_journal(folder, (chance, list(steps)))
