"""What is to be sent, on disk: added in one transaction with the memory of its event, removed once it is sent."""

import fcntl
import hashlib
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from connector.errors import ConfigurationError

MOST: Final = 100_000
"""Notifications that wait or are parked; with so many, reading the topic waits."""

_BUSY_SECONDS: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS weda_outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  identity BLOB NOT NULL UNIQUE,
  rule TEXT NOT NULL, target TEXT NOT NULL, address TEXT NOT NULL, person TEXT NOT NULL,
  title TEXT NOT NULL, text TEXT NOT NULL,
  created REAL NOT NULL, due REAL NOT NULL, digest INTEGER NOT NULL, reminder INTEGER NOT NULL,
  instance TEXT NOT NULL, node TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, parked REAL, reason TEXT
);
CREATE INDEX IF NOT EXISTS weda_outbox_lanes ON weda_outbox (parked, target, address, due, number);
CREATE INDEX IF NOT EXISTS weda_outbox_instances ON weda_outbox (instance, node);
CREATE TABLE IF NOT EXISTS weda_first_start (moment REAL NOT NULL);
"""
_COLUMNS: Final = (
    *("number", "rule", "target", "address", "person", "title", "text", "created", "due", "digest", "attempts"),
    *("parked", "reason"),
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A notification that a rule makes of an event.

    Attributes:
        identity: The same whenever the rule makes it of the event for the person.
        rule: The rule's name.
        target: The target's name.
        address: The person's address there; empty for a room.
        person: The id of the person; empty for a room.
        title: One line.
        text: The text; of a digest, the person's line in it.
        due: Epoch seconds from which it may be sent.
        is_digest: Whether it is gathered with others that are due by then.
        is_reminder: Whether the end of its task cancels it.
        instance: The instance's id.
        node: The id of the node.
    """

    identity: bytes
    rule: str
    target: str
    address: str
    person: str
    title: str
    text: str
    due: float
    is_digest: bool
    is_reminder: bool
    instance: str
    node: str


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification in the outbox; times are epoch seconds, ``parked`` is when it failed for good, with the reason."""

    number: int
    rule: str
    target: str
    address: str
    person: str
    title: str
    text: str
    created: float
    due: float
    digest: bool
    attempts: int
    parked: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many wait and are parked, and the age in seconds of the oldest that is due."""

    waiting: int
    parked: int
    oldest_seconds: float


def identity_of(*parts: bytes | str) -> bytes:
    """An identity from what makes a notification the same."""
    joined = b"\0".join(part.encode(errors="surrogatepass") if isinstance(part, str) else part for part in parts)
    return hashlib.blake2b(joined, digest_size=16).digest()


class Outbox:
    """The outbox in a file. One object for each thread: several may have the same file.

    Args:
        path: The file.

    Attributes:
        database: The connection, for a store that commits with it.

    Raises:
        ConfigurationError: The file cannot be opened or is no database.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
            self.database.execute("PRAGMA journal_mode = WAL")
            self.database.execute("PRAGMA synchronous = FULL")
            self.database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"--state {path}: cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def first_start(self, moment: float) -> float:
        """The moment of the first start, epoch seconds: this one, unless an earlier one was written down."""
        with self.database as database:
            found = database.execute("SELECT moment FROM weda_first_start").fetchone()
            if found is None:
                database.execute("INSERT INTO weda_first_start VALUES (?)", (moment,))
        return moment if found is None else float(found[0])

    def add(self, drafts: Iterable[Draft]) -> None:
        """Add notifications that are not there yet; whoever has the connection commits them."""
        now = time.time()
        rows = [(*_row(each), now) for each in drafts]
        self.database.executemany(
            "INSERT OR IGNORE INTO weda_outbox (identity, rule, target, address, person, title, text, due, digest, "
            "reminder, instance, node, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def park_draft(self, draft: Draft, reason: str) -> None:
        """Add one that cannot be sent."""
        self.add([draft])
        self.database.execute(
            "UPDATE weda_outbox SET parked = ?, reason = ? WHERE identity = ?", (time.time(), reason, draft.identity)
        )

    def cancel(self, instance: str, node: str | None = None, persons: Collection[str] = ()) -> int:
        """Remove the reminders of an instance, of one node of it, or of some persons there; gives how many."""
        where, values = "instance = ? AND reminder = 1 AND parked IS NULL", [instance]
        if node is not None:
            where, values = f"{where} AND node = ?", [*values, node]
        if persons:
            where, values = f"{where} AND person IN ({', '.join('?' * len(persons))})", [*values, *persons]
        return self.database.execute(f"DELETE FROM weda_outbox WHERE {where}", values).rowcount  # noqa: S608 - ours

    def heads(self, now: float) -> list[Notification]:
        """The first notification that is due of each lane: of each address at each target."""
        due = "SELECT min(number) FROM weda_outbox WHERE parked IS NULL AND due <= ? GROUP BY target, address"
        return self._read(f"WHERE number IN ({due}) ORDER BY number", now)

    def gathered(self, head: Notification, now: float) -> list[Notification]:
        """All that a digest sends with its first."""
        where = "WHERE parked IS NULL AND due <= ? AND target = ? AND address = ? AND rule = ? AND digest = 1"
        return self._read(f"{where} ORDER BY number", now, head.target, head.address, head.rule)

    def parked(self) -> list[Notification]:
        """The parked ones, the oldest first."""
        return self._read("WHERE parked IS NOT NULL ORDER BY number")

    def remove(self, sent: Sequence[Notification]) -> None:
        """Remove what was sent."""
        with self.database as database:
            database.executemany("DELETE FROM weda_outbox WHERE number = ?", [(each.number,) for each in sent])

    def failed(self, tried: Sequence[Notification], reason: str, *, is_final: bool) -> None:
        """Count an attempt; park what needs no other."""
        parked = time.time() if is_final else None
        rows = [(each.attempts + 1, reason, parked, each.number) for each in tried]
        with self.database as database:
            database.executemany(
                "UPDATE weda_outbox SET attempts = ?, reason = ?, parked = ? WHERE number = ?",
                rows,
            )

    def retry_parked(self) -> int:
        """Let all that is parked be tried again; gives how many."""
        with self.database as database:
            return database.execute(
                "UPDATE weda_outbox SET parked = NULL, reason = NULL, attempts = 0 WHERE parked IS NOT NULL"
            ).rowcount

    def discard_parked(self) -> int:
        """Remove all that is parked; gives how many."""
        with self.database as database:
            return database.execute("DELETE FROM weda_outbox WHERE parked IS NOT NULL").rowcount

    def counts(self) -> Counts:
        """How many there are."""
        now = time.time()
        parked, total, oldest = self.database.execute(
            "SELECT count(parked), count(*), min(CASE WHEN parked IS NULL AND due <= ? THEN due END) FROM weda_outbox",
            (now,),
        ).fetchone()
        return Counts(total - parked, parked, 0.0 if oldest is None else now - oldest)

    def _read(self, where: str, *values: Any) -> list[Notification]:
        rows = self.database.execute(f"SELECT {', '.join(_COLUMNS)} FROM weda_outbox {where}", values)  # noqa: S608
        return [Notification(*row) for row in rows]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other notifiers away from a file of the outbox: two would send everything twice.

    Raises:
        ConfigurationError: Another one has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"--state {path}: another notifier uses it") from None
        yield


def _row(draft: Draft) -> tuple[Any, ...]:
    return (
        *(draft.identity, draft.rule, draft.target, draft.address, draft.person, draft.title, draft.text, draft.due),
        *(draft.is_digest, draft.is_reminder, draft.instance, draft.node),
    )
