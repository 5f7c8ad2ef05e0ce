"""Rates and latencies of the last minutes, and what charts show of the last two days."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final, NamedTuple, Self

from prometheus_client import CollectorRegistry

from connector.telemetry.health import Health
from connector.telemetry.metrics import PREFIX

SAMPLE_INTERVAL_SECONDS: Final = 5.0
MAX_FINE_POINTS: Final = 1_440
"""Points, one a sample: two hours."""

MAX_COARSE_POINTS: Final = 2_880
"""Points, one a minute: two days."""

_MINUTE_MILLISECONDS: Final = 60_000
_MAX_SAMPLES: Final = 121  # ten minutes: 120 intervals have 121 ends
_REQUESTS: Final = f"{PREFIX}requests"
_DURATION: Final = f"{PREFIX}request_duration_seconds"
_PUBLISHED: Final = f"{PREFIX}messages_published"
P50: Final = 0.5
P99: Final = 0.99
_HEALTHY: Final = frozenset({"up", "connecting"})  # a start is no outage


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment.

    Attributes:
        at: The monotonic clock, in seconds: rates do not jump when the wall clock is set.
        outcomes: Outcome → requests.
        published: Published messages.
        buckets: Upper limit in seconds → accepted requests answered within it.
    """

    at: float
    outcomes: dict[str, float]
    published: float
    buckets: dict[float, float]


class Point(NamedTuple):
    """The measurements of one interval.

    Attributes:
        at: The end of the interval, in epoch milliseconds.
        seconds: Its length.
        accepted: Accepted messages a second.
        published: Published messages a second.
        dead_letters: New dead letters a second.
        backlog: The highest number of messages in the journal.
        p50: The median response time of accepted requests, in milliseconds; None if there were none.
        p99: The 99th percentile of the same.
        is_published: Whether Kafka acknowledged records.
        is_accepted: Whether messages could be accepted.
    """

    at: int
    seconds: float
    accepted: float
    published: float
    dead_letters: float
    backlog: int
    p50: float | None
    p99: float | None
    is_published: bool
    is_accepted: bool

    @classmethod
    def of(cls, points: Sequence[Self]) -> Self:
        """Merge neighbouring points: mean rates, and the worst of every other value."""
        # Means suit rates only: they would hide a short peak of latency or a short outage.
        seconds = sum(point.seconds for point in points)

        def mean(values: Iterable[float]) -> float:
            return sum(value * point.seconds for value, point in zip(values, points, strict=True)) / max(seconds, 0.001)

        return cls(
            points[-1].at,
            seconds,
            mean(point.accepted for point in points),
            mean(point.published for point in points),
            mean(point.dead_letters for point in points),
            max(point.backlog for point in points),
            max((point.p50 for point in points if point.p50 is not None), default=None),
            max((point.p99 for point in points if point.p99 is not None), default=None),
            all(point.is_published for point in points),
            all(point.is_accepted for point in points),
        )


class Outage(NamedTuple):
    """A period in epoch milliseconds in which Kafka did not acknowledge; ``is_closed``: nothing was accepted either."""

    began: int
    ended: int
    is_closed: bool


class History:
    """Counters of the last ten minutes, and points for charts of the last two days.

    Args:
        registry: The metrics.
        health: The connector's state.
        clock: Returns seconds since the epoch.
    """

    def __init__(self, registry: CollectorRegistry, health: Health, clock: Callable[[], float] = time.time) -> None:
        self._registry = registry
        self._health = health
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=_MAX_SAMPLES)
        self._minute: list[Point] = []
        self.fine: deque[Point] = deque(maxlen=MAX_FINE_POINTS)
        self.coarse: deque[Point] = deque(maxlen=MAX_COARSE_POINTS)

    def take(self) -> None:
        """Sample the counters."""
        outcomes: dict[str, float] = {}
        buckets: dict[float, float] = {}
        published = 0.0
        for family in self._registry.collect():
            for sample in family.samples if family.name in {_REQUESTS, _DURATION, _PUBLISHED} else ():
                if sample.name == f"{_REQUESTS}_total":
                    outcome = sample.labels["outcome"]
                    outcomes[outcome] = outcomes.get(outcome, 0) + sample.value
                elif sample.name == f"{_PUBLISHED}_total":
                    published += sample.value
                elif sample.name == f"{_DURATION}_bucket" and sample.labels["outcome"] == "accepted":
                    limit = float(sample.labels["le"])
                    buckets[limit] = buckets.get(limit, 0) + sample.value
        self._samples.append(Sample(time.monotonic(), outcomes, published, buckets))
        if len(self._samples) > 1:
            self._add(self._point(*list(self._samples)[-2:]))

    def points(self, milliseconds: int) -> list[Point]:
        """Return the points of the last ``milliseconds``, oldest first: one a sample up to two hours, else a minute."""
        begin = int(self._clock() * 1000) - milliseconds
        if milliseconds <= MAX_FINE_POINTS * SAMPLE_INTERVAL_SECONDS * 1000:
            return [point for point in self.fine if point.at >= begin]
        return [point for point in (*self.coarse, *self._minute) if point.at >= begin]

    def outages(self, milliseconds: int) -> list[Outage]:
        """Return the outages of the last ``milliseconds``, oldest first."""
        outages: list[Outage] = []
        for point in self.points(milliseconds):
            if point.is_published and point.is_accepted:
                continue
            began, is_closed = point.at - int(point.seconds * 1000), not point.is_accepted
            # Samples are never exactly one interval apart: a smaller gap between two outages is no recovery.
            if outages and began - outages[-1].ended < SAMPLE_INTERVAL_SECONDS * 1000:
                began, is_closed = outages[-1].began, is_closed or outages[-1].is_closed
                outages.pop()
            outages.append(Outage(began, point.at, is_closed))
        return outages

    def totals(self) -> dict[str, int]:
        """Return the requests since the start: outcome → number."""
        return {name: int(value) for name, value in self._samples[-1].outcomes.items()} if self._samples else {}

    def rate(self, seconds: float = 60) -> float:
        """Return accepted messages a second over the last ``seconds``."""
        first, last = self._span(seconds)
        if first is last or first is None or last is None:
            return 0.0
        return (last.outcomes.get("accepted", 0) - first.outcomes.get("accepted", 0)) / max(last.at - first.at, 0.001)

    def quantile(self, share: float, seconds: float = 600) -> float | None:
        """Return a quantile of request duration, in seconds, interpolated within its bucket; None without requests."""
        first, last = self._span(seconds)
        return None if first is None or last is None else _quantile(first, last, share)

    def _span(self, seconds: float) -> tuple[Sample | None, Sample | None]:
        if not self._samples:
            return None, None
        last = self._samples[-1]
        return next(sample for sample in self._samples if sample.at >= last.at - seconds), last

    def _point(self, before: Sample, after: Sample) -> Point:
        seconds = max(after.at - before.at, 0.001)
        health = self._health
        p50, p99 = _quantile(before, after, P50), _quantile(before, after, P99)

        def rate(outcome: str) -> float:
            return (after.outcomes.get(outcome, 0) - before.outcomes.get(outcome, 0)) / seconds

        return Point(
            int(self._clock() * 1000),
            seconds,
            rate("accepted"),
            (after.published - before.published) / seconds,
            rate("dead_lettered"),
            health.backlog,
            None if p50 is None else p50 * 1000,
            None if p99 is None else p99 * 1000,
            health.kafka in _HEALTHY,
            health.is_ready,
        )

    def _add(self, point: Point) -> None:
        self.fine.append(point)
        if self._minute and point.at // _MINUTE_MILLISECONDS != self._minute[-1].at // _MINUTE_MILLISECONDS:
            self.coarse.append(Point.of(self._minute))
            self._minute = []
        self._minute.append(point)


def _quantile(before: Sample, after: Sample, share: float) -> float | None:
    grown = sorted((limit, count - before.buckets.get(limit, 0)) for limit, count in after.buckets.items())
    total = grown[-1][1] if grown else 0
    if total <= 0:
        return None
    for (low, fewer), (high, count) in pairwise(chain([(0.0, 0.0)], grown)):
        if count >= share * total:
            if high == float("inf"):  # nothing to interpolate to: its lower limit is what is certain
                return low
            return low + (high - low) * (share * total - fewer) / max(count - fewer, 1e-9)
    return None
