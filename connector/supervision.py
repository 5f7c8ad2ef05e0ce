"""Restarts background tasks that fail, and reports parts that have ended.

A part that fails is restarted, counted and shown. One that has ended all the same makes the connector restart in
process; until then `/livez` says which one it is.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

import structlog

PARTS: Final = (
    "batches",
    "brokers",
    "canary",
    "certificates",
    "connections",
    "dedup_keys",
    "duplicates",
    "files",
    "gauges",
    "history",
    "ids",
    "journal",
    "lag",
    "lease",
    "ledger",
    "letters",
    "operations",
    "publisher",
    "receiver",
    "registry",
    "replay",
)
"""Every part, by name."""

RESTART_SECONDS: Final = 0.5
"""From a part's end to its restart."""

_MAX_DOUBLINGS: Final = 30  # more would only make integers that overflow a float

SHOWN_SECONDS: Final = 60.0
"""How long a failure is shown as a problem."""

restarts: Counter[str] = Counter()
"""How often each part of this process was restarted."""

_failures: dict[str, tuple[float, str]] = {}
_LOG = structlog.get_logger()


async def run_forever(part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part's work, and restart it whenever it ends or fails, until this task is cancelled."""
    while True:
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            record_failure(part, error)  # what it waited for was cancelled, not this task
        except Exception as error:  # noqa: BLE001 - whatever it is, a connector must not go on without this part
            record_failure(part, error)
        await asyncio.sleep(RESTART_SECONDS)


def record_failure(part: str, error: BaseException) -> None:
    """Count and show that a part has failed, and is restarted; from any thread."""
    restarts[part] += 1
    _failures[part] = time.monotonic(), type(error).__name__
    _LOG.error("a part of the connector failed; it is restarted", part=part, exc_info=error)


def problem() -> str:
    """Which parts have failed within the last minute; nothing if none has."""
    now = time.monotonic()
    recent = [f"{part} ({error})" for part, (at, error) in sorted(_failures.items()) if now - at < SHOWN_SECONDS]
    return f"restarted after a failure: {', '.join(recent)}; the log says where" if recent else ""


async def cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, whatever they raise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def is_set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Whether an event is set now, or within so many seconds; None: wait until it is."""
    # Not `asyncio.wait_for`: in Python 3.11 it loses a cancellation that comes together with its time-out.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def back_off_seconds(attempt: int, first: float, longest: float) -> float:
    """How long to wait after a failed attempt: twice as long after each, up to the longest.

    Args:
        attempt: How many failed before it.
        first: Seconds after the first.
        longest: Most seconds.
    """
    return float(min(first * 2 ** min(attempt, _MAX_DOUBLINGS), longest))


class Watchdog:
    """The parts that the connector cannot do without, each with a check whether it is alive."""

    def __init__(self) -> None:
        # Not a dict: both listeners have a task "connections", and the second must not replace the check of the first.
        self._checks: list[tuple[str, Callable[[], bool]]] = []

    def watch(self, part: str, is_alive: Callable[[], bool]) -> None:
        """Check a part from now on; of several with one name, all have to live."""
        self._checks.append((part, is_alive))

    @property
    def ended(self) -> list[str]:
        """The parts that have ended."""
        return list(dict.fromkeys(part for part, is_alive in self._checks if not is_alive()))


class BackgroundTasks:
    """Tasks that run beside the one that started them, and are kept from the garbage collector until they end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Wait until none runs any more, those included that are started meanwhile."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
