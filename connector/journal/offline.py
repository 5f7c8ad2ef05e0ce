"""A journal without an owner, read as it is on the disk: nothing is written or repaired.

What a connector does at opening (salvage, finish what a crash cut short) is left to the next owner. A write-ahead log
that a killed connector has left behind is read too.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw

from connector.errors import ConfigurationError
from connector.journal.file import (
    DAMAGE,
    DamagedFile,
    StoredRow,
    accounts_of,
    check_commits,
    check_kind,
    check_not_emptied,
    first_value,
    lock,
    size,
    used_bytes,
)
from connector.journal.model import Account, Admission
from connector.journal.paths import LOCK_SUFFIX, SALVAGED_SUFFIX, WAL_SUFFIX, sibling
from connector.journal.recovery import write_ahead_log

_DAMAGE: Final = (*DAMAGE, apsw.SQLError)  # also of a table that is missing


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a journal.

    Attributes:
        messages: Messages and dead letters.
        by_source: Messages and dead letters by source.
        by_stream: How many of them still have a record of a stream to be published.
        topics: Where these records go.
        lanes: Instances that have some, and dead letters, each of which has a lane of its own.
        oldest_waits_since: Since when the first in the order waits, in epoch milliseconds, or None.
        size_bytes: Bytes in use: database and write-ahead log.
        accounts: The ledger of each source since the journal's creation.
    """

    messages: int
    by_source: dict[str, int]
    by_stream: dict[str, int]
    topics: frozenset[tuple[str, str]]
    lanes: int
    oldest_waits_since: int | None
    size_bytes: int
    accounts: dict[str, Account]


class DetachedJournal:
    """The open file; see :func:`detached`.

    Args:
        path: The journal.

    Raises:
        DamagedFile: It is no whole database, or its log is broken.
        ConfigurationError: It cannot be read, or is another program's or of another format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The next owner begins with putting what was salvaged in the journal's place.
        salvaged = sibling(path, SALVAGED_SUFFIX)
        self._file = salvaged if salvaged.exists() else path
        self._wal = sibling(self._file, WAL_SUFFIX)
        check_not_emptied(self._file, self._wal)
        check_commits(write_ahead_log.commits(self._wal), write_ahead_log.whole_frames(self._wal))
        with self._reading():
            self._database = _opened(self._file, has_log=size(self._wal) > 0)
        with self._reading():
            self._format = check_kind(self._database, path, "--journal")

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
        query = "SELECT * FROM message WHERE sequence > ? ORDER BY sequence"
        with self._reading():
            for columns in self._database.execute(query, (after,)):
                row = StoredRow._make(columns)
                row.check()
                yield row.admission()

    def read_notes(self, prefix: str) -> dict[str, int]:
        """The notes whose name starts so."""
        if not self._format:
            return {}
        query = "SELECT name, value FROM remembered WHERE substr(name, 1, ?) = ?"
        with self._reading():
            return dict(self._database.execute(query, (len(prefix), prefix)))

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
            oldest = one.request.waits_since if oldest is None else oldest
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
            oldest_waits_since=oldest,
            size_bytes=self._used(),
            accounts=self._accounts(),
        )

    def _accounts(self) -> dict[str, Account]:
        if not self._format:
            return {}
        with self._reading():
            return accounts_of(self._database)

    def _used(self) -> int:
        with self._reading():
            return used_bytes(self._database, self._wal)

    def _one(self, query: str, bindings: tuple[Any, ...] = ()) -> Any:
        with self._reading():
            return first_value(self._database, query, bindings)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Translate SQLite's errors."""
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
    if not any(sibling(path, suffix).is_file() for suffix in ("", WAL_SUFFIX, SALVAGED_SUFFIX)):
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
        lock(descriptor, path, "ask its connector with --operations-url, or stop it")
        yield
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> int | None:
    file = sibling(path, LOCK_SUFFIX)
    try:
        return os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        if file.exists():
            raise
        return None


def _opened(path: Path, *, has_log: bool) -> apsw.Connection:
    """Open the database and leave nothing on the disk: no shared memory, no new log, no lock but the journal's."""
    how = "mode=ro" if has_log else "immutable=1"  # without a log SQLite would begin one
    database = apsw.Connection(
        f"file:{quote(str(path.absolute()))}?{how}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs="unix-none",
    )
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.pragma("locking_mode", "exclusive")
    return database
