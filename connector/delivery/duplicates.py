"""The messages accepted within the window, so that a duplicate is published once.

A duplicate has the same source, the same ``msgId`` and the same content (fingerprint). While the first message is being
published or written, a duplicate joins it and gets the same outcome; once it is safe, a duplicate is answered at once.
The same ``msgId`` with other content is a *conflict*: it is published, under a ``ce_id`` of its own. The index is
bounded in entries, and is written behind to a file of its own, in batches: a kill forgets at most the last second.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import structlog

from connector import supervision
from connector.delivery.completion import Completion, Durability
from connector.errors import ConnectorError
from connector.journal.open_files import OpenFiles, write_out
from connector.journal.paths import RESTORING_SUFFIX, WAL_SUFFIX, sibling
from connector.values import DedupKey

_BUCKETS: Final = 16
_WRITE_SECONDS: Final = 0.5
_WAL_LIMIT: Final = 1024 * 1024
_MAX_UNWRITTEN: Final = 100_000
"""Most keys that wait while the file cannot be written."""

_LOG = structlog.get_logger()

T = TypeVar("T")


class DedupState(Enum):
    """What is known of a key."""

    NEW = "new"
    CONFLICT = "conflict"
    PENDING = "pending"
    SAFE = "safe"


def dedup_key_of(kind: str, source: str, external_id: str, fingerprint: bytes) -> DedupKey:
    """The key by which a duplicate is known.

    Args:
        kind: Of what: a message, a dead letter, its reprocessing, or a signed request.
        source: Who sent it.
        external_id: Its ``msgId``; of a dead letter its media type and the hash of its body; of its reprocessing its
            note; of a signed request its ``webhook-id``.
        fingerprint: What tells other content under the same id apart.
    """
    text = f"{kind}\x00{source}\x00{external_id}".encode()
    return hashlib.blake2b(text, digest_size=16).digest(), fingerprint


class Duplicates:
    """The index: keys in buckets of time. The oldest bucket is dropped as a whole.

    Args:
        window_seconds: The shortest time for which a key is remembered.
        max_entries: Bound of the index; beyond it the oldest sixteenth is dropped early.
        is_written: Whether new keys are collected for :meth:`take_unwritten`.
    """

    def __init__(self, *, window_seconds: float, max_entries: int, is_written: bool = True) -> None:
        self._span = window_seconds / (_BUCKETS - 1)
        self._max_in_bucket = max(max_entries // _BUCKETS, 1)
        self._buckets: deque[_Bucket] = deque([_Bucket()])
        self._pending: dict[bytes, dict[bytes, Completion[Durability]]] = {}
        self._unwritten: list[DedupKey] = []
        self._is_written = is_written
        self.window_seconds = window_seconds

    def dedup_state(self, one: DedupKey) -> DedupState:
        """What is known of a key."""
        key, fingerprint = one
        pending = self._pending.get(key)
        if pending is not None and fingerprint in pending:
            return DedupState.PENDING
        self._expire()
        found = [bucket.keys[key] for bucket in self._buckets if key in bucket.keys]
        if not found:
            return DedupState.NEW if pending is None else DedupState.CONFLICT
        return DedupState.SAFE if any(fingerprint in each for each in found) else DedupState.CONFLICT

    def completion_of(self, one: DedupKey) -> Completion[Durability]:
        """The completion of the first message with a pending key.

        Raises:
            KeyError: The key is not pending.
        """
        key, fingerprint = one
        return self._pending[key][fingerprint]

    def begin(self, one: DedupKey, completion: Completion[Durability]) -> None:
        """A message with the key is admitted; the key is remembered once it is safe, forgotten if it is refused."""
        key, fingerprint = one
        before = self._pending.get(key)
        if before is None:
            self._pending[key] = {fingerprint: completion}
        else:
            before[fingerprint] = completion
        completion.then(partial(self._end, one))

    def remember(self, keys: Iterable[DedupKey]) -> None:
        """Add keys of safe messages."""
        for key, fingerprint in keys:
            newest = self._newest()
            # Of one id the last eight contents: a source that reuses an id for ever must not fill the memory.
            newest[key] = (*newest.get(key, ())[-7:], fingerprint)

    def take_unwritten(self) -> list[DedupKey]:
        """The keys that became safe since the last call."""
        unwritten, self._unwritten = self._unwritten, []
        return unwritten

    def __len__(self) -> int:
        return sum(len(bucket.keys) for bucket in self._buckets)

    def _end(self, one: DedupKey, result: Durability | ConnectorError) -> None:
        key, fingerprint = one
        pending = self._pending[key]
        del pending[fingerprint]
        if not pending:
            del self._pending[key]
        if isinstance(result, Durability) and result is not Durability.ELSEWHERE:
            self.remember((one,))
            if self._is_written:
                self._unwritten.append(one)

    def _newest(self) -> dict[bytes, tuple[bytes, ...]]:
        newest = self._buckets[-1]
        if time.monotonic() - newest.created_at >= self._span or len(newest.keys) >= self._max_in_bucket:
            newest = _Bucket()
            self._buckets.append(newest)
        if len(self._buckets) > _BUCKETS:
            self._buckets.popleft()
        return newest.keys

    def _expire(self) -> None:
        """Drop the buckets whose youngest possible key is out of the window: each took keys for one span."""
        horizon = time.monotonic() - self.window_seconds - self._span
        while len(self._buckets) > 1 and self._buckets[0].created_at <= horizon:
            self._buckets.popleft()
        if self._buckets[0].created_at <= horizon:
            self._buckets[0] = _Bucket()


class _Bucket:
    """Keys that were added within one span of time."""

    __slots__ = ("created_at", "keys")

    def __init__(self) -> None:
        self.created_at = time.monotonic()
        self.keys: dict[bytes, tuple[bytes, ...]] = {}


class DuplicatesFile:
    """The index on disk, beside the journal; losing it costs recognition, never a message.

    Args:
        path: The database file.
        duplicates: The index that it keeps.
    """

    def __init__(self, path: Path, duplicates: Duplicates) -> None:
        self._duplicates = duplicates
        self._path = path
        self._database: apsw.Connection | None = None
        self._writer: asyncio.Task[None] | None = None
        self._log = sibling(path, WAL_SUFFIX)
        self._open_files = OpenFiles()
        self._waiting_keys: list[DedupKey] = []
        # One thread: a write goes on when the task that awaits it is cancelled, and the last one must come behind it.
        self._thread = ThreadPoolExecutor(1, "duplicates")

    async def start(self) -> None:
        """Load what is within the window and begin to write behind."""
        try:
            keys = await self._on_thread(self._open)
        except apsw.Error:
            _LOG.exception("the index of repeats is not readable: starting with an empty one")
            self._path.unlink(missing_ok=True)
            keys = await self._on_thread(self._open)
        self._duplicates.remember(keys)
        self._writer = asyncio.create_task(supervision.run_forever("duplicates", self._write_behind))

    @property
    def is_alive(self) -> bool:
        """Whether keys are written."""
        return self._writer is not None and not self._writer.done()

    async def stop(self) -> None:
        """Write the rest and close."""
        if self._writer is not None:
            await supervision.cancel([self._writer])
        await self._write()
        self._thread.shutdown()
        if self._database is not None:
            self._database.close()

    async def _write_behind(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await self._write()

    async def _write(self) -> None:
        self._waiting_keys += self._duplicates.take_unwritten()
        try:
            await self._on_thread(self._append, self._waiting_keys)
        except (apsw.Error, OSError) as error:
            del self._waiting_keys[:-_MAX_UNWRITTEN]
            _LOG.warning("the index of repeats was not written", error=str(error))
        else:
            self._waiting_keys = []

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> list[DedupKey]:
        self._path.touch(mode=0o600)
        self._database = apsw.Connection(str(self._path))
        self._database.pragma("journal_mode", "wal")
        self._database.pragma("synchronous", "normal")
        self._database.pragma("journal_size_limit", _WAL_LIMIT)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS mark (id BLOB, fingerprint BLOB, seen_at INTEGER) STRICT;"
            "CREATE INDEX IF NOT EXISTS mark_by_age ON mark (seen_at)"
        )
        self._open_files = OpenFiles(self._path, self._log)
        rows = self._database.execute(
            "SELECT id, fingerprint FROM mark WHERE seen_at > ? ORDER BY seen_at", (self._horizon(),)
        )
        return [(key, fingerprint) for key, fingerprint in rows]

    def _append(self, keys: list[DedupKey]) -> None:
        if self._database is None:
            return
        if self._open_files.lost_reason():
            self._restore(self._database)
        if not keys:
            return
        now = int(time.time())
        with self._database:
            self._database.executemany("INSERT INTO mark VALUES (?, ?, ?)", [(*one, now) for one in keys])
            self._database.execute("DELETE FROM mark WHERE seen_at <= ?", (self._horizon(),))

    def _restore(self, database: apsw.Connection) -> None:
        """Write what the open file holds to its path again, over whatever is there, and use that from now on."""
        draft = sibling(self._path, RESTORING_SUFFIX)
        write_out(database, draft)
        self._log.unlink(missing_ok=True)
        draft.replace(self._path)
        self._open()
        database.close()
        _LOG.warning("the index of repeats was no longer at its path, and was written there again")

    def _horizon(self) -> int:
        return int(time.time() - self._duplicates.window_seconds)
