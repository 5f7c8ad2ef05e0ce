"""Counters, histograms and gauges of one event loop: plain numbers that a scrape turns into metrics.

prometheus-client's own take a lock for every increment, because any thread may come; ours are touched by the event loop
alone, which also serves the scrape, and cost a tenth. What a scrape shows is the same.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """How often, or how much."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count."""
        self.value += amount


class Durations:
    """How many took how long.

    Args:
        bounds: Upper bounds of the buckets in seconds, ascending, without infinity.
    """

    __slots__ = ("_bounds", "buckets", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one that took so long."""
        self.buckets[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds


_Child = TypeVar("_Child", Count, Durations)


class Gauge(Collector):
    """A gauge without labels: a scrape shows nothing of it until it is known."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._about = (name, documentation)
        self._value: Callable[[], float] | None = None
        registry.register(self)

    def set(self, value: float) -> None:
        """From now on it is this."""
        self._value = partial(float, value)

    def set_function(self, value: Callable[[], float]) -> None:
        """From now on it is what this gives at each scrape."""
        self._value = value

    def describe(self) -> Iterable[Metric]:
        """What the registry checks for names that are there twice."""
        return [GaugeMetricFamily(*self._about)]

    def collect(self) -> Iterable[Metric]:
        """What a scrape shows."""
        return [GaugeMetricFamily(*self._about, value=None if self._value is None else self._value())]


class _Family(Collector, Generic[_Child]):
    """The children of one metric, one for each combination of its labels' values."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._about = (name, documentation)
        self._labels = labels
        self._children: dict[tuple[str, ...], _Child] = {}
        registry.register(self)

    def labels(self, *values: str) -> _Child:
        """The child of these values, made on the first call; label values are a closed set."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._born()
        return child

    def _born(self) -> _Child:
        raise NotImplementedError

    def describe(self) -> Iterable[Metric]:
        """What the registry checks for names that are there twice."""
        return self.collect()


class Counter(_Family[Count]):
    """A counter."""

    def collect(self) -> Iterable[Metric]:
        """What a scrape shows."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family

    def _born(self) -> Count:
        return Count()


class Histogram(_Family[Durations]):
    """A histogram of seconds."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        bounds: Sequence[float],
    ) -> None:
        self._bounds = tuple(map(float, bounds))
        super().__init__(name, documentation, labels, registry)

    def collect(self) -> Iterable[Metric]:
        """What a scrape shows: the buckets summed up from below."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for values, child in self._children.items():
            sums, so_far = [], 0
            for name, count in zip(names, child.buckets, strict=True):
                so_far += count
                sums.append((name, float(so_far)))
            family.add_metric(values, sums, child.total)
        yield family

    def _born(self) -> Durations:
        return Durations(self._bounds)
