"""Watches brokers and topics: connects, creates missing topics, and shows what has changed."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from connector import supervision
from connector.delivery.delivery import Delivery
from connector.errors import ConnectorError
from connector.kafka.limits import TopicLimits
from connector.kafka.publisher import KafkaPublisher
from connector.kafka.topics import TopicAdmin, TopicSpec, TopicState, canaries, desired_topics, routes_of
from connector.replicas.journal import SharedJournal
from connector.settings import EMBEDDED, Settings
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics

ASK_SECONDS: Final = 3.0
"""How long a broker may take to answer, and how often the brokers are asked."""

TOPICS_SECONDS: Final = 30.0
"""Seconds between two descriptions of the topics."""

UNCONNECTED_SECONDS: Final = 20.0
"""How long the producer may have no connection while the brokers answer, before it is rebuilt."""

ASK_AT_START_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5
_CREATE_SECONDS: Final = 15.0
_REPLICA_ASKS_SECONDS: Final = 1.0
"""How often a replica asks the brokers: more often, because it tells the others whether Kafka has answered it."""

_LOG = structlog.get_logger()


class TopicChanges:
    """Signals that the topics may have changed and must be described again."""

    def __init__(self) -> None:
        self._signalled = asyncio.Event()
        self._is_missing = False

    def signal(self) -> None:
        """Signal that Kafka has rejected a record that should have fitted its topic."""
        self._signalled.set()

    def set_missing(self, *, is_missing: bool) -> None:
        """Record whether Kafka says that a topic is missing."""
        if is_missing and not self._is_missing:
            self._signalled.set()
        self._is_missing = is_missing

    async def within(self, seconds: float) -> bool:
        """Whether the topics may have changed; waits up to this many seconds for a signal."""
        was_set = await supervision.is_set_within(self._signalled, seconds)
        self._signalled.clear()
        return was_set or self._is_missing


class BrokerWatch:
    """Watches the brokers and the topics of one connector.

    Args:
        settings: Say which topics there should be, and whether to create them.
        admin: Asks the brokers.
        delivery: Starts publishing once the topics exist.
        publisher: Is rebuilt when it does not find the brokers.
        shared: The shared journal, which tells the other replicas; None without replicas.
        changes: Signals that the topics must be described again.
        limits: Stores the topics' limits.
        health: Shows the state in probes and on the console.
        metrics: Shows the state as gauges.
    """

    def __init__(
        self,
        settings: Settings,
        admin: TopicAdmin,
        delivery: Delivery,
        publisher: KafkaPublisher,
        *,
        shared: SharedJournal | None,
        changes: TopicChanges,
        limits: TopicLimits,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._delivery = delivery
        self._publisher = publisher
        self._shared = shared
        self._changes = changes
        self._limits = limits
        self._health = health
        self._metrics = metrics
        self._topics = (*routes_of(settings).topics, *(route.topic for route in canaries(settings)))
        self._partitions: dict[str, int] = {}

    async def connect(self, within: float) -> None:
        """Create missing topics and let delivery publish, if the brokers answer within this many seconds."""
        try:
            await asyncio.to_thread(self._admin.brokers, within)
            await self._describe_topics()
        except ConnectorError as error:
            self._show_brokers(is_up=False, problem=error.message)
        else:
            self._show_brokers(is_up=True)
            self._delivery.start_publishing()

    async def run(self) -> None:
        """Connect if that has not succeeded yet, then watch brokers and topics until cancelled."""
        while not self._delivery.topics_ready:
            await self.connect(ASK_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
        described = time.monotonic()
        while True:
            if await self._changes.within(ASK_SECONDS if self._shared is None else _REPLICA_ASKS_SECONDS):
                described = -TOPICS_SECONDS  # so that the topics are described in this round
            try:
                await asyncio.to_thread(self._admin.brokers, ASK_SECONDS)
                self._show_brokers(is_up=True)
                if self._publisher.unconnected_seconds >= UNCONNECTED_SECONDS:
                    self._publisher.replace_unconnected()
                if time.monotonic() - described >= TOPICS_SECONDS:
                    await self._describe_topics()
                    described = time.monotonic()  # only after success: topics that were not described are tried again
            except ConnectorError as error:
                self._show_brokers(is_up=False, problem=error.message)

    async def _describe_topics(self) -> None:
        """Describe the topics; create missing ones, even those deleted since the start, if the settings allow it."""
        if self._settings.kafka.bootstrap_servers == EMBEDDED:
            self._metrics.durability_degraded.set(1)
            return  # the mock cluster creates topics itself, and cannot describe them
        states = await asyncio.to_thread(self._admin.describe, self._topics, ASK_SECONDS)
        missing = [spec for spec in desired_topics(self._settings) if spec.name not in states]
        if missing and self._settings.topics.create:
            await self._create(missing)
            states = await asyncio.to_thread(self._admin.describe, self._topics, ASK_SECONDS)
        for state in states.values():
            self._limits.record(state)
            self._show_partitions(state)
        degraded = [name for name, state in states.items() if not state.is_durable]
        self._metrics.durability_degraded.set(1 if degraded else 0)
        problem = f"weaker than 3 replicas and 2 in sync: {', '.join(degraded)}" if degraded else ""
        self._health.set_problem("durability", problem)
        absent = [name for name in self._topics if name not in states]
        self._health.set_problem("topics", f"missing: {', '.join(absent)}" if absent else "")

    async def _create(self, missing: Sequence[TopicSpec]) -> None:
        names = [spec.name for spec in missing]
        lost = [name for name in names if name in self._partitions]  # these were there before: somebody deleted them
        await asyncio.to_thread(self._admin.create, missing, _CREATE_SECONDS)
        if lost:
            _LOG.warning("topics were gone, and are created again, empty", topics=lost)
        else:
            _LOG.info("topics created", topics=names)

    def _show_partitions(self, state: TopicState) -> None:
        before = self._partitions.setdefault(state.name, state.partitions)
        if before != state.partitions:
            self._metrics.partition_count_changed.set(1)
            self._health.set_problem("partitions", f"{state.name} went from {before} to {state.partitions}")

    def _show_brokers(self, *, is_up: bool, problem: str = "") -> None:
        self._metrics.broker_up.set(1 if is_up else 0)
        self._health.kafka = "up" if is_up else "down"
        if self._shared is not None:
            self._shared.record_kafka(answers=is_up)
        self._health.set_problem("brokers", problem)
