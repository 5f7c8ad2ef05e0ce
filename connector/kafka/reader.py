"""Records read back from a topic and decoded, by themselves (nothing is left behind) or as a consumer group."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Final, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connector.errors import Unavailable, Unreadable
from connector.kafka.topics import LOG_NOTHING, is_passing, translated
from connector.message.encoding import decode
from connector.message.routes import DEAD_LETTERS
from connector.message.schemas import Schema

REACH_SECONDS: Final = 5.0
"""How long Kafka may take to say what a topic looks like, and to send the next of what is there."""

_READERS: Final = 2  # threads are few, and the connector's own work needs them
_QUEUED_KIB: Final = 8 * 1024  # what librdkafka reads ahead

_POLL_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 0.5
_LEAST_SECONDS: Final = 0.1
_PROBLEMS_KEPT: Final = 100
_END: Final = "_PARTITION_EOF"
_MISSING: Final = "UNKNOWN_TOPIC_OR_PART"
_NEW_TOPIC: Final = frozenset({_MISSING, "_UNKNOWN_PARTITION", "_UNKNOWN_TOPIC"})
"""Errors of a topic that has just been created, until every broker and the client know it."""

_ATTEMPT: Final = "read the topic {}"
_ACL: Final = "Describe and Read on Topic"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One record as it was read.

    Attributes:
        stream: The stream's name.
        topic: Where it lies, with partition and offset.
        partition: The partition's number.
        offset: Its place in the partition.
        key: The instance's id, or None (a dead letter whose instance was not readable).
        timestamp: Epoch milliseconds.
        headers: Kafka headers as text; of equal names the last one.
        value: The fields of the record; the bytes themselves of a dead letter, or where no schema reads them; None for
            a tombstone.
    """

    stream: str
    topic: str
    partition: int
    offset: int
    key: str | None
    timestamp: int
    headers: Mapping[str, str]
    value: dict[str, Any] | bytes | None


class Readers:
    """Room for a few who read topics at the same time, in threads."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_READERS)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among them.

        Raises:
            Unavailable: None became free within :data:`REACH_SECONDS`.
        """
        try:
            await asyncio.wait_for(self._room.acquire(), REACH_SECONDS)
        except TimeoutError:
            raise Unavailable("others are reading the topics: ask again in a few seconds", retry_after=5) from None
        try:
            yield
        finally:
            self._room.release()


def read_records(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    *,
    stream: str,
    topic: str,
    by_id: Callable[[int], Schema] | None = None,
    from_beginning: bool = False,
    back: int = 0,
    until_end: bool = False,
    key: str | None = None,
    idle_seconds: float | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    on_missing: Callable[[str], None] = lambda _topic: None,
) -> Iterator[Decoded]:
    """The records of a stream's topic as they come; those of one partition stand in their order.

    All partitions are read, also for one key: where it lies depends on how many partitions there were. Partitions that
    are added meanwhile are not read.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties as `Settings.load` has checked them; those of producers do no harm.
        stream: The stream's name.
        topic: Its topic, as `Routes.topic` names it.
        by_id: Gives the schema that a registry has under an id; None where there is no registry.
        from_beginning: Start with the oldest record, not with the next one. A topic that appears later is always read
            from its beginning.
        back: Start so many records before the next one of each partition.
        until_end: End where every partition ended when it was read so far; a missing topic ends at once.
        key: Only records of this instance.
        idle_seconds: End after so long without a record; None means never.
        is_stopped: Asked while no record comes; end once it says yes.
        on_missing: Called once with the topic's name where it does not exist yet; it is waited for.

    Raises:
        OutsideUnreachable: Kafka does not say within :data:`REACH_SECONDS` what the topic looks like; with
            ``until_end`` also: nothing of what is there comes for so long. Else brokers are waited for.
        ConfigurationError: Kafka refuses the credentials, or for want of an ACL.
    """
    ends: dict[str, Any] = {"idle_seconds": idle_seconds, "is_stopped": is_stopped}
    with closing(TopicReader(bootstrap_servers, properties, topic, **ends)) as reader:
        exists = bool(reader.partitions())
        if not exists and not until_end:
            on_missing(topic)
            reader.await_topic()
        reader.assign(from_beginning=from_beginning or not exists, back=back)
        for message in reader.messages(until_end=until_end):
            if key is None or message.key() == key.encode():
                yield decoded(stream, topic, message, by_id)
                reader.rest()


def record_at(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    *,
    stream: str,
    topic: str,
    partition: int,
    offset: int,
    by_id: Callable[[int], Schema] | None = None,
) -> Decoded | None:
    """The record in one place of a topic; None where there is none, or none any more.

    Raises:
        OutsideUnreachable: Kafka does not answer within :data:`REACH_SECONDS`.
        ConfigurationError: Kafka refuses the credentials, or for want of an ACL.
    """
    with closing(TopicReader(bootstrap_servers, properties, topic)) as reader:
        if partition not in reader.partitions():
            return None
        reader.assign_at(partition, offset)
        message = next(reader.messages(until_end=True), None)
    return decoded(stream, topic, message, by_id) if message is not None and message.offset() == offset else None


def follow_records(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    *,
    stream: str,
    topic: str,
    group: str,
    by_id: Callable[[int], Schema] | None = None,
    idle_seconds: float | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Decoded]:
    """The records of a stream's topic for a consumer group, from where the group has come to; a new one from the start.

    A record counts as read once the next one is asked for, so one at which the reader fails comes again.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        stream: The stream's name.
        topic: Its topic, as `Routes.topic` names it.
        group: The consumer group; the partitions are shared among all who read as it.
        by_id: Gives the schema that a registry has under an id; None where there is no registry.
        idle_seconds: End after so long without a record; None means never.
        is_stopped: Asked while no record comes; end once it says yes.

    Raises:
        ConfigurationError: Kafka refuses the credentials, or for want of an ACL.
    """
    ends: dict[str, Any] = {"idle_seconds": idle_seconds, "is_stopped": is_stopped}
    with closing(TopicReader(bootstrap_servers, properties, topic, group=group, **ends)) as reader:
        reader.join()
        for message in reader.messages(until_end=False):
            yield decoded(stream, topic, message, by_id)
            reader.mark_read(message)
            reader.rest()


def _passes(error: KafkaError) -> bool:
    """Whether a reader only has to wait: the brokers are away or electing, or the topic is very new."""
    return is_passing(error) or error.name() in _NEW_TOPIC


def _end_offset(consumer: Consumer, place: TopicPartition, *, within: float = REACH_SECONDS) -> int:
    """Where a partition ends; the leader of a new topic, or a new leader, may need a moment to know.

    Raises:
        KafkaException: Kafka refuses to say, or has not said it within so many seconds.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=within)[1])
        except KafkaException as exception:
            if not _passes(exception.args[0]) or time.monotonic() >= deadline:
                raise
        time.sleep(_AGAIN_SECONDS)


class TopicReader:
    """A consumer of one topic. Blocking: it belongs to one thread.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        topic: The topic.
        idle_seconds: Reading ends after so long without a record; None means never.
        is_stopped: Asked a few times a second; reading ends once it says yes.
        group: The consumer group; None reads without one and commits nothing.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, Any],
        topic: str,
        *,
        idle_seconds: float | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
        group: str | None = None,
    ) -> None:
        self._topic = topic
        self._idle_seconds = idle_seconds
        self._is_stopped = is_stopped
        self._since = time.monotonic()
        self._reach_by = self._since + REACH_SECONDS
        self._problems: deque[KafkaError] = deque(maxlen=_PROBLEMS_KEPT)
        own: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group or "weda-connector-reading",  # the client wants one; without commits it never exists
            "enable.auto.commit": group is not None,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # where retention has overtaken the reader
            "isolation.level": "read_committed",
            "error_cb": self._problems.append,
        }
        bounds: dict[str, Any] = {"log_level": LOG_NOTHING, "queued.max.messages.kbytes": _QUEUED_KIB}
        self._consumer = Consumer({**bounds, **properties, **own})
        self._assigned: list[TopicPartition] = []

    def close(self) -> None:
        """Leave the group and close the connections."""
        self._consumer.close()

    def rest(self) -> None:
        """Restart the clock of ``idle_seconds``."""
        self._since = time.monotonic()

    def partitions(self) -> list[int]:
        """The topic's partitions, none where it does not exist."""
        with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._recent_problems):
            found = self._consumer.list_topics(self._topic, timeout=self._left).topics[self._topic]
            if found.error is not None and found.error.name() != _MISSING:
                raise KafkaException(found.error)
        return list(found.partitions)

    def await_topic(self) -> None:
        """Until the topic exists, or reading is over."""
        while not self._is_over and not self.partitions():
            time.sleep(_AGAIN_SECONDS)
            self._progress()

    def assign(self, *, from_beginning: bool, back: int) -> None:
        """Read every partition from its first record, or from so many before where it ends now."""
        partitions = [TopicPartition(self._topic, number) for number in self.partitions()]
        for partition in partitions:
            partition.offset = OFFSET_BEGINNING if from_beginning else max(self._end(partition) - back, 0)
        self._assigned = partitions
        self._consumer.assign(partitions)

    def assign_at(self, partition: int, offset: int) -> None:
        """Read one partition from one place on."""
        self._assigned = [TopicPartition(self._topic, partition, offset)]
        self._consumer.assign(self._assigned)

    def join(self) -> None:
        """Read the partitions that the group gives to this reader."""
        self._consumer.subscribe([self._topic])

    def mark_read(self, message: Message) -> None:
        """Let the group go on behind this record."""
        self._consumer.store_offsets(message)

    def messages(self, *, until_end: bool) -> Iterator[Message]:
        """Records as they come, until reading is over."""
        unread = {partition.partition for partition in self._assigned}
        self._progress()
        while not self._is_over and (unread or not until_end):
            with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._recent_problems):
                message = self._consumer.poll(_POLL_SECONDS)
                error = None if message is None else message.error()
                if error is not None and error.name() != _END and not _passes(error):
                    raise KafkaException(error)
                if message is not None and (error is None or error.name() == _END):
                    self._progress()
                elif until_end and time.monotonic() >= self._reach_by:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's own name of it
            if message is None:
                continue
            if error is None:
                yield message
                self._progress()  # the one who asked may have taken its time
            elif error.name() == _END:
                unread.discard(message.partition())

    def _progress(self) -> None:
        """Kafka has answered, or need not have: it has all of its time for the next answer."""
        self._reach_by = time.monotonic() + REACH_SECONDS

    @property
    def _left(self) -> float:
        return max(self._reach_by - time.monotonic(), _LEAST_SECONDS)

    @property
    def _is_over(self) -> bool:
        """Whether the clock has run out, or nobody wants to go on."""
        idle = self._idle_seconds is not None and time.monotonic() - self._since >= self._idle_seconds
        return idle or self._is_stopped()

    def _end(self, partition: TopicPartition) -> int:
        with translated(_ATTEMPT.format(self._topic), acl=_ACL, problems=self._recent_problems):
            return _end_offset(self._consumer, partition, within=self._left)

    def _recent_problems(self) -> deque[KafkaError]:
        self._consumer.poll(0)  # or librdkafka keeps them to itself
        return self._problems


def decoded(stream: str, topic: str, message: Message, by_id: Callable[[int], Schema] | None = None) -> Decoded:
    """A record with its value decoded, where a schema reads it."""
    key = message.key()
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return Decoded(
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
