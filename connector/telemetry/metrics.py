"""Declares every metric of the connector: base units, closed sets of label values, initialised with zero.

The ledger (`connector.telemetry.ledger`) is updated here too, because the connector reports here what becomes of
messages.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from connector.errors import CREDENTIAL_REASONS, ConnectorError
from connector.journal.model import Admission, Contents
from connector.message.events import DICTIONARIES, Event
from connector.message.headers import ERROR_CODE
from connector.message.routes import DEAD_LETTERS
from connector.message.weda import ENVIRONMENTS, MESSAGE_TYPES
from connector.supervision import PARTS
from connector.telemetry.counts import LoopCounter, LoopHistogram
from connector.telemetry.gauges import LateGauge
from connector.telemetry.ledger import LedgerCounts
from connector.values import UNKNOWN_SOURCE, ProducibleRecord

PREFIX: Final = "weda_connector_"
OUTCOMES: Final = ("accepted", "duplicate", "dead_lettered", "rejected", "refused", "failed")
CONNECTION_REASONS: Final = ("malformed", "head", "slow", "connections")
OPERATIONS_REASONS: Final = ("missing", "unknown")
RELOAD_OUTCOMES: Final = ("applied", "failed")
RESTART_REASONS: Final = ("journal", "lease", "part")
OTHER: Final = "other"
MAX_FIELDS: Final = 20
MAX_FIELD_CHARS: Final = 64
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.4, 0.5, 0.8, 1.0, 2.5)
_ACTIONS: Final[Mapping[int | None, str]] = {code: str(code) for code in DICTIONARIES["action"] if code is not None}
# Otherwise each counter has a second series with the time of its creation, which nothing here reads.
disable_created_metrics()  # type: ignore[no-untyped-call]
_TRACE_PARTS: Final = 4
_TRACE_ID_LENGTH: Final = 32
_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, 2.5)
_PUBLISH_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.4, 0.5, 0.8, 1, 2, 3, 5),
    *(30, 120, 600, 3600, 21600),
)


class Metrics:
    """The metrics of one connector.

    Args:
        version: The connector's version, for ``build_info``.
        sources: Names of the configured sources.
        streams: Names of the published streams.
        journal_is_shared: Whether other connectors write and remove rows too, so that only the journal knows how many
            there are.
    """

    def __init__(  # noqa: PLR0915 - every metric is declared once, here
        self, *, version: str, sources: Iterable[str], streams: Iterable[str], journal_is_shared: bool = False
    ) -> None:
        self._journal_is_shared = journal_is_shared
        self.registry = CollectorRegistry()
        self._sources = (*sources, UNKNOWN_SOURCE)
        self._ledger = LedgerCounts(self._sources)
        self._fields: set[str] = set()
        self._reported: dict[str, int] = {}
        self._shown: dict[Counter, int] = {}
        self.requests = self._loop_counter("requests", "HTTP requests that were answered", "source", "outcome")
        self.request_duration = self._loop_histogram(
            "request_duration_seconds", "Received to answered", _REQUEST_BUCKETS, "source", "outcome"
        )
        self.messages = self._loop_counter(
            "messages", "Accepted messages, repeats not counted", "source", "env_type", "msg_type", "action"
        )
        self.messages_published = self._loop_counter(
            "messages_published", "Messages whose every record is in Kafka", "source"
        )
        self.records_published = self._loop_counter("records_published", "Records acknowledged by Kafka", "stream")
        self.record_bytes = self._loop_counter("record_bytes", "Bytes of the values of published records", "stream")
        self.answers_from_journal = self._counter(
            "answers_from_journal",
            "Messages and dead letters that were answered because the journal had them, before Kafka did",
            "source",
        )
        self.publish_duration = self._loop_histogram(
            "publish_duration_seconds", "Received to acknowledged by the brokers", _PUBLISH_BUCKETS, "stream"
        )
        self.dead_letters = self._counter(
            "dead_letters", "Requests kept as dead letters, repeats counted", "source", "stage", "code"
        )
        self.dead_letters_waiting = self._gauge(
            "dead_letters_waiting", "Dead letters in Kafka that nobody has reprocessed yet, of all sources"
        )
        self.timestamps_replaced = self._counter(
            "timestamps_replaced",
            "Records that got the current time because Kafka rejected the time at which they were received",
            "stream",
        )
        self.event_loop_lag = self._histogram(
            "event_loop_lag_seconds",
            "How late the event loop comes to what is due: no answer leaves meanwhile",
            _LAG_BUCKETS,
        )
        self.journal_messages = self._labelled("journal_messages", "Messages that wait in the journal", "source")
        self.journal_bytes = self._gauge("journal_bytes", "Bytes of the journal in use")
        self.journal_limit = self._gauge("journal_limit_bytes", "Bound of the journal in bytes")
        self.journal_room = self._gauge(
            "journal_room_bytes", "Bytes that the journal still takes; what is kept for deletions is not among them"
        )
        self.journal_up = self._gauge("journal_up", "1 while the journal's disk answers, or its database")
        shared = self._gauge("journal_shared", "1 where replicas share the journal: it is needed for every message")
        shared.set(journal_is_shared)
        self.journal_oldest_age = self._gauge("journal_oldest_age_seconds", "Age of the oldest message in the journal")
        self.journal_lost = self._labelled(
            "journal_lost_messages",
            "Messages that a damaged journal, now set aside, did not give back",
            "source",
        )
        self.published_through = self._gauge(
            "published_through_timestamp_seconds", "Everything accepted before this time is in Kafka"
        )
        self.ledger_imbalance = self._labelled(
            "ledger_imbalance", "Accepted less published, dead-lettered after acceptance and journaled", "source"
        )
        self.unknown_fields = self._counter("unknown_fields", "Fields that the schema does not know", "field")
        self.unknown_codes = self._counter("unknown_codes", "Codes that are in no dictionary", "field")
        self.conflicts = self._counter(
            "message_id_conflicts", "Accepted messages whose msgId came before with other content", "source"
        )
        self.canary_round_trip = self._histogram(
            "canary_round_trip_seconds", "Sending of a canary to its record read back from Kafka", _PUBLISH_BUCKETS
        )
        self.canary_refused_total = self._counter("canary_refused", "Canaries that were not accepted")
        self.canary_interval = self._gauge("canary_interval_seconds", "From one canary to the next; 0: there is none")
        self.canary_age = self._gauge(
            "canary_age_seconds",
            "Since the last canary that came back was sent, or since the start; 0: there is none",
        )
        self.producer_rebuilds = self._counter("producer_rebuilds", "Producers rebuilt after an error")
        self.ready = self._gauge("ready", "1 while a message can be accepted durably, as /readyz says")
        self.credentials_refused = self._counter(
            "credentials_refused", "Requests whose credential was not enough", "source", "reason"
        )
        self.operations_refused_total = self._counter(
            "operations_refused",
            "Requests that the operations listener rejected because they lacked its token",
            "reason",
        )
        self.connections_refused = self._counter(
            "connections_refused", "Connections that were turned away before there was a request", "reason"
        )
        self.reloads = self._counter("reloads", "Changed files of settings and certificates that were read", "outcome")
        self.certificate_expiry = self._labelled(
            "certificate_expiry_timestamp_seconds",
            "When a certificate of the connector's own expires, in seconds since the epoch",
            "use",
        )
        self.reload_failing = self._gauge(
            "reload_failing", "1 while changed files cannot be read: what they said before is in effect"
        )
        self.restart_needed = self._gauge(
            "restart_needed", "1 while settings have changed that are in effect only after a restart"
        )
        self.restarts = self._counter(
            "starts_anew",
            "Restarts within the process: its journal was damaged, its lease has run out, or a part had ended",
            "reason",
        )
        self.part_restarts = self._counter("part_restarts", "Restarts of a part of the connector that failed", "part")
        self.log_lines_dropped = self._counter(
            "log_lines_dropped",
            "Lines of the log that were not written",
        )
        self.broker_up = self._gauge("broker_up", "1 while the brokers answer")
        self.registry_up = self._gauge("registry_up", "1 while the schema registry answers; 1 too where there is none")
        self.durability_degraded = self._gauge(
            "durability_degraded", "1 while some topic can lose acknowledged records with one broker"
        )
        self.partition_count_changed = self._gauge(
            "partition_count_changed", "1 after a topic's partition count changed: order does not cross it"
        )
        self._labelled("build_info", "The connector's version", "version").labels(version).set(1)
        ProcessCollector(registry=self.registry)
        self._initialise(tuple(streams))

    def request_ended(self, source: str, outcome: str, seconds: float, trace: str | None = None) -> None:
        """Count an answered request; ``trace`` is its ``traceparent``, whose trace id becomes an exemplar."""
        self.requests.counts[source, outcome] += 1
        self.request_duration.observe((source, outcome), seconds, None if trace is None else _exemplar(trace))

    def credential_rejected(self, source: str, reason: str) -> None:
        """Count a request with an insufficient credential.

        Args:
            source: The source that the path names.
            reason: One of ``CREDENTIAL_REASONS``.
        """
        label = source if source in self._sources else UNKNOWN_SOURCE  # a path can name anything
        self.credentials_refused.labels(label, reason).inc()

    def operations_rejected(self, reason: str) -> None:
        """Count a request that the operations listener rejected, for one of :data:`OPERATIONS_REASONS`."""
        self.operations_refused_total.labels(reason).inc()

    def connection_turned_away(self, reason: str) -> None:
        """Count a connection that was turned away, for one of :data:`CONNECTION_REASONS`."""
        self.connections_refused.labels(reason).inc()

    def message_accepted(self, source: str, event: Event, *, conflict: bool) -> None:
        """Count a message that became safe and is not a duplicate.

        Args:
            source: The source that sent it.
            event: The message's event.
            conflict: Whether its ``msgId`` came before with other content.
        """
        if conflict:
            self.conflicts.labels(source).inc()
        environment = event.environment if event.environment in ENVIRONMENTS else OTHER
        self.messages.counts[source, environment, event.message_type, _ACTIONS.get(event.action, OTHER)] += 1
        for name in event.unknown_fields:
            self.unknown_fields.labels(self._field(name)).inc()
        for name in event.unknown_codes:
            self.unknown_codes.labels(name).inc()

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """Count a request that became a dead letter, or is a duplicate of one."""
        self.dead_letters.labels(source, error.stage, str(error.code)).inc()

    def restarted(self, counts: Mapping[str, int]) -> None:
        """Show the restarts within the process, by reason: one of :data:`RESTART_REASONS`."""
        for reason in RESTART_REASONS:
            self._raise_to(self.restarts.labels(reason), counts.get(reason, 0))

    def process_counts(self, part_restarts: Mapping[str, int], log_lines_dropped: int) -> None:
        """Show counts of the process, which outlive a connector: restarts of parts, and log lines that were dropped."""
        for part in PARTS:
            self._raise_to(self.part_restarts.labels(part), part_restarts.get(part, 0))
        self._raise_to(self.log_lines_dropped, log_lines_dropped)

    def without_canary(self) -> None:
        """Show that there is no canary."""
        self.canary_interval.set(0)
        self.canary_age.set(0)

    def timestamp_replaced(self, record: ProducibleRecord) -> None:
        """Count a record whose timestamp was replaced, because Kafka rejected the time of its request."""
        self.timestamps_replaced.labels(record.stream).inc()

    def canary_starts(self, interval_seconds: float) -> None:
        """Show the interval of the canary, which starts now."""
        self.canary_interval.set(interval_seconds)
        self.canary_read(0)

    def canary_read(self, seconds: float) -> None:
        """Record that a canary was read back this many seconds after it was sent; 0 at the start, before the first."""
        sent = time.monotonic() - seconds
        self.canary_age.set_function(lambda: time.monotonic() - sent)
        if seconds:
            self.canary_round_trip.observe(seconds)

    def canary_refused(self) -> None:
        """Count a canary that was not accepted."""
        self.canary_refused_total.inc()

    # --- the ledger: every message and dead letter that became safe ---

    def recovered(self, contents: Contents) -> None:
        """Continue the ledger that the journal held at the start."""
        self._ledger.recovered(contents)
        for source, count in contents.sources.items():
            self._show_journaled(source, count)
        for source, account in contents.accounts.items():
            self.journal_lost.labels(source).set(account.lost)

    def journal_counts(self, waiting: Mapping[str, int]) -> None:
        """Show the messages in a shared journal, by source."""
        self._reported = dict(waiting)
        for source in {*self._sources, *waiting}:
            self.journal_messages.labels(source).set(waiting.get(source, 0))

    @property
    def waiting(self) -> dict[str, int]:
        """Messages in the journal by source, without sources that have none."""
        if self._journal_is_shared:
            return self._reported
        return self._ledger.waiting

    def take_published_directly(self) -> dict[str, int]:
        """Return the messages published directly since the last call, by source, for the journal's ledger."""
        return self._ledger.take_published_directly()

    def return_published_directly(self, taken: Mapping[str, int]) -> None:
        """Return counts that the journal did not store; the next `take_published_directly` includes them."""
        self._ledger.return_published_directly(taken)

    def accepted(self, admission: Admission, *, is_journaled: bool) -> None:
        """Count a message or dead letter that became safe in Kafka or in the journal."""
        self._ledger.accepted[admission.request.source] += 1
        if is_journaled:
            self.answers_from_journal.labels(admission.request.source).inc()

    def published(self, admission: Admission) -> None:
        """Count a message or dead letter whose every record was acknowledged."""
        self._ledger.published[admission.request.source] += 1
        if not admission.is_dead_letter:
            self.messages_published.counts[admission.request.source,] += 1

    def record_published(self, record: ProducibleRecord, seconds: float) -> None:
        """Count a record that was acknowledged this many seconds after its message began to wait."""
        stream = (record.stream,)
        self.records_published.counts[stream] += 1
        self.record_bytes.counts[stream] += len(record.value or b"")
        self.publish_duration.observe(stream, seconds)

    def published_directly(self, admission: Admission) -> None:
        """Count a message that was published and was never in the journal."""
        self._ledger.published_directly(admission.request.source)

    def removed(self, admission: Admission) -> None:
        """Count a message that left the journal because it was published."""
        self._journal(admission.request.source, -1)

    def journaled(self, admission: Admission) -> None:
        """Count a message that waits in the journal."""
        self._journal(admission.request.source, 1)

    def dead_lettered(self, admission: Admission, letter: ProducibleRecord) -> None:
        """Count an accepted message that Kafka rejected for its content, and the dead letter that replaces it."""
        self._ledger.dead_lettered[admission.request.source] += 1
        self._ledger.accepted[admission.request.source] += 1  # the dead letter, which is published in its turn
        code = dict(letter.headers)[ERROR_CODE].decode()
        self.dead_letters.labels(admission.request.source, "publish", code).inc()

    def update_ledger_gauges(self) -> None:
        """Set the gauges of the ledger's imbalances; a message that moves from one column to another makes none."""
        for source, imbalance in self._ledger.imbalances().items():
            self.ledger_imbalance.labels(source).set(imbalance)

    def _journal(self, source: str, change: int) -> None:
        self._ledger.journaled[source] += change
        self._show_journaled(source, change)

    def _show_journaled(self, source: str, change: int) -> None:
        if not self._journal_is_shared:
            self.journal_messages.labels(source).inc(change)

    def _field(self, name: str) -> str:
        """The label for an unknown field: its name for the first `MAX_FIELDS`, then `OTHER`.

        Sources choose the names, and must not be able to create series without limit.
        """
        if name in self._fields:
            return name
        if len(self._fields) >= MAX_FIELDS or len(name) > MAX_FIELD_CHARS:
            return OTHER
        self._fields.add(name)
        return name

    def _initialise(self, streams: tuple[str, ...]) -> None:
        # A series that begins with 1 has no increase for Prometheus: the first failure would raise no alert.
        self.ready.set(0)  # as /readyz answers before the first check
        self.partition_count_changed.set(0)
        for source in self._sources:
            for outcome in OUTCOMES:
                self.requests.counts[source, outcome] = 0
                self.request_duration.initialise((source, outcome))
            self.messages_published.counts[source,] = 0
            self.answers_from_journal.labels(source)
            for reason in CREDENTIAL_REASONS:
                self.credentials_refused.labels(source, reason)
            self.conflicts.labels(source)
            if not self._journal_is_shared:  # otherwise its database has to answer first
                self.journal_messages.labels(source)
            self.journal_lost.labels(source)
            self.ledger_imbalance.labels(source)
            for kind in MESSAGE_TYPES.values():
                self.messages.counts[source, "prod", kind, OTHER] = 0
        for stream in (*streams, DEAD_LETTERS):
            self.records_published.counts[stream,] = 0
            self.record_bytes.counts[stream,] = 0
            self.publish_duration.initialise((stream,))
            self.timestamps_replaced.labels(stream)
        self._initialise_reasons()

    def _initialise_reasons(self) -> None:
        for name in DICTIONARIES:
            self.unknown_codes.labels(name)
        self.unknown_fields.labels(OTHER)
        for reason in OPERATIONS_REASONS:
            self.operations_refused_total.labels(reason)
        for reason in CONNECTION_REASONS:
            self.connections_refused.labels(reason)
        for outcome in RELOAD_OUTCOMES:
            self.reloads.labels(outcome)
        self.restarted({})
        self.process_counts({}, 0)

    def _raise_to(self, counter: Counter, count: int) -> None:
        """Show a count that is kept elsewhere, and may have grown before this counter was created."""
        counter.inc(count - self._shown.get(counter, 0))
        self._shown[counter] = count

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, documentation, labels, registry=self.registry)

    def _loop_counter(self, name: str, documentation: str, *labels: str) -> LoopCounter:
        return LoopCounter(PREFIX + name, documentation, labels, self.registry)

    def _loop_histogram(self, name: str, documentation: str, bounds: tuple[float, ...], *labels: str) -> LoopHistogram:
        return LoopHistogram(PREFIX + name, documentation, bounds, labels, self.registry)

    def _gauge(self, name: str, documentation: str) -> LateGauge:
        return LateGauge(PREFIX + name, documentation, registry=self.registry)

    def _labelled(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, documentation, labels, registry=self.registry, buckets=buckets)


def _exemplar(trace: str) -> dict[str, str] | None:
    """The exemplar of a histogram, with the trace id in a ``traceparent``; None if that has another form."""
    parts = trace.split("-")
    return {"trace_id": parts[1]} if len(parts) == _TRACE_PARTS and len(parts[1]) == _TRACE_ID_LENGTH else None
