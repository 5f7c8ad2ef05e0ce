"""Counters and histograms that are updated for every message, as collectors of prometheus_client.

prometheus_client's own classes take a lock and search every bucket at each observation, which was a tenth of the whole
cost of a message (ADR 0080). These belong to the event loop, where counting is one addition, and make their samples
when they are scraped.
"""

import math
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
"""The values of a metric's labels."""


class LoopCounter:
    """A counter that only the event loop increments.

    Args:
        name: The metric's name without ``_total``.
        documentation: The metric's description.
        labels: The names of its labels.
        registry: The registry that collects it.

    Attributes:
        counts: Label values → the count.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._describe = name, documentation, labels
        self.counts: defaultdict[Labels, int] = defaultdict(int)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Yield the metric without samples."""
        name, documentation, labels = self._describe
        yield CounterMetricFamily(name, documentation, labels=labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric for a scrape; may be called from any thread."""
        name, documentation, labels = self._describe
        family = CounterMetricFamily(name, documentation, labels=labels)
        # A copy, because the event loop may add label values during the scrape.
        for values, count in self.counts.copy().items():
            family.add_metric(values, count)
        yield family


class _Observations:
    """The observations under one set of label values.

    Args:
        buckets: The number of buckets.
    """

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.exemplars: list[Exemplar | None] = [None] * buckets
        self.total = 0.0


class LoopHistogram:
    """A histogram that only the event loop updates.

    Args:
        name: The metric's name with its unit.
        documentation: The metric's description.
        bounds: The upper bounds of the buckets, without infinity.
        labels: The names of its labels.
        registry: The registry that collects it.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        labels: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        self._describe = name, documentation, labels
        self._bounds = bounds
        self._texts = [str(floatToGoString(bound)) for bound in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
        self._observations: dict[Labels, _Observations] = {}
        registry.register(self)

    def initialise(self, values: Labels) -> _Observations:
        """Show these label values without observations."""
        return self._observations.setdefault(values, _Observations(len(self._texts)))

    def observe(self, values: Labels, amount: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Observe an amount under these label values; ``exemplar`` is the labels of an exemplar."""
        observations = self._observations.get(values) or self.initialise(values)
        bucket = bisect_left(self._bounds, amount)
        observations.counts[bucket] += 1
        observations.total += amount
        if exemplar is not None:
            observations.exemplars[bucket] = Exemplar(dict(exemplar), amount, time.time())

    def describe(self) -> Iterable[Metric]:
        """Yield the metric without samples."""
        name, documentation, labels = self._describe
        yield HistogramMetricFamily(name, documentation, labels=labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric for a scrape; may be called from any thread."""
        name, documentation, labels = self._describe
        family = HistogramMetricFamily(name, documentation, labels=labels)
        for values, observations in self._observations.copy().items():
            counts = accumulate(observations.counts[:])
            exemplars = observations.exemplars[:]
            buckets = [
                (text, count) if exemplar is None else (text, count, exemplar)
                for text, count, exemplar in zip(self._texts, counts, exemplars, strict=True)
            ]
            family.add_metric(values, buckets, observations.total)
        yield family
