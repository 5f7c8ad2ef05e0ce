"""The journal: what is accepted and not yet published, durable, bounded, in order.

One SQLite file, one connection, one thread. Every call is a command on that thread; commands that have gathered while
the last transaction was being synced go into the next one together (group commit), and a call returns when its
transaction is on the disk (``synchronous=FULL``). The file is held under an exclusive lock by one process. After a
failed commit the file is not written again until it was reopened and verified; until then every call fails.

The protocol is that of lanes: :meth:`Journal.admit` a message, read the :meth:`Journal.heads` of lanes,
:meth:`Journal.strike` what is published. Order within a lane is the order of ``sequence``.
"""

import asyncio
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import apsw
import msgspec
import structlog

from connector.errors import ConfigurationError, OutsideUnreachable, Unavailable
from connector.streams import DEAD_LETTERS
from connector.values import ProducibleRecord, Request

FORMAT: Final = 1
"""Version of the file, in ``PRAGMA user_version``."""

HEADROOM: Final = 8 * 1024 * 1024
"""Most bytes below the limit that only deletions may use: the write-ahead log of a full journal being emptied."""

_APPLICATION_ID: Final = 0x57654461  # "WeDa"
_LARGEST_WAL: Final = 4 * 1024 * 1024
_BATCH: Final = 2_000
_REOPEN_SECONDS: Final = 1.0
_LOG = structlog.get_logger("connector.journal")


class Admission(msgspec.Struct, array_like=True):
    """One message (or dead letter) on its way to Kafka, with its place in the order.

    Attributes:
        sequence: Its place, fixed at admission; never used twice while it stands in the journal.
        lane: What is kept in order: the instance's id; of a dead letter, a name of its own.
        request: What was received: the metrics' source and, if Kafka refuses the records, the dead letter.
        records: The records whose streams are open: not yet acknowledged.
    """

    sequence: int
    lane: str
    request: Request
    records: tuple[ProducibleRecord, ...]

    @property
    def is_dead_letter(self) -> bool:
        """Whether it is a dead letter rather than a message."""
        return any(record.stream == DEAD_LETTERS for record in self.records)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal held when it was opened.

    Attributes:
        lanes: Rows of each lane that has some.
        sources: Rows of each source that has some.
        next_sequence: The first sequence that is free.
    """

    lanes: dict[str, int]
    sources: dict[str, int]
    next_sequence: int


@dataclass(frozen=True, slots=True)
class JournalState:
    """How full the journal is and since when.

    Attributes:
        size_bytes: Bytes in use: database and write-ahead log.
        oldest_received_at: Epoch milliseconds of the oldest row, or None where there is none.
    """

    size_bytes: int
    oldest_received_at: int | None


class Journal(Protocol):
    """A durable, ordered, bounded store of admissions."""

    async def open(self) -> Contents:
        """Take ownership and tell what is there."""

    async def close(self) -> None:
        """Finish what was asked and give up ownership."""

    async def admit(self, admission: Admission) -> None:
        """Return when the admission is on the disk.

        Raises:
            Unavailable: The journal is full or failing; nothing of it will come back after a restart.
        """

    async def strike(self, sequence: int) -> None:
        """Remove a row; returns when its removal is on the disk, however long the disk refuses."""

    async def amend(self, admission: Admission) -> None:
        """Replace the row of the same sequence, if there is one: fewer open streams, or a dead letter in its place."""

    async def heads(
        self, after: str, lanes: int, depth: int, skip: Container[str] = frozenset()
    ) -> list[list[Admission]]:
        """The first ``depth`` rows of the next ``lanes`` lanes in name order after a lane; fewer where they end."""

    async def state(self) -> JournalState:
        """How full the journal is and since when."""

    async def remember(self, name: str, value: int) -> None:
        """Keep a number durably, such as the latest time that ids may have used."""

    async def recall(self, name: str) -> int:
        """A number that was kept, or 0."""


class _Command:
    """Work for the journal's thread; ``critical`` work is tried again until the disk takes it."""

    __slots__ = ("adds", "critical", "done", "run", "writes")

    def __init__(
        self, run: Callable[["_File"], Any], *, writes: bool, critical: bool = False, adds: int | None = None
    ) -> None:
        self.run = run
        self.writes = writes
        self.critical = critical
        self.adds = adds
        self.done: Future[Any] = Future()


class SqliteJournal:
    """The journal on the local disk.

    Args:
        path: The database file; made with mode 0600, its folder with 0700.
        max_bytes: Bound of database and write-ahead log together.
        vfs: SQLite's file system layer, by name; for fault injection.
    """

    def __init__(self, path: Path, *, max_bytes: int, vfs: str | None = None) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._vfs = vfs
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._file: _File | None = None
        self._lock: int | None = None
        self._disowned: list[int] = []

    async def open(self) -> Contents:
        """Take the lock and read what is there.

        Raises:
            OutsideUnreachable: Another process holds the journal.
            ConfigurationError: The path cannot be used, or the file is of a newer format.
        """
        self._lock = _take_lock(self._path)
        self._file = _File(self._path, self._max_bytes, self._vfs)
        self._thread.start()
        contents: Contents = await self._ask(_File.contents, writes=False)
        return contents

    async def close(self) -> None:
        """Finish what was asked, checkpoint, and give the lock back."""
        if self._thread.is_alive():
            self._commands.put(None)
            await asyncio.to_thread(self._thread.join)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def admit(self, admission: Admission) -> None:
        """Return when the admission is on the disk; see :class:`Journal`."""
        row = _row(admission)
        await self._ask(lambda file: file.insert(row), writes=True, adds=admission.sequence)

    async def strike(self, sequence: int) -> None:
        """Return when the row's removal is on the disk."""
        await self._ask(lambda file: file.delete(sequence), writes=True, critical=True)

    async def amend(self, admission: Admission) -> None:
        """Return when the row is replaced on the disk."""
        row = _row(admission)
        await self._ask(lambda file: file.replace(row), writes=True, critical=True)

    async def heads(
        self, after: str, lanes: int, depth: int, skip: Container[str] = frozenset()
    ) -> list[list[Admission]]:
        """The first rows of the next lanes; see :class:`Journal`."""
        rows: list[list[Admission]] = await self._ask(lambda file: file.heads(after, lanes, depth, skip), writes=False)
        return rows

    async def state(self) -> JournalState:
        """How full the journal is and since when."""
        state: JournalState = await self._ask(_File.state, writes=False)
        return state

    async def remember(self, name: str, value: int) -> None:
        """Keep a number durably."""
        await self._ask(lambda file: file.remember(name, value), writes=True)

    async def recall(self, name: str) -> int:
        """A number that was kept, or 0."""
        value: int = await self._ask(lambda file: file.recall(name), writes=False)
        return value

    async def _ask(
        self, run: Callable[["_File"], Any], *, writes: bool, critical: bool = False, adds: int | None = None
    ) -> Any:
        command = _Command(run, writes=writes, critical=critical, adds=adds)
        self._commands.put(command)
        return await asyncio.wrap_future(command.done)

    def _work(self) -> None:
        """The thread: gather, run in one transaction, answer; again until told to end."""
        ending = False
        retained: list[_Command] = []
        while not (ending and self._commands.empty()):
            gathered = self._gather(retained)
            ending = ending or None in gathered
            retained = self._run([command for command in gathered if command is not None])
            if retained and ending:
                _fail(retained, _failing("the connector stopped while the disk refused"))
                retained = []
        if self._file is not None:
            self._file.close()

    def _gather(self, retained: list[_Command]) -> list[_Command | None]:
        gathered: list[_Command | None] = list(retained)
        if not gathered:
            gathered.append(self._commands.get())
        while len(gathered) < _BATCH and not self._commands.empty():
            gathered.append(self._commands.get())
        return gathered

    def _run(self, commands: list[_Command]) -> list[_Command]:
        """Run commands in one transaction; gives back those that must be tried again."""
        if not commands:
            return []
        try:
            if self._file is None:
                self._file = self._reopen()
            outcomes = self._file.transact(commands)
        except (apsw.Error, OSError, ConfigurationError) as error:
            _LOG.exception("the journal's disk failed; reopening", error=type(error).__name__)
            return self._recover(commands)
        for command, outcome in zip(commands, outcomes, strict=True):
            _settle(command, outcome)
        self._checkpoint()
        return []

    def _checkpoint(self) -> None:
        """Keep the write-ahead log small; what it held is committed, so a failure here refuses nobody."""
        if self._file is None:
            return
        try:
            self._file.checkpoint()
        except apsw.Error:
            _LOG.exception("the journal's disk failed at a checkpoint; reopening")
            self._recover([])

    def _reopen(self) -> "_File":
        """Open a file that failed: verified, and without refused rows that may have reached the disk all the same."""
        file = _File(self._path, self._max_bytes, self._vfs)
        file.verify()
        file.transact([_Command(partial(_File.delete, sequence=one), writes=True) for one in self._disowned])
        self._disowned = []
        return file

    def _recover(self, commands: list[_Command]) -> list[_Command]:
        """After a failed transaction: give the file up, refuse what can be refused, keep the rest for the next try."""
        if self._file is not None:
            self._file.abandon()
            self._file = None
        self._disowned += [command.adds for command in commands if command.adds is not None]
        _fail([command for command in commands if not command.critical], _failing("its disk failed"))
        threading.Event().wait(_REOPEN_SECONDS)
        return [command for command in commands if command.critical]


class _File:
    """The open database; lives on the journal's thread."""

    def __init__(self, path: Path, max_bytes: int, vfs: str | None) -> None:
        self._max_bytes = max_bytes
        self._wal_limit = min(_LARGEST_WAL, max_bytes // 8)
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._added = 0
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        try:
            path.touch(mode=0o600)
            self._database = apsw.Connection(str(path), flags=flags, vfs=vfs)
            self._prepare()
        except (apsw.Error, OSError) as error:
            raise ConfigurationError(
                f"WEDA_JOURNAL__PATH: {path} cannot be used as the journal ({error}); "
                "give a path on a writable local disk"
            ) from error

    def transact(self, commands: Sequence[_Command]) -> list[Any]:
        """Run the commands; each outcome is its result, or the refusal that it met."""
        if not any(command.writes for command in commands):
            return [self._outcome(command) for command in commands]
        self._added = 0
        with self._database:
            outcomes = [self._outcome(command) for command in commands]
        return outcomes  # noqa: RET504 - the transaction ends first

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, once it has grown enough."""
        if self._wal_size() >= self._wal_limit:
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        """Checkpoint and close."""
        self._database.close()

    def abandon(self) -> None:
        """Close a file that failed, whatever it says to that."""
        try:
            self._database.close(force=True)
        except (apsw.Error, OSError) as error:
            _LOG.warning("closing the failed journal", error=str(error))

    def contents(self) -> Contents:
        """Rows by lane and by source, and the next sequence."""
        lanes = dict(self._database.execute("SELECT lane, count(*) FROM message GROUP BY lane"))
        sources = dict(self._database.execute("SELECT source, count(*) FROM message GROUP BY source"))
        return Contents(lanes, sources, (self._one("SELECT max(sequence) FROM message") or 0) + 1)

    def verify(self) -> None:
        """Check the pages of the file.

        Raises:
            ConfigurationError: Some are damaged.
        """
        verdict = self._database.pragma("quick_check", 1)
        if verdict != "ok":
            raise ConfigurationError(f"WEDA_JOURNAL__PATH: {self._path} is damaged: {verdict}")

    def insert(self, row: tuple[int, str, str, int, bytes]) -> None:
        """Add a row, if there is room."""
        size = len(row[4])
        if self._used() + self._added + size + headroom(self._max_bytes) > self._max_bytes:
            raise _failing("it is full (WEDA_JOURNAL__MAX_BYTES)")
        self._added += size  # until the next checkpoint it stands in the log and in the database
        self._database.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?)", row)

    def replace(self, row: tuple[int, str, str, int, bytes]) -> None:
        """Put a row in the place of the one with the same sequence; where there is none, nothing."""
        sequence, *values = row
        self._database.execute(
            "UPDATE message SET lane = ?, source = ?, received_at = ?, content = ? WHERE sequence = ?",
            (*values, sequence),
        )

    def delete(self, sequence: int) -> None:
        """Remove a row."""
        self._database.execute("DELETE FROM message WHERE sequence = ?", (sequence,))

    def heads(self, after: str, lanes: int, depth: int, skip: Container[str]) -> list[list[Admission]]:
        """The first rows of the lanes that follow a lane, but for some."""
        found: list[list[Admission]] = []
        while len(found) < lanes and (lane := self._next_lane(after)) is not None:
            if lane not in skip:
                found.append(self._head(lane, depth))
            after = lane
        return found

    def state(self) -> JournalState:
        """Bytes in use, and the oldest row."""
        oldest = self._one("SELECT received_at FROM message ORDER BY sequence LIMIT 1")
        return JournalState(self._used(), oldest)

    def remember(self, name: str, value: int) -> None:
        """Keep a number."""
        self._database.execute("REPLACE INTO remembered VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> int:
        """A kept number, or 0."""
        return self._one("SELECT value FROM remembered WHERE name = ?", (name,)) or 0

    def _outcome(self, command: _Command) -> Any:
        try:
            return command.run(self)
        except (Unavailable, msgspec.MsgspecError) as error:
            return error  # the command's own affair; the thread and the other commands go on

    def _next_lane(self, after: str) -> str | None:
        row = self._database.execute("SELECT min(lane) FROM message WHERE lane > ?", (after,)).fetchone()
        return None if row is None else row[0]

    def _head(self, lane: str, depth: int) -> list[Admission]:
        rows = self._database.execute(
            "SELECT sequence, lane, content FROM message WHERE lane = ? ORDER BY sequence LIMIT ?", (lane, depth)
        )
        return [_admission(*row) for row in rows]

    def _one(self, query: str, bindings: tuple[Any, ...] = ()) -> int | None:
        row = self._database.execute(query, bindings).fetchone()
        return None if row is None else row[0]

    def _used(self) -> int:
        pages: int = self._database.pragma("page_count") - self._database.pragma("freelist_count")
        return pages * self._page_size + self._wal_size()

    def _wal_size(self) -> int:
        return self._wal.stat().st_size if self._wal.exists() else 0

    def _prepare(self) -> None:
        self._database.pragma("locking_mode", "exclusive")
        self._database.pragma("journal_mode", "wal")
        self._database.pragma("synchronous", "full")
        self._database.set_busy_timeout(0)
        self._database.pragma("wal_autocheckpoint", 0)
        self._page_size: int = self._database.pragma("page_size")
        version: int = self._database.pragma("user_version")
        if version > FORMAT:
            raise ConfigurationError(
                f"WEDA_JOURNAL__PATH: {self._path} has format {version}, this version knows {FORMAT}: "
                "run the version that wrote it"
            )
        if version == 0:
            self._create()

    def _create(self) -> None:
        with self._database:
            self._database.execute(
                "CREATE TABLE message (sequence INTEGER PRIMARY KEY, lane TEXT NOT NULL, source TEXT NOT NULL, "
                "received_at INTEGER NOT NULL, content BLOB NOT NULL) STRICT;"
                "CREATE INDEX message_by_lane ON message (lane, sequence);"
                "CREATE TABLE remembered (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT"
            )
            self._database.pragma("application_id", _APPLICATION_ID)
            self._database.pragma("user_version", FORMAT)


def headroom(max_bytes: int) -> int:
    """Bytes below a journal's limit that only deletions may use."""
    return min(HEADROOM, max_bytes // 4)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Request, tuple[ProducibleRecord, ...]])


def _row(admission: Admission) -> tuple[int, str, str, int, bytes]:
    request = admission.request
    content = _ENCODER.encode((request, admission.records))
    return admission.sequence, admission.lane, request.source, request.received_at, content


def _admission(sequence: int, lane: str, content: bytes) -> Admission:
    request, records = _DECODER.decode(content)
    return Admission(sequence, lane, request, records)


def _take_lock(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"WEDA_JOURNAL__PATH: {path} cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OutsideUnreachable(
            f"the journal {path} is held by another process: stop it, or give WEDA_JOURNAL__PATH another file"
        ) from error
    return descriptor


def _failing(why: str) -> Unavailable:
    return Unavailable(f"the journal cannot take the message: {why}", retry_after=5)


def _fail(commands: Iterable[_Command], error: Unavailable) -> None:
    for command in commands:
        _settle(command, error)


def _settle(command: _Command, outcome: Any) -> None:
    if not command.done.set_running_or_notify_cancel():
        return  # the asker is gone; what it asked is done
    if isinstance(outcome, Exception):
        command.done.set_exception(outcome)
    else:
        command.done.set_result(outcome)
