"""A replica's membership: its row in the database, with its lease and whether Kafka answers it.

A replica whose lease has run out does not continue: the connector restarts in its process, under a new id.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Final

import structlog

from connector.journal.model import refusal
from connector.replicas.database import (
    LEASE_LOST,
    Connection,
    DatabaseError,
    DatabaseHealth,
    StatementError,
)
from connector.replicas.lanes import SharedLanes
from connector.replicas.lease import GRANT_SECONDS, Lease
from connector.replicas.reachability import KafkaReachability

LATE_SECONDS: Final = GRANT_SECONDS - 3.0
"""What is left of a lease after three seconds without a renewal."""

_STATEMENT_SECONDS: Final = 2.0
_RENEW_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.2
_MAX_TAKEOVERS: Final = 1_000  # lanes per renewal, which has to end in time; other replicas take over some, too
_LOG = structlog.get_logger()

_REGISTER: Final = """
    INSERT INTO weda_replica (replica_id, lease_until)
    VALUES (%(replica)s, clock_timestamp() + make_interval(secs => %(lease)s))
    ON CONFLICT DO NOTHING
"""
_RENEW: Final = """
    SELECT own_rows, bytes FROM weda_renew_lease(
        replica => %(replica)s, lease => make_interval(secs => %(lease)s), lane_limit => %(lane_limit)s
    )
"""
_REPORT_REACH: Final = """
    WITH reported AS (
        UPDATE weda_replica SET reaches_kafka = %(reaches_kafka)s,
        reached_kafka_at = clock_timestamp() - make_interval(secs => %(reached_seconds_ago)s)
        WHERE replica_id = %(replica)s AND (reaches_kafka OR %(reaches_kafka)s)
    )
    SELECT EXISTS (
        SELECT FROM weda_replica WHERE replica_id <> %(replica)s AND reaches_kafka
        AND reached_kafka_at > clock_timestamp() - make_interval(secs => %(lost_seconds_ago)s)
        AND lease_until > clock_timestamp() + make_interval(secs => %(late)s)
    )
"""
_LEAVE: Final = "DELETE FROM weda_replica WHERE replica_id = %(replica)s"


class Membership:
    """Renews this replica's lease, and compares whether Kafka answers this replica and others.

    Args:
        connection: A connection to the database, for this purpose alone.
        lanes: The lanes; they get the database's counts.
        health: The health of the database.
        on_loss: Called on the event loop, once, when the lease is lost.

    Attributes:
        replica_id: This replica's id, new at every start.
        lease: The lease on this replica's lanes.
        reachability: Whether Kafka answers this replica and others.
    """

    def __init__(
        self, connection: Connection, lanes: SharedLanes, health: DatabaseHealth, on_loss: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._lanes = lanes
        self._health = health
        self._on_loss = on_loss
        self._is_registered = False
        self._is_over = False
        self.replica_id = uuid.uuid4()
        self.lease = Lease()
        self.reachability = KafkaReachability()

    async def run(self) -> None:
        """Renew the lease until it is lost."""
        while not self.lease.is_lost:
            try:
                await self._renew()
            except DatabaseError as error:
                self.record_error(error)
            await asyncio.sleep(_RETRY_SECONDS if self._health.problem else _RENEW_SECONDS)
        self._lose(self._health.problem)

    async def leave(self) -> None:
        """Leave the lanes to other replicas at once, if the database answers."""
        if self._is_registered:
            with contextlib.suppress(DatabaseError):
                await self._connection.execute(_LEAVE, {"replica": self.replica_id}, seconds=_STATEMENT_SECONDS)

    def check_lease(self) -> None:
        """Raise ``Unavailable`` unless the lease is held."""
        if not self.lease.is_held:
            raise refusal("this replica has no lease on it now")

    def record_error(self, error: DatabaseError) -> None:
        """Record that a statement failed, perhaps because the lease is lost."""
        self._health.record_error(error)
        if isinstance(error, StatementError) and error.sqlstate == LEASE_LOST:
            self._lose(self._health.problem)

    def give_up(self) -> None:
        """Give the lease up because of a defect: only a restart helps, under another id."""
        self._lose("of a defect of the connector")

    async def _renew(self) -> None:
        asked_at = time.monotonic()  # before the request: this replica's lease has to end before the database's
        granted = {"replica": self.replica_id, "lease": GRANT_SECONDS}
        # Once: to insert the row again after it was deleted would bring a lost lease back.
        if not self._is_registered:
            await self._connection.execute(_REGISTER, granted, seconds=_STATEMENT_SECONDS)
        wanted = {**granted, "lane_limit": 0 if self.reachability.is_isolated else _MAX_TAKEOVERS}
        [counts] = await self._connection.execute(_RENEW, wanted, seconds=_STATEMENT_SECONDS)
        self._is_registered = True
        self.lease.renewed(asked_at)
        self._lanes.own_rows, self._lanes.bytes = counts
        await self._report_reachability()
        # Last: the database may answer one of the statements and fail the other.
        self._health.record_success()

    async def _report_reachability(self) -> None:
        """Report when Kafka last answered this replica, and read whether it answered another one after the loss."""
        # Before the statement: Kafka may be reached and lost again while it runs.
        lost_at = self.reachability.lost_at
        report = {"replica": self.replica_id, "late": LATE_SECONDS, **self.reachability.report()}
        [(others_reach,)] = await self._connection.execute(_REPORT_REACH, report, seconds=_STATEMENT_SECONDS)
        self.reachability.record_others(reach=others_reach, lost_at=lost_at)

    def _lose(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        _LOG.error("the lease on the shared journal has run out; restarting in process", reason=reason)
        self.lease.revoke()
        self._on_loss()
