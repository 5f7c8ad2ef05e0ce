"""A journal that nobody owns, read as it lies on the disk: nothing is written, mended, migrated or given up.

What a connector would do at opening (salvage, migrate, finish what a crash cut short) stays for whoever owns the
journal next. Both formats are read, and a write-ahead log that a killed connector has left behind.
"""

import fcntl
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw
import msgspec

from connector.errors import ConfigurationError, OutsideUnreachable
from connector.journal.file import APPLICATION_ID, FORMAT, DamagedFile, StoredRow
from connector.journal.model import Account, Admission
from connector.journal.recovery import write_ahead_log
from connector.journal.recovery.write_ahead_log import Frame
from connector.values import ProducibleRecord, Request

_DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError)
_CONTENT: Final = msgspec.msgpack.Decoder(tuple[Request, tuple[ProducibleRecord, ...]])
_LOG_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = 24
_PLACE: Final = 8


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a journal.

    Attributes:
        messages: Messages and dead letters.
        by_source: The same by source.
        by_stream: How many of them still have a record of a stream to be published.
        topics: Where these records go.
        lanes: Instances that have some, and dead letters, each of which has a lane of its own.
        oldest_received_at: Epoch milliseconds of the first in the order, or None.
        size_bytes: Bytes in use: database and write-ahead log.
        accounts: The ledger of each source since the journal's creation.
    """

    messages: int
    by_source: dict[str, int]
    by_stream: dict[str, int]
    topics: frozenset[tuple[str, str]]
    lanes: int
    oldest_received_at: int | None
    size_bytes: int
    accounts: dict[str, Account]


class DetachedJournal:
    """The open file; see :func:`detached`.

    Args:
        path: The journal.

    Raises:
        DamagedFile: It is no whole database, or its log is broken.
        ConfigurationError: It cannot be read, or is another program's or of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _beside(path, ".salvaged") if _beside(path, ".salvaged").exists() else path
        self._wal = _beside(self._file, "-wal")
        self._check_log()
        with self._reading():
            self._database = _opened(self._file, has_log=_size(self._wal) > 0)
        with self._reading():
            self._format = self._check_kind()

    def close(self) -> None:
        """Close the file, and leave its log as it is."""
        self._database.close(force=True)

    def verify(self) -> None:
        """Read everything: the structure, and the checksum of each row.

        Raises:
            DamagedFile: Something is not as it was written.
        """
        with self._reading():
            verdict = self._database.pragma("integrity_check", 1)
        if verdict != "ok":
            raise DamagedFile(verdict)
        for _ in self.admissions():
            pass

    def admissions(self, after: int = 0) -> Iterator[Admission]:
        """Every message behind a sequence, in the order of the sequence, read one by one.

        Raises:
            DamagedFile: A row is not as it was written.
        """
        if not self._format:
            return
        checksum = "checksum" if self._format > 1 else "NULL"
        query = (
            f"SELECT sequence, lane, source, received_at, content, {checksum} FROM message "  # noqa: S608 - ours
            "WHERE sequence > ? ORDER BY sequence"
        )
        with self._reading():
            for columns in self._database.execute(query, (after,)):
                yield _admission(StoredRow._make(columns))

    def count(self, through: int | None = None) -> int:
        """How many messages wait, or how many of them up to a sequence."""
        if not self._format:
            return 0
        condition, bindings = ("", ()) if through is None else (" WHERE sequence <= ?", (through,))
        counted: int = self._one(f"SELECT count(*) FROM message{condition}", bindings)  # noqa: S608 - ours
        return counted

    def backlog(self) -> Backlog:
        """Everything that can be said of what waits; reads every row."""
        sources: Counter[str] = Counter()
        streams: Counter[str] = Counter()
        topics: set[tuple[str, str]] = set()
        oldest: int | None = None
        for one in self.admissions():
            oldest = one.request.received_at if oldest is None else oldest
            sources[one.request.source] += 1
            open_records = {(record.stream, record.topic) for record in one.records}
            streams.update(stream for stream, _ in open_records)
            topics |= open_records
        return Backlog(
            messages=sources.total(),
            by_source=dict(sources),
            by_stream=dict(streams),
            topics=frozenset(topics),
            lanes=self._one("SELECT count(DISTINCT lane) FROM message") if self._format else 0,
            oldest_received_at=oldest,
            size_bytes=self._used(),
            accounts=self._accounts(sources),
        )

    def _accounts(self, waiting: Counter[str]) -> dict[str, Account]:
        if self._format < FORMAT:  # the ledger begins with what waits when the file is migrated
            return {source: Account(accepted=count) for source, count in waiting.items()}
        query = "SELECT source, accepted, published, buried, lost FROM account ORDER BY source"
        with self._reading():
            return {source: Account(*columns) for source, *columns in self._database.execute(query)}

    def _check_kind(self) -> int:
        """The file's format; 0 of one in which nothing was ever written."""
        version: int = self._database.pragma("user_version")
        tables = self._one("SELECT count(*) FROM sqlite_schema")
        if tables and self._database.pragma("application_id") != APPLICATION_ID:
            raise ConfigurationError(f"--journal: {self._path} is a database of another program")
        if version > FORMAT:
            raise ConfigurationError(
                f"--journal: {self._path} has format {version}, this version knows {FORMAT}: "
                "use the version that wrote it"
            )
        return version

    def _check_log(self) -> None:
        """SQLite takes a broken log for a shorter one; the connector does not, and neither does whoever looks."""
        if _size(self._file) == 0 and _size(self._wal):
            raise DamagedFile("the file is empty, its log is not")
        whole = _whole_frames(self._wal)
        # One commit behind the last whole frame is what a crash leaves; more were synced once, and broken since.
        if sum(frame > whole for frame in write_ahead_log.commits(self._wal)) > 1:
            raise DamagedFile("committed frames of the write-ahead log stand behind a broken one")

    def _used(self) -> int:
        with self._reading():
            pages: int = self._database.pragma("page_count") - self._database.pragma("freelist_count")
            page_size: int = self._database.pragma("page_size")
        return pages * page_size + _size(self._wal)

    def _one(self, query: str, bindings: tuple[Any, ...] = ()) -> Any:
        with self._reading():
            row = self._database.execute(query, bindings).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except _DAMAGE as error:
            raise DamagedFile(str(error)) from error
        except (apsw.Error, OSError) as error:
            raise ConfigurationError(f"--journal: {self._path} cannot be read ({error})") from error


@contextmanager
def detached(path: Path) -> Iterator[DetachedJournal]:
    """Open a journal to read it, and keep everybody else away from it meanwhile.

    Raises:
        OutsideUnreachable: A connector, or another command, holds it.
        DamagedFile: It is not whole.
        ConfigurationError: There is none, or it cannot be read.
    """
    check_exists(path)
    with _locked(path):
        journal = DetachedJournal(path)
        try:
            yield journal
        finally:
            journal.close()


def check_exists(path: Path) -> None:
    """A command must not leave an empty journal where it was given a wrong path.

    Raises:
        ConfigurationError: There is no journal.
    """
    if not any(_beside(path, suffix).is_file() for suffix in ("", "-wal", ".salvaged")):
        raise ConfigurationError(f"--journal (WEDA_JOURNAL__PATH): there is no journal at {path}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The owner's lock; on a disk that cannot be written there is no owner, and none can come."""
    try:
        descriptor = _lock_file(path)
    except OSError as error:
        raise ConfigurationError(f"--journal: {path} cannot be read ({error.strerror})") from error
    if descriptor is None:
        yield
        return
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> int | None:
    lock = _beside(path, ".lock")
    try:
        return os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        if lock.exists():
            raise
        return None


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutsideUnreachable(
            f"the journal {path} is held by another process: ask its connector with --operations-url, or stop it"
        ) from error


def _opened(path: Path, *, has_log: bool) -> apsw.Connection:
    """The database without a trace: no shared memory, no new log, no lock of SQLite's own; ours is held."""
    how = "mode=ro" if has_log else "immutable=1"  # without a log SQLite would begin one
    database = apsw.Connection(
        f"file:{quote(str(path.absolute()))}?{how}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs="unix-none",
    )
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.pragma("locking_mode", "exclusive")
    return database


def _admission(row: StoredRow) -> Admission:
    if not row.is_whole:
        raise DamagedFile(f"the checksum of row {row.sequence} is wrong")
    try:
        request, records = _CONTENT.decode(row.content)
    except msgspec.MsgspecError as error:
        raise DamagedFile(f"row {row.sequence} is not readable") from error
    return Admission(row.sequence, row.lane, request, records)


def _whole_frames(wal: Path) -> int:
    """How many frames of the log are as they were written, from the first on."""
    whole, before = -1, (0, 0)
    for frame, summed_up in _summed_up(wal):
        if frame.number != whole + 1 or not frame.follows(before, summed_up):
            break
        whole, before = frame.number, frame.checksum
    return max(whole, 0)


def _summed_up(wal: Path) -> Iterator[tuple[Frame, bytes]]:
    """The log's header, as a frame with the number 0, and its frames; each with the bytes of its checksum."""
    if _size(wal) < _LOG_HEADER.size:
        return
    with wal.open("rb") as log:
        header = log.read(_LOG_HEADER.size)
        _, _, page_size, *_, first, second = _LOG_HEADER.unpack(header)
        order = ">" if header[3] & 1 else "<"
        yield Frame(0, 0, is_commit=False, offset=0, checksum=(first, second), order=order), header[:_FRAME_HEADER]
        for frame in write_ahead_log.frames(wal):
            log.seek(frame.offset - _FRAME_HEADER)
            content = log.read(_FRAME_HEADER + page_size)
            yield frame, content[:_PLACE] + content[_FRAME_HEADER:]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
