"""A gauge that has no sample until its value is known."""

from collections.abc import Callable, Iterable

from prometheus_client import Gauge
from prometheus_client.metrics_core import Metric


class LateGauge(Gauge):
    """A gauge without labels that has no sample until it is set.

    prometheus_client's own gauge shows 0 from its construction: a scrape during the start would report that the journal
    is down.
    """

    _is_known = False

    def set(self, value: float) -> None:
        """Show this value from now on."""
        self._is_known = True
        super().set(value)

    def set_function(self, f: Callable[[], float]) -> None:
        """From now on, show at each scrape what the function returns."""
        self._is_known = True
        super().set_function(f)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric for a scrape."""
        for metric in super().collect():
            if not self._is_known:
                metric.samples = []
            yield metric
