"""The notifier's metrics, served on a port of their own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from connector.errors import ConfigurationError
from connector.notify.outbox import Counts

PREFIX: Final = "weda_notify_"
OUTCOMES: Final = ("sent", "failed", "parked")
_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one notifier, labelled by target.

    Args:
        targets: Names of the rules' targets.
    """

    def __init__(self, targets: list[str]) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.events = Counter(f"{PREFIX}events", "Events read from the topic", registry=registry)
        self.events_parked = Counter(
            f"{PREFIX}events_parked", "Events of which no text could be made", registry=registry
        )
        self.notifications = Counter(
            f"{PREFIX}notifications", "Notifications by what became of them", ("target", "outcome"), registry=registry
        )
        self.cancelled = Counter(
            f"{PREFIX}reminders_cancelled", "Reminders whose task was done in time", registry=registry
        )
        self.send_seconds = Histogram(
            f"{PREFIX}send_duration_seconds", "One attempt", ("target",), buckets=_BUCKETS, registry=registry
        )
        self._waiting = Gauge(f"{PREFIX}waiting", "Notifications that are to be sent", registry=registry)
        self._parked = Gauge(f"{PREFIX}parked", "Notifications that failed for good", registry=registry)
        self._oldest = Gauge(
            f"{PREFIX}oldest_due_age_seconds", "Since when the oldest notification is due", registry=registry
        )
        self.lag = Gauge(f"{PREFIX}lag_records", "Records of the topic that were not read yet", registry=registry)
        # Series exist from the start: `increase()` misses the first event of a series that appears with it.
        for target in targets:
            self.send_seconds.labels(target)
            for outcome in OUTCOMES:
                self.notifications.labels(target, outcome)

    def show(self, counts: Counts) -> None:
        """Set the gauges that describe the outbox."""
        self._waiting.set(counts.waiting)
        self._parked.set(counts.parked)
        self._oldest.set(counts.oldest_seconds)

    def serve(self, host: str, port: int) -> None:
        """Serve ``/metrics`` in a thread until the process ends.

        Raises:
            ConfigurationError: The port cannot be used.
        """
        try:
            start_http_server(port, host, registry=self.registry)
        except OSError as error:
            raise ConfigurationError(f"--metrics-port: cannot listen on {host}:{port} ({error.strerror})") from error
