"""The records of several topics in one order: per partition number, by when the connector received their messages.

A message becomes a record in each of its streams, all with the same key and so in partitions of the same number, if the
topics have equally many. The records of one topic always keep their order. A record is given only once every other
topic's partition of that number has one to compare with, or is known to end: Kafka is asked for its end after the
record has arrived, because a record that was published before it may arrive after it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from connector.kafka.consumer import Partition
from connector.kafka.reader import ConsumerRecord

# Far apart, so that a partition is not paused and resumed with each record: librdkafka drops what it read ahead.
_FULL: Final = 2_000
_DRAINED: Final = 500


class Merge:
    """Records that wait for each other: at most some thousands of each partition.

    Args:
        topics: The topics; the records of one message come in the order of these.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._rank = {topic: rank for rank, topic in enumerate(topics)}
        self._waiting: dict[Partition, deque[ConsumerRecord]] = {}
        self._ends: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    @property
    def holds(self) -> bool:
        """Whether any wait."""
        return any(self._waiting.values())

    def add(self, partitions: Iterable[Partition]) -> None:
        """Compare these partitions from now on."""
        for partition in partitions:
            self._waiting.setdefault(partition, deque())

    def remove(self, partitions: Iterable[Partition]) -> None:
        """Leave these partitions, and what waits of them."""
        for partition in partitions:
            self._waiting.pop(partition, None)
            self._ends.pop(partition, None)
            self._paused.discard(partition)

    def put(self, record: ConsumerRecord) -> None:
        """Take a record."""
        partition = (record.topic, record.partition)
        if partition in self._waiting:
            self._waiting[partition].append(record)
            self._ends.pop(partition, None)

    def end(self, partition: Partition, offset: int) -> None:
        """Reading has come to the end of a partition, which was before this offset."""
        self._ends[partition] = offset

    def ready(self, ends_at: Callable[[Partition], int]) -> Iterator[ConsumerRecord]:
        """The records that no record still to come can precede, in their order.

        Args:
            ends_at: Asks Kafka for the offset at which a partition ends now.
        """
        peers_by_number: defaultdict[int, list[Partition]] = defaultdict(list)
        for partition in sorted(self._waiting, key=lambda partition: self._rank[partition[0]]):
            peers_by_number[partition[1]].append(partition)
        for peers in peers_by_number.values():
            if any(self._waiting[partition] for partition in peers):
                yield from self._ready_of(peers, ends_at)

    def flow(self) -> tuple[set[Partition], set[Partition]]:
        """The partitions to pause, since much of them waits, and those to resume."""
        full = {partition for partition, records in self._waiting.items() if len(records) >= _FULL} - self._paused
        drained = {partition for partition in self._paused if len(self._waiting[partition]) <= _DRAINED}
        self._paused = (self._paused | full) - drained
        return full, drained

    def _ready_of(self, peers: list[Partition], ends_at: Callable[[Partition], int]) -> Iterator[ConsumerRecord]:
        empty = [partition for partition in peers if not self._waiting[partition]]
        if not all(self._is_at_end(partition, ends_at) for partition in empty):
            return
        waiting = [partition for partition in peers if partition not in empty]
        while all(self._waiting[partition] for partition in waiting):
            first = min(waiting, key=lambda partition: _moment(self._waiting[partition][0]))
            yield self._waiting[first].popleft()

    def _is_at_end(self, partition: Partition, ends_at: Callable[[Partition], int]) -> bool:
        return partition in self._ends and ends_at(partition) <= self._ends[partition]


def _moment(record: ConsumerRecord) -> str:
    """When a record's message was received: its ``ingestId``, which begins with that; a tombstone comes after it."""
    if isinstance(record.value, dict) and "ingestId" in record.value:
        return str(record.value["ingestId"])
    return f"{record.timestamp >> 16:08x}-{record.timestamp & 0xFFFF:04x}-~"
