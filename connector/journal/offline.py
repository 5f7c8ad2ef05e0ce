"""Reads a journal that no process holds, as it is on disk: nothing is written or repaired.

What a connector does when it opens a journal (salvage, completing what a crash cut short) is left to the next owner.
The write-ahead log that a killed connector left behind is read too.
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
from connector.journal.paths import LOCK_SUFFIX, RESCUED_SUFFIX, SALVAGED_SUFFIX, WAL_SUFFIX, sibling
from connector.journal.recovery import write_ahead_log

_DAMAGE: Final = (*DAMAGE, apsw.SQLError)  # SQLError: a table is missing


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog of a journal.

    Attributes:
        messages: Number of messages and dead letters.
        by_source: Messages and dead letters by source.
        by_stream: Stream → messages and dead letters that still have a record of it to publish.
        topics: Stream and topic of these records.
        lanes: Number of lanes; each dead letter has a lane of its own.
        oldest_waits_since: Since when the first row in the order waits, in epoch milliseconds, or None.
        size_bytes: Bytes in use by database and write-ahead log.
        accounts: Source → its ledger since the journal's creation.
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
    """An open journal file; see :func:`detached`.

    Args:
        path: The journal.

    Raises:
        DamagedFile: The file is damaged, or its write-ahead log is.
        ConfigurationError: The file cannot be read, belongs to another program, or has another format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # A crash came before one of these was put in the journal's place, which the next owner does first.
        copies = [sibling(path, suffix) for suffix in (SALVAGED_SUFFIX, RESCUED_SUFFIX)]
        self._file = next((copy for copy in copies if copy.exists()), path)
        self._wal = sibling(self._file, WAL_SUFFIX)
        check_not_emptied(self._file, self._wal)
        # The owner compares with what a checkpoint has moved; here nothing may be written, so frames are read instead.
        check_commits(write_ahead_log.commits(self._wal), write_ahead_log.whole_frames(self._wal))
        with self._reading():
            self._database = _opened(self._file, has_log=size(self._wal) > 0)
        with self._reading():
            self._format = check_kind(self._database, path, "--journal")

    def close(self) -> None:
        """Close the file, and leave its log as it is."""
        self._database.close(force=True)

    def verify(self) -> None:
        """Check the structure of the file, and the checksum of each row.

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
        """Yield the messages behind a sequence in order, read one by one.

        Raises:
            DamagedFile: A row is not as it was written.
        """
        # Format 0: a file into which nothing was ever written has no tables.
        if not self._format:
            return
        query = "SELECT * FROM message WHERE sequence > ? ORDER BY sequence"
        with self._reading():
            for columns in self._database.execute(query, (after,)):
                row = StoredRow._make(columns)
                row.check()
                yield row.admission()

    def read_notes(self, prefix: str) -> dict[str, int]:
        """Return the notes whose names have a prefix."""
        if not self._format:
            return {}
        query = "SELECT name, value FROM remembered WHERE substr(name, 1, ?) = ?"
        with self._reading():
            return dict(self._database.execute(query, (len(prefix), prefix)))

    def count(self, through: int | None = None) -> int:
        """Return how many messages wait, up to a sequence if it is given."""
        if not self._format:
            return 0
        condition, bindings = ("", ()) if through is None else (" WHERE sequence <= ?", (through,))
        counted: int = self._one(f"SELECT count(*) FROM message{condition}", bindings)  # noqa: S608 - ours
        return counted

    def backlog(self) -> Backlog:
        """Return the backlog; reads every row."""
        sources: Counter[str] = Counter()
        streams: Counter[str] = Counter()
        topics: set[tuple[str, str]] = set()
        oldest: int | None = None
        for admission in self.admissions():
            oldest = admission.request.waits_since if oldest is None else oldest
            sources[admission.request.source] += 1
            open_records = {(record.stream, record.topic) for record in admission.records}
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
    """Open a journal for reading, under the lock of its owner.

    Raises:
        OutsideUnreachable: A connector or another command holds the journal.
        DamagedFile: The journal is damaged.
        ConfigurationError: There is no journal, or it cannot be read.
    """
    check_exists(path)
    with _locked(path):
        journal = DetachedJournal(path)
        try:
            yield journal
        finally:
            journal.close()


def check_exists(path: Path) -> None:
    """Check that there is a journal at a path.

    Raises:
        ConfigurationError: There is no journal.
    """
    # Opening would create one, and a command with a wrong path would leave an empty journal there.
    if not any(sibling(path, suffix).is_file() for suffix in ("", WAL_SUFFIX, SALVAGED_SUFFIX, RESCUED_SUFFIX)):
        raise ConfigurationError(f"--journal (WEDA_JOURNAL__PATH): there is no journal at {path}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the owner's lock, if a lock file can exist: a disk that cannot be written has no owner, and gets none."""
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
    """Open the database without leaving files behind: no shared memory and no new log."""
    parameter = "mode=ro" if has_log else "immutable=1"  # without a log SQLite would begin one
    database = apsw.Connection(
        f"file:{quote(str(path.absolute()))}?{parameter}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs="unix-none",  # no locks of SQLite's: the owner's lock is the one that counts
    )
    # A checkpoint at close would write. In exclusive mode the index of the log is in memory, not in a -shm file.
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    database.pragma("locking_mode", "exclusive")
    return database
