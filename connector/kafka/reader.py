"""Reads records back from a topic and decodes them; it commits nothing and leaves no group behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Message, TopicPartition

from connector.errors import Unavailable, Unreadable
from connector.kafka.consumer import (
    POLL_SECONDS,
    REACH_SECONDS,
    RETRY_SECONDS,
    Partition,
    Polled,
    consumer_properties,
    offsets_at,
    partitions_of,
    polled,
    remove_if_at_end,
)
from connector.kafka.deadline import Deadline
from connector.kafka.errors import Problems, timed_out, translated
from connector.message.encoding import decode
from connector.message.routes import DEAD_LETTERS
from connector.message.schemas import Schema

_MAX_READERS: Final = 2  # each occupies one of the few threads that the connector's own work needs
_BULK_READ_AHEAD: Final = {
    "queued.max.messages.kbytes": 64 * 1024,
    "queued.min.messages": 1_000_000,
    "fetch.max.bytes": 32 * 1024 * 1024,
    "fetch.message.max.bytes": 4 * 1024 * 1024,
    "fetch.wait.max.ms": 50,
}
"""librdkafka's read-ahead when a whole topic is read."""

BATCH: Final = 2_000
"""Maximum records in a batch of `TopicReader.batches`."""

_ATTEMPT: Final = "read the topic {}"
_ACL: Final = "Describe and Read on Topic"


@dataclass(frozen=True, slots=True)
class ConsumerRecord:
    """A record as it was read.

    Attributes:
        stream: The stream's name.
        topic: The record's topic.
        partition: The number of its partition.
        offset: Its offset in the partition.
        key: The instance's id, or None (a dead letter whose instance was not readable).
        timestamp: Epoch milliseconds.
        headers: Kafka headers as text; the last one if a name comes twice.
        value: The fields of the record; the raw bytes of a dead letter or of a value that no schema reads; None for a
            tombstone.
    """

    stream: str
    topic: str
    partition: int
    offset: int
    key: str | None
    timestamp: int
    headers: Mapping[str, str]
    value: dict[str, Any] | bytes | None


class OffsetRange(NamedTuple):
    """A part of a partition: from the offset ``first`` up to, but excluding, ``end``."""

    partition: int
    first: int
    end: int


class Readers:
    """Limits how many requests read topics at the same time, each in a thread."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MAX_READERS)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots.

        Raises:
            Unavailable: No slot became free within :data:`REACH_SECONDS`.
        """
        try:
            await asyncio.wait_for(self._slots.acquire(), REACH_SECONDS)
        except TimeoutError:
            raise Unavailable("others are reading the topics: ask again in a few seconds", retry_after=5) from None
        try:
            yield
        finally:
            self._slots.release()


def read_records(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    *,
    stream: str,
    topic: str,
    by_id: Callable[[int], Schema] | None = None,
    from_beginning: bool = False,
    back: int = 0,
    since: int | None = None,
    until_end: bool = False,
    key: str | None = None,
    idle_seconds: float | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    on_missing: Callable[[str], None] = lambda _topic: None,
) -> Iterator[ConsumerRecord]:
    """Yield the records of a stream's topic as they come; those of one partition are in order.

    All partitions are read, even for a single key, whose partition depends on how many there were when it was written.
    Partitions that are added during the read are not read.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties that `Settings.load` has checked; properties of producers do no harm.
        stream: The stream's name.
        topic: The stream's topic, as `Routes.topic` names it.
        by_id: Returns the registry's schema of an id; None without a registry.
        from_beginning: Start with the oldest record, not with the next one. A topic that appears later is always read
            from its beginning.
        back: Start this many records before the next one of each partition.
        since: Start with the first record of this time or later, in epoch milliseconds; overrides the two before.
        until_end: End where every partition ended when reading began, or later; a missing topic ends at once.
        key: Return only records of this instance.
        idle_seconds: End after this many seconds without a record, counted from when reading begins, or in which a
            missing topic does not appear; None means never. With a key, the records of others count until the end of
            their partition is reached, so that a long scan is not idle, and a busy topic does not keep reading from
            ending.
        is_stopped: Called while no record comes; reading ends once it returns True.
        on_missing: Called once with the topic's name if it does not exist yet; reading waits for it.

    Raises:
        OutsideUnreachable: Kafka does not describe the topic or give its offsets, each within :data:`REACH_SECONDS`;
            or, with ``until_end``, no record comes for that time. Without ``until_end``, reading waits for the brokers.
        ConfigurationError: Kafka rejects the credentials, or an ACL is missing.
    """
    ends: dict[str, Any] = {"idle_seconds": idle_seconds, "is_stopped": is_stopped}
    with closing(TopicReader(bootstrap_servers, properties, topic, **ends)) as reader:
        exists = bool(reader.partitions())
        if not exists and not until_end:
            on_missing(topic)
            if not reader.await_topic():
                return
        reader.assign(from_beginning=from_beginning or not exists, back=back, since=since)
        for message in reader.messages(until_end=until_end):
            if key is None or message.key() == key.encode():
                yield decode_record(stream, topic, message, by_id)
                reader.restart_idle_clock()


def record_at(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    *,
    stream: str,
    topic: str,
    partition: int,
    offset: int,
    by_id: Callable[[int], Schema] | None = None,
) -> ConsumerRecord | None:
    """The record at an offset of a partition; None if there is none, or it was deleted.

    Raises:
        OutsideUnreachable: Kafka does not answer within :data:`REACH_SECONDS`.
        ConfigurationError: Kafka rejects the credentials, or an ACL is missing.
    """
    with closing(TopicReader(bootstrap_servers, properties, topic)) as reader:
        if partition not in reader.partitions():
            return None
        reader.assign_at(partition, offset)
        message = next(reader.messages(until_end=True), None)
    # If the offset no longer exists, reading continues with another one that does.
    return decode_record(stream, topic, message, by_id) if message is not None and message.offset() == offset else None


class TopicReader:
    """A consumer of one topic, without a group. Blocking; use it from one thread.

    `Subscription` has a loop of its own, because a group assigns its partitions and it merges topics. This class ends
    at offsets that it has asked for, and returns undecoded messages.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        topic: The topic.
        idle_seconds: :meth:`messages` ends after this many seconds without a record, :meth:`await_topic` after as many
            without the topic; None means never.
        is_stopped: Called a few times a second; reading ends once it returns True.
        is_bulk: Read ahead up to 64 MiB, for :meth:`batches`.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, Any],
        topic: str,
        *,
        idle_seconds: float | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
        is_bulk: bool = False,
    ) -> None:
        self._topic = topic
        self._idle_seconds = idle_seconds
        self._is_stopped = is_stopped
        self._idle_since = time.monotonic()
        self._deadline = Deadline(REACH_SECONDS)
        self._problems = Problems(lambda: self._consumer.poll(0))
        ahead = _BULK_READ_AHEAD if is_bulk else {}
        self._consumer = Consumer(
            consumer_properties(bootstrap_servers, {**ahead, **properties}, self._problems.record)
        )
        self._assigned: list[TopicPartition] = []

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def restart_idle_clock(self) -> None:
        """Restart the clock of ``idle_seconds``."""
        self._idle_since = time.monotonic()

    def partitions(self) -> list[int]:
        """The numbers of the topic's partitions; empty if it does not exist."""
        with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._problems.recent):
            return partitions_of(self._consumer, self._topic, Deadline(REACH_SECONDS))

    def await_topic(self) -> bool:
        """Wait until the topic exists; False if reading is over before."""
        self.restart_idle_clock()
        while not self.partitions():
            if self._is_over:
                return False
            time.sleep(RETRY_SECONDS)
        return True

    def assign(self, *, from_beginning: bool, back: int, since: int | None = None) -> None:
        """Read every partition from a time, from its first record, or from near its end.

        Args:
            from_beginning: Start with the first record.
            back: Start this many records before the end.
            since: Start with the first record of this time (epoch milliseconds) or later; overrides the two others.
        """
        numbers = self.partitions()
        if since is not None:
            offsets = self._offsets_at(numbers, since)
        elif from_beginning:
            offsets = [OFFSET_BEGINNING] * len(numbers)
        else:
            offsets = [max(end - back, 0) for end in self._offsets_at(numbers, OFFSET_END)]
        self._assigned = [
            TopicPartition(self._topic, number, offset) for number, offset in zip(numbers, offsets, strict=True)
        ]

    def assign_at(self, partition: int, offset: int) -> None:
        """Read one partition from this offset."""
        self._assigned = [TopicPartition(self._topic, partition, offset)]

    def offset_ranges(self, numbers: Iterable[int], since: int | None = None) -> list[OffsetRange]:
        """The offsets that exist now in some partitions.

        Args:
            numbers: The partitions.
            since: Begin with the first record of this time or later, in epoch milliseconds.
        """
        numbers = list(numbers)
        firsts = self._offsets_at(numbers, OFFSET_BEGINNING if since is None else since)
        ends = self._offsets_at(numbers, OFFSET_END)
        return [OffsetRange(*bounds) for bounds in zip(numbers, firsts, ends, strict=True)]

    def batches(self, ranges: Iterable[OffsetRange]) -> Iterator[list[Message]]:
        """Yield all records of some ranges, in batches of at most :data:`BATCH`; an empty one if none came in time."""
        ends = {part.partition: part.end for part in ranges if part.first < part.end}
        starts = [TopicPartition(self._topic, part.partition, part.first) for part in ranges if part.partition in ends]
        if starts:
            self._consumer.assign(starts)
        self._deadline.restart()
        while ends and not self._is_over:
            with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._problems.recent):
                messages = self._consumer.consume(BATCH, POLL_SECONDS)
                batch = [message for message in messages if self._is_record(message, ends)]
                if messages:
                    self._deadline.restart()
                elif self._deadline.is_over:
                    raise timed_out()
            yield batch
            self._deadline.restart()  # the caller may have taken its time

    def _is_record(self, message: Message, ends: dict[int, int]) -> bool:
        """Whether a message is a record before the end of its partition; stops reading partitions at their end."""
        kind, number = polled(message), cast("int", message.partition())
        if kind is Polled.NOTHING or number not in ends:
            return False
        offset = cast("int", message.offset())
        is_within = kind is Polled.RECORD and offset < ends[number]
        # A record is the last one if the next offset is the end; compaction and transactions leave gaps before it.
        next_offset = offset + 1 if kind is Polled.RECORD else offset
        if next_offset >= ends[number]:
            del ends[number]
            # librdkafka would fetch what was written since, up to its limit of read-ahead.
            self._consumer.incremental_unassign([TopicPartition(self._topic, number)])
        return is_within

    def messages(self, *, until_end: bool) -> Iterator[Message]:
        """Yield records as they come, until reading is over.

        Until the end that a partition has at the start is reached, each of its records restarts the clock of
        ``idle_seconds``; later the caller does so, for those that it wants.
        """
        ends: dict[Partition, int] = {}
        if until_end or self._idle_seconds is not None:
            numbers = [position.partition for position in self._assigned]
            offsets = self._offsets_at(numbers, OFFSET_END)
            ends = {(self._topic, number): end for number, end in zip(numbers, offsets, strict=True)}
        unread = dict(ends)
        self._consumer.assign(self._assigned)  # not before: the request for the ends would wait behind a fetch
        self.restart_idle_clock()  # reading begins here; the requests before it may have taken long
        self._deadline.restart()
        while not self._is_over and (unread or not until_end):
            with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._problems.recent):
                message = self._consumer.poll(POLL_SECONDS)
                kind = polled(message)
                if kind is not Polled.NOTHING:
                    self._deadline.restart()
                elif until_end and self._deadline.is_over:
                    raise timed_out()
            if message is None:
                continue
            if kind is Polled.RECORD:
                yield message
                self._deadline.restart()  # the caller may have taken its time
                if (message.offset() or 0) + 1 < ends.get((self._topic, message.partition() or 0), 0):
                    self.restart_idle_clock()
            elif kind is Polled.END:
                remove_if_at_end(unread, (self._topic, message.partition() or 0), message.offset() or 0)

    @property
    def _is_over(self) -> bool:
        """Whether the idle time has passed, or the caller has stopped reading."""
        idle = self._idle_seconds is not None and time.monotonic() - self._idle_since >= self._idle_seconds
        return idle or self._is_stopped()

    def _offsets_at(self, numbers: Iterable[int], moment: int) -> list[int]:
        partitions = [TopicPartition(self._topic, number) for number in numbers]
        with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._problems.recent):
            return offsets_at(self._consumer, partitions, moment, Deadline(REACH_SECONDS))


def decode_record(
    stream: str, topic: str, message: Message, by_id: Callable[[int], Schema] | None = None
) -> ConsumerRecord:
    """A record with its value decoded, if a schema reads it."""
    key = message.key()
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return ConsumerRecord(
        stream=stream,
        topic=topic,
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=None if key is None else _text(key),
        timestamp=message.timestamp()[1],
        headers={name: _text(value or b"") for name, value in headers},
        value=_value(stream, message.value(), by_id),
    )


def _value(stream: str, value: bytes | None, by_id: Callable[[int], Schema] | None) -> dict[str, Any] | bytes | None:
    if value is None or stream == DEAD_LETTERS:
        return value
    try:
        return decode(value, by_id)
    except Unreadable:
        return value


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
