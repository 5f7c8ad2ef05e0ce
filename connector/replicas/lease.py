"""Until when a replica may publish: the lease on its lanes, by its own monotonic clock.

The database counts the lease from when it hears of a renewal, the replica from before it sends it: so the replica's
ends first, whatever either clock says of the time of day. It takes no more records as soon as one that it takes could
still be in librdkafka's queue when the lease ends. ADR 0037 has all times in one table.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.values import ProducibleRecord

LEASE_SECONDS: Final = 20.0
"""How long a replica counts on its lanes without a renewal."""

GRANT_SECONDS: Final = 25.0
"""How long the database keeps them for it: the database's own clock may step by the difference."""

MESSAGE_TIMEOUT_SECONDS: Final = 10.0
"""librdkafka's ``message.timeout.ms`` where lanes are leased."""

_MARGIN_SECONDS: Final = 2.0
"""librdkafka looks for records that are too old once a second."""

_NO_LEASE: Final = Failure(FailureKind.UNCERTAIN, "_NO_LEASE", "the lease was not renewed in time")


class Lease:
    """What is known of the lease: not granted yet, held, or lost."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._is_revoked = False

    def renewed(self, asked_at: float) -> None:
        """The database has granted a lease that was asked for then, by ``time.monotonic``."""
        self._until = asked_at + LEASE_SECONDS

    def revoke(self) -> None:
        """The lease is lost for good, whatever is granted from now on."""
        self._is_revoked = True

    @property
    def is_held(self) -> bool:
        """Whether this replica's lanes are its own: the lease was granted and has not run out."""
        return self._until is not None and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether this replica's lanes may be another one's: the lease was granted and has run out, or is revoked."""
        return self._is_revoked or (self._until is not None and time.monotonic() >= self._until)

    @property
    def may_publish(self) -> bool:
        """Whether the lease is held until what is produced now is out of librdkafka's queue."""
        if self._is_revoked or self._until is None:
            return False
        return time.monotonic() < self._until - MESSAGE_TIMEOUT_SECONDS - _MARGIN_SECONDS


class LeasedPublisher:
    """A publisher that takes records only while the lease allows it.

    Args:
        publisher: Where records go.
        lease: The lease of this replica on its lanes.
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
        if self._lease.may_publish:
            self._publisher.publish(records, report)
        else:
            # Later, as librdkafka's reports come: the caller does not expect one from within its call.
            asyncio.get_running_loop().call_soon(report, (_NO_LEASE,) * len(records))

    async def start(self) -> None:
        """Take records from now on."""
        await self._publisher.start()

    async def stop(self, deadline_seconds: float) -> None:
        """Flush for at most so long, but not without a lease."""
        # Without it another replica may be publishing these lanes already.
        await self._publisher.stop(deadline_seconds if self._lease.is_held else 0.0)
