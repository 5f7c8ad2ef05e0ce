"""The journal's file: rows with checksums, and the accounts of the ledger, over one SQLite connection on one thread.

Rows and accounts change in the same transactions, so after any crash the ledger of each source balances (see
`Account`), unless the file was damaged. Opening also detects damage that SQLite does not: a byte that changed inside a
row, and committed frames of the write-ahead log behind a broken one.
"""

import fcntl
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import msgspec
import structlog

from connector.errors import ConfigurationError, OutsideUnreachable, Unavailable
from connector.journal.model import FULL, Account, Admission, refusal
from connector.journal.open_files import OpenFiles, sync, write_out
from connector.journal.paths import WAL_SUFFIX, sibling
from connector.journal.recovery import write_ahead_log

FORMAT: Final = 2
"""Version of the file format, stored in ``PRAGMA user_version``."""

HEADROOM_BYTES: Final = 8 * 1024 * 1024
"""Upper bound of `headroom`, the bytes below the limit that only deletions may use."""

APPLICATION_ID: Final = 0x57654461  # "WeDa"
_MAX_WAL_BYTES: Final = 4 * 1024 * 1024
DAMAGE: Final = (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError)
"""What reading a damaged file raises."""

_LOG = structlog.get_logger()

# The column `received_at` holds `Request.waits_since`, and `buried` what was dead-lettered: the names are those in
# existing files.
_TABLES: Final = (
    "CREATE TABLE message (sequence INTEGER PRIMARY KEY, lane TEXT NOT NULL, source TEXT NOT NULL, "
    "received_at INTEGER NOT NULL, content BLOB NOT NULL, checksum INTEGER) STRICT;"
    "CREATE INDEX message_by_lane ON message (lane, sequence);"
    "CREATE TABLE remembered (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"
    "CREATE TABLE account (source TEXT PRIMARY KEY, accepted INTEGER NOT NULL, published INTEGER NOT NULL, "
    "buried INTEGER NOT NULL, lost INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT;"
)


class DamagedFile(Exception):
    """The file is damaged; its readable rows have to be saved into a new one."""


class StoredRow(NamedTuple):
    """One row: an encoded message or dead letter.

    Attributes:
        sequence: The position in the order.
        lane: The queue that is kept in order.
        source: The source of the request.
        waits_since: Since when it waits, in epoch milliseconds; the column is ``received_at``.
        content: The request and its open records, encoded.
        checksum: CRC-32 of the other columns, or None before the row is sealed.
    """

    sequence: int
    lane: str
    source: str
    waits_since: int
    content: bytes
    checksum: int | None = None

    @classmethod
    def of(cls, admission: Admission) -> "StoredRow":
        """Return the row of an admission, with its checksum."""
        request = admission.request
        row = cls(admission.sequence, admission.lane, request.source, request.waits_since, admission.content)
        return row.sealed()

    def admission(self) -> Admission:
        """Decode the admission that the row stores.

        Raises:
            DamagedFile: The content cannot be read.
        """
        try:
            return Admission.of_content(self.sequence, self.lane, self.content)
        except msgspec.MsgspecError as error:
            raise DamagedFile(f"row {self.sequence} is not readable") from error

    def check(self) -> None:
        """Check the row against its checksum.

        Raises:
            DamagedFile: The row is not as it was written.
        """
        if not self.is_whole:
            raise DamagedFile(f"the checksum of row {self.sequence} is wrong")

    def sealed(self) -> "StoredRow":
        """Return the row with its checksum."""
        return self._replace(checksum=self._sum())

    @property
    def is_whole(self) -> bool:
        """Whether the row is as it was written; a row without a checksum counts as whole."""
        return self.checksum is None or self.checksum == self._sum()

    def _sum(self) -> int:
        header = f"{self.sequence}\x00{self.lane}\x00{self.source}\x00{self.waits_since}\x00"
        return zlib.crc32(self.content, zlib.crc32(header.encode()))


class JournalFile:
    """The open database file.

    Args:
        path: The file; created with mode 0600 if it does not exist.
        max_bytes: Limit of database and write-ahead log together.
        vfs: Name of SQLite's file system layer.

    Raises:
        DamagedFile: The database or its write-ahead log is damaged.
        ConfigurationError: The file cannot be written, belongs to another program, or has another format.
    """

    def __init__(self, path: Path, max_bytes: int, vfs: str | None = None) -> None:
        self._max_bytes = max_bytes
        self._wal_limit = min(_MAX_WAL_BYTES, max_bytes // 8)
        self._path = path
        self._wal = sibling(path, WAL_SUFFIX)
        self._room = 0
        self._added = 0
        self._stored: int | None = None
        self._changes: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        try:
            self._database = self._open(vfs)
        except (apsw.Error, OSError) as error:
            raise ConfigurationError(
                f"WEDA_JOURNAL__PATH: {path} cannot be used as the journal ({error}); "
                "give a path on a writable local disk"
            ) from error
        self._open_files = OpenFiles(path, self._wal)

    # --- transactions ---

    def transact(self, runs: Sequence[Callable[["JournalFile"], Any]]) -> list[Any]:
        """Run functions in one transaction, and return the result of each, or its refusal.

        Raises:
            DamagedFile: The file was found damaged.
        """
        self._room = self._max_bytes - headroom(self._max_bytes) - self.used()
        self._changes.clear()
        self._added = 0
        try:
            with _damage_detected(), self._database:
                outcomes = [self._outcome(run) for run in runs]
                # In the same transaction as the rows, so that the ledger balances after any crash.
                self._write_accounts()
            # Only now: a transaction that was rolled back has added nothing.
            if self._stored is not None:
                self._stored += self._added
        finally:
            self._open_files.remember()  # a failed commit has written, too
        return outcomes

    def read(self, run: Callable[["JournalFile"], Any]) -> Any:
        """Run a function that writes nothing, and return its result, or its refusal.

        Raises:
            DamagedFile: The file was found damaged.
        """
        with _damage_detected():
            return self._outcome(run)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, once it has grown enough."""
        # Of an overwritten log SQLite would move what another program has written, by its index in memory.
        if self._wal_size() >= self._wal_limit and not self._open_files.is_overwritten:
            try:
                self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                self._open_files.remember()

    def close(self) -> None:
        """Checkpoint and close; an overwritten file is only closed."""
        if self._open_files.is_overwritten:
            self.abandon()
        else:
            self._database.close()

    def abandon(self) -> None:
        """Close a file that failed, ignoring errors, and leave its write-ahead log as it is."""
        try:
            self._database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._database.close(force=True)
        except (apsw.Error, OSError) as error:
            _LOG.warning("closing the failed journal", error=str(error))

    # --- its place ---

    def lost_reason(self) -> str:
        """Return what happened to the file or its log if it is no longer the one opened here; empty if nothing."""
        return self._open_files.lost_reason(written=True)

    def remember(self) -> None:
        """Register the files as they are now: this process has just written to them."""
        self._open_files.remember()

    def others(self) -> list[Path]:
        """Return the paths, of the file and its log, at which there is not the file that is open here."""
        return [path for path in (self._path, self._wal) if not self._open_files.is_known(path)]

    def write_out(self, to: Path) -> None:
        """Write the content into a new file, and sync it.

        Raises:
            apsw.Error, OSError: The file cannot be written.
        """
        write_out(self._database, to)

    # --- reading ---

    def verify(self) -> None:
        """Check the structure of the file, and the checksum and number of its rows.

        Raises:
            DamagedFile: Something is not as it was written.
        """
        # The number too: a file that another program has written into may be a whole one, with fewer rows.
        with _damage_detected():
            verdict = self._database.pragma("integrity_check", 1)
            broken = next((row.sequence for row in self.rows() if not row.is_whole), None)
            stored = int(self._one("SELECT count(*) FROM message"))
        if verdict == "ok" and self._stored not in {None, stored}:
            verdict = "rows that were written are not there"
        if verdict != "ok" or broken is not None:
            raise DamagedFile(verdict if verdict != "ok" else f"the checksum of row {broken} is wrong")
        self._stored = stored  # not of a damaged file, which would be whole the next time

    def rows(self) -> "map[StoredRow]":
        """Yield every row in order."""
        return map(StoredRow._make, self._database.execute("SELECT * FROM message ORDER BY sequence"))

    def lanes(self) -> dict[str, int]:
        """Return the number of rows by lane."""
        return dict(self._database.execute("SELECT lane, count(*) FROM message GROUP BY lane"))

    def sources(self) -> dict[str, int]:
        """Return the number of rows by source."""
        return dict(self._database.execute("SELECT source, count(*) FROM message GROUP BY source"))

    def accounts(self) -> dict[str, Account]:
        """Return the ledger of each source."""
        return accounts_of(self._database)

    def next_sequence(self) -> int:
        """Return the first free sequence."""
        return (self._one("SELECT max(sequence) FROM message") or 0) + 1

    def oldest(self) -> tuple[int, int] | None:
        """Return ``sequence`` and ``waits_since`` of the first row in the order, or None if there is none."""
        rows = list(self._database.execute("SELECT sequence, received_at FROM message ORDER BY sequence LIMIT 1"))
        return rows[0] if rows else None

    def used(self) -> int:
        """Return the bytes in use by database and write-ahead log."""
        return used_bytes(self._database, self._wal)

    def first_rows(self, after: str, lanes: int, depth: int, skip: frozenset[str]) -> list[list[StoredRow]]:
        """Return the first rows of the lanes that follow a lane, without those in ``skip``.

        Raises:
            DamagedFile: A row is not as it was written.
        """
        heads: list[list[StoredRow]] = []
        # One step along the index for each lane: DISTINCT or a window function would read every row of long lanes.
        while len(heads) < lanes and (lane := self._next_lane(after)) is not None:
            if lane not in skip:
                heads.append(self._head(lane, depth))
            after = lane
        return heads

    def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[StoredRow], int | None]:
        """Search the next rows behind a sequence for texts.

        Returns:
            The rows that contain one of the texts, and the sequence to continue behind, or None at the end.

        Raises:
            DamagedFile: A row is not as it was written.
        """
        part = "SELECT sequence FROM message WHERE sequence > ? ORDER BY sequence LIMIT ?"
        count, last = next(self._database.execute(f"SELECT count(*), max(sequence) FROM ({part})", (after, limit)))  # noqa: S608 - ours
        holds = " OR ".join("instr(content, ?)" for _ in texts)
        query = f"SELECT * FROM message WHERE sequence IN ({part}) AND ({holds}) ORDER BY sequence"  # noqa: S608 - ours
        rows = [StoredRow._make(columns) for columns in self._database.execute(query, (after, limit, *texts))]
        for row in rows:
            row.check()
        return rows, last if count == limit else None

    def read_note(self, name: str) -> int:
        """Return the number of a note, or 0."""
        return self._one("SELECT value FROM remembered WHERE name = ?", (name,)) or 0

    def read_notes(self, prefix: str, after: str = "", limit: int = -1) -> dict[str, int]:
        """Return notes whose names have a prefix, in the order of names, behind a name; a limit of -1 means all."""
        # `substr` and not LIKE, to which "_" and "%" in a prefix would be wildcards.
        query = "SELECT name, value FROM remembered WHERE name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?"
        return dict(self._database.execute(query, (after, len(prefix), prefix, limit)))

    # --- writing ---

    def insert(self, row: StoredRow, note: tuple[str, int] | None = None) -> None:
        """Add a row and its note, and count it as accepted.

        Raises:
            Unavailable: The journal is full.
        """
        self._room -= len(row.content)  # until the next checkpoint it takes room in the log and in the database
        if self._room < 0:
            raise refusal(FULL)
        self._database.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", row)
        self._added += 1
        if note is not None:
            self.write_note(*note)
        self._count(row.source, accepted=1)

    def replace(self, row: StoredRow) -> None:
        """Replace the row of the same sequence, if it exists.

        A row that changes its lane has become its own dead letter.
        """
        before = self._one("SELECT lane FROM message WHERE sequence = ?", (row.sequence,))
        if before is None:
            return
        self._database.execute("REPLACE INTO message VALUES (?, ?, ?, ?, ?, ?)", row)
        if before != row.lane:
            self._count(row.source, accepted=1, dead_lettered=1)

    def delete(self, sequence: int) -> None:
        """Remove a row, and count it as published."""
        for (source,) in self._delete(sequence):
            self._count(source, published=1)

    def undo_insert(self, sequence: int, note: tuple[str, int] | None = None) -> None:
        """Remove a row and its note whose message was refused although it reached the disk."""
        for (source,) in self._delete(sequence):
            self._count(source, accepted=-1)
        if note is not None:
            self.delete_notes([note[0]])

    def add_direct(self, source: str, published: int) -> None:
        """Count messages that were published without having been in the journal."""
        self._count(source, accepted=published, published=published)

    def write_note(self, name: str, value: int) -> None:
        """Write a note."""
        self._database.execute("REPLACE INTO remembered VALUES (?, ?)", (name, value))

    def delete_notes(self, names: Sequence[str]) -> None:
        """Delete notes by name."""
        self._database.executemany("DELETE FROM remembered WHERE name = ?", [(name,) for name in names])

    def forget_losses(self) -> None:
        """Remove losses from the ledger, after operators have dealt with them."""
        for source, account in self.accounts().items():
            self.set_account(source, account._replace(accepted=account.accepted - account.lost, lost=0))

    def set_account(self, source: str, account: Account) -> None:
        """Set the ledger of one source."""
        _set_account(self._database, source, account)

    # --- internals ---

    def _open(self, vfs: str | None) -> apsw.Connection:
        self._path.touch(mode=0o600)
        check_not_emptied(self._path, self._wal)
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        database = apsw.Connection(str(self._path), flags=flags, vfs=vfs)
        try:
            with _damage_detected():
                self._prepare(database)
        except BaseException:
            # A checkpoint would write what is damaged into the database, and delete the log that a salvage reads.
            database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            database.close(force=True)
            raise
        return database

    def _prepare(self, database: apsw.Connection) -> None:
        self._secure_log()
        commits = write_ahead_log.commits(self._wal)
        # Before the first read: SQLite then keeps the index of the log in memory, and makes no -shm file.
        database.pragma("locking_mode", "exclusive")
        check_kind(database, self._path, "WEDA_JOURNAL__PATH")
        database.pragma("journal_mode", "wal")
        database.pragma("synchronous", "full")  # in WAL mode "normal" would not sync at a commit
        database.pragma("secure_delete", "on")  # what is published leaves no copy that a salvage would take for a row
        database.set_busy_timeout(0)
        database.pragma("wal_autocheckpoint", 0)  # it would run inside a commit, which a message waits for
        whole, _ = database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        check_commits(commits, whole)
        self._begin_log(database)
        with database:
            self._create_tables(database)

    def _secure_log(self) -> None:
        """Sync the write-ahead log before it is read: after a failed sync, part of it may be in memory only.

        A power cut would remove that part, and with it rows that this process had already read, or the frame that
        repairs a torn page of the database. Syncing the folder makes the names of both files durable.
        """
        if self._wal_size():
            write_again(self._wal)
        sync(self._path.parent)

    def _begin_log(self, database: apsw.Connection) -> None:
        """Truncate the log; old frames behind new ones would look like broken frames of this process."""
        database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    @staticmethod
    def _create_tables(database: apsw.Connection) -> None:
        version: int = database.pragma("user_version")
        if version == 0:
            database.execute(_TABLES)
            database.pragma("application_id", APPLICATION_ID)
            database.pragma("user_version", FORMAT)

    def _outcome(self, run: Callable[["JournalFile"], Any]) -> Any:
        try:
            return run(self)
        except Unavailable as refusal:
            return refusal  # of this command only; the others of the transaction are not affected

    def _count(self, source: str, *, accepted: int = 0, published: int = 0, dead_lettered: int = 0) -> None:
        changes = self._changes[source]
        changes[0] += accepted
        changes[1] += published
        changes[2] += dead_lettered

    def _write_accounts(self) -> None:
        if not self._changes:
            return
        accounts = self.accounts()
        for source, (accepted, published, dead_lettered) in self._changes.items():
            before = accounts.get(source, Account())
            self.set_account(source, before.plus(accepted=accepted, published=published, dead_lettered=dead_lettered))

    def _delete(self, sequence: int) -> list[tuple[str]]:
        sources = list(self._database.execute("DELETE FROM message WHERE sequence = ? RETURNING source", (sequence,)))
        self._added -= len(sources)
        return sources

    def _next_lane(self, after: str) -> str | None:
        lane: str | None = self._one("SELECT min(lane) FROM message WHERE lane > ?", (after,))
        return lane

    def _head(self, lane: str, depth: int) -> list[StoredRow]:
        query = "SELECT * FROM message WHERE lane = ? ORDER BY sequence LIMIT ?"
        rows = [StoredRow._make(columns) for columns in self._database.execute(query, (lane, depth))]
        for row in rows:
            row.check()
        return rows

    def _one(self, query: str, bindings: tuple[Any, ...] = ()) -> Any:
        return first_value(self._database, query, bindings)

    def _wal_size(self) -> int:
        return size(self._wal)


@contextmanager
def _damage_detected() -> Iterator[None]:
    """Raise what reading a damaged file raises as a `DamagedFile`."""
    try:
        yield
    except DAMAGE as error:
        raise DamagedFile(str(error)) from error
    except apsw.IOError as error:
        # Only a shortened log: SQLite fills what the database lacks with zeros.
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHORT_READ:
            raise DamagedFile("its write-ahead log is shorter than it was") from error
        raise


def first_value(database: apsw.Connection, query: str, bindings: tuple[Any, ...] = ()) -> Any:
    """Return the first column of a query's first row, or None if there is no row."""
    row = database.execute(query, bindings).fetchone()
    return None if row is None else row[0]


def accounts_of(database: apsw.Connection) -> dict[str, Account]:
    """Return the ledger of each source in an open database of this format."""
    query = "SELECT source, accepted, published, buried, lost FROM account ORDER BY source"
    return {source: Account(*counts) for source, *counts in database.execute(query)}


def used_bytes(database: apsw.Connection, wal: Path) -> int:
    """Return the bytes in use by an open database and its write-ahead log."""
    # Free pages do not count: deleted rows leave them, and new rows use them before the file grows.
    pages: int = database.pragma("page_count") - database.pragma("freelist_count")
    page_size: int = database.pragma("page_size")
    return pages * page_size + size(wal)


def check_kind(database: apsw.Connection, path: Path, setting: str) -> int:
    """Return the format of an open database: `FORMAT`, or 0 if nothing was ever written into it.

    Args:
        database: The open database.
        path: The journal's path, for the error.
        setting: The setting or flag that named the path, for the error.

    Raises:
        ConfigurationError: The database belongs to another program, or has another format.
    """
    version: int = database.pragma("user_version")
    tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if database.pragma("application_id") != APPLICATION_ID and (tables is None or tables[0]):
        raise ConfigurationError(f"{setting}: {path} is a database of another program; give another path")
    if version not in {0, FORMAT}:
        raise ConfigurationError(
            f"{setting}: {path} has format {version}, this version knows {FORMAT}: run the version that wrote it"
        )
    return version


def check_not_emptied(path: Path, wal: Path) -> None:
    """Check that a database was not emptied.

    Raises:
        DamagedFile: The file is empty, its log is not.
    """
    # SQLite would delete the log of an empty file, and with it the only copy of its rows.
    if size(path) == 0 and size(wal):
        raise DamagedFile("the file is empty, its log is not")


def check_commits(commits: Sequence[int], whole: int) -> None:
    """Check that no committed frames stand behind a broken one, where SQLite would ignore them.

    Args:
        commits: Numbers of the frames that end a transaction.
        whole: How many frames are as they were written, counted from the first.

    Raises:
        DamagedFile: More than one commit is behind the last whole frame.
    """
    # A crash leaves one commit that was not synced. Earlier ones were synced, so they were broken since.
    if sum(frame > whole for frame in commits) > 1:
        raise DamagedFile("committed frames of the write-ahead log stand behind a broken one")


def size(file: Path) -> int:
    """Return the size of a file in bytes, or 0 if it does not exist."""
    # Not `exists` first: it may be deleted in between.
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def lock(descriptor: int, path: Path, otherwise: str) -> None:
    """Lock a journal's open lock file exclusively, until it is closed.

    Args:
        descriptor: The open lock file.
        path: The journal.
        otherwise: What to do if another process holds the lock, for the error.

    Raises:
        OutsideUnreachable: Another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OutsideUnreachable(f"the journal {path} is held by another process: {otherwise}") from error


def _set_account(database: apsw.Connection, source: str, account: Account) -> None:
    columns = source, *account, account.checksum(source)
    database.execute("REPLACE INTO account VALUES (?, ?, ?, ?, ?, ?)", columns)


def write_again(path: Path) -> None:
    """Write a file's content over itself, and sync it."""
    # After a failed sync the kernel may mark pages as clean that never reached the disk, and a second sync skips them.
    with path.open("r+b") as file:
        content = file.read()
        file.seek(0)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def headroom(max_bytes: int) -> int:
    """Return the bytes below a journal's limit that only deletions may use: they grow the log as they empty it."""
    return min(HEADROOM_BYTES, max_bytes // 4)
