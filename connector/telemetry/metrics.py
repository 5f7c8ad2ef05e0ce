"""Every metric of the connector, declared once: base units, closed sets of label values, zero-initialised.

The ledger is kept here too, per source: accepted = published + dead-lettered after acceptance + journaled. It goes on
from the journal's own, which counts by its rows, so that the two find each other out.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from connector.errors import CREDENTIAL_REASONS, ConnectorError
from connector.journal.model import Account, Admission, Contents
from connector.kafka.publisher import Failure
from connector.message.conversion import DICTIONARIES, EventSummary
from connector.message.routes import DEAD_LETTERS
from connector.message.weda import MESSAGE_TYPES
from connector.supervision import PARTS
from connector.telemetry.gauges import LateGauge
from connector.values import UNKNOWN_SOURCE, ProducibleRecord

PREFIX: Final = "weda_connector_"
OUTCOMES: Final = ("accepted", "duplicate", "dead_lettered", "rejected", "refused", "failed")
ENVIRONMENTS: Final = ("pre", "prod")
CONNECTION_REASONS: Final = ("malformed", "head", "slow", "connections")
OPERATIONS_REASONS: Final = ("missing", "unknown")
RELOAD_OUTCOMES: Final = ("applied", "failed")
RESTART_REASONS: Final = ("journal", "lease", "part")
OTHER: Final = "other"
MOST_FIELDS: Final = 20
LONGEST_FIELD: Final = 64
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, 2.5)
_ACTIONS: Final[Mapping[int | None, str]] = {code: str(code) for code in DICTIONARIES["action"] if code is not None}
disable_created_metrics()  # type: ignore[no-untyped-call]
_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, 2.5)
_PUBLISH_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600, 3600, 21600)


@dataclass
class _Account:
    """What the ledger knows of one source.

    Attributes:
        published_directly: Published messages that the journal's own ledger does not know of yet.
    """

    accepted: int = 0
    published: int = 0
    buried: int = 0
    journaled: int = 0
    published_directly: int = 0

    @property
    def imbalance(self) -> int:
        return self.accepted - self.published - self.buried - self.journaled


class Metrics:
    """The metrics of one connector.

    Args:
        version: Of the connector, for ``build_info``.
        sources: Names of the configured sources.
        streams: Names of the streams that are switched on.
        journal_is_shared: Other connectors write rows and strike them too: the journal tells how many there are.
    """

    def __init__(  # noqa: PLR0915 - every metric is declared once, here
        self, *, version: str, sources: Iterable[str], streams: Iterable[str], journal_is_shared: bool = False
    ) -> None:
        self._journal_is_shared = journal_is_shared
        self.registry = CollectorRegistry()
        self._sources = (*sources, UNKNOWN_SOURCE)
        self._accounts: defaultdict[str, _Account] = defaultdict(_Account)
        self._fields: set[str] = set()
        self._told: dict[str, int] = {}
        self._shown: dict[Counter, int] = {}
        self._streams: dict[str, tuple[Counter, Counter, Histogram]] = {}
        self._answers: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self.requests = self._counter("requests", "HTTP requests that were answered", "source", "outcome")
        self.request_duration = self._histogram(
            "request_duration_seconds", "Received to answered", _REQUEST_BUCKETS, "source", "outcome"
        )
        self.messages = self._counter(
            "messages", "Accepted messages, repeats not counted", "source", "env_type", "msg_type", "action"
        )
        self.messages_published = self._counter(
            "messages_published", "Messages whose every record is in Kafka", "source"
        )
        self.records_published = self._counter("records_published", "Records acknowledged by Kafka", "stream")
        self.record_bytes = self._counter("record_bytes", "Bytes of the values of published records", "stream")
        self.publish_duration = self._histogram(
            "publish_duration_seconds", "Received to acknowledged by the brokers", _PUBLISH_BUCKETS, "stream"
        )
        self.dead_letters = self._counter(
            "dead_letters", "Requests kept as dead letters, repeats counted", "source", "stage", "code"
        )
        self.timestamps_replaced = self._counter(
            "timestamps_replaced",
            "Records that got the current time because Kafka refused the time at which they were received",
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
            "credentials_refused", "Requests whose credential was not enough", "reason"
        )
        self.operations_refused_total = self._counter(
            "operations_refused", "Requests that the operations listener refused for want of its token", "reason"
        )
        self.connections_refused = self._counter(
            "connections_refused", "Connections that were turned away before there was a request", "reason"
        )
        self.reloads = self._counter("reloads", "Changed files of settings and certificates that were read", "outcome")
        self.restarts_total = self._counter(
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

    def request_ended(self, source: str, outcome: str, seconds: float) -> None:
        """A request was answered."""
        known = self._answers.get((source, outcome))
        if known is None:
            known = self.requests.labels(source, outcome), self.request_duration.labels(source, outcome)
            self._answers[source, outcome] = known
        count, duration = known
        count.inc()
        duration.observe(seconds)

    def credential_refused(self, reason: str) -> None:
        """A request's credential was not enough: one of ``CREDENTIAL_REASONS``."""
        self.credentials_refused.labels(reason).inc()

    def operations_refused(self, reason: str) -> None:
        """The operations listener refused a request: one of :data:`OPERATIONS_REASONS`."""
        self.operations_refused_total.labels(reason).inc()

    def connection_refused(self, reason: str) -> None:
        """A connection was turned away: one of :data:`CONNECTION_REASONS`."""
        self.connections_refused.labels(reason).inc()

    def message_accepted(self, source: str, summary: EventSummary, *, conflict: bool) -> None:
        """A message that is no repeat became safe; ``conflict``: its ``msgId`` came before with other content."""
        if conflict:
            self.conflicts.labels(source).inc()
        self.messages.labels(
            source,
            summary.environment if summary.environment in ENVIRONMENTS else OTHER,
            summary.message_type,
            _ACTIONS.get(summary.action, OTHER),
        ).inc()
        for name in summary.unknown_fields:
            self.unknown_fields.labels(self._field(name)).inc()
        for name in summary.unknown_codes:
            self.unknown_codes.labels(name).inc()

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """A request was kept as a dead letter, or is a repeat of one."""
        self.dead_letters.labels(source, error.stage, str(error.code)).inc()

    def restarted(self, counts: Mapping[str, int]) -> None:
        """Restarts within the process, by reason: one of :data:`RESTART_REASONS`."""
        for reason in RESTART_REASONS:
            self._raise_to(self.restarts_total.labels(reason), counts.get(reason, 0))

    def process_counts(self, part_restarts: Mapping[str, int], log_lines_dropped: int) -> None:
        """What the process counts for itself, whichever connector it runs: restarts of parts, lines not logged."""
        for part in PARTS:
            self._raise_to(self.part_restarts.labels(part), part_restarts.get(part, 0))
        self._raise_to(self.log_lines_dropped, log_lines_dropped)

    def without_canary(self) -> None:
        """The connector sends itself no messages."""
        self.canary_interval.set(0)
        self.canary_age.set(0)

    def timestamp_replaced(self, record: ProducibleRecord) -> None:
        """Kafka refused the time at which a record's request was received."""
        self.timestamps_replaced.labels(record.stream).inc()

    def canary_starts(self, interval_seconds: float) -> None:
        """The connector sends itself a message every so many seconds."""
        self.canary_interval.set(interval_seconds)
        self.canary_read(0)

    def canary_read(self, seconds: float) -> None:
        """A canary came back, so many seconds after it was sent; or none has yet, at the start."""
        sent = time.monotonic() - seconds
        self.canary_age.set_function(lambda: time.monotonic() - sent)
        if seconds:
            self.canary_round_trip.observe(seconds)

    def canary_refused(self) -> None:
        """A canary was not accepted."""
        self.canary_refused_total.inc()

    # --- the ledger: every message and dead letter that became safe ---

    def recovered(self, contents: Contents) -> None:
        """Go on with the ledger of the journal that was found at start."""
        for source in {*contents.accounts, *contents.sources}:
            known = contents.accounts.get(source, Account())
            account = self._accounts[source]
            account.accepted, account.published, account.buried = known.accepted, known.published, known.buried
            self._journal(source, contents.sources.get(source, 0))
            self.journal_lost.labels(source).set(known.lost)

    def journal_counts(self, waiting: Mapping[str, int]) -> None:
        """Messages of a shared journal that this connector reports, by source."""
        self._told = dict(waiting)
        for source in {*self._sources, *waiting}:
            self.journal_messages.labels(source).set(waiting.get(source, 0))

    @property
    def waiting(self) -> dict[str, int]:
        """Messages in the journal by source, where there are some."""
        if self._journal_is_shared:
            return self._told
        return {source: account.journaled for source, account in self._accounts.items() if account.journaled}

    def take_published_directly(self) -> dict[str, int]:
        """Messages published directly since the last call, by source: the journal's ledger lacks them."""
        taken = {
            source: account.published_directly
            for source, account in self._accounts.items()
            if account.published_directly
        }
        for source in taken:
            self._accounts[source].published_directly = 0
        return taken

    def return_published_directly(self, taken: Mapping[str, int]) -> None:
        """The journal did not take them: report them with the next call."""
        for source, count in taken.items():
            self._accounts[source].published_directly += count

    def accepted(self, admission: Admission) -> None:
        """A message or dead letter became safe."""
        self._accounts[admission.request.source].accepted += 1

    def published(self, admission: Admission) -> None:
        """Every record of it is acknowledged."""
        self._accounts[admission.request.source].published += 1
        if not admission.is_dead_letter:
            self.messages_published.labels(admission.request.source).inc()

    def record_published(self, record: ProducibleRecord, seconds: float) -> None:
        """One record is acknowledged, so long after its message began to wait."""
        stream = record.stream
        known = self._streams.get(stream)
        if known is None:
            count, size = self.records_published.labels(stream), self.record_bytes.labels(stream)
            known = self._streams[stream] = (count, size, self.publish_duration.labels(stream))
        count, size, duration = known
        count.inc()
        size.inc(len(record.value or b""))
        duration.observe(seconds)

    def published_directly(self, admission: Admission) -> None:
        """It is published and never stood in the journal."""
        self._accounts[admission.request.source].published_directly += 1

    def removed(self, admission: Admission) -> None:
        """It waits in the journal no longer: it is published."""
        self._journal(admission.request.source, -1)

    def journaled(self, admission: Admission) -> None:
        """It waits in the journal."""
        self._journal(admission.request.source, 1)

    def dead_lettered(self, admission: Admission, failure: Failure) -> None:
        """Kafka refused an accepted message for its own sake: a dead letter stands in its place."""
        account = self._accounts[admission.request.source]
        account.buried += 1
        account.accepted += 1
        self.dead_letters.labels(admission.request.source, "publish", str(failure.answer_code)).inc()

    def settle_ledger(self) -> None:
        """Set the gauges of the ledger; a message between two of its columns is no imbalance."""
        for source, account in self._accounts.items():
            self.ledger_imbalance.labels(source).set(account.imbalance)

    def _journal(self, source: str, change: int) -> None:
        self._accounts[source].journaled += change
        if not self._journal_is_shared:
            self.journal_messages.labels(source).inc(change)

    def _field(self, name: str) -> str:
        """Known names, and the first twenty others; a label value is never what a source chooses without bound."""
        if name in self._fields:
            return name
        if len(self._fields) >= MOST_FIELDS or len(name) > LONGEST_FIELD:
            return OTHER
        self._fields.add(name)
        return name

    def _initialise(self, streams: tuple[str, ...]) -> None:
        self.ready.set(0)  # as /readyz says before anything is looked at
        self.partition_count_changed.set(0)
        for source in self._sources:
            for outcome in OUTCOMES:
                self.requests.labels(source, outcome)
                self.request_duration.labels(source, outcome)
            self.messages_published.labels(source)
            self.conflicts.labels(source)
            if not self._journal_is_shared:  # else its database has to tell first
                self.journal_messages.labels(source)
            self.journal_lost.labels(source)
            self.ledger_imbalance.labels(source)
            for kind in MESSAGE_TYPES.values():
                self.messages.labels(source, "prod", kind, OTHER)
        for stream in (*streams, DEAD_LETTERS):
            self.records_published.labels(stream)
            self.record_bytes.labels(stream)
            self.publish_duration.labels(stream)
            self.timestamps_replaced.labels(stream)
        self._initialise_reasons()

    def _initialise_reasons(self) -> None:
        for name in DICTIONARIES:
            self.unknown_codes.labels(name)
        self.unknown_fields.labels(OTHER)
        for reason in CREDENTIAL_REASONS:
            self.credentials_refused.labels(reason)
        for reason in OPERATIONS_REASONS:
            self.operations_refused_total.labels(reason)
        for reason in CONNECTION_REASONS:
            self.connections_refused.labels(reason)
        for outcome in RELOAD_OUTCOMES:
            self.reloads.labels(outcome)
        self.restarted({})
        self.process_counts({}, 0)

    def _raise_to(self, counter: Counter, count: int) -> None:
        """Show a count that is kept elsewhere, and may have grown before this counter was made."""
        counter.inc(count - self._shown.get(counter, 0))
        self._shown[counter] = count

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str) -> LateGauge:
        return LateGauge(PREFIX + name, documentation, registry=self.registry)

    def _labelled(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, documentation, labels, registry=self.registry, buckets=buckets)
