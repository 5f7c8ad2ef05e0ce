"""What comes due after a fixed time, in the order in which it was begun: one timer for all of it."""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

_LOG = structlog.get_logger("connector.deadlines")


class Deadline:
    """One wait; what it would do is let go of as soon as it is cancelled."""

    __slots__ = ("act", "at")

    def __init__(self, at: float, act: Callable[[], None]) -> None:
        self.at = at
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """Do nothing when the time has come."""
        self.act = None


class Deadlines:
    """Waits of equal length on one event loop.

    Args:
        seconds: How long each takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waits: deque[Deadline] = deque()
        self._is_armed = False

    def begin(self, act: Callable[[], None]) -> Deadline:
        """Call ``act`` when the time has come, unless it is cancelled before."""
        wait = Deadline(self._loop.time() + self._seconds, act)
        self._waits.append(wait)
        if not self._is_armed:
            self._arm(wait)
        return wait

    def _arm(self, wait: Deadline) -> None:
        self._is_armed = True
        self._loop.call_at(wait.at, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        while self._waits and (self._waits[0].act is None or self._waits[0].at <= now):
            self._end(self._waits.popleft())
        self._is_armed = False
        if self._waits:
            self._arm(self._waits[0])

    @staticmethod
    def _end(wait: Deadline) -> None:
        act, wait.act = wait.act, None
        try:
            if act is not None:
                act()
        except Exception:  # noqa: BLE001 - one raising wait must not keep the others from theirs
            _LOG.exception("what came due failed")
