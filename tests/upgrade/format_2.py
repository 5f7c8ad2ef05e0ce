"""How version 0.1.0 reads a journal of format 2, written down once, without the connector's code; it stays as it is.

A rollback is only a rollback if the version before reads what this one has left. Its code is not at hand in a test, so
its rules are: the names and order of what it selects, the checksums that it checks, the shape that it decodes.
"""

import shutil
import sqlite3
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

APPLICATION_ID = 0x57654461
FORMAT = 2


@dataclass(frozen=True)
class Row:
    """A row as 0.1.0 has it in hand."""

    sequence: int
    lane: str
    source: str
    body: bytes
    records: list[Any]


@dataclass(frozen=True)
class Left:
    """What 0.1.0 finds beside each other."""

    rows: list[Row]
    accounts: dict[str, tuple[int, ...]]
    marks: int
    floor: int


def read(journal: Path) -> Left:
    """Everything that 0.1.0 reads at its start; AssertionError where it would refuse or lose something."""
    with tempfile.TemporaryDirectory() as folder:
        for file in journal.parent.glob(f"{journal.name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, folder)
        copied = Path(folder) / journal.name
        database = sqlite3.connect(copied)
        marks = sqlite3.connect(copied.with_name(copied.name + ".repeats"))
        try:
            return _read(database, marks)
        finally:
            database.close()
            marks.close()


def _read(database: sqlite3.Connection, marks: sqlite3.Connection) -> Left:
    assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert database.execute("PRAGMA user_version").fetchone()[0] <= FORMAT
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = [_row(columns) for columns in database.execute("SELECT * FROM message ORDER BY sequence")]
    accounts = {}
    for source, accepted, published, dead_lettered, lost, checksum in database.execute("SELECT * FROM account"):
        columns = (source, accepted, published, dead_lettered, lost)
        assert checksum == zlib.crc32("\x00".join(map(str, columns)).encode())
        accounts[source] = (accepted, published, dead_lettered, lost)
    [floor] = database.execute("SELECT value FROM remembered WHERE name = 'ingest_floor'").fetchone()
    found = marks.execute("SELECT id, fingerprint FROM mark WHERE seen_at > 0").fetchall()
    assert all(len(identity) == len(fingerprint) == 16 for identity, fingerprint in found)
    return Left(rows, accounts, len(found), floor)


def _row(columns: tuple[Any, ...]) -> Row:
    sequence, lane, source, received_at, content, checksum = columns
    place = f"{sequence}\x00{lane}\x00{source}\x00{received_at}\x00".encode()
    assert checksum == zlib.crc32(content, zlib.crc32(place))
    request, records = msgspec.msgpack.decode(content)
    sender, body, _, at, *_ = request
    assert (sender, at) == (source, received_at)
    for stream, topic, key, value, headers, timestamp, *_ in records:
        assert all(isinstance(one, str) for one in (stream, topic))
        assert all(one is None or isinstance(one, bytes) for one in (key, value))
        assert all(isinstance(name, str) and isinstance(held, bytes) for name, held in headers)
        assert timestamp == received_at
    return Row(sequence, lane, source, body, records)
