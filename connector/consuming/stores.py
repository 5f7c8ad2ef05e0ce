"""Stores of handled and parked events, so that neither a duplicate nor a restart handles an event twice."""

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, Self

from connector.consuming.event import Event, Mark, from_json, to_json
from connector.errors import ConfigurationError, ConnectorError

MAX_MARKS: Final = 1_000_000
"""Maximum marks in a durable store: some 60 MiB."""

MAX_PARKED: Final = 10_000
"""Maximum parked events in a store. One more raises an error: when so many fail, the events are not the cause."""

# AUTOINCREMENT never uses a number twice, so the smallest numbers belong to the oldest marks.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS weda_seen (number INTEGER PRIMARY KEY AUTOINCREMENT, mark BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS weda_parked
(mark BLOB PRIMARY KEY, event TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL);
"""


class TooManyParked(ConnectorError):
    """More events were parked than a store takes."""

    stage = "consume"


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that was set aside because its handling fails permanently.

    Attributes:
        event: The event.
        reason: Why its handling fails, for people to read.
        at: When it was parked, in UTC.
    """

    event: Event
    reason: str
    at: datetime


class Store(Protocol):
    """The interface that `Events` needs. A store belongs to one consumer group; all members may share it."""

    def knows(self, mark: Mark) -> bool:
        """Whether an event with this mark was handled."""
        ...

    def add(self, marks: Collection[Mark], parked: Collection[Parked]) -> None:
        """Remember handled and parked events atomically, and durably if the store is durable."""
        ...

    def parked(self) -> Iterator[Parked]:
        """The parked events, the oldest first."""
        ...

    def release(self, parked: Parked) -> None:
        """Remove a parked event that was handled after all; its mark stays known."""
        ...


class MemoryStore:
    """A store in memory, which ends with the process.

    Args:
        most: Maximum marks, 0 for none; 100,000 take some 15 MiB.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._marks: OrderedDict[Mark, None] = OrderedDict()
        self._parked: dict[Mark, Parked] = {}

    def knows(self, mark: Mark) -> bool:
        """See `Store`."""
        if mark not in self._marks:
            return False
        self._marks.move_to_end(mark)
        return True

    def add(self, marks: Collection[Mark], parked: Collection[Parked]) -> None:
        """See `Store`.

        Raises:
            TooManyParked: More than `MAX_PARKED` events are parked.
        """
        _check_parked_count(len(self._parked) + len(parked))  # first: it is all or nothing
        self._marks.update(dict.fromkeys(marks))
        while len(self._marks) > self._most:
            self._marks.popitem(last=False)
        self._parked.update({entry.event.mark: entry for entry in parked})

    def parked(self) -> Iterator[Parked]:
        """See `Store`."""
        yield from tuple(self._parked.values())

    def release(self, parked: Parked) -> None:
        """See `Store`."""
        self._parked.pop(parked.event.mark, None)


class SqliteStore:
    """A store in an SQLite file: after a restart or a crash, no committed event is handled again.

    If the program passes its own connection, its writes through it are committed in the same transaction as the marks:
    the effect of an event and the mark are stored together or not at all.

    Args:
        place: The file, or a connection to it (made with ``check_same_thread=False`` if `Events` is used from asyncio).
        most: Maximum marks; the oldest are removed first.

    Raises:
        ConfigurationError: The file cannot be opened or is not a database.
        ValueError: The connection commits each statement by itself (``isolation_level=None``, ``autocommit=True``).
    """

    def __init__(self, place: Path | str | sqlite3.Connection, *, most: int = MAX_MARKS) -> None:
        self._most = most
        self._is_ours = not isinstance(place, sqlite3.Connection)
        if isinstance(place, sqlite3.Connection) and _commits_by_itself(place):
            raise ValueError("the connection commits by itself: a mark would not be stored together with its effects")
        try:
            self._database = place if isinstance(place, sqlite3.Connection) else _opened(Path(place))
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(f"the store {place} cannot be opened: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a connection that the caller passed stays open."""
        if self._is_ours:
            self._database.close()

    def knows(self, mark: Mark) -> bool:
        """See `Store`."""
        return self._database.execute("SELECT 1 FROM weda_seen WHERE mark = ?", (mark,)).fetchone() is not None

    def add(self, marks: Collection[Mark], parked: Collection[Parked]) -> None:
        """See `Store`.

        Raises:
            TooManyParked: More than `MAX_PARKED` events are parked.
        """
        rows = [(entry.event.mark, to_json(entry.event), entry.reason, entry.at.timestamp()) for entry in parked]
        with self._database as database:  # commits at the end, with what the program wrote; an exception rolls back
            # Another member that shares the file may have handled the same event after a rebalance.
            database.executemany("INSERT OR IGNORE INTO weda_seen (mark) VALUES (?)", [(mark,) for mark in marks])
            oldest = "SELECT max(number) - ? FROM weda_seen"
            database.execute(f"DELETE FROM weda_seen WHERE number <= ({oldest})", (self._most,))  # noqa: S608 - ours
            if rows:
                database.executemany("INSERT OR REPLACE INTO weda_parked VALUES (?, ?, ?, ?)", rows)
                _check_parked_count(database.execute("SELECT count(*) FROM weda_parked").fetchone()[0])

    def parked(self) -> Iterator[Parked]:
        """See `Store`."""
        rows = self._database.execute("SELECT event, reason, at FROM weda_parked ORDER BY at").fetchall()
        for text, reason, at in rows:
            yield Parked(from_json(text), reason, datetime.fromtimestamp(at, UTC))

    def release(self, parked: Parked) -> None:
        """See `Store`."""
        with self._database as database:
            database.execute("DELETE FROM weda_parked WHERE mark = ?", (parked.event.mark,))


def _commits_by_itself(database: sqlite3.Connection) -> bool:
    # `autocommit` is new in Python 3.12.
    return database.isolation_level is None or getattr(database, "autocommit", None) is True


def parked_now(event: Event, reason: str) -> Parked:
    """An event parked at this moment."""
    return Parked(event, reason, datetime.fromtimestamp(time.time(), UTC))


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")  # NORMAL, with a WAL, can lose the last commits in a power failure
    return database


def _check_parked_count(count: int) -> None:
    if count > MAX_PARKED:
        raise TooManyParked(f"{MAX_PARKED} events are parked and one more fails: see the reasons in Store.parked()")
