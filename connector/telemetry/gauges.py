"""A gauge that shows nothing before it is known."""

from collections.abc import Callable, Iterable

from prometheus_client import Gauge
from prometheus_client.metrics_core import Metric


class LateGauge(Gauge):
    """A gauge without labels that has no sample until it is set.

    prometheus_client's own shows 0 from its construction on: a scrape during the start would see a journal that is
    down.
    """

    _is_known = False

    def set(self, value: float) -> None:
        """Show a value from now on."""
        self._is_known = True
        super().set(value)

    def set_function(self, f: Callable[[], float]) -> None:
        """Show what the function returns at each scrape from now on."""
        self._is_known = True
        super().set_function(f)

    def collect(self) -> Iterable[Metric]:
        """The metric, for a scrape."""
        for metric in super().collect():
            if not self._is_known:
                metric.samples = []
            yield metric
