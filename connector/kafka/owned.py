"""The partitions that a consumer owns, the offset that it has reached in each, and the records that it has fetched."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from connector.kafka.consumer import Partition, remove_if_at_end
from connector.kafka.merge import Merge
from connector.kafka.reader import ConsumerRecord


class OwnedPartitions:
    """Owned partitions, and their records that were fetched and not returned yet.

    Args:
        topics: The topics; records of several topics are merged into one order, see `Merge`.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._partitions: set[Partition] = set()
        self._next: dict[Partition, int] = {}
        self._unread: dict[Partition, int] = {}
        self._ready: deque[ConsumerRecord] = deque()
        self._merge = Merge(topics) if len(topics) > 1 else None

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._partitions

    @property
    def all(self) -> list[Partition]:
        """The owned partitions, sorted."""
        return sorted(self._partitions)

    @property
    def is_merging(self) -> bool:
        """Whether the records of several topics are put in one order."""
        return self._merge is not None

    @property
    def has_unread(self) -> bool:
        """Whether a partition has not been read to the end that :meth:`read_to` set."""
        return bool(self._unread)

    @property
    def is_empty(self) -> bool:
        """Whether every fetched record was returned."""
        return not self._ready and not (self._merge is not None and self._merge.holds)

    @property
    def has_next(self) -> bool:
        """Whether :meth:`pop` returns a record."""
        return bool(self._ready)

    def add(self, partitions: Iterable[Partition]) -> None:
        """Add partitions to the owned ones."""
        partitions = set(partitions)
        self._partitions |= partitions
        if self._merge is not None:
            self._merge.add(partitions)

    def remove(self, partitions: Iterable[Partition]) -> None:
        """Forget these partitions and their records: their new owner reads them again from the last commit."""
        partitions = set(partitions)
        self._partitions -= partitions
        for partition in partitions:
            self._next.pop(partition, None)  # another member may move the group's offset before we own it again
        self._ready = deque(record for record in self._ready if (record.topic, record.partition) not in partitions)
        if self._merge is not None:
            self._merge.remove(partitions)

    def read_to(self, ends: Mapping[Partition, int]) -> None:
        """Set the offset at which each partition ended when reading began."""
        self._unread = dict(ends)

    def put(self, record: ConsumerRecord) -> None:
        """Add a record that was fetched."""
        if self._merge is None:
            self._ready.append(record)
        else:
            self._merge.put(record)

    def end(self, partition: Partition, offset: int) -> None:
        """Record that reading has reached the end of a partition, at this offset."""
        remove_if_at_end(self._unread, partition, offset)
        if self._merge is not None:
            self._merge.end(partition, offset)

    @property
    def flowing(self) -> list[Partition]:
        """The owned partitions without those that :meth:`merge` has said to pause, sorted."""
        return self.all if self._merge is None else sorted(self._partitions - self._merge.paused)

    def merge(self, ends_at: Callable[[Partition], int | None]) -> tuple[set[Partition], set[Partition]]:
        """Make ready, in order, those fetched records of several topics that no later record can precede.

        Args:
            ends_at: Asks Kafka for the offset at which a partition ends now; None if that is not known.

        Returns:
            The partitions to pause, because many of their records wait for other topics, and those to resume.
        """
        if self._merge is None:
            return set(), set()
        self._ready.extend(self._merge.ready(ends_at))
        return self._merge.flow()

    def pop(self) -> ConsumerRecord:
        """Return the next record, and note the offset behind it."""
        record = self._ready.popleft()
        self._next[record.topic, record.partition] = record.offset + 1
        return record

    def next_offset(self, partition: Partition) -> int | None:
        """The offset behind the last returned record of a partition; None before the first."""
        return self._next.get(partition)
