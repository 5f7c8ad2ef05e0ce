"""Counters and histograms of what happens for every message, as collectors of prometheus_client.

prometheus_client's own take a lock and look through every bucket at each observation, which was a tenth of all that a
message costs (ADR 0080). These belong to the event loop, where a count is one addition, and are made into samples at a
scrape.
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
    """A counter; only the event loop counts.

    Args:
        name: Without ``_total``.
        documentation: One sentence.
        labels: Names of its labels.
        registry: Where it is scraped.

    Attributes:
        counts: Label values → the count.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._describe = name, documentation, labels
        self.counts: defaultdict[Labels, int] = defaultdict(int)
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The metric without samples."""
        name, documentation, labels = self._describe
        yield CounterMetricFamily(name, documentation, labels=labels)

    def collect(self) -> Iterable[Metric]:
        """The metric, for a scrape; any thread may call it."""
        name, documentation, labels = self._describe
        family = CounterMetricFamily(name, documentation, labels=labels)
        for values, count in self.counts.copy().items():
            family.add_metric(values, count)
        yield family


class _Observations:
    """What one set of label values has observed.

    Args:
        buckets: How many there are.
    """

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.exemplars: list[Exemplar | None] = [None] * buckets
        self.total = 0.0


class LoopHistogram:
    """A histogram; only the event loop observes.

    Args:
        name: With its unit.
        documentation: One sentence.
        bounds: Upper bounds of its buckets, without infinity.
        labels: Names of its labels.
        registry: Where it is scraped.
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
        self._texts = [str(floatToGoString(each)) for each in (*bounds, math.inf)]  # type: ignore[no-untyped-call]
        self._observations: dict[Labels, _Observations] = {}
        registry.register(self)

    def initialise(self, values: Labels) -> _Observations:
        """Show these label values, with nothing observed."""
        return self._observations.setdefault(values, _Observations(len(self._texts)))

    def observe(self, values: Labels, amount: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Observe an amount under these label values, with the labels of an exemplar."""
        found = self._observations.get(values) or self.initialise(values)
        bucket = bisect_left(self._bounds, amount)
        found.counts[bucket] += 1
        found.total += amount
        if exemplar is not None:
            found.exemplars[bucket] = Exemplar(dict(exemplar), amount, time.time())

    def describe(self) -> Iterable[Metric]:
        """The metric without samples."""
        name, documentation, labels = self._describe
        yield HistogramMetricFamily(name, documentation, labels=labels)

    def collect(self) -> Iterable[Metric]:
        """The metric, for a scrape; any thread may call it."""
        name, documentation, labels = self._describe
        family = HistogramMetricFamily(name, documentation, labels=labels)
        for values, found in self._observations.copy().items():
            counts = accumulate(found.counts[:])
            exemplars = found.exemplars[:]
            buckets = [
                (text, count) if exemplar is None else (text, count, exemplar)
                for text, count, exemplar in zip(self._texts, counts, exemplars, strict=True)
            ]
            family.add_metric(values, buckets, found.total)
        yield family
