"""Limits the requests per second of each source, and the memory of bodies that are still arriving."""

import contextlib
import math
from collections.abc import Mapping
from typing import Final

from aiolimiter import AsyncLimiter

from connector.errors import Overloaded

MAX_READING_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes of unfinished bodies in memory, over all connections."""


class RateLimiter:
    """Limits the requests per second of each source.

    Args:
        rates: Source → requests per second, which may be a fraction. The requests of one second, and at least one, may
            arrive at once.
    """

    def __init__(self, rates: Mapping[str, float]) -> None:
        self._limiters: dict[str, AsyncLimiter] = {}
        self.replace_rates(rates)

    def replace_rates(self, rates: Mapping[str, float]) -> None:
        """Apply these rates from now on; an unchanged rate keeps its count."""
        # aiolimiter never lets a request pass at a maximum rate below 1, so a lower rate becomes 1 in a longer period.
        limits = {name: (max(rate, 1.0), max(rate, 1.0) / rate) for name, rate in rates.items()}
        # A new limiter would let a source start over with each change of any setting.
        self._limiters = {name: self._limiter(name, *limit) for name, limit in limits.items()}

    def acquire(self, source: str) -> None:
        """Count a request of a source.

        Raises:
            Overloaded: The request exceeds the source's rate; another one fits after ``retry_after``.
        """
        limiter = self._limiters.get(source)
        if limiter is None:
            return
        if not limiter.has_capacity():
            raise Overloaded(
                "over the rate of this source (rate in WEDA_SOURCES): send it again",
                retry_after=math.ceil(limiter.time_period / limiter.max_rate),
            )
        with contextlib.suppress(StopIteration):
            limiter.acquire().send(None)  # there is capacity, so the coroutine ends without awaiting anything

    def _limiter(self, name: str, max_rate: float, seconds: float) -> AsyncLimiter:
        before = self._limiters.get(name)
        if before is not None and (before.max_rate, before.time_period) == (max_rate, seconds):
            return before
        return AsyncLimiter(max_rate, seconds)


class BodyMemory:
    """Limits the memory of bodies that arrive in pieces, over all connections; a body that arrives whole needs none."""

    def __init__(self, max_bytes: int = MAX_READING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._taken = 0

    def acquire(self, count: int) -> None:
        """Reserve this many bytes.

        Raises:
            Overloaded: They would exceed the limit.
        """
        if self._taken + count > self._max_bytes:
            raise Overloaded("too many large bodies are on their way: send it again")
        self._taken += count

    def release(self, count: int) -> None:
        """Release this many bytes."""
        self._taken -= count
