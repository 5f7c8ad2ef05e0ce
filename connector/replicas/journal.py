"""The journal that replicas share: a PostgreSQL database, in which each lane has at most one owner.

The replica that is publishing a message of an instance owns the instance's lane, and it alone publishes. A message that
another replica receives meanwhile is written behind the rows there, for the owner to publish. A lane is released when
nothing of it is left, and taken over when its owner's lease has run out. ADR 0036 says why.

What writes goes through `connector.replicas.batches`; this module adds what is read, and gives both the form of a
journal.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from connector import supervision
from connector.delivery.duplicates import DedupKey
from connector.errors import Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Contents, JournalState, Oldest, refusal
from connector.replicas.batch import ClaimResult
from connector.replicas.batches import Batches
from connector.replicas.database import Connection, DatabaseError, DatabaseHealth
from connector.replicas.lanes import SharedLanes
from connector.replicas.lease import Lease
from connector.replicas.membership import LATE_SECONDS, Membership

_READ_SECONDS: Final = 5.0
_OPEN_SECONDS: Final = 3.0
_CLOSE_SECONDS: Final = 3.0
_EXPIRE_SECONDS: Final = 10.0
_MAX_EXPIRED: Final = 10_000

_FIRST_ROWS: Final = """
    SELECT r.lane, r.sequence, r.content FROM (
        SELECT lane FROM weda_lane
        WHERE owner = %(replica)s AND lane > %(after)s AND rows_in_lane > 0 AND lane <> ALL (%(skip)s::bytea[])
        ORDER BY lane LIMIT %(lanes)s
    ) l,
    LATERAL (SELECT * FROM weda_row o WHERE o.lane = l.lane ORDER BY o.sequence LIMIT %(depth)s) r
    ORDER BY 1, 2
"""
_SEARCH: Final = """
    WITH part AS (
        SELECT sequence, lane, content FROM weda_row WHERE sequence > %(after)s ORDER BY sequence LIMIT %(limit)s
    )
    SELECT rows, last, sequence, lane, content
    FROM (SELECT count(*) AS rows, max(sequence) AS last FROM part) AS whole
    LEFT JOIN part ON EXISTS (SELECT FROM unnest(%(texts)s::bytea[]) AS text WHERE position(text IN content) > 0)
    ORDER BY sequence
"""
_STATE: Final = """
    SELECT (SELECT coalesce(sum(bytes), 0)::bigint FROM weda_lane), o.sequence, o.waits_since
    FROM (SELECT 1) AS one
    LEFT JOIN (SELECT sequence, waits_since FROM weda_row ORDER BY sequence LIMIT 1) AS o ON true
"""
_WAITING: Final = """
    WITH renewed AS (
        SELECT replica_id, since FROM weda_replica
        WHERE lease_until > clock_timestamp() + make_interval(secs => %(late)s)
    )
    SELECT r.source, count(*) FROM weda_row r JOIN weda_lane l USING (lane)
    WHERE l.owner = %(replica)s OR (
        %(replica)s = (SELECT replica_id FROM renewed ORDER BY since, replica_id LIMIT 1)
        AND l.owner NOT IN (SELECT replica_id FROM renewed)
    )
    GROUP BY r.source
"""
_COUNT_DEAD_LETTERS: Final = "SELECT count(*) FROM weda_row WHERE lane >= %(first)s AND lane < %(behind)s"
_DEAD_LETTER_LANES: Final = {
    "first": DEAD_LETTER_LANE.encode(),
    "behind": f"{DEAD_LETTER_LANE[:-1]}{chr(ord(DEAD_LETTER_LANE[-1]) + 1)}".encode(),
}
_WRITE_NOTE: Final = """
    INSERT INTO weda_note AS c (name, value) VALUES (%(name)s, %(value)s)
    ON CONFLICT (name) DO UPDATE SET value = greatest(c.value, excluded.value)
"""
_READ_NOTE: Final = "SELECT value FROM weda_note WHERE name = %(name)s"
_READ_NOTES: Final = "SELECT name, value FROM weda_note WHERE starts_with(name, %(prefix)s)"
_DELETE_NOTES: Final = "DELETE FROM weda_note WHERE name = ANY (%(names)s)"
_EXPIRE: Final = """
    SELECT weda_expire_dedup_keys(
        dedup_window => make_interval(secs => %(dedup_window)s),
        max_dedup_keys => %(max_dedup_keys)s,
        row_limit => %(row_limit)s
    )
"""


class SharedJournal:
    """The journal in the database; see `connector.journal.model.Journal` for what it has in common with the local one.

    Args:
        connection: Makes a connection to the database, by what it is for.
        max_bytes: Bound of what waits in it, for all replicas together.
        dedup_window_seconds: How long a dedup key is remembered.
        max_dedup_keys: How many are remembered; beyond it the oldest are forgotten early.
        on_loss: Called on the event loop, once, when the lease has run out; every call fails from then on.

    Attributes:
        lanes: What this replica knows of them; it pins those of which it has something in memory.
    """

    def __init__(
        self,
        connection: Callable[[str], Connection],
        *,
        max_bytes: int,
        dedup_window_seconds: float,
        max_dedup_keys: int,
        on_loss: Callable[[], None],
    ) -> None:
        self._dedup_window_seconds = dedup_window_seconds
        self._max_dedup_keys = max_dedup_keys
        self._on_loss = on_loss
        self._connections = [connection(purpose) for purpose in ("batches", "lease", "reads")]
        for_batches, for_lease, self._for_reads = self._connections
        self._health = DatabaseHealth()
        self.lanes = SharedLanes(self._release)
        self._membership = Membership(for_lease, self.lanes, self._health, self._lose)
        self._batches = Batches(
            for_batches,
            self._membership,
            self.lanes,
            self._health,
            max_bytes=max_bytes,
            dedup_window_seconds=dedup_window_seconds,
        )
        self._keys: dict[int, DedupKey] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lease(self) -> Lease:
        """On this replica's lanes."""
        return self._membership.lease

    @property
    def problem(self) -> str:
        """Why the database does not answer, or nothing."""
        return self._health.problem

    @property
    def is_isolated(self) -> bool:
        """Whether the brokers answer another replica and not this one: it lets nothing in, so that senders go there."""
        return self._membership.reachability.is_isolated

    def record_kafka(self, *, answers: bool) -> None:
        """The brokers have answered this replica now, or no longer answer it."""
        self._membership.reachability.record_own(answers=answers)

    @property
    def is_alive(self) -> bool:
        """Whether its tasks do."""
        return not any(task.done() for task in self._tasks)

    # --- the journal's protocol ---

    async def open(self) -> Contents:
        """Register, if the database answers soon; else that is tried again and again, and nothing is taken."""
        works = {"lease": self._membership.run, "batches": self._batches.run, "dedup_keys": self._keep_expiring}
        self._tasks = [asyncio.create_task(supervision.run_forever(part, work)) for part, work in works.items()]
        deadline = time.monotonic() + _OPEN_SECONDS
        while not self.lease.is_held and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return Contents({}, {}, 0)  # what the others left is taken over with the renewals of the lease

    async def close(self) -> None:
        """Finish what was asked, as far as the database answers, and leave the lanes to the others."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        batches, lease = self._batches, self.lease
        while batches.has_work and lease.is_held and time.monotonic() < deadline:  # noqa: ASYNC110 - at the end
            await asyncio.sleep(0.01)
        await supervision.cancel(self._tasks)
        self._batches.fail("the connector stopped")
        # Last: from then on others publish these lanes.
        await self._membership.leave()
        for connection in self._connections:
            connection.close()

    async def admit(self, admission: Admission) -> None:
        """Return when the row is committed in a lane of this replica's."""
        await self._batches.store(admission, self._keys.get(admission.sequence))

    async def remove(self, sequence: int) -> None:
        """Return when the row's removal is committed, while its lane is this replica's."""
        await self._batches.remove(sequence)

    async def amend(self, admission: Admission) -> None:
        """Return when the row is replaced, while its lane is this replica's."""
        await self._batches.amend(admission)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """The first rows of the next lanes of this replica's."""
        rows = await self._read(
            _FIRST_ROWS,
            {
                "replica": self._membership.replica_id,
                "after": after.encode(),
                "skip": [lane.encode() for lane in skip],
                "lanes": lanes,
                "depth": depth,
            },
        )
        found: dict[bytes, list[Admission]] = {}
        for lane, sequence, content in rows:
            found.setdefault(lane, []).append(Admission.of_content(sequence, lane.decode(), content))
        return list(found.values())

    async def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
        """Rows of all replicas that hold one of the texts.

        Raises:
            Unavailable: The database does not answer.
        """
        rows = await self._read(_SEARCH, {"texts": list(texts), "after": after, "limit": limit})
        count, last = rows[0][:2]
        found = [Admission.of_content(row[2], row[3].decode(), row[4]) for row in rows if row[2] is not None]
        return found, last if count == limit else None

    async def state(self) -> JournalState:
        """How full it is, and since when.

        Raises:
            Unavailable: The database does not answer, or gives this replica no lease: it can take nothing.
        """
        self._membership.check_lease()
        [(size, sequence, waits_since)] = await self._read(_STATE, {})
        return JournalState(size, None if sequence is None else Oldest(sequence, waits_since))

    async def waiting_by_source(self) -> dict[str, int]:
        """How many rows of each source this replica reports; each row is reported by one replica.

        Raises:
            Unavailable: The database does not answer.
        """
        counts = await self._read(_WAITING, {"replica": self._membership.replica_id, "late": LATE_SECONDS})
        return {str(source): int(count) for source, count in counts}

    async def count_dead_letters(self) -> int:
        """How many of the rows of all replicas are dead letters.

        Raises:
            Unavailable: The database does not answer.
        """
        [(count,)] = await self._read(_COUNT_DEAD_LETTERS, _DEAD_LETTER_LANES)
        return int(count)

    async def write_note(self, name: str, value: int) -> None:
        """Keep the greatest number of all replicas."""
        await self._read(_WRITE_NOTE, {"name": name, "value": value})

    async def read_note(self, name: str) -> int:
        """The number of a note, or 0.

        Raises:
            Unavailable: The database does not answer.
        """
        found = await self._read(_READ_NOTE, {"name": name})
        return int(found[0][0]) if found else 0

    async def read_notes(self, prefix: str) -> dict[str, int]:
        """Every note whose name starts so.

        Raises:
            Unavailable: The database does not answer.
        """
        return {str(name): int(value) for name, value in await self._read(_READ_NOTES, {"prefix": prefix})}

    async def delete_notes(self, names: Sequence[str]) -> None:
        """Delete the notes of these names."""
        await self._read(_DELETE_NOTES, {"names": [*names]})

    # --- what replicas need besides ---

    async def claim(self, lane: str, dedup_key: DedupKey | None) -> ClaimResult:
        """Ask for a message's position; the lane has to be pinned, until nothing of the message is left in memory.

        Raises:
            Unavailable: The database does not answer, or this replica has no lease or is isolated.
        """
        if self.is_isolated:
            raise Unavailable("this replica does not reach Kafka, another one does: send it again", retry_after=1)
        return await self._batches.claim(lane, dedup_key)

    async def append(self, admission: Admission, dedup_key: DedupKey | None) -> None:
        """Return when a row is committed at the end of a lane that is another replica's.

        Raises:
            Unavailable: It is refused.
            OutcomeUnknown: It may be committed.
        """
        await self._batches.append(admission, dedup_key)

    def remember_key(self, sequence: int, dedup_key: DedupKey) -> None:
        """The key of a message: it is safe if the message becomes a row."""
        self._keys[sequence] = dedup_key

    def forget_key(self, sequence: int) -> None:
        """The message is no row and becomes none."""
        self._keys.pop(sequence, None)

    def set_key_safe(self, dedup_key: DedupKey) -> None:
        """A message with the key is published; written with the next batch."""
        self._batches.set_key_safe(dedup_key)

    def set_key_void(self, dedup_key: DedupKey) -> None:
        """A message with the key was refused; written with the next batch."""
        self._batches.set_key_void(dedup_key)

    def _release(self, lane: str) -> None:
        self._batches.release(lane)

    def _lose(self) -> None:
        self._batches.fail("the lease has run out")
        self._on_loss()

    async def _keep_expiring(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_SECONDS)
            with contextlib.suppress(Unavailable):
                while await self._expire_dedup_keys() >= _MAX_EXPIRED:
                    pass

    async def _expire_dedup_keys(self) -> int:
        bounds = {
            "dedup_window": self._dedup_window_seconds,
            "max_dedup_keys": self._max_dedup_keys,
            "row_limit": _MAX_EXPIRED,
        }
        [(removed,)] = await self._read(_EXPIRE, bounds)
        return int(removed)

    async def _read(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            return await self._for_reads.execute(sql, parameters, seconds=_READ_SECONDS)
        except DatabaseError as error:
            self._health.record_error(error)
            raise refusal(error.public) from error
