"""Restarts background tasks that fail, and reports parts that have ended.

A part that fails is restarted, counted and shown. If a part ends in spite of that, the connector restarts in its
process; until then `/livez` names the part.
"""

import asyncio
import contextlib
import math
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
"""The names of all parts."""

RESTART_SECONDS: Final = 0.5
"""The time from a part's end to its restart."""

_MAX_DOUBLINGS: Final = 30  # more doublings would make an integer that overflows a float

SHOWN_SECONDS: Final = 60.0
"""How long a failure is shown as a problem."""

restarts: Counter[str] = Counter()
"""Part → number of its restarts in this process."""

_failures: dict[str, tuple[float, str]] = {}
_LOG = structlog.get_logger()


async def run_forever(part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part's work, and restart it whenever it returns or fails, until this task is cancelled."""
    while True:
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # This task was not cancelled: the work waited for something that was, which is a failure like any other.
            record_failure(part, error)
        except Exception as error:  # noqa: BLE001 - the connector must not go on without this part
            record_failure(part, error)
        # Also after a success, so that work that returns at once does not keep the event loop busy.
        await asyncio.sleep(RESTART_SECONDS)


def record_failure(part: str, error: BaseException) -> None:
    """Count and show the failure of a part that is restarted; may be called from any thread."""
    restarts[part] += 1
    _failures[part] = time.monotonic(), type(error).__name__
    _LOG.error("a part of the connector failed; it is restarted", part=part, exc_info=error)


def problem() -> str:
    """Return a sentence that names the parts that failed within the last minute, or an empty text."""
    now = time.monotonic()
    recent = [f"{part} ({error})" for part, (at, error) in sorted(_failures.items()) if now - at < SHOWN_SECONDS]
    return f"restarted after a failure: {', '.join(recent)}; the log says where" if recent else ""


async def cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, whatever they raise."""
    # All are cancelled before the first is awaited, so that they end at the same time.
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def is_set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until an event is set, and return whether it is.

    Args:
        event: The event.
        seconds: How long to wait; None: without a limit.
    """
    # Not `asyncio.wait_for`: in Python 3.11 it loses a cancellation that comes together with its time-out.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def back_off_seconds(attempt: int, first: float, longest: float) -> float:
    """Return the seconds to wait after a failed attempt; they double with each attempt up to a limit.

    Args:
        attempt: The number of failed attempts before this one.
        first: The seconds after the first failed attempt.
        longest: The limit in seconds.
    """
    return float(min(first * 2 ** min(attempt, _MAX_DOUBLINGS), longest))


class Watchdog:
    """The parts that the connector cannot run without, each with a check that it is alive."""

    def __init__(self) -> None:
        # Not a dict: both listeners have a task "connections", and the second must not replace the check of the first.
        self._checks: list[tuple[str, Callable[[], bool]]] = []

    def watch(self, part: str, is_alive: Callable[[], bool]) -> None:
        """Check a part from now on; parts that share a name must all be alive."""
        self._checks.append((part, is_alive))

    @property
    def ended(self) -> list[str]:
        """The parts that have ended."""
        return list(dict.fromkeys(part for part, is_alive in self._checks if not is_alive()))


class BackgroundTasks:
    """Tasks that run beside the task that started them."""

    def __init__(self) -> None:
        # The event loop holds only weak references: a task that nobody else holds may be collected before it ends.
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait(self, seconds: float = math.inf) -> None:
        """Wait until no task runs any more, including tasks that start during the wait, or until the time is over."""
        ends = time.monotonic() + seconds
        while self._tasks and (left := ends - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=None if left == math.inf else left)
