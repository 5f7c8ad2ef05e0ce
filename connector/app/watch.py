"""What the connector does again and again while it runs: tasks that are restarted when they fail."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog

from connector import supervision
from connector.clock import now_ms
from connector.delivery.delivery import Delivery
from connector.errors import ConfigurationError, ConnectorError, Unavailable
from connector.intake.dead_letters import NOTE_PREFIX
from connector.intake.waiting_dead_letters import WaitingDeadLetters
from connector.journal.model import Journal
from connector.journal.sqlite import SqliteJournal
from connector.kafka.registry import Registry
from connector.message.ingest_ids import IngestIds
from connector.message.routes import Route
from connector.operations.history import SECONDS_BETWEEN, History
from connector.supervision import Watchdog
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics

FLOOR: Final = "ingest_floor"
"""The number in the journal above which the ids of the next run begin."""

REGISTRY_SECONDS: Final = 15.0
"""How often the schema registry is asked."""

LETTERS_SECONDS: Final = 15.0
"""How often dead letters that wait are counted."""

_DENIED_SECONDS: Final = 600.0  # Kafka does not let our user read: asking often would not help
_RESERVE_MILLISECONDS: Final = 10_000
_RESERVE_SECONDS: Final = 4.0
_DIRECT_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 0.05
_LOG = structlog.get_logger()


class Watchers:
    """The tasks of one connector; each is restarted when it ends or fails.

    Args:
        watchdog: Where each part is registered as one that has to live.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a part's work until :meth:`stop`."""
        task = asyncio.create_task(supervision.run_forever(part, work))
        self._tasks.add(task)
        self._watchdog.watch(part, lambda: not task.done())

    async def stop(self) -> None:
        """Cancel all of them."""
        await supervision.cancel(self._tasks)


class Restarts:
    """Restarts of the connector within its process.

    Args:
        counts: Restarts so far by reason, kept from one connector of the process to the next.
        metrics: Where they are shown.

    Attributes:
        requested: Set once only a new start can help.
    """

    def __init__(self, counts: Counter[str], metrics: Metrics) -> None:
        self._counts = counts
        self._metrics = metrics
        self.requested = asyncio.Event()
        metrics.restarted(counts)

    def request(self, reason: str) -> None:
        """Ask for a new start; nothing of this connector's state but the counts survives it."""
        self._counts[reason] += 1
        self._metrics.restarted(self._counts)
        self.requested.set()


async def measure_lag(metrics: Metrics) -> None:
    """Measure how late the event loop runs what is due."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_SECONDS
        await asyncio.sleep(_LAG_SECONDS)
        metrics.event_loop_lag.observe(loop.time() - due)


async def keep_history(history: History) -> None:
    """Sample the counters for the console."""
    while True:
        history.take()
        await asyncio.sleep(SECONDS_BETWEEN)


async def keep_reserving(journal: Journal, ingest_ids: IngestIds) -> None:
    """Keep the reservation of ids ahead of the ids that are used."""
    while True:
        await asyncio.sleep(_RESERVE_SECONDS)
        try:
            await reserve(journal, ingest_ids)
        except Unavailable as error:
            _LOG.warning("the journal did not take the reservation of ids", reason=error.message)


async def reserve(journal: Journal, ingest_ids: IngestIds) -> None:
    """Store how far ids may go, so that none goes backwards after a restart, whatever the clock does."""
    latest = max(now_ms(), ingest_ids.latest)
    await journal.write_note(FLOOR, latest + _RESERVE_MILLISECONDS)


async def keep_adding_direct(journal: SqliteJournal, metrics: Metrics) -> None:
    """Keep the journal's ledger complete."""
    while True:
        await asyncio.sleep(_DIRECT_SECONDS)
        await add_direct(journal, metrics)


async def add_direct(journal: SqliteJournal, metrics: Metrics) -> None:
    """Add to the journal's ledger what was published without passing through the journal."""
    taken = metrics.take_published_directly()
    try:
        await journal.add_direct(taken)
    except Unavailable as error:
        metrics.return_published_directly(taken)
        _LOG.warning("the journal did not take the ledger", reason=error.message)


async def count_letters(
    letters: WaitingDeadLetters, journal: Journal, delivery: Delivery, health: Health, metrics: Metrics
) -> None:
    """Show how many dead letters wait to be reprocessed; while Kafka or the journal is away, how many did."""
    while True:
        seconds = LETTERS_SECONDS
        if delivery.topics_ready and health.kafka != "down":
            try:
                reprocessed = await journal.read_notes(NOTE_PREFIX)
                health.dead_letters = await asyncio.to_thread(letters.count, reprocessed.keys())
                metrics.dead_letters_waiting.set(health.dead_letters)
            except ConfigurationError as error:
                _LOG.warning("dead letters that wait cannot be counted", reason=error.message)
                seconds = _DENIED_SECONDS
            except ConnectorError:
                pass  # brokers or journal are away, which is shown elsewhere
        await asyncio.sleep(seconds)


async def watch_registry(
    registry: Registry, routes: Sequence[Route], ids: Mapping[str, int], health: Health, metrics: Metrics
) -> None:
    """Show whether the registry answers and still has the schemas under our ids; nothing waits for it.

    Args:
        registry: The registry.
        routes: The topics that are written.
        ids: Topic → the schema id in use.
        health: Where problems are shown.
        metrics: Where its state is shown.
    """
    while True:
        try:
            current = {route.topic: await asyncio.to_thread(registry.id_of, route) for route in routes}
            changed = [topic for topic, schema_id in current.items() if schema_id != ids[topic]]
            health.set_problem("registry", f"it has other ids now for {', '.join(changed)}" if changed else "")
            metrics.registry_up.set(1)
        except ConnectorError as error:
            health.set_problem("registry", error.message)
            metrics.registry_up.set(0)
        await asyncio.sleep(REGISTRY_SECONDS)
