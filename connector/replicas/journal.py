"""The journal that replicas share: a PostgreSQL database in which each lane has at most one owner.

The replica that is publishing a message of an instance owns the instance's lane, and only the owner publishes. A
message that another replica receives meanwhile becomes a row behind the lane's other rows, for the owner to publish. A
lane is released when nothing of it is left, and taken over when its owner's lease has run out. ADR 0036 says why.

Rows and claims are written by `connector.replicas.batches`. This module adds what is read, the notes and the expiry of
dedup keys, and implements the journal's protocol.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from connector import supervision
from connector.errors import Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Contents, JournalState, Oldest, refusal
from connector.replicas.batch import ClaimResult
from connector.replicas.batches import Batches
from connector.replicas.database import Connection, DatabaseError, DatabaseHealth
from connector.replicas.lanes import SharedLanes
from connector.replicas.lease import Lease
from connector.replicas.membership import LATE_SECONDS, Membership
from connector.values import DedupKey

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
    """The journal in the database; `connector.journal.model.Journal` describes what it shares with the local one.

    Args:
        connection: Makes a connection to the database, given its purpose.
        max_bytes: Limit of the waiting rows of all replicas together.
        dedup_window_seconds: How long a dedup key is remembered.
        max_dedup_keys: How many dedup keys are remembered; beyond that the oldest are forgotten early.
        on_loss: Called on the event loop, once, when the lease has run out; every call fails from then on.

    Attributes:
        lanes: The lanes in use by this replica; order pins them.
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
        # One each: a slow read or batch must not keep the lease from being renewed.
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
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lease(self) -> Lease:
        """The lease on this replica's lanes."""
        return self._membership.lease

    @property
    def problem(self) -> str:
        """Why the database does not answer; empty if it does."""
        return self._health.problem

    @property
    def is_isolated(self) -> bool:
        """Whether the brokers answer another replica and not this one, which then admits nothing: senders go there."""
        return self._membership.reachability.is_isolated

    def record_kafka(self, *, answers: bool) -> None:
        """Record that the brokers have answered this replica now, or no longer answer it."""
        self._membership.reachability.record_own(answers=answers)

    @property
    def is_alive(self) -> bool:
        """Whether its tasks are running."""
        return not any(task.done() for task in self._tasks)

    # --- the journal's protocol ---

    async def open(self) -> Contents:
        """Register; if the database does not answer soon, return without a lease, and go on trying."""
        works = {"lease": self._membership.run, "batches": self._batches.run, "dedup_keys": self._keep_expiring}
        self._tasks = [asyncio.create_task(supervision.run_forever(part, work)) for part, work in works.items()]
        deadline = time.monotonic() + _OPEN_SECONDS
        while not self.lease.is_held and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return Contents({}, {}, None)  # the lanes of dead replicas are taken over with renewals of the lease

    async def close(self) -> None:
        """Finish pending requests if the database answers, and leave the lanes to other replicas."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        batches, lease = self._batches, self.lease
        while batches.has_work and lease.is_held and time.monotonic() < deadline:  # noqa: ASYNC110 - at the end
            await asyncio.sleep(0.01)
        await supervision.cancel(self._tasks)
        self._batches.fail("the connector stopped")
        # Last: from then on other replicas publish these lanes.
        await self._membership.leave()
        for connection in self._connections:
            connection.close()

    @property
    def lost_reason(self) -> str:
        """Empty: there is no file."""
        return ""

    async def store(self, admission: Admission) -> None:
        """Add a row to a lane of this replica; returns when it is committed."""
        await self._batches.store(admission)

    async def remove(self, sequence: int) -> None:
        """Remove a row, if this replica owns its lane; returns when the removal is committed."""
        await self._batches.remove(sequence)

    async def amend(self, admission: Admission) -> None:
        """Replace a row, if this replica owns its lane; returns when the replacement is committed."""
        await self._batches.amend(admission)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """Return the first rows of this replica's next lanes."""
        rows = await self._execute(
            _FIRST_ROWS,
            {
                "replica": self._membership.replica_id,
                "after": after.encode(),
                "skip": [lane.encode() for lane in skip],
                "lanes": lanes,
                "depth": depth,
            },
        )
        by_lane: dict[bytes, list[Admission]] = {}
        for lane, sequence, content in rows:
            by_lane.setdefault(lane, []).append(Admission.of_content(sequence, lane.decode(), content))
        return list(by_lane.values())

    async def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
        """Search the rows of all replicas for texts; see `connector.journal.model.Journal`.

        Raises:
            Unavailable: The database does not answer.
        """
        rows = await self._execute(_SEARCH, {"texts": list(texts), "after": after, "limit": limit})
        # The outer join returns at least one row, with count and last sequence and without an admission.
        count, last = rows[0][:2]
        admissions = [Admission.of_content(row[2], row[3].decode(), row[4]) for row in rows if row[2] is not None]
        return admissions, last if count == limit else None

    async def state(self) -> JournalState:
        """Return how much is in the journal of all replicas, and since when.

        Raises:
            Unavailable: The database does not answer, or this replica has no lease and can take nothing.
        """
        self._membership.check_lease()
        [(size, sequence, waits_since)] = await self._execute(_STATE, {})
        return JournalState(size, None if sequence is None else Oldest(sequence, waits_since))

    async def waiting_by_source(self) -> dict[str, int]:
        """Return the rows by source that this replica reports; exactly one replica reports each row.

        Raises:
            Unavailable: The database does not answer.
        """
        counts = await self._execute(_WAITING, {"replica": self._membership.replica_id, "late": LATE_SECONDS})
        return {str(source): int(count) for source, count in counts}

    async def count_dead_letters(self) -> int:
        """Return how many rows of all replicas are dead letters.

        Raises:
            Unavailable: The database does not answer.
        """
        [(count,)] = await self._execute(_COUNT_DEAD_LETTERS, _DEAD_LETTER_LANES)
        return int(count)

    async def write_note(self, name: str, value: int) -> None:
        """Write a note; the greatest number of all replicas is kept."""
        await self._execute(_WRITE_NOTE, {"name": name, "value": value})

    async def read_note(self, name: str) -> int:
        """Return the number of a note, or 0.

        Raises:
            Unavailable: The database does not answer.
        """
        rows = await self._execute(_READ_NOTE, {"name": name})
        return int(rows[0][0]) if rows else 0

    async def read_notes(self, prefix: str) -> dict[str, int]:
        """Return the notes whose names have a prefix.

        Raises:
            Unavailable: The database does not answer.
        """
        return {str(name): int(value) for name, value in await self._execute(_READ_NOTES, {"prefix": prefix})}

    async def delete_notes(self, names: Sequence[str]) -> None:
        """Delete notes by name."""
        await self._execute(_DELETE_NOTES, {"names": [*names]})

    # --- beyond the journal's protocol ---

    async def claim(self, lane: str, dedup_key: DedupKey | None) -> ClaimResult:
        """Claim a message's position; the lane has to be pinned until the message is published, a row, or refused.

        Raises:
            Unavailable: The database does not answer, or this replica has no lease or is isolated.
        """
        if self.is_isolated:
            raise Unavailable("this replica does not reach Kafka, another one does: send it again", retry_after=1)
        return await self._batches.claim(lane, dedup_key)

    async def append(self, admission: Admission) -> None:
        """Append a row to another replica's lane; returns when it is committed.

        Raises:
            Unavailable: The row is refused.
            OutcomeUnknown: The row may be committed.
        """
        await self._batches.append(admission)

    def set_key_safe(self, dedup_key: DedupKey) -> None:
        """Mark a key as that of a published message, with the next batch."""
        self._batches.set_key_safe(dedup_key)

    def set_key_void(self, dedup_key: DedupKey) -> None:
        """Forget the key of a refused message, with the next batch."""
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
                # A full part was removed: there may be more.
                while await self._expire_dedup_keys() >= _MAX_EXPIRED:
                    pass

    async def _expire_dedup_keys(self) -> int:
        bounds = {
            "dedup_window": self._dedup_window_seconds,
            "max_dedup_keys": self._max_dedup_keys,
            "row_limit": _MAX_EXPIRED,
        }
        [(removed,)] = await self._execute(_EXPIRE, bounds)
        return int(removed)

    async def _execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            return await self._for_reads.execute(sql, parameters, seconds=_READ_SECONDS)
        except DatabaseError as error:
            self._health.record_error(error)
            raise refusal(error.public) from error
