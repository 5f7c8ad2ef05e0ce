"""Publishes encoded records and reports what became of them: the only module that knows librdkafka's producer threads.

A :class:`KafkaPublisher` owns a producer and a thread that polls it. Callers live on the event loop: they pass the
records of one message and are called back there, once, when every record has a delivery report. The poll thread
collects reports for a moment and queues them; they cross to the event loop together, with one wake-up, and are
dispatched there. librdkafka does not guarantee order across a fatal error, so the producer is rebuilt after one: purge
it, report what it still held as uncertain failures, start a new generation, ignore the old one. It is rebuilt on demand
too: a client that got metadata without any broker may never connect again (see `KafkaPublisher.replace_unconnected`).
"""

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connector import supervision
from connector.kafka.deadline import Deadline
from connector.kafka.errors import MISSING_TOPIC
from connector.values import ProducibleRecord

QUEUE_KIBIBYTES: Final = 64 * 1024
"""Limit of librdkafka's queue; what does not fit waits in the journal."""

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""librdkafka's own limit, high enough that only the topic's ``max.message.bytes`` matters."""

_POLL_SECONDS: Final = 0.1
_GATHER_SECONDS: Final = 0.001
"""How long reports are collected: each run of the poll thread interrupts the event loop, even for a single report."""
_PURGE_SECONDS: Final = 10.0
"""How long reports of purged records are waited for, in case librdkafka does not report one."""
_DRAIN_SECONDS: Final = 5.0
_FIRST_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 5.0
_LOG = structlog.get_logger()
_LIBRARY_LOG = logging.getLogger("librdkafka")

_REJECTIONS: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError._INVALID_ARG})


class FailureKind(Enum):
    """What a failed delivery means for the record."""

    UNCERTAIN = "uncertain"
    """The record may be in Kafka, or was not even produced (no producer, no lease, a full queue): publish it again."""
    REJECTED = "rejected"
    """A broker rejected its batch, or librdkafka the record: final only for a record that was sent alone."""
    TIMESTAMP = "timestamp"
    """Its record batch was rejected because a record's timestamp is too far from the brokers' clocks."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record was not reported as published.

    Attributes:
        kind: What it means for the record.
        name: librdkafka's name of the error, such as ``TOPIC_AUTHORIZATION_FAILED``.
        detail: librdkafka's description of the error.
    """

    kind: FailureKind
    name: str
    detail: str

    @property
    def is_of_topic(self) -> bool:
        """Whether the failure concerns the topic or its records, rather than a connection or the producer."""
        # librdkafka's own errors, of connections and clients, start with an underscore; the broker's do not.
        return not self.name.startswith("_") or self.is_of_missing_topic

    @property
    def is_of_missing_topic(self) -> bool:
        """Whether the topic or the partition does not exist."""
        return self.name in MISSING_TOPIC


Failures = tuple[Failure | None, ...]
"""One entry per record, in the order in which they were passed; None for a published record."""


class Publisher(Protocol):
    """Publishes the records of one message and reports once."""

    @property
    def is_open(self) -> bool:
        """Whether records are taken now."""

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        """Produce the records; ``report`` is called later, once, on the event loop. Never blocks or raises."""

    async def start(self) -> None:
        """Start to take records."""

    async def stop(self, deadline_seconds: float) -> None:
        """Flush until the deadline, then report the remaining records as failed."""


_UNREPORTED: Final = Failure(FailureKind.UNCERTAIN, "_UNREPORTED", "no delivery report has come")
"""Placeholder for a record without a report: None would mean that it is published."""


class _PendingMessage:
    """A message in flight: its records and their reports; only the event loop touches it."""

    __slots__ = ("failures", "generation", "is_reported", "missing", "records", "report")

    def __init__(
        self, records: Sequence[ProducibleRecord], generation: int, report: Callable[[Failures], None]
    ) -> None:
        self.records = records
        self.failures: list[Failure | None] = [_UNREPORTED] * len(records)
        self.generation = generation
        self.is_reported = False
        self.missing = len(records)
        self.report = report


class _DeliveryCallback:
    """The delivery callback of one record; the poll thread, which calls it, touches nothing else."""

    __slots__ = ("_index", "_pending", "_take")

    def __init__(
        self, pending: _PendingMessage, index: int, take: Callable[[_PendingMessage, int, Failure | None], None]
    ) -> None:
        self._pending = pending
        self._index = index
        self._take = take

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """Take librdkafka's delivery report."""
        self._take(self._pending, self._index, _failure_in_report(error, message))


@dataclass(frozen=True, slots=True)
class _RebuildRequest:
    """Why the producer has to be rebuilt.

    Attributes:
        reason: The reason for the log.
        is_planned: Whether the rebuild is for new properties, and not for an error.
    """

    reason: str
    is_planned: bool = False


class KafkaPublisher:
    """Publishes with librdkafka; see the module's docstring.

    Args:
        properties: librdkafka properties, from :func:`producer_properties`.
        on_rebuild: Called on the event loop after the producer was rebuilt for an error, not for new properties.

    Attributes:
        failure_now: Returns the failure of what must not be produced now, or None. Asked right before each message is
            handed to librdkafka: the process may have stood still since `publish`.
        generation: How many producers came before the current one. Each message has the generation of the producer
            that got its records, so that the end of a generation fails its messages and no later ones.
    """

    def __init__(self, properties: Mapping[str, Any], *, on_rebuild: Callable[[], None] = lambda: None) -> None:
        self._properties = properties
        self._on_rebuild = on_rebuild
        self.failure_now: Callable[[], Failure | None] = lambda: None
        # Reentrant: `_produce_outgoing` holds it when librdkafka raises a fatal error, which requests a rebuild.
        self._lock = threading.RLock()
        self._producer: Producer | None = None
        self._rebuild_request: _RebuildRequest | None = None
        self._unconnected_since: float | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._poll, name="publisher-poll", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_flight: set[_PendingMessage] = set()
        self._outgoing: list[_PendingMessage] = []
        # Without a lock: `append` and `popleft` of a deque are atomic.
        self._reports: deque[tuple[_PendingMessage, int, Failure | None]] = deque()
        self._is_woken = False
        self._rebuilds_since_acknowledgement = 0
        self._stop_requested = threading.Event()
        self.generation = 0

    @property
    def is_open(self) -> bool:
        """Whether records are taken now."""
        return self._producer is not None and self._rebuild_request is None and not self._stopping

    @property
    def is_alive(self) -> bool:
        """Whether the poll thread is alive; without it no report comes."""
        return self._thread.is_alive()

    @property
    def unconnected_seconds(self) -> float:
        """How long the producer has had no connection to any broker; 0 while it has one."""
        since = self._unconnected_since
        return 0.0 if since is None else time.monotonic() - since

    def replace_unconnected(self) -> None:
        """Rebuild a producer that does not connect though brokers can be reached.

        librdkafka forgets its brokers when one that was just fenced reports none (librdkafka#5301). Such a producer has
        no connection, so none of its requests can arrive behind records that are published again.
        """
        self._unconnected_since = None
        with self._lock:
            self._rebuild_request = _RebuildRequest("no connection to any broker, though they can be reached")

    def replace_properties(self, properties: Mapping[str, Any]) -> None:
        """Rebuild the producer with other properties, such as new credentials, once its records are reported.

        Records without a report after a few seconds are purged and published again, as after a fatal error.
        """
        # The lock orders this behind a rebuild that reads the old properties, so that another rebuild follows it.
        with self._lock:
            self._properties = properties
            if self._rebuild_request is None:  # a pending rebuild after an error is kept, because it is counted
                self._rebuild_request = _RebuildRequest("its properties have changed", is_planned=True)

    async def start(self) -> None:
        """Build the producer and start polling it.

        Raises:
            KafkaException: librdkafka rejects its properties.
        """
        self._loop = asyncio.get_running_loop()
        self._producer = self._build()
        self._thread.start()

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        """Produce the records of one message; see :class:`Publisher`.

        All records of one iteration of the event loop are produced together at its end: librdkafka's thread then wakes
        once, and not for each record.
        """
        assert self._loop is not None, "publish comes after start"  # noqa: S101 - for the type checker
        # Provisional: `_produce_outgoing` sets it again. If a rebuild ends this generation first, it fails too.
        pending = _PendingMessage(records, self.generation, report)
        self._in_flight.add(pending)
        if not records:
            self._loop.call_soon(self._finish, pending)
            return
        if not self._outgoing:
            self._loop.call_soon(self._produce_outgoing)
        self._outgoing.append(pending)

    async def stop(self, deadline_seconds: float) -> None:
        """Flush, then end the poll thread and report the remaining records as failed."""
        self._produce_outgoing()  # records of this iteration are not produced yet
        self._stopping = True
        self._stop_requested.set()
        if self._producer is not None:
            await asyncio.to_thread(self._flush, deadline_seconds)
            await asyncio.to_thread(self._thread.join)
        self._dispatch_reports()
        self._fail_generation(self.generation, Failure(FailureKind.UNCERTAIN, "_STOPPED", "the connector stopped"))

    def _build(self) -> Producer:
        own = {"error_cb": self._client_error, "stats_cb": self._watch_connections}
        return Producer({**self._properties, **own}, logger=_LIBRARY_LOG)

    def _watch_connections(self, statistics: str) -> None:
        brokers = json.loads(statistics)["brokers"].values()
        if any(broker["state"] == "UP" for broker in brokers):
            self._unconnected_since = None
        elif self._unconnected_since is None:
            self._unconnected_since = time.monotonic()

    def _produce_outgoing(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        with self._lock:
            for pending in outgoing:
                if pending.is_reported:
                    continue  # the producer was rebuilt meanwhile
                pending.generation = self.generation
                failure_now = self.failure_now()
                for index, record in enumerate(pending.records):
                    callback = _DeliveryCallback(pending, index, self._enqueue_report)
                    failure = self._produce(record, callback) if failure_now is None else failure_now
                    if failure is not None:
                        self._enqueue_report(pending, index, failure)

    def _produce(self, record: ProducibleRecord, callback: _DeliveryCallback) -> Failure | None:
        if self._producer is None or self._rebuild_request is not None:
            return Failure(FailureKind.UNCERTAIN, "_CLOSED", "the producer is being rebuilt or was stopped")
        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                timestamp=record.timestamp,
                on_delivery=callback,
            )
        except BufferError:
            return Failure(FailureKind.UNCERTAIN, "_QUEUE_FULL", "librdkafka's queue is full")
        except KafkaException as exception:
            self._request_rebuild_if_fatal(exception.args[0])
            return _failure_of(exception.args[0])
        return None

    def _enqueue_report(self, pending: _PendingMessage, index: int, failure: Failure | None) -> None:
        """Queue a report, from any thread, and wake the event loop for it."""
        self._reports.append((pending, index, failure))
        if not self._is_woken and self._loop is not None:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._dispatch_reports)

    def _dispatch_reports(self) -> None:
        """On the event loop: record the reports since the last wake-up, and report complete messages."""
        self._is_woken = False  # before the queue is read: a report that is queued from here on wakes us again
        # Only the reports that are there now: later ones wake the loop again, which can do other work in between.
        for _ in range(len(self._reports)):
            pending, index, failure = self._reports.popleft()
            if pending.is_reported:
                continue  # a late report of a generation that has failed
            if failure is None:
                self._rebuilds_since_acknowledgement = 0
            pending.failures[index] = failure
            pending.missing -= 1
            if pending.missing == 0:
                self._finish(pending)

    def _finish(self, pending: _PendingMessage) -> None:
        pending.is_reported = True
        self._in_flight.discard(pending)
        try:
            pending.report(tuple(pending.failures))
        except Exception:  # noqa: BLE001 - a caller that raises must not keep the others from their reports
            _LOG.exception("a report could not be taken")

    def _poll(self) -> None:
        while not self._stopping:
            try:
                self._poll_or_rebuild()
            except BaseException as error:  # noqa: BLE001 - without this thread no report would come any more
                supervision.record_failure("publisher", error)
                time.sleep(_POLL_SECONDS)

    def _poll_or_rebuild(self) -> None:
        producer = self._producer
        if producer is None:
            return
        self._poll_once(producer)
        if self._rebuild_request is not None and not self._stopping:
            self._rebuild(producer, self._rebuild_request)
        else:
            time.sleep(_GATHER_SECONDS)

    def _poll_once(self, producer: Producer) -> None:
        """Serve callbacks; a fatal error may be raised here, and not only reach the error callback."""
        try:
            producer.poll(_POLL_SECONDS)
        except KafkaException as exception:
            self._client_error(exception.args[0])

    def _rebuild(self, producer: Producer, request: _RebuildRequest) -> None:
        """On the poll thread: purge the producer, report the rest as uncertain, back off, and build the next one.

        Where only the properties are new, it first waits for the reports of what is in flight.
        `is_open` is False all the while. Purging takes back nothing that is on the wire: a broker may still persist
        such a request. That is why purged records are uncertain, and published again from the head of their lane.
        """
        if request.is_planned:
            _LOG.info("rebuilding the producer with other properties", reason=request.reason)
            self._poll_until_empty(producer, _DRAIN_SECONDS)
        else:
            _LOG.error("rebuilding the producer", reason=request.reason)
        with self._lock:  # a running `_produce_outgoing` finishes first; a later one sees that a rebuild is requested
            producer.purge()
        self._poll_until_empty(producer, _PURGE_SECONDS)
        purged = Failure(FailureKind.UNCERTAIN, "_PURGED", "the producer was rebuilt")
        self._on_loop(partial(self._fail_generation, self.generation, purged))
        self._back_off()
        if self._stopping:
            return
        with self._lock:
            self._producer = self._build()
            # A fatal error may have come while the old producer was drained; then it is the reason that counts.
            request = self._rebuild_request or request
            self._rebuild_request = None
            self.generation += 1
        if not request.is_planned:
            self._on_loop(self._on_rebuild)

    def _on_loop(self, act: Callable[[], None]) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(act)

    def _back_off(self) -> None:
        """Wait before building a new producer: longer after each one that has published nothing."""
        seconds = supervision.back_off_seconds(
            self._rebuilds_since_acknowledgement, _FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS
        )
        self._stop_requested.wait(seconds)
        self._rebuilds_since_acknowledgement += 1

    def _poll_until_empty(self, producer: Producer, seconds: float) -> None:
        deadline = Deadline(seconds)
        while len(producer) > 0 and not deadline.is_over:
            self._poll_once(producer)

    def _flush(self, seconds: float) -> None:
        with self._lock:  # from here on nothing is produced into the producer that is being flushed
            producer, self._producer = self._producer, None
        if producer is None:
            return
        self._poll_until_empty(producer, seconds)
        producer.purge()
        self._poll_until_empty(producer, 1.0)

    def _fail_generation(self, generation: int, failure: Failure) -> None:
        """On the event loop: report the remaining messages of a generation, and of earlier ones, as failed.

        Only records without a report fail. A record that a broker has acknowledged with an offset is in Kafka, whatever
        happened to its producer since, and publishing it again would make a duplicate.
        """
        self._dispatch_reports()  # the last reports of this generation come before its end
        for pending in [message for message in self._in_flight if message.generation <= generation]:
            pending.failures = [failure if entry is _UNREPORTED else entry for entry in pending.failures]
            self._finish(pending)

    def _client_error(self, error: KafkaError) -> None:
        self._request_rebuild_if_fatal(error)
        _LOG.warning("kafka client", error=error.name(), detail=error.str())

    def _request_rebuild_if_fatal(self, error: KafkaError) -> None:
        """Request a rebuild of the producer if the error is fatal."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            with self._lock:
                self._rebuild_request = _RebuildRequest(f"fatal error of librdkafka: {error}")


def producer_properties(bootstrap_servers: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The producer's librdkafka properties: idempotent, acknowledged by all replicas, partitioned as by Java clients.

    With ``message.timeout.ms=0`` no record expires; a message that waits too long is in the journal as well. A replica
    sets it, so that no record is sent after its lease (`connector.replicas.lease`).
    """
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "weda-connector",
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 0,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 5,
        "queue.buffering.max.kbytes": QUEUE_KIBIBYTES,
        "queue.buffering.max.messages": 100_000,
        "message.max.bytes": MAX_RECORD_BYTES,
        "request.timeout.ms": 10_000,
        "socket.timeout.ms": 15_000,
        "socket.keepalive.enable": True,
        "reconnect.backoff.max.ms": 2_000,  # default 10 s, in which a broker that is back goes unnoticed
        "topic.metadata.refresh.interval.ms": 60_000,  # default 5 minutes without records in new partitions
        "statistics.interval.ms": 5_000,  # `unconnected_seconds` comes from them
        **overrides,
    }


def _failure_in_report(error: KafkaError | None, message: Message) -> Failure | None:
    """The failure in a delivery report; None only if a broker has reported the record's offset.

    When an earlier request failed and a later one succeeded, librdkafka concludes that the earlier one was persisted
    too, and reports its records as delivered, without an offset. But on a partition that does not know the producer (a
    new topic, deleted records) the broker accepts any sequence number, and the earlier records are missing.
    """
    if error is not None:
        return _failure_of(error)
    if message.offset() is None:
        return Failure(FailureKind.UNCERTAIN, "_NO_OFFSET", "reported as delivered by conclusion, not by a broker")
    return None


def _failure_of(error: KafkaError) -> Failure:
    if error.code() == KafkaError.INVALID_TIMESTAMP:
        kind = FailureKind.TIMESTAMP
    else:
        kind = FailureKind.REJECTED if error.code() in _REJECTIONS else FailureKind.UNCERTAIN
    return Failure(kind, error.name(), error.str())
