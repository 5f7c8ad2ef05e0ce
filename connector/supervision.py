"""What must live as long as the connector: tasks that are begun again after a failure, and parts that are looked at.

A part that fails is restarted, counted and shown. One that has ended all the same makes the connector start again as a
whole; until then `/livez` says which one it is.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

PARTS: Final = (
    *("brokers", "canary", "connections", "duplicates", "files", "gauges", "history", "ids", "journal", "lag"),
    *("lease", "ledger", "dedup_keys", "operations", "publisher", "receiver", "registry", "replay", "batches"),
)
"""Every part, by name."""

AGAIN_SECONDS: Final = 0.5
"""From a part's end to its next beginning."""

SHOWN_SECONDS: Final = 60.0
"""How long a failure is shown as a problem."""

restarts: Counter[str] = Counter()
"""How often each part of this process was restarted."""

_failures: dict[str, tuple[float, str]] = {}
_LOG = structlog.get_logger("connector.supervision")


async def forever(part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do a part's work, and begin it again whenever it ends or fails, until this task is cancelled."""
    while True:
        try:
            await work()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            note_failure(part, error)  # what it waited for was cancelled, not this task
        except Exception as error:  # noqa: BLE001 - whatever it is, a connector must not go on without this part
            note_failure(part, error)
        await asyncio.sleep(AGAIN_SECONDS)


def note_failure(part: str, error: BaseException) -> None:
    """Count and show that a part has failed, and is restarted; from any thread."""
    restarts[part] += 1
    _failures[part] = time.monotonic(), type(error).__name__
    _LOG.error("a part of the connector failed; it is restarted", part=part, exc_info=error)


def problem() -> str:
    """Which parts have failed within the last minute; nothing if none has."""
    now = time.monotonic()
    recent = [f"{part} ({error})" for part, (at, error) in sorted(_failures.items()) if now - at < SHOWN_SECONDS]
    return f"restarted after a failure: {', '.join(recent)}; the log says where" if recent else ""


class Vital:
    """The parts that have to live, each with what tells whether it does."""

    def __init__(self) -> None:
        self._lives: dict[str, Callable[[], bool]] = {}

    def needs(self, part: str, lives: Callable[[], bool]) -> None:
        """Look at a part from now on."""
        self._lives[part] = lives

    @property
    def dead(self) -> list[str]:
        """The parts that have ended."""
        return [part for part, lives in self._lives.items() if not lives()]
