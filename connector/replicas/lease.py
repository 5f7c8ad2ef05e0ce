"""The lease on a replica's lanes, which says by the replica's monotonic clock until when it may publish.

The database counts a lease from when it receives the renewal, the replica from before it sends it, so the replica's
lease ends first, whatever the time of day is on either machine. The replica stops taking records as soon as one could
still be in librdkafka's queue when the lease ends. ADR 0037 lists all times in one table.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.values import ProducibleRecord

LEASE_SECONDS: Final = 20.0
"""How long a replica relies on its lanes after a renewal."""

GRANT_SECONDS: Final = 25.0
"""How long the database keeps the lanes for it; the difference is how far the database's clock may step."""

MESSAGE_TIMEOUT_SECONDS: Final = 10.0
"""librdkafka's ``message.timeout.ms`` of a replica."""

_MARGIN_SECONDS: Final = 2.0
"""librdkafka checks only once a second for records that have timed out."""

_NO_LEASE: Final = Failure(FailureKind.UNCERTAIN, "_NO_LEASE", "the lease was not renewed in time")


class Lease:
    """The state of the lease: not granted yet, held, or lost."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._is_revoked = False

    def renewed(self, asked_at: float) -> None:
        """Record that the database granted a lease that was requested at this time of ``time.monotonic``."""
        # A grant that comes after the end does not count: requests were refused meanwhile as those of a lost lease.
        if not self.is_lost:
            self._until = asked_at + LEASE_SECONDS

    def revoke(self) -> None:
        """End the lease for good; later grants do not count."""
        self._is_revoked = True

    @property
    def is_held(self) -> bool:
        """Whether the lease was granted and has not run out, so that this replica owns its lanes."""
        return self._until is not None and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether the lease was granted and has run out, or was revoked: another replica may own the lanes."""
        return self._is_revoked or (self._until is not None and time.monotonic() >= self._until)

    @property
    def may_publish(self) -> bool:
        """Whether the lease lasts until a record produced now is certainly out of librdkafka's queue."""
        if self._is_revoked or self._until is None:
            return False
        return time.monotonic() < self._until - MESSAGE_TIMEOUT_SECONDS - _MARGIN_SECONDS

    def failure_now(self) -> Failure | None:
        """Return the failure of what must not be produced now, or None."""
        return None if self.may_publish else _NO_LEASE


class LeasedPublisher:
    """A publisher that takes records only while the lease allows it.

    Args:
        publisher: The publisher that produces the records.
        lease: This replica's lease on its lanes.
    """

    def __init__(self, publisher: Publisher, lease: Lease) -> None:
        self._publisher = publisher
        self._lease = lease

    @property
    def is_open(self) -> bool:
        """Whether records are taken now."""
        return self._publisher.is_open and self._lease.may_publish

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        """Produce the records of one message; see `connector.kafka.publisher.Publisher`."""
        failure = self._lease.failure_now()
        if failure is None:
            self._publisher.publish(records, report)
        else:
            # Not at once: callers expect a report after their call has returned, as librdkafka's come.
            asyncio.get_running_loop().call_soon(report, (failure,) * len(records))

    async def start(self) -> None:
        """Take records from now on."""
        await self._publisher.start()

    async def stop(self, deadline_seconds: float) -> None:
        """Flush until the deadline, but not without a lease."""
        # Another replica may be publishing these lanes already.
        await self._publisher.stop(deadline_seconds if self._lease.is_held else 0.0)
