"""Reads one or more topics: all partitions without a group, or a share of them as a member of a consumer group."""

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
    is_transient,
    timed_out,
    translated,
)
from connector.kafka.owned import OwnedPartitions
from connector.kafka.reader import ConsumerRecord

_MAX_FETCH_RECORDS: Final = 500
_SESSION_MS: Final = 45_000
_POLL_INTERVAL_MS: Final = 300_000
_STRATEGY: Final = "partition.assignment.strategy"
_ACL: Final = "Describe and Read on Topic, and Read on Group for a consumer group"
_LOG = structlog.get_logger()


class PartitionsLost(ConnectorError):
    """The group has given partitions of this member to others; the offsets of their records were not committed.

    Reading can continue; the records come again, to this member or to the one that has the partitions now.
    """

    stage = "consume"
    retriable = True


class Subscription:
    """A consumer of topics. Blocking; use it from one thread.

    `TopicReader` has a loop of its own, because it has neither a group nor an order between topics, and ends at given
    offsets.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        topics: The topics; records of several topics come in one order per partition number, see `Merge`.
        decode: Makes the record that `poll` returns.
        group: The consumer group; None means to read everything and commit nothing.
        member: Name of this member (``group.instance.id``). A member that restarts before its session times out gets
            its partitions back at once, without a rebalance.
        since: Start with the first record that has this timestamp or a later one; in a group, only where it has
            committed nothing. None means to start with the oldest.
        until_end: End where each partition ended when reading began; only without a group.
        idle_seconds: End after this many seconds without a record. In a group the time starts when this member gets
            partitions.
        auto_commit: Commit the offsets passed to `store` in the background, every ``auto.commit.interval.ms``.
        is_stopped: Called a few times a second; reading ends once it returns True.

    Every method raises OutsideUnreachable if Kafka does not answer in time, and ConfigurationError if it answers with a
    permanent error.
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
        self._is_assigned = False
        self.rejoins = 0
        self._properties = {
            **consumer_properties(bootstrap_servers, properties, self._problems.record),
            "enable.auto.offset.store": False,
            **({} if group is None else {"group.id": group, "enable.auto.commit": auto_commit}),
            **({} if member is None else {"group.instance.id": member}),
            # Range gives one member the partitions of the same number of all topics, which are merged.
            **({_STRATEGY: "range"} if self._owned.is_merging else {}),
        }
        self._consumer = Consumer(self._properties)
        self._started = self._rested = time.monotonic()  # and again when reading begins
        self._deadline = Deadline(REACH_SECONDS)
        self._starts: dict[Partition, int] = {}
        self._is_begun = False

    def close(self) -> None:
        """Leave the group and close the connections; a named member keeps its partitions until its session ends."""
        self._consumer.close()

    @property
    def is_over(self) -> bool:
        """Whether the idle time has passed, every partition was read to its end, or the caller has stopped reading."""
        if self._is_stopped():
            return True
        if self._is_begun and self._until_end and not self._owned.has_unread and self._owned.is_empty:
            return True
        return self._idle_seconds is not None and not self._owned.has_next and self._idle_for >= self._idle_seconds

    def poll(self) -> ConsumerRecord | None:
        """Return the next record, or None if none came for a moment.

        Raises:
            OutsideUnreachable: With ``until_end``, or before any record was read: Kafka does not answer.
            ConfigurationError: Kafka rejects the request; or another process reads under the name of this member.
        """
        if not self._is_begun:
            self._begin()
        if not self._owned.has_next and not self.is_over:
            self._fetch()
        if not self._owned.has_next:
            return None
        self._restart_clocks()  # one fetch makes many records ready: those before this one took the caller's time
        return self._owned.pop()

    def exclude(self, seconds: float) -> None:
        """Count these seconds, in which nothing was fetched, neither as idle nor as Kafka's."""
        self._rested = min(self._rested + seconds, time.monotonic())  # not beyond: `sleep` excludes its own
        self._deadline.extend(seconds)

    def _restart_clocks(self) -> None:
        """Restart the clocks of ``idle_seconds`` and of Kafka's answer."""
        self._rested = time.monotonic()
        self._deadline.restart()

    def sleep(self, seconds: float) -> None:
        """Wait, and stay a member of the group, however long it takes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._is_stopped():
            # Each time: a rebalance may have brought partitions. Polling paused ones brings no records, and counts as a
            # sign of life for max.poll.interval.ms.
            self._consumer.pause(self._partitions(self._owned.all))
            self._take(self._consumer.poll(min(left, POLL_SECONDS)))
        self._consumer.resume(self._partitions(self._owned.flowing))
        self._restart_clocks()

    def store(self, offsets: Mapping[Partition, int]) -> None:
        """Mark the offset of each partition's next record for commit in the background; skip lost partitions."""
        for (topic, partition), offset in offsets.items():
            if (topic, partition) in self._owned:
                try:
                    self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset)])
                except KafkaException as exception:
                    if exception.args[0].name() not in PARTITIONS_LOST:
                        raise

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Commit the offset of each partition's next record, and wait for Kafka's answer.

        Raises:
            PartitionsLost: Some partitions belong to other members now.
            OutsideUnreachable: Kafka did not answer in time; a later commit makes up for it.
        """
        # The partitions that are left are committed first, so that losing some does not repeat the others' events.
        own = [TopicPartition(*partition, offset) for partition, offset in offsets.items() if partition in self._owned]
        lost = len(offsets) - len(own)
        try:
            answers = self._consumer.commit(offsets=own, asynchronous=False) if own else []
        except KafkaException as exception:
            self._raise_of_commit(exception)
        errors = [answer.error for answer in answers or () if answer.error is not None]
        if errors:
            self._raise_of_commit(KafkaException(errors[0]))
        if lost:
            raise PartitionsLost(self._loss_message(f"{lost} partitions belong to other members now"))

    def lag(self) -> int:
        """How many records this reader's partitions have behind the last one that `poll` returned."""
        if not self._is_begun:
            self._begin()
        owned = self._owned.all
        with self._translated():
            positions = self._positions(owned)
            deadline = Deadline(REACH_SECONDS)
            oldest, ends = (self._offsets_at(owned, moment, deadline) for moment in (OFFSET_BEGINNING, OFFSET_END))
        # From the oldest record that is left: retention may have passed the position.
        starts = [max(positions[partition], first) for partition, first in zip(owned, oldest, strict=True)]
        return sum(max(end - start, 0) for start, end in zip(starts, ends, strict=True))

    # --- beginning ---

    def _begin(self) -> None:
        self._is_begun = True
        self._started = time.monotonic()
        self._restart_clocks()
        if self._group is not None:
            calls = {"on_assign": self._assign, "on_revoke": self._revoke, "on_lost": self._revoke}
            self._consumer.subscribe(list(self._topics), **calls)
            return
        topics = self._existing()
        if not self._until_end:
            while len(topics) < len(self._topics) and not self.is_over:
                time.sleep(RETRY_SECONDS)
                self._deadline.restart()
                topics = self._existing()
        partitions = [TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers]
        self._start_at_since(partitions)
        self._owned.add(map(_partition_of, partitions))
        if self._until_end:
            # Before `assign`: afterwards the request would wait behind a fetch. librdkafka's own report of an end may
            # come from a new leader that does not know the whole partition yet (ADR 0079).
            owned = self._owned.all
            with self._translated():
                ends = self._offsets_at(owned, OFFSET_END, Deadline(REACH_SECONDS))
            self._owned.read_to(dict(zip(owned, ends, strict=True)))
        self._consumer.assign(partitions)
        self._is_assigned = True
        if partitions:
            self._restart_clocks()  # Kafka has answered; the first record has as long as every other one

    def _existing(self) -> dict[str, list[int]]:
        with self._translated():
            topics = {topic: partitions_of(self._consumer, topic, self._deadline) for topic in self._topics}
        return {topic: numbers for topic, numbers in topics.items() if numbers}

    def _start_at_since(self, partitions: Iterable[TopicPartition]) -> None:
        """Set the start offsets of those partitions that have no offset yet."""
        new = [position for position in partitions if position.offset in {OFFSET_INVALID, OFFSET_BEGINNING}]
        for position in new:
            position.offset = OFFSET_BEGINNING
        if self._since is None or not new:
            return
        owned = [_partition_of(position) for position in new]
        with self._translated():
            offsets = self._offsets_at(owned, int(self._since.timestamp() * 1000), Deadline(REACH_SECONDS))
        for position, offset in zip(new, offsets, strict=True):
            position.offset = offset
        self._starts |= dict(zip(owned, offsets, strict=True))

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Without `since` the client assigns the partitions itself, after this callback has returned.
        if self._since is not None and partitions:
            committed = consumer.committed(partitions, timeout=REACH_SECONDS)
            self._start_at_since(committed)
            self._set_assignment(consumer, committed)
        self._owned.add(map(_partition_of, partitions))
        self._is_assigned = self._is_assigned or bool(partitions)
        self._restart_clocks()

    def _set_assignment(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # In a cooperative rebalance the callback gets only the new partitions: `assign` would drop the others.
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
            # Many at a time: each merge may ask Kafka for the ends of topics that have nothing to compare.
            for message in self._consumer.consume(_MAX_FETCH_RECORDS, POLL_SECONDS):
                self._take(message)
            began, deadline = time.monotonic(), Deadline(REACH_SECONDS)
            full, drained = self._owned.merge(lambda partition: self._ends_at(partition, deadline))
            self.exclude(time.monotonic() - began)  # no records were waited for
            self._consumer.pause(self._partitions(full))
            self._consumer.resume(self._partitions(drained))

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
            self._restart_clocks()
            self._owned.put(self._decode(message))
        elif kind is Polled.END:
            self._deadline.restart()
            self._owned.end((str(message.topic()), message.partition() or 0), message.offset() or 0)

    def _record_rejoin(self) -> None:
        """Record that librdkafka has left the group; it rejoins by polling on."""
        self.rejoins += 1
        _LOG.warning("rejoining", group=self._group, reason=self._loss_message("it has left the group"))

    def _ends_at(self, partition: Partition, deadline: Deadline) -> int | None:
        """Where a partition ends now; None if Kafka does not say by the deadline, and reading is to wait for it."""
        try:
            # A reader that waits spends the time of one answer on all of them: other partitions have records meanwhile.
            own = Deadline(REACH_SECONDS) if self._until_end else deadline
            return self._offsets_at([partition], OFFSET_END, own)[0]
        except KafkaException as exception:
            if self._until_end or not is_transient(exception.args[0]):
                raise
            return None

    def _offsets_at(self, partitions: Iterable[Partition], moment: int, deadline: Deadline) -> list[int]:
        return offsets_at(self._consumer, [TopicPartition(*partition) for partition in partitions], moment, deadline)

    def _check_silence(self) -> None:
        """Raise if records that must exist do not come: a job that ends must not take silence for the end."""
        now = time.monotonic()
        if self._group is None and self._until_end and self._owned.has_unread and self._deadline.is_over:
            with self._translated():
                raise timed_out()
        if self._group is None or self._is_assigned or self._idle_seconds is None:
            return
        # A dead member may hold the partitions for the time of a session; then the wait has another reason.
        if now - self._started >= self._idle_seconds + self._session_seconds:
            self._deadline.restart()
            if self._existing():
                raise OutsideUnreachable(
                    f"cannot {self._attempt}: the group {self._group} has given this member no partition; "
                    "do others hold them all?"
                )
            self._is_assigned = True  # no topic exists, so there is nothing to wait for

    @property
    def _idle_for(self) -> float:
        """Seconds without a record; 0 before reading and while a dead member may hold the partitions."""
        is_waiting = not self._is_begun or (self._group is not None and not self._is_assigned)
        return 0.0 if is_waiting else time.monotonic() - self._rested

    @property
    def _session_seconds(self) -> float:
        return float(self._properties.get("session.timeout.ms", _SESSION_MS)) / 1000

    @staticmethod
    def _partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
        return [TopicPartition(*partition) for partition in partitions]

    def _positions(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset of each partition's next record; -1 where reading starts at the oldest."""
        offsets = {partition: self._owned.next_offset(partition) for partition in partitions}
        unknown = [TopicPartition(*partition) for partition, offset in offsets.items() if offset is None]
        if self._group is not None and unknown:
            unknown = self._consumer.committed(unknown, timeout=REACH_SECONDS)
        committed = {_partition_of(position): position.offset for position in unknown}
        return {
            partition: self._start_of(partition, committed[partition]) if offset is None else offset
            for partition, offset in offsets.items()
        }

    def _start_of(self, partition: Partition, committed: int) -> int:
        return committed if committed >= 0 else self._starts.get(partition, -1)

    # --- words ---

    def _translated(self) -> Any:
        return translated(self._attempt, acl=_ACL, problems=self._problems.recent)

    def _serve_callbacks(self) -> None:
        if not self._is_assigned:  # later a poll could return a record, which would be lost here
            self._consumer.poll(0)

    def _raise_of_commit(self, exception: KafkaException) -> None:
        name = exception.args[0].name()
        if name in PARTITIONS_LOST:
            raise PartitionsLost(self._loss_message(exception.args[0].str())) from exception
        if name in UNSETTLED:
            raise OutsideUnreachable(
                f"cannot commit offsets of the group {self._group} now, a later commit makes up for it: "
                f"{exception.args[0].str()}"
            ) from exception
        with translated(f"commit offsets of the group {self._group}", acl=_ACL):
            raise exception

    def _loss_message(self, why: str) -> str:
        interval = self._properties.get("max.poll.interval.ms", _POLL_INTERVAL_MS)
        return (
            f"the group {self._group} has given partitions of this member to others ({why}), and their records come "
            f"again: handle fewer at a time, sleep with Events.sleep, or raise max.poll.interval.ms ({interval})"
        )


def _partition_of(position: TopicPartition) -> Partition:
    return position.topic, position.partition
