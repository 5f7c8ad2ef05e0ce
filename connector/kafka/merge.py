"""Merges the records of several topics per partition number, in the order in which their messages were received.

A message becomes one record in each of its streams, all with the same key. They are in partitions of the same number if
the topics have the same number of partitions. Records of one topic always keep their order. A record is returned only
once the partition of that number in every other topic has a record to compare with, or is known to end. Kafka is asked
for that end after the record has arrived, because a record that was published earlier may arrive later.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from connector.kafka.consumer import Partition
from connector.kafka.reader import ConsumerRecord

# Far apart, so that a partition is rarely paused and resumed: each time, librdkafka drops what it has read ahead.
_PAUSE_ABOVE_RECORDS: Final = 2_000
_RESUME_BELOW_RECORDS: Final = 500


class Merge:
    """Records that wait for those of other topics, at most a few thousand per partition.

    Args:
        topics: The topics; the records of one message come in this order.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._rank = {topic: rank for rank, topic in enumerate(topics)}
        self._waiting: dict[Partition, deque[ConsumerRecord]] = {}
        self._ends: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    @property
    def holds(self) -> bool:
        """Whether any record waits."""
        return any(self._waiting.values())

    def add(self, partitions: Iterable[Partition]) -> None:
        """Add partitions to those that are merged."""
        for partition in partitions:
            self._waiting.setdefault(partition, deque())

    def remove(self, partitions: Iterable[Partition]) -> None:
        """Remove partitions, and their waiting records."""
        for partition in partitions:
            self._waiting.pop(partition, None)
            self._ends.pop(partition, None)
            self._paused.discard(partition)

    def put(self, record: ConsumerRecord) -> None:
        """Add a fetched record."""
        partition = (record.topic, record.partition)
        if partition in self._waiting:
            self._waiting[partition].append(record)
            self._ends.pop(partition, None)

    def end(self, partition: Partition, offset: int) -> None:
        """Record that reading has reached the end of a partition, at this offset."""
        self._ends[partition] = offset

    @property
    def paused(self) -> AbstractSet[Partition]:
        """The partitions that :meth:`flow` has said to pause, and not yet to resume."""
        return self._paused

    def ready(self, ends_at: Callable[[Partition], int | None]) -> Iterator[ConsumerRecord]:
        """Yield, in order, the waiting records that no later record can precede.

        Args:
            ends_at: Asks Kafka for the offset at which a partition ends now; None if that is not known.
        """
        peers_by_number: defaultdict[int, list[Partition]] = defaultdict(list)
        for partition in sorted(self._waiting, key=lambda partition: self._rank[partition[0]]):
            peers_by_number[partition[1]].append(partition)
        for peers in peers_by_number.values():
            if any(self._waiting[partition] for partition in peers):
                yield from self._ready_of(peers, ends_at)

    def flow(self) -> tuple[set[Partition], set[Partition]]:
        """The partitions to pause, because many of their records wait, and those to resume."""
        counts = {partition: len(records) for partition, records in self._waiting.items()}
        full = {partition for partition, count in counts.items() if count >= _PAUSE_ABOVE_RECORDS} - self._paused
        drained = {partition for partition in self._paused if counts[partition] <= _RESUME_BELOW_RECORDS}
        self._paused = (self._paused | full) - drained
        return full, drained

    def _ready_of(self, peers: list[Partition], ends_at: Callable[[Partition], int | None]) -> Iterator[ConsumerRecord]:
        empty = [partition for partition in peers if not self._waiting[partition]]
        if not all(self._is_at_end(partition, ends_at) for partition in empty):
            return
        waiting = [partition for partition in peers if partition not in empty]
        # Up to the first partition that runs empty: its next record may precede those of the others.
        while all(self._waiting[partition] for partition in waiting):
            first = min(waiting, key=lambda partition: _moment(self._waiting[partition][0]))
            yield self._waiting[first].popleft()

    def _is_at_end(self, partition: Partition, ends_at: Callable[[Partition], int | None]) -> bool:
        if partition not in self._ends:
            return False
        end = ends_at(partition)
        return end is not None and end <= self._ends[partition]


def _moment(record: ConsumerRecord) -> str:
    """The sort key of a record: its ``ingestId``, which begins with the time of receipt."""
    if isinstance(record.value, dict) and "ingestId" in record.value:
        return str(record.value["ingestId"])
    # A tombstone has no id: its timestamp in the form of one, and `~`, which sorts it after ids of that millisecond.
    return f"{record.timestamp >> 16:08x}-{record.timestamp & 0xFFFF:04x}-~"
