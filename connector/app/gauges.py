"""Watches the journal, the ledger and the connector's own parts, and shows them in metrics, probes and problems."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Final

import structlog

from connector import supervision
from connector.app.brokers import ASK_SECONDS, TopicChanges
from connector.app.watch import Restarts
from connector.delivery.delivery import Delivery
from connector.errors import Unavailable
from connector.journal.model import Journal, JournalState
from connector.kafka.publisher import Failure, FailureKind
from connector.replicas.journal import SharedJournal
from connector.telemetry import logs
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics

_GAUGES_SECONDS: Final = 0.5
_RATE_SECONDS: Final = 30.0
_ISOLATED: Final = (
    "Kafka answers another replica and not this one, which accepts nothing: check its network and its node"
)
_CLOCKS_DIFFER: Final = (
    "the clock of this machine and the brokers' are too far apart for the topic's message.timestamp.after.max.ms or "
    "message.timestamp.before.max.ms: set the clocks (NTP); what waits is then published with the time of then"
)
_LOG = structlog.get_logger()


class Gauges:
    """Shows the state of one connector twice a second.

    Args:
        journal: The connector's journal.
        shared: The same journal if replicas share it, else None.
        delivery: Knows what waits, and why.
        changes: Notified when Kafka says that a topic is missing.
        restarts: Asked for a restart when a part has ended for good.
        health: Shows the state in probes and on the console.
        metrics: Shows the state as gauges.
    """

    def __init__(
        self,
        journal: Journal,
        shared: SharedJournal | None,
        delivery: Delivery,
        *,
        changes: TopicChanges,
        restarts: Restarts,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._journal = journal
        self._shared = shared
        self._delivery = delivery
        self._changes = changes
        self._restarts = restarts
        self._health = health
        self._metrics = metrics
        self._removals = _Rate()

    async def run(self) -> None:
        """Update the gauges until cancelled."""
        while True:
            await self._look_at_journal()
            self._publish()
            self._look_at_process()
            await asyncio.sleep(_GAUGES_SECONDS)

    async def _look_at_journal(self) -> None:
        health = self._health
        try:
            async with asyncio.timeout(ASK_SECONDS):
                state = await self._journal.state()
                if self._shared is not None:
                    await self._count_rows(self._shared, state)
            size, problem = state.size_bytes, ""
            health.waiting_since = self._delivery.waiting_since(state.oldest)
        except (TimeoutError, Unavailable) as error:
            cause = "" if self._shared is None else self._shared.problem
            size, problem = None, cause or str(error) or "it does not answer"  # a TimeoutError has no text
        # Without its file the journal keeps nothing across a restart, not even the ids in use: accept nothing.
        lost = self._journal.lost_reason
        health.is_journal_lost = bool(lost)
        health.journal_bytes = None if lost else size
        health.set_problem("journal", lost or problem)

    async def _count_rows(self, shared: SharedJournal, state: JournalState) -> None:
        """Show the rows of a shared journal, which the ledger of a single replica cannot know."""
        # An empty journal needs no query: the state, which was just read, says so.
        self._metrics.journal_counts({} if state.oldest is None else await shared.waiting_by_source())

    def _look_at_process(self) -> None:
        """Show problems of this process, and ask for a restart when a part has ended for good."""
        health = self._health
        self._metrics.process_counts(supervision.restarts, logs.dropped_lines())
        health.set_problem("log", logs.problem())
        ended = health.ended
        health.set_problem("parts", f"ended: {', '.join(ended)}" if ended else supervision.problem())
        if ended and not self._restarts.requested.is_set():
            _LOG.error("parts of the connector have ended; starting again as a whole", parts=ended)
            self._restarts.request("part")

    def _publish(self) -> None:
        health, metrics, delivery = self._health, self._metrics, self._delivery
        health.is_isolated = self._shared is not None and self._shared.is_isolated
        health.set_problem("replica", _ISOLATED if health.is_isolated else "")
        self._set_failing(delivery.failing)
        health.backlog = delivery.waiting_rows
        health.waiting = metrics.waiting
        self._removals.note(delivery.removed)
        health.leaving_rate = self._removals.per_second
        if health.kafka in {"up", "stalled"}:
            health.kafka = "stalled" if delivery.is_stalled else "up"
        metrics.ready.set(health.is_ready)
        metrics.journal_up.set(health.journal_bytes is not None)
        metrics.journal_bytes.set(health.journal_bytes or 0)
        metrics.journal_room.set(health.journal_room_bytes)
        metrics.journal_oldest_age.set(health.oldest_age_seconds)
        metrics.published_through.set(time.time() - health.oldest_age_seconds)
        metrics.update_ledger_gauges()

    def _set_failing(self, failing: Mapping[str, Failure]) -> None:
        """Show why Kafka does not take records, and have missing topics described again."""
        problem = "; ".join(f"{topic}: {_reason(failure)}" for topic, failure in failing.items())
        self._health.set_problem("publishing", problem)
        self._changes.set_missing(is_missing=any(failure.is_of_missing_topic for failure in failing.values()))


class _Rate:
    """How fast a count grows: an exponentially weighted average over about half a minute."""

    def __init__(self) -> None:
        self._count = 0
        self._at = time.monotonic()
        self.per_second = 0.0

    def note(self, count: int) -> None:
        """Record the current count."""
        now = time.monotonic()
        elapsed = max(now - self._at, 0.001)  # never 0, which is divided by
        weight = 1 - math.exp(-elapsed / _RATE_SECONDS)
        self.per_second += weight * ((count - self._count) / elapsed - self.per_second)
        self._count, self._at = count, now


def _reason(failure: Failure) -> str:
    """Why Kafka does not take a record, and what to do where Kafka's own words do not say it."""
    reason = f"{failure.name} ({failure.detail})"
    return f"{reason}: {_CLOCKS_DIFFER}" if failure.kind is FailureKind.TIMESTAMP else reason
