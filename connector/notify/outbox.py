"""Notifications to send, on disk: added in the transaction that marks their event as handled, removed when sent."""

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

MAX_NOTIFICATIONS: Final = 100_000
"""Waiting and parked notifications; when there are this many, reading the topic pauses."""

# How long one thread waits for the other's write: reading holds its transaction for a whole batch of events.
_BUSY_SECONDS: Final = 30.0
# AUTOINCREMENT never uses a number twice, so numbers are the order in which notifications came.
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
CREATE INDEX IF NOT EXISTS weda_outbox_lanes ON weda_outbox (parked, target, address, due, number, reminder);
CREATE INDEX IF NOT EXISTS weda_outbox_rules ON weda_outbox (parked, rule, target, address, due, number, reminder);
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
        identity: Identifies the notification: the same for the same event, rule, target and person.
        rule: The rule's name.
        target: The target's name.
        address: The person's address at the target; empty for a room.
        person: The person's id; empty for a room.
        title: The title, one line.
        text: The text; for a digest, one line of it.
        due: The time from which it may be sent, in epoch seconds.
        is_digest: Whether it is sent together with others in a digest.
        is_reminder: Whether the end of its task cancels it.
        instance: The instance's id.
        node: The node's id.
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
    """A notification in the outbox; times are epoch seconds. ``parked`` is when it failed for good, or None."""

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
class Head:
    """Which notification is the first of its lane."""

    number: int
    target: str
    address: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of waiting and parked notifications, and for how many seconds the oldest has been due."""

    waiting: int
    parked: int
    oldest_seconds: float


def identity_of(*parts: bytes | str) -> bytes:
    """Return the identity of a notification, a hash of its parts."""
    joined = b"\0".join(part.encode(errors="surrogatepass") if isinstance(part, str) else part for part in parts)
    return hashlib.blake2b(joined, digest_size=16).digest()


class Outbox:
    """The outbox in a SQLite file. Each thread needs an object of its own; several may open the same file.

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
            self.database.execute("PRAGMA journal_mode = WAL")  # one thread reads while the other writes
            # In WAL mode NORMAL does not sync at a commit: a power cut could lose events whose offsets Kafka has.
            self.database.execute("PRAGMA synchronous = FULL")
            self.database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"--state {path}: cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def first_start(self, moment: float) -> float:
        """Return the time of the first start in epoch seconds: ``moment``, unless an earlier start was stored."""
        # A restart before the group has committed offsets must not begin later than the first start did.
        with self.database as database:
            row = database.execute("SELECT moment FROM weda_first_start").fetchone()
            if row is None:
                database.execute("INSERT INTO weda_first_start VALUES (?)", (moment,))
        return moment if row is None else float(row[0])

    def add(self, drafts: Iterable[Draft]) -> None:
        """Add notifications that are new; the caller commits."""
        # No commit: `Events.commit` marks the event as handled in the same transaction.
        now = time.time()
        rows = [(*_row(draft), now) for draft in drafts]
        self.database.executemany(
            "INSERT OR IGNORE INTO weda_outbox (identity, rule, target, address, person, title, text, due, digest, "
            "reminder, instance, node, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def park_draft(self, draft: Draft, reason: str) -> None:
        """Add a notification that cannot be sent; the caller commits."""
        self.add([draft])
        self.database.execute(
            "UPDATE weda_outbox SET parked = ?, reason = ? WHERE identity = ?", (time.time(), reason, draft.identity)
        )

    def cancel(self, instance: str, node: str | None = None, persons: Collection[str] = ()) -> int:
        """Remove reminders of an instance, a node, or persons at a node; returns how many. The caller commits."""
        # Parked ones too: `retry_parked` would have them sent for a task that is done.
        where, values = "instance = ? AND reminder = 1", [instance]
        if node is not None:
            where, values = f"{where} AND node = ?", [*values, node]
        if persons:
            where, values = f"{where} AND person IN ({', '.join('?' * len(persons))})", [*values, *persons]
        return self.database.execute(f"DELETE FROM weda_outbox WHERE {where}", values).rowcount  # noqa: S608 - ours

    def heads(self, now: float, rules: Collection[str] | None = None, *, reminders: bool = True) -> list[Head]:
        """Find the first due notification of each lane, that is, of each address at each target, the oldest first.

        Args:
            now: Epoch seconds.
            rules: Names of rules; notifications of others are passed over. None means all rules.
            reminders: Whether reminders count; otherwise they are passed over too.
        """
        where, values = "parked IS NULL AND due <= ?", [now, *(rules or ())]
        if rules is not None:
            where = f"{where} AND rule IN ({', '.join('?' * len(rules))})"
        if not reminders:
            where = f"{where} AND reminder = 0"
        # No texts, which a lane that has to wait does not need: an index has all of this.
        firsts = f"SELECT min(number), target, address FROM weda_outbox WHERE {where} GROUP BY 2, 3 ORDER BY 1"  # noqa: S608 - ours
        return [Head(*row) for row in self.database.execute(firsts, values)]

    def notification(self, number: int) -> Notification | None:
        """Read a waiting notification; None if it waits no longer, for example because it was cancelled."""
        return next(iter(self._read("WHERE number = ? AND parked IS NULL", number)), None)

    def gathered(self, head: Notification, now: float) -> list[Notification]:
        """Return all due notifications of the digest that begins with ``head``."""
        where = "WHERE parked IS NULL AND due <= ? AND target = ? AND address = ? AND rule = ? AND digest = 1"
        return self._read(f"{where} ORDER BY number", now, head.target, head.address, head.rule)

    def parked(self) -> list[Notification]:
        """Return the parked notifications, the oldest first."""
        return self._read("WHERE parked IS NOT NULL ORDER BY number")

    def remove(self, sent: Sequence[Notification]) -> None:
        """Remove notifications that were sent."""
        numbers = [(notification.number,) for notification in sent]
        with self.database as database:
            database.executemany("DELETE FROM weda_outbox WHERE number = ?", numbers)

    def failed(self, tried: Sequence[Notification], reason: str, *, is_final: bool) -> None:
        """Record a failed attempt, and park the notifications if it was final."""
        parked = time.time() if is_final else None
        rows = [(notification.attempts + 1, reason, parked, notification.number) for notification in tried]
        with self.database as database:
            database.executemany(
                "UPDATE weda_outbox SET attempts = ?, reason = ?, parked = ? WHERE number = ?",
                rows,
            )

    def retry_parked(self) -> int:
        """Make all parked notifications wait again, with all their attempts; returns how many."""
        with self.database as database:
            return database.execute(
                "UPDATE weda_outbox SET parked = NULL, reason = NULL, attempts = 0 WHERE parked IS NOT NULL"
            ).rowcount

    def discard_parked(self) -> int:
        """Remove all parked notifications; returns how many."""
        with self.database as database:
            return database.execute("DELETE FROM weda_outbox WHERE parked IS NOT NULL").rowcount

    def counts(self) -> Counts:
        """Count the notifications."""
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
    """Lock an outbox's file against other notifiers: two would send everything twice.

    Raises:
        ConfigurationError: Another notifier uses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file beside it: SQLite locks the outbox itself, for each transaction.
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
