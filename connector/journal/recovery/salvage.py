"""Saves the readable rows of a damaged journal into a new file, and sets the damaged one aside.

SQLite's tree is not trusted: every page of the file is examined in its latest version, which may be in the write-ahead
log, and a record in a leaf of a table is taken as a row if its checksum is right. The format is described in
https://www.sqlite.org/fileformat2.html. A crash may cut short every step: the damaged file stays in place until the new
one is complete, and :func:`finish` does the rest at the next opening.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import apsw
import structlog

from connector.errors import ConfigurationError
from connector.journal.file import APPLICATION_ID, DamagedFile, JournalFile, StoredRow
from connector.journal.model import Account
from connector.journal.open_files import remove_draft, sync
from connector.journal.paths import (
    DEDUP_SUFFIX,
    RESCUED_SUFFIX,
    RESCUING_SUFFIX,
    SALVAGED_SUFFIX,
    SALVAGING_SUFFIX,
    WAL_SUFFIX,
    sibling,
)
from connector.journal.recovery import write_ahead_log

MAX_SET_ASIDE: Final = 3
"""Damaged files that are kept, and files of others; when there are more of either, the oldest are removed."""

_TABLE_LEAF: Final = 0x0D
_FILE_HEADER: Final = 100
_APPLICATION_ID: Final = slice(68, 72)
_PAGE_HEADER: Final = 8
_DEFAULT_PAGE_BYTES: Final = 4096
_MIN_PAGE_BYTES: Final = 512
_MAX_CELLS: Final = 16_384  # more than fit on the largest page, 64 KiB; a damaged page may claim more
_MAX_BATCH: Final = 500
_SPARE_BYTES: Final = 64 * 1024 * 1024
_LOG = structlog.get_logger()

Columns = list[Any]
"""The values of one record: None, int, float, str or bytes."""


def set_aside_files(path: Path) -> list[Path]:
    """Return the damaged files beside a journal, oldest first."""
    return sorted(file for file in path.parent.glob(f"{path.name}.damaged-*") if not file.name.endswith(WAL_SUFFIX))


def rescued(path: Path) -> Path:
    """Return where an open journal's content is kept while its file is not at its path; the next start uses it."""
    return sibling(path, RESCUED_SUFFIX)


def set_aside(path: Path, others: Iterable[Path]) -> list[str]:
    """Rename files at a journal's paths that are not its own; returns the new names."""
    stamp = _stamp()
    aside = []
    for other in others:
        if other.exists():
            to = sibling(path, f".found-{stamp}{other.name.removeprefix(path.name)}")
            other.rename(to)
            aside.append(str(to))
    _keep_newest(path, "found")
    return aside


def finish(path: Path) -> None:
    """Complete a salvage or a rescue that a crash cut short after the new file was complete."""
    remove_draft(sibling(path, RESCUING_SUFFIX))
    whole = rescued(path)
    if whole.exists():
        aside = set_aside(path, [path, sibling(path, WAL_SUFFIX)])
        whole.replace(path)
        sync(path.parent)
        _LOG.warning("the journal is what an open file held that was no longer at its path", set_aside=aside)
    whole = sibling(path, SALVAGED_SUFFIX)
    if whole.exists():
        # First: SQLite would apply the log of the damaged file to the new one.
        sibling(path, WAL_SUFFIX).unlink(missing_ok=True)
        whole.replace(path)
        sync(path.parent)


def salvage(path: Path, max_bytes: int) -> None:
    """Replace a damaged journal by a new file with its readable rows.

    Args:
        path: The journal's file, which no process has open.
        max_bytes: Limit of the journal.

    Raises:
        ConfigurationError: The file is no journal at all, or the disk has no room for the new file.
    """
    try:
        draft = sibling(path, SALVAGING_SUFFIX)
        _remove(draft)
        saved, lost = _copy(path, draft, max_bytes)
        if not saved and not _was_a_journal(path):
            _remove(draft)
            raise ConfigurationError(f"WEDA_JOURNAL__PATH: {path} is no journal; give another path")
        aside = _set_aside(path)
        draft.replace(sibling(path, SALVAGED_SUFFIX))
        finish(path)
    except (OSError, apsw.Error) as error:
        raise ConfigurationError(
            f"WEDA_JOURNAL__PATH: {path} is damaged and cannot be saved ({error}): give its disk room for a second copy"
        ) from error
    _LOG.error("the journal was damaged: what could be read is saved", saved=saved, lost=lost, set_aside=str(aside))


def _copy(path: Path, draft: Path, max_bytes: int) -> tuple[int, int]:
    """Write a new file from the old one's pages; returns the numbers of rows saved and lost."""
    size = sum(sibling(path, suffix).stat().st_size for suffix in ("", WAL_SUFFIX) if sibling(path, suffix).exists())
    new = JournalFile(draft, 2 * max(max_bytes, size) + _SPARE_BYTES)  # all that the old file holds has to fit
    try:
        saved = _Saved(new)
        for columns in _records(path):
            saved.take(columns)
        lost = saved.write_rest()
    finally:
        new.close()
    return saved.rows, lost


class _Saved:
    """Collects records of the damaged file, and writes them into the new one."""

    def __init__(self, new: JournalFile) -> None:
        self._new = new
        self._batch: list[StoredRow] = []
        self._sequences: set[int] = set()
        self._broken: dict[str, int] = {}
        self._accounts: dict[str, Account] = {}
        self._notes: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """How many rows were saved."""
        return len(self._sequences)

    def take(self, columns: Columns) -> None:
        """Recognise a record by the types of its columns, and keep it if it is whole."""
        # Pages do not say which table they belong to.
        match columns:
            case [
                int() as sequence,
                str() as lane,
                str() as source,
                int() as waits_since,
                bytes() as content,
                int() as checksum,
            ]:
                self._take_row(StoredRow(sequence, lane, source, waits_since, content, checksum))
            case [
                _,
                str() as source,
                int() as accepted,
                int() as published,
                int() as dead_lettered,
                int() as lost,
                checksum,
            ]:
                account = Account(accepted, published, dead_lettered, lost)
                if account.checksum(source) == checksum:
                    self._accounts[source] = account
            case [_, str() as name, int() as value]:
                self._notes[name] = max(value, self._notes.get(name, 0))

    def write_rest(self) -> int:
        """Write the rest of the rows, and the ledger and notes that were found.

        Returns:
            The number of lost rows: those in the ledger that are not in the file.
        """
        self._flush()
        rows = self._new.sources()
        for source in {*self._accounts, *rows, *self._broken}:
            waiting, broken = rows.get(source, 0), self._broken.get(source, 0)
            account = self._accounts.get(source, Account(accepted=waiting + broken))
            # More rows than the ledger has: published rows were found again, and are published a second time.
            accepted = max(account.accepted, account.published + account.dead_lettered + waiting)
            settled = account._replace(accepted=accepted)
            settled = settled._replace(lost=settled.imbalance(waiting))
            self._new.transact([partial(JournalFile.set_account, source=source, account=settled)])
        notes = self._notes.items()
        self._new.transact([partial(JournalFile.write_note, name=name, value=value) for name, value in notes])
        return sum(account.lost for account in self._new.accounts().values())

    def _take_row(self, row: StoredRow) -> None:
        # A damaged file may hold a row twice.
        if row.sequence in self._sequences:
            return
        if not row.is_whole or not _is_readable(row):
            self._broken[row.source] = self._broken.get(row.source, 0) + 1
            return
        self._sequences.add(row.sequence)
        self._batch.append(row.sealed())
        if len(self._batch) >= _MAX_BATCH:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._new.transact([partial(JournalFile.insert, row=row) for row in batch])
        self._new.checkpoint()


def _is_readable(row: StoredRow) -> bool:
    try:
        row.admission()
    except DamagedFile:
        return False
    return True


def _was_a_journal(path: Path) -> bool:
    """Whether a file without a readable row was a journal: its header says so, or a journal's files are beside it."""
    with path.open("rb") as file:
        has_id = file.read(_FILE_HEADER)[_APPLICATION_ID] == APPLICATION_ID.to_bytes(4, "big")
    return has_id or any(sibling(path, suffix).exists() for suffix in (WAL_SUFFIX, DEDUP_SUFFIX))


def _set_aside(path: Path) -> Path:
    aside = sibling(path, f".damaged-{_stamp()}")
    for suffix in ("", WAL_SUFFIX):
        if sibling(path, suffix).exists():
            _also_name(sibling(path, suffix), sibling(aside, suffix))
    _keep_newest(path, "damaged")
    sync(path.parent)
    return aside


def _stamp() -> str:
    """Return the time for the name of a file that is set aside, to the millisecond."""
    now = time.time_ns() // 1_000_000
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now / 1000))}.{now % 1000:03}Z"


def _keep_newest(path: Path, kind: str) -> None:
    """Of the files beside a journal that are ``damaged`` or ``found``, remove the oldest, each with its log."""
    names = {file.name.removesuffix(WAL_SUFFIX) for file in path.parent.glob(f"{path.name}.{kind}-*")}
    for name in sorted(names)[:-MAX_SET_ASIDE]:
        try:
            _remove(path.with_name(name))
        except OSError as error:  # a folder that somebody put there: no reason to do without the journal
            _LOG.warning("what is kept beside the journal cannot be removed", path=name, error=str(error))
        else:
            _LOG.warning("too many files are kept beside the journal: the oldest goes", path=str(path.with_name(name)))


def _also_name(file: Path, name: Path) -> None:
    # A link and no rename: the damaged file stays at its path until the new one replaces it.
    try:
        name.hardlink_to(file)
    except OSError:  # not every file system has links
        shutil.copy2(file, name)


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    sibling(file, WAL_SUFFIX).unlink(missing_ok=True)


# --- pages and records ---


def _records(path: Path) -> Iterator[Columns]:
    """Yield the records in the leaves of every table: the row's id or None, then the columns."""
    with path.open("rb") as database, _opened_log(path) as log:
        pages = _Pages(path, database, log)
        for number in range(1, pages.count + 1):
            page = pages.read(number)
            start = _FILE_HEADER if number == 1 else 0
            if len(page) > start + _PAGE_HEADER and page[start] == _TABLE_LEAF:
                yield from _cells(pages, page, start)


def _opened_log(path: Path) -> BinaryIO:
    wal = sibling(path, WAL_SUFFIX)
    return (wal if wal.exists() else Path(os.devnull)).open("rb")


class _Pages:
    """The pages of a database, each in its last committed version, from the log or the file."""

    def __init__(self, path: Path, database: BinaryIO, log: BinaryIO) -> None:
        self._database = database
        self._log = log
        self.size = _page_size(database)
        wal = sibling(path, WAL_SUFFIX)
        self._in_log = write_ahead_log.pages(wal, self.size) if wal.exists() else {}
        in_file = path.stat().st_size // self.size
        self.count = max([in_file, *self._in_log])

    def read(self, number: int) -> bytes:
        """Read one page; it is short or empty at the end of the file."""
        offset = self._in_log.get(number)
        file = self._database if offset is None else self._log
        file.seek((number - 1) * self.size if offset is None else offset)
        return file.read(self.size)


def _page_size(database: BinaryIO) -> int:
    size = int.from_bytes(database.read(18)[16:18], "big")
    return size if size >= _MIN_PAGE_BYTES and size & (size - 1) == 0 else _DEFAULT_PAGE_BYTES


def _cells(pages: _Pages, page: bytes, start: int) -> Iterator[Columns]:
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(min(count, _MAX_CELLS)):
        pointer = start + _PAGE_HEADER + 2 * index
        offset = int.from_bytes(page[pointer : pointer + 2], "big")
        try:
            size, offset = _varint(page, offset)
            row_id, offset = _varint(page, offset)
            columns = _columns(_whole_record(pages, page, offset, size))
        except (IndexError, ValueError):
            continue  # not a record; others on the page may be
        # In a table with an integer key, the record has NULL in its column: the value is the row's id.
        yield [row_id, *columns[1:]] if columns[:1] == [None] else [None, *columns]


def _whole_record(pages: _Pages, page: bytes, offset: int, size: int) -> bytes:
    """Return a record's bytes, from its cell and from overflow pages."""
    # How much of a record is in the cell: section 1.6 of SQLite's file format, for leaves of tables.
    max_local = pages.size - 35
    if size <= max_local:
        return _exactly(page[offset : offset + size], size)
    min_local = (pages.size - 12) * 32 // 255 - 23
    local = min_local + (size - min_local) % (pages.size - 4)
    local = local if local <= max_local else min_local
    record = bytearray(page[offset : offset + local])
    following = int.from_bytes(_exactly(page[offset + local : offset + local + 4], 4), "big")
    while len(record) < size:
        overflow = _exactly(pages.read(following), pages.size) if following else b""
        if not overflow:
            raise ValueError("the chain of overflow pages is broken")
        following = int.from_bytes(overflow[:4], "big")
        record += overflow[4 : 4 + size - len(record)]
    return bytes(record)


def _columns(record: bytes) -> Columns:
    end, offset = _varint(record, 0)
    kinds = []
    while offset < end:
        kind, offset = _varint(record, offset)
        kinds.append(kind)
    columns = []
    for kind in kinds:
        size = _size(kind)
        columns.append(_value(kind, _exactly(record[offset : offset + size], size)))
        offset += size
    return columns


_SIZES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_FIRST_BLOB: Final = 12


def _size(kind: int) -> int:
    if kind >= _FIRST_BLOB:
        return (kind - _FIRST_BLOB) // 2
    return _SIZES[kind]


def _value(kind: int, content: bytes) -> Any:
    if kind == 0:
        return None
    if kind in {8, 9}:
        return kind - 8
    if kind < _FIRST_BLOB:
        return int.from_bytes(content, "big", signed=True)  # no column of ours holds a float
    return content if kind % 2 == 0 else content.decode()


def _varint(content: bytes, offset: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and the offset behind it."""
    number = 0
    for index in range(8):
        byte = content[offset + index]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follow
            return number, offset + index + 1
    return number << 8 | content[offset + 8], offset + 9


def _exactly(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes where {size} should be")
    return content
