"""How many dead letters nobody has reprocessed yet: the topics are read once, and on from there."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from typing import Any, Final

from connector.intake.dead_letters import from_record
from connector.kafka.reader import OffsetRange, TopicReader, decode_record
from connector.message.routes import DEAD_LETTERS

MAX_NAMED: Final = 100_000
"""Dead letters whose identities are kept, some 15 MiB; more are counted as if none of them was reprocessed."""


class DeadLetterCount:
    """The dead letters of one connector, counted.

    Args:
        topics: Where they are.
        where: Returns the current brokers and librdkafka properties; raises OutsideUnreachable while Kafka is away.
    """

    def __init__(self, topics: Iterable[str], where: Callable[[], tuple[str, Mapping[str, Any]]]) -> None:
        self._topics = tuple(topics)
        self._where = where
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def count(self, reprocessed: Collection[str]) -> int:
        """How many wait; blocking.

        Args:
            reprocessed: The journal's notes of those that were reprocessed.

        Raises:
            OutsideUnreachable, ConfigurationError: Kafka cannot be read.
        """
        for topic in self._topics:
            self._read(topic)
        names = {name for one in self._partitions.values() for _, name in one.names}
        return len(names.difference(reprocessed)) + sum(one.unnamed for one in self._partitions.values())

    def _read(self, topic: str) -> None:
        with closing(TopicReader(*self._where(), topic)) as reader:
            ranges = reader.offset_ranges(sorted(reader.partitions()))
            known = [self._known(topic, part) for part in ranges]
            new = [part._replace(first=max(part.first, one.read)) for part, one in zip(ranges, known, strict=True)]
            for batch in reader.batches(new):
                for message in batch:
                    letter = from_record(decode_record(DEAD_LETTERS, topic, message))
                    self._partitions[topic, letter.partition].add(
                        letter.offset, letter.note.name, has_room=self._has_room
                    )
            for part, one in zip(ranges, known, strict=True):
                one.read = part.end

    def _known(self, topic: str, part: OffsetRange) -> "_Partition":
        """What is known of a partition, without what retention has removed; a recreated topic is read again."""
        one = self._partitions.setdefault((topic, part.partition), _Partition())
        if part.end < one.read:
            one = self._partitions[topic, part.partition] = _Partition()
        one.forget_before(part.first)
        return one

    @property
    def _has_room(self) -> bool:
        return sum(len(one.names) for one in self._partitions.values()) < MAX_NAMED


class _Partition:
    """The letters of one partition.

    Attributes:
        read: The offset up to which it is read.
        names: Offset and note of each letter.
        unnamed: Letters of which no name is kept: those that came last.
    """

    def __init__(self) -> None:
        self.read = 0
        self.names: deque[tuple[int, str]] = deque()
        self.unnamed = 0

    def add(self, offset: int, name: str, *, has_room: bool) -> None:
        if has_room:
            self.names.append((offset, name))
        else:
            self.unnamed += 1

    def forget_before(self, offset: int) -> None:
        while self.names and self.names[0][0] < offset:
            self.names.popleft()
        self.unnamed = min(self.unnamed, max(self.read - offset, 0))
