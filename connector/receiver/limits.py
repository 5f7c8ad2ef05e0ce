"""Limits on what senders take: requests a second of each source, and memory for bodies that are still arriving."""

import contextlib
import math
from collections.abc import Mapping
from typing import Final

from aiolimiter import AsyncLimiter

from connector.errors import Overloaded

MAX_READING_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of unfinished bodies in memory at once, over all connections."""


class RateLimiter:
    """Limits how many requests a second each source sends.

    Args:
        rates: Requests a second, by source; fractions too. One second's worth, and at least one, may arrive at once.
    """

    def __init__(self, rates: Mapping[str, float]) -> None:
        self._limiters: dict[str, AsyncLimiter] = {}
        self.replace_rates(rates)

    def replace_rates(self, rates: Mapping[str, float]) -> None:
        """Apply these rates from now on; a rate that has not changed keeps its count."""
        found = {name: (max(rate, 1.0), max(rate, 1.0) / rate) for name, rate in rates.items()}
        # A new limiter would let a source start over with each change of any setting.
        self._limiters = {name: self._limiter(name, *shape) for name, shape in found.items()}

    def acquire(self, source: str) -> None:
        """Count a request of a source.

        Raises:
            Overloaded: It is over the source's rate; one more fits after ``retry_after``.
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
            limiter.acquire().send(None)  # it has capacity, so it ends without awaiting anything

    def _limiter(self, name: str, max_rate: float, seconds: float) -> AsyncLimiter:
        before = self._limiters.get(name)
        if before is not None and (before.max_rate, before.time_period) == (max_rate, seconds):
            return before
        return AsyncLimiter(max_rate, seconds)


class BodyMemory:
    """The memory of bodies that arrive in pieces, over all connections; one that arrives at once needs none."""

    def __init__(self, max_bytes: int = MAX_READING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._taken = 0

    def acquire(self, count: int) -> None:
        """Reserve so many bytes.

        Raises:
            Overloaded: All of it is taken.
        """
        if self._taken + count > self._max_bytes:
            raise Overloaded("too many large bodies are on their way: send it again")
        self._taken += count

    def release(self, count: int) -> None:
        """Release so many bytes."""
        self._taken -= count
