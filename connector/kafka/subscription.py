"""What a program reads of one or more topics: all of it by itself, or its share as a member of a consumer group."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
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
)
from connector.kafka.deadline import Deadline
from connector.kafka.errors import (
    FENCED,
    PARTITIONS_LOST,
    TOO_SLOW,
    UNSETTLED,
    Problems,
    timed_out,
    translated,
)
from connector.kafka.owned import OwnedPartitions
from connector.kafka.reader import ConsumerRecord

_AT_ONCE: Final = 500
_SESSION_MS: Final = 45_000
_POLL_INTERVAL_MS: Final = 300_000
_STRATEGY: Final = "partition.assignment.strategy"
_ACL: Final = "Describe and Read on Topic, and Read on Group for a consumer group"
_LOG = structlog.get_logger()


class PartitionsLost(ConnectorError):
    """The group has given partitions of this member to others: the offsets of their records were not committed.

    Reading may go on; the records come again, here or at the member that has the partitions now.
    """

    stage = "consume"
    retriable = True


class Subscription:
    """A consumer of topics. Blocking: it belongs to one thread.

    `TopicReader` polls in a loop of its own: it has no group and no order between topics, and ends at given offsets.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        topics: The topics; the records of several come in one order per partition number, see `Merge`.
        decode: Makes the record that `poll` returns.
        group: The consumer group; None reads everything and commits nothing.
        member: Name of this member (``group.instance.id``): one that starts again within the session's time gets its
            partitions back at once, and no other member waits for that.
        since: Start with the first record that has this timestamp or a later one; of a group, where it has committed
            nothing. None starts with the oldest.
        until_end: Reading is over where every partition ended; without a group only.
        idle_seconds: Reading is over after so long without a record. Of a group the time runs from when it has given
            partitions to this member.
        auto_commit: Commit in the background what `store` was given, every ``auto.commit.interval.ms``.
        is_stopped: Asked a few times a second; reading is over once it says yes.

    Every method raises OutsideUnreachable where Kafka does not answer in time, and ConfigurationError where it answers
    with an error that stays.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, Any],
        topics: Sequence[str],
        decode: Callable[[Message], ConsumerRecord],
        *,
        group: str | None = None,
        member: str | None = None,
        since: datetime | None = None,
        until_end: bool = False,
        idle_seconds: float | None = None,
        auto_commit: bool = True,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._topics, self._decode = tuple(topics), decode
        self._attempt = f"read the topic {', '.join(topics)}"
        self._group, self._member, self._since = group, member, since
        self._until_end, self._idle_seconds, self._is_stopped = until_end, idle_seconds, is_stopped
        self._problems = Problems(self._serve_callbacks)
        self._owned = OwnedPartitions(self._topics)
        self._is_assigned = self._is_asleep = False
        self.rejoins = 0
        self._properties = {
            **consumer_properties(bootstrap_servers, properties, self._problems.record),
            "enable.auto.offset.store": False,
            **({} if group is None else {"group.id": group, "enable.auto.commit": auto_commit}),
            **({} if member is None else {"group.instance.id": member}),
            **(
                {_STRATEGY: "range"} if self._owned.is_merging else {}
            ),  # one member has a partition number of every topic
        }
        self._consumer = Consumer(self._properties)
        self._started = self._rested = time.monotonic()
        self._deadline = Deadline(REACH_SECONDS)
        self._is_begun = False

    def close(self) -> None:
        """Leave the group and close the connections; a named member keeps its partitions until its session ends."""
        self._consumer.close()

    @property
    def is_over(self) -> bool:
        """Whether the idle time is over, every partition was read to its end, or the caller has stopped it."""
        if self._is_stopped():
            return True
        if self._is_begun and self._until_end and not self._owned.has_unread and self._owned.is_empty:
            return True
        return self._idle_seconds is not None and self._idle_for >= self._idle_seconds

    def poll(self) -> ConsumerRecord | None:
        """The next record; None where none came for a moment.

        Raises:
            OutsideUnreachable: With ``until_end``, or before a topic has been read at all: Kafka does not answer.
            ConfigurationError: Kafka rejects; or another process reads under the name of this member.
        """
        if not self._is_begun:
            self._begin()
        if not self._owned.has_next and not self.is_over:
            self._fetch()
        return self._owned.pop() if self._owned.has_next else None

    def restart_idle_clock(self) -> None:
        """Restart the clock of ``idle_seconds``, and Kafka's time to answer: who asks may have taken its time."""
        self._rested = time.monotonic()
        self._deadline.restart()

    def sleep(self, seconds: float) -> None:
        """Wait, and stay a member of the group meanwhile, however long it takes."""
        until = time.monotonic() + seconds
        self._is_asleep = True
        # Polling paused partitions brings no records, and counts as a sign of life for max.poll.interval.ms.
        self._consumer.pause(self._partitions())
        while (left := until - time.monotonic()) > 0 and not self._is_stopped():
            self._take(self._consumer.poll(min(left, POLL_SECONDS)))
        self._is_asleep = False
        self._consumer.resume(self._partitions())
        self.restart_idle_clock()

    def store(self, offsets: Mapping[Partition, int]) -> None:
        """Have the next records' offsets committed in the background; those of lost partitions are left out."""
        for (topic, partition), offset in offsets.items():
            if (topic, partition) in self._owned:
                try:
                    self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset)])
                except KafkaException as exception:
                    if exception.args[0].name() not in PARTITIONS_LOST:
                        raise

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit the offset of the next record of each partition, and wait for Kafka's word.

        Raises:
            PartitionsLost: They belong to other members by now.
            OutsideUnreachable: Kafka did not say so in time; a later commit makes up for it.
        """
        own = [TopicPartition(*partition, offset) for partition, offset in offsets.items() if partition in self._owned]
        lost = len(offsets) - len(own)
        try:
            answers = self._consumer.commit(offsets=own, asynchronous=False) if own else []
        except KafkaException as exception:
            self._raise_of_commit(exception)
        errors = [each.error for each in answers or () if each.error is not None]
        if errors:
            self._raise_of_commit(KafkaException(errors[0]))
        if lost:
            raise PartitionsLost(self._said_of_loss(f"{lost} partitions belong to other members now"))

    def lag(self) -> int:
        """How many records lie in this reader's partitions behind the last one that `poll` has given."""
        if not self._is_begun:
            self._begin()
        owned = self._owned.all
        with self._translated():
            known = self._positions(owned)
            deadline = Deadline(REACH_SECONDS)
            oldest, ends = (self._offsets_at(owned, moment, deadline) for moment in (OFFSET_BEGINNING, OFFSET_END))
        return sum(max(end - max(known[each], first), 0) for each, first, end in zip(owned, oldest, ends, strict=True))

    # --- beginning ---

    def _begin(self) -> None:
        self._is_begun = True
        self._rested = time.monotonic()
        if self._group is not None:
            calls = {"on_assign": self._assign, "on_revoke": self._revoke, "on_lost": self._revoke}
            self._consumer.subscribe(list(self._topics), **calls)
            return
        found = self._existing()
        if not self._until_end:
            while len(found) < len(self._topics) and not self.is_over:
                time.sleep(RETRY_SECONDS)
                self._deadline.restart()
                found = self._existing()
        partitions = [TopicPartition(topic, each) for topic, numbers in found.items() for each in numbers]
        self._start_at_since(partitions)
        self._owned.add(map(_partition_of, partitions))
        if self._until_end:
            owned = self._owned.all
            with self._translated():
                ends = self._offsets_at(owned, OFFSET_END, self._deadline)
            self._owned.read_to(dict(zip(owned, ends, strict=True)))
        self._consumer.assign(partitions)
        self._is_assigned = True

    def _existing(self) -> dict[str, list[int]]:
        with self._translated():
            found = {each: partitions_of(self._consumer, each, self._deadline) for each in self._topics}
        return {topic: numbers for topic, numbers in found.items() if numbers}

    def _start_at_since(self, partitions: Iterable[TopicPartition]) -> None:
        """Set the offsets from which these are read; those that have one keep it."""
        new = [each for each in partitions if each.offset in {OFFSET_INVALID, OFFSET_BEGINNING}]
        for each in new:
            each.offset = OFFSET_BEGINNING
        if self._since is None or not new:
            return
        numbers = [(each.topic, each.partition) for each in new]
        with self._translated():
            offsets = self._offsets_at(numbers, int(self._since.timestamp() * 1000), Deadline(REACH_SECONDS))
        for each, offset in zip(new, offsets, strict=True):
            each.offset = offset

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Without `since` the client assigns the partitions by itself, once this callback has returned.
        if self._since is not None and partitions:
            committed = consumer.committed(partitions, timeout=REACH_SECONDS)
            self._start_at_since(committed)
            self._set(consumer, committed)
        self._owned.add(map(_partition_of, partitions))
        if self._is_asleep and self._since is not None:
            consumer.pause(partitions)
        self._is_assigned = self._is_assigned or bool(partitions)
        self.restart_idle_clock()

    def _set(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        is_incremental = (
            "cooperative" in str(self._properties.get(_STRATEGY))
            or self._properties.get("group.protocol") == "consumer"
        )
        (consumer.incremental_assign if is_incremental else consumer.assign)(partitions)

    def _revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned.remove(map(_partition_of, partitions))

    # --- reading ---

    def _fetch(self) -> None:
        self._check_silence()
        with self._translated():
            if not self._owned.is_merging:
                self._take(self._consumer.poll(POLL_SECONDS))
                return
            for message in self._consumer.consume(_AT_ONCE, POLL_SECONDS):
                self._take(message)
            full, drained = self._owned.merge(self._ends_at)
            self._consumer.pause([TopicPartition(*partition) for partition in full])
            self._consumer.resume([TopicPartition(*partition) for partition in drained])

    def _take(self, message: Message | None) -> None:
        if message is None:
            return
        error = message.error()
        if error is not None and error.name() == TOO_SLOW:
            self._record_rejoin()
            return
        if error is not None and error.name() in FENCED:
            raise ConfigurationError(
                f"another process reads as the member {self._member} of the group {self._group}: give each its own name"
            )
        kind = polled(message)
        if kind is Polled.RECORD:
            self.restart_idle_clock()
            self._owned.put(self._decode(message))
        elif kind is Polled.END:
            self._deadline.restart()
            self._owned.end((str(message.topic()), message.partition() or 0), message.offset() or 0)

    def _record_rejoin(self) -> None:
        """The member has left the group by itself, and joins it again by polling on."""
        self.rejoins += 1
        _LOG.warning("rejoining", group=self._group, reason=self._said_of_loss("it has left the group"))

    def _ends_at(self, partition: Partition) -> int:
        return self._offsets_at([partition], OFFSET_END, Deadline(REACH_SECONDS))[0]

    def _offsets_at(self, partitions: Iterable[Partition], moment: int, deadline: Deadline) -> list[int]:
        return offsets_at(self._consumer, [TopicPartition(*partition) for partition in partitions], moment, deadline)

    def _check_silence(self) -> None:
        """Raise where nothing has come of what must be there: a job that is to end must not take that for the end."""
        now = time.monotonic()
        if self._group is None and self._until_end and self._owned.has_unread and self._deadline.is_over:
            with self._translated():
                raise timed_out()
        if self._group is None or self._is_assigned or self._idle_seconds is None:
            return
        if now - self._started >= self._idle_seconds + self._session_seconds:
            self._deadline.restart()
            if self._existing():
                raise OutsideUnreachable(
                    f"cannot {self._attempt}: the group {self._group} has given this member no partition; "
                    "do others hold them all?"
                )
            self._is_assigned = True  # there is no topic, and so nothing to wait for

    @property
    def _idle_for(self) -> float:
        """Seconds without a record; none before the group has given partitions: a dead member may hold them still."""
        is_waiting = self._group is not None and not self._is_assigned
        return 0.0 if is_waiting else time.monotonic() - self._rested

    @property
    def _session_seconds(self) -> float:
        return float(self._properties.get("session.timeout.ms", _SESSION_MS)) / 1000

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(*partition) for partition in self._owned.all]

    def _positions(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset of each partition's next record; -1 where reading starts at the oldest."""
        offsets = {partition: self._owned.next_offset(partition) for partition in partitions}
        unknown = [TopicPartition(*partition) for partition, offset in offsets.items() if offset is None]
        if self._group is not None and unknown:
            unknown = self._consumer.committed(unknown, timeout=REACH_SECONDS)
        committed = {_partition_of(position): position.offset for position in unknown}
        return {
            partition: max(committed[partition], -1) if offset is None else offset
            for partition, offset in offsets.items()
        }

    # --- words ---

    def _translated(self) -> Any:
        return translated(self._attempt, acl=_ACL, problems=self._problems.recent)

    def _serve_callbacks(self) -> None:
        if not self._is_assigned:  # later a poll could bring a record, which would be lost here
            self._consumer.poll(0)

    def _raise_of_commit(self, exception: KafkaException) -> None:
        name = exception.args[0].name()
        if name in PARTITIONS_LOST:
            raise PartitionsLost(self._said_of_loss(exception.args[0].str())) from exception
        if name in UNSETTLED:
            raise OutsideUnreachable(
                f"cannot commit offsets of the group {self._group} now, a later commit makes up for it: "
                f"{exception.args[0].str()}"
            ) from exception
        with translated(f"commit offsets of the group {self._group}", acl=_ACL):
            raise exception

    def _said_of_loss(self, why: str) -> str:
        longest = self._properties.get("max.poll.interval.ms", _POLL_INTERVAL_MS)
        return (
            f"the group {self._group} has given partitions of this member to others ({why}), and their records come "
            f"again: handle fewer at a time, sleep with Events.sleep, or raise max.poll.interval.ms ({longest})"
        )


def _partition_of(position: TopicPartition) -> Partition:
    return position.topic, position.partition
