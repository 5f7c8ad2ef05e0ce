"""Background tasks of a running connector; each is restarted when it fails."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog

from connector import supervision
from connector.clock import now_ms
from connector.delivery.delivery import Delivery
from connector.errors import ConfigurationError, ConnectorError, Unavailable
from connector.intake.dead_letter_count import DeadLetterCount
from connector.intake.dead_letters import NOTE_PREFIX
from connector.journal.model import Journal
from connector.journal.sqlite import SqliteJournal
from connector.kafka.registry import Registry
from connector.message.ingest_ids import IngestIds
from connector.message.routes import Route
from connector.operations.history import SAMPLE_INTERVAL_SECONDS, History
from connector.supervision import Watchdog
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics

FLOOR: Final = "ingest_floor"
"""Name of the journal's note that holds the time above which the ids of the next run begin."""

REGISTRY_SECONDS: Final = 15.0
"""Seconds between two checks of the schema registry."""

LETTERS_SECONDS: Final = 15.0
"""Seconds between two counts of the waiting dead letters."""

_DENIED_SECONDS: Final = 600.0  # our user may not read the topics: asking often would not help
# More than twice the interval, so that one write that fails or is late does not use up the reservation.
_RESERVE_MILLISECONDS: Final = 10_000
_RESERVE_SECONDS: Final = 4.0
_DIRECT_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 0.05
_LOG = structlog.get_logger()


class Watchers:
    """The background tasks of one connector; each is restarted when it ends or fails.

    Args:
        watchdog: Checks that each task is alive.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the work of a part in a task until :meth:`stop`."""
        task = asyncio.create_task(supervision.run_forever(part, work))
        self._tasks.add(task)
        self._watchdog.watch(part, lambda: not task.done())

    async def stop(self) -> None:
        """Cancel all tasks."""
        await supervision.cancel(self._tasks)


class Restarts:
    """Restarts of the connector within its process.

    Args:
        counts: Restarts so far by reason; shared by all connectors that this process runs one after another.
        metrics: Shows the counts.

    Attributes:
        requested: Set once the connector must be stopped and started again.
    """

    def __init__(self, counts: Counter[str], metrics: Metrics) -> None:
        self._counts = counts
        self._metrics = metrics
        self.requested = asyncio.Event()
        metrics.restarted(counts)

    def request(self, reason: str) -> None:
        """Ask for a restart; of this connector's state in memory only the counts survive it."""
        self._counts[reason] += 1
        self._metrics.restarted(self._counts)
        self.requested.set()


async def measure_lag(metrics: Metrics) -> None:
    """Measure how late the event loop runs its timers."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_SECONDS
        await asyncio.sleep(_LAG_SECONDS)
        metrics.event_loop_lag.observe(loop.time() - due)


async def keep_history(history: History) -> None:
    """Sample the counters for the console."""
    while True:
        history.take()
        await asyncio.sleep(SAMPLE_INTERVAL_SECONDS)


async def keep_reserving(journal: Journal, ingest_ids: IngestIds) -> None:
    """Keep the reserved ids ahead of those in use."""
    while True:
        await asyncio.sleep(_RESERVE_SECONDS)
        try:
            await reserve(journal, ingest_ids)
        except Unavailable as error:
            _LOG.warning("the journal did not take the reservation of ids", reason=error.message)


async def reserve(journal: Journal, ingest_ids: IngestIds) -> None:
    """Store an upper bound of the ids in use, so that ids never go backwards after a restart, whatever the clock does.

    Raises:
        Unavailable: The journal does not take it.
    """
    latest = max(now_ms(), ingest_ids.latest)  # ids run ahead of a clock that was set back
    await journal.write_note(FLOOR, latest + _RESERVE_MILLISECONDS)


async def keep_adding_direct(journal: SqliteJournal, metrics: Metrics) -> None:
    """Store in the journal's ledger, every second, what was published without passing through the journal."""
    while True:
        await asyncio.sleep(_DIRECT_SECONDS)
        await add_direct(journal, metrics)


async def add_direct(journal: SqliteJournal, metrics: Metrics) -> None:
    """Add to the journal's ledger what was published without passing through the journal."""
    # Taken before the write: what is published during it belongs to the next one, and nothing is counted twice.
    counts = metrics.take_published_directly()
    try:
        await journal.add_direct(counts)
    except Unavailable as error:
        metrics.return_published_directly(counts)
        _LOG.warning("the journal did not take the ledger", reason=error.message)


async def count_letters(
    letters: DeadLetterCount, journal: Journal, delivery: Delivery, health: Health, metrics: Metrics
) -> None:
    """Show how many dead letters wait to be reprocessed; the last count stays while Kafka or the journal is away."""
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
                pass  # Kafka or the journal is away; the brokers' watcher and the gauges show that
        await asyncio.sleep(seconds)


async def watch_registry(
    registry: Registry, routes: Sequence[Route], ids: Mapping[str, int], health: Health, metrics: Metrics
) -> None:
    """Show whether the registry answers and still has our schemas under the ids in use.

    A problem is only shown: records are written with the ids from the start, whatever the registry says later.

    Args:
        registry: The registry.
        routes: The routes to the topics that the connector writes.
        ids: Topic → the schema id in use.
        health: Shows the problem.
        metrics: Shows whether the registry answers.
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
