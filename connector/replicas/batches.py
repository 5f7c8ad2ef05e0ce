"""Sends a replica's requests to the database in batches: requests made during one go into the next (group commit)."""

import asyncio
from typing import Final

from connector.errors import Unavailable
from connector.journal.model import FULL, Admission, refusal
from connector.replicas.batch import APPLY, Batch, BatchResult, Change, Claim, ClaimResult, NewRow
from connector.replicas.database import Connection, DatabaseError, DatabaseHealth
from connector.replicas.lanes import SharedLanes
from connector.replicas.membership import Membership
from connector.values import DedupKey

_MAX_BATCH: Final = 500
_MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
# Longer than PostgreSQL waits for a lock (1.5 s): what it refuses for that is known to be rolled back.
_STATEMENT_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.2
_DEFECT: Final = "of a defect of the connector"


class Batches:
    """Gathers requests, and has them executed one batch after the other.

    Args:
        connection: A connection to the database.
        membership: This replica's id and lease.
        lanes: The lanes in use by this replica; updated by batches.
        health: The health of the database.
        max_bytes: Limit of the waiting rows of all replicas together.
        dedup_window_seconds: How long a dedup key is remembered.
    """

    def __init__(
        self,
        connection: Connection,
        membership: Membership,
        lanes: SharedLanes,
        health: DatabaseHealth,
        *,
        max_bytes: int,
        dedup_window_seconds: float,
    ) -> None:
        self._connection = connection
        self._membership = membership
        self._lanes = lanes
        self._health = health
        self._max_bytes = max_bytes
        self._dedup_window_seconds = dedup_window_seconds
        self._next = Batch()
        self._has_requests = asyncio.Event()
        self._is_executing = False
        self._number = self._defects = 0

    @property
    def has_work(self) -> bool:
        """Whether there are unfinished requests."""
        return self._is_executing or not self._next.is_empty

    # --- requests ---

    async def claim(self, lane: str, dedup_key: DedupKey | None) -> ClaimResult:
        """Claim a message's position.

        Raises:
            Unavailable: This replica has no lease, or the database does not answer.
        """
        self._membership.check_lease()
        claim = Claim(lane, dedup_key, asyncio.get_running_loop().create_future())
        self._next.claims.append(claim)
        self._has_requests.set()
        return await claim.result

    async def store(self, admission: Admission) -> None:
        """Store a row in this replica's lane, under the sequence that was claimed; returns when it is committed.

        Raises:
            Unavailable: The row is refused.
            OutcomeUnknown: The row may be committed.
        """
        await self._add(admission, is_appended=False)

    async def append(self, admission: Admission) -> None:
        """Append a row to another replica's lane; returns when it is committed.

        Raises:
            Unavailable: The row is refused.
            OutcomeUnknown: The row may be committed.
        """
        await self._add(admission, is_appended=True)

    async def _add(self, admission: Admission, *, is_appended: bool) -> None:
        content = admission.content
        if self._lanes.bytes + len(content) > self._max_bytes:
            raise refusal(FULL)
        self._membership.check_lease()
        row = NewRow(admission, content, is_appended, asyncio.get_running_loop().create_future())
        self._next.rows.append(row)
        self._has_requests.set()
        # The database's count is a second old: without its own rows a replica would take too much in that second.
        self._lanes.bytes += len(content)
        await row.done

    async def remove(self, sequence: int) -> None:
        """Remove a row; returns when the removal is committed, however long the database is away.

        Raises:
            Unavailable: The lease is lost.
        """
        await self._change(self._next.removals, sequence, None)

    async def amend(self, admission: Admission) -> None:
        """Replace a row; returns when the replacement is committed, however long the database is away.

        Raises:
            Unavailable: The lease is lost.
        """
        await self._change(self._next.amends, admission.sequence, admission)

    def set_key_safe(self, dedup_key: DedupKey) -> None:
        """Mark a key as that of a published message; any replica answers a duplicate of it as accepted."""
        self._next.safe.append(dedup_key)
        self._has_requests.set()

    def set_key_void(self, dedup_key: DedupKey) -> None:
        """Forget the key of a refused message; when it is sent again, it is a new one."""
        self._next.void.append(dedup_key)
        self._has_requests.set()

    def release(self, lane: str) -> None:
        """Release a lane that is no longer in use."""
        # Without a lease nothing was claimed, and lanes of a lost one are taken over.
        if self._membership.lease.is_held:
            self._next.released.add(lane)
            self._has_requests.set()

    def fail(self, why: str) -> None:
        """Refuse the requests that are not being executed."""
        self._next.fail(refusal(why))
        self._next = Batch()

    async def _change(self, changes: dict[int, Change], sequence: int, admission: Admission | None) -> None:
        if self._membership.lease.is_lost:
            raise refusal("the lease has run out")
        change, done = changes.setdefault(sequence, Change()), asyncio.get_running_loop().create_future()
        change.admission = admission
        change.waiting.append(done)
        self._has_requests.set()
        await done

    # --- one batch after the other ---

    async def run(self) -> None:
        """Execute batches while there are requests, and wait for more."""
        while True:
            await self._has_requests.wait()
            if not self._membership.lease.is_held:  # the function would reject the batch
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            batch = self._gather()
            if not batch.is_empty:
                await self._execute(batch)

    def _gather(self) -> Batch:
        """Take the requests that fit into one batch, which the database executes in time."""
        batch, self._next = self._next.split(_MAX_BATCH, _MAX_BATCH_BYTES)
        # A lane that is in use again is released when its last message is unpinned.
        batch.released = {lane for lane in batch.released if not self._lanes.is_in_use(lane)}
        if self._next.is_empty:
            self._has_requests.clear()
        return batch

    async def _execute(self, batch: Batch) -> None:
        self._number += 1
        self._is_executing = True
        try:
            parameters = batch.parameters(self._membership.replica_id, self._number, self._dedup_window_seconds)
            [row] = await self._connection.execute(APPLY, parameters, seconds=_STATEMENT_SECONDS)
            self._health.record_success()
            result = BatchResult(*row)
            batch.complete(result)
            if result.has_more:
                self._lanes.set_has_rows()
            self._defects = 0
        except DatabaseError as error:
            self._membership.record_error(error)
            await self._retry(batch, refusal(error.public))
        except asyncio.CancelledError:
            self._put_back(batch, refusal("the connector stopped"))  # `fail` follows
            raise
        except Exception:
            # Once more, because much of a batch can be executed again; not for ever, because it stops all others.
            self._defects += 1
            if self._defects == 1:
                self._put_back(batch, refusal(_DEFECT))
            else:  # rows may be committed, with their keys safe: only without a lease is nothing of them removed
                self._membership.give_up()
                batch.fail(refusal(_DEFECT))
            raise
        finally:
            self._is_executing = False

    def _put_back(self, batch: Batch, error: Unavailable) -> None:
        """Refuse what must not be executed twice; put the rest in front of newer requests, so that the latest wins."""
        batch.fail_non_idempotent(error)
        self._next = batch.followed_by(self._next)
        self._has_requests.set()

    async def _retry(self, batch: Batch, error: Unavailable) -> None:
        """Put what may be executed again of a failed batch into the next one, and wait a moment."""
        if self._membership.lease.is_lost:
            batch.fail(error)
            return
        self._put_back(batch, error)
        await asyncio.sleep(_RETRY_SECONDS)
        self._next.fail_claims(error)
