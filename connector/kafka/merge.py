"""The records of several topics in one order: per partition number, by when the connector received their messages.

A message becomes a record in each of its streams, all with the same key and so in partitions of the same number, if the
topics have equally many. The records of one topic always keep their order. A record is given only once every other
topic's partition of that number has one to compare with, or is known to end: Kafka is asked for its end after the
record has arrived, because a record that was published before it may arrive after it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from connector.kafka.reader import Decoded, Place

_FULL: Final = 2_000
_DRAINED: Final = 500


class Merge:
    """Records that wait for each other: at most some thousands of each partition.

    Args:
        topics: The topics; the records of one message come in the order of these.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._rank = {topic: rank for rank, topic in enumerate(topics)}
        self._waiting: dict[Place, deque[Decoded]] = {}
        self._ends: dict[Place, int] = {}
        self._paused: set[Place] = set()

    @property
    def holds(self) -> bool:
        """Whether any wait."""
        return any(self._waiting.values())

    def add(self, places: Iterable[Place]) -> None:
        """Compare these partitions from now on."""
        for place in places:
            self._waiting.setdefault(place, deque())

    def remove(self, places: Iterable[Place]) -> None:
        """Leave these partitions, and what waits of them."""
        for place in places:
            self._waiting.pop(place, None)
            self._ends.pop(place, None)
            self._paused.discard(place)

    def put(self, record: Decoded) -> None:
        """Take a record."""
        place = (record.topic, record.partition)
        if place in self._waiting:
            self._waiting[place].append(record)
            self._ends.pop(place, None)

    def end(self, place: Place, offset: int) -> None:
        """A partition ends before this offset, as far as was read."""
        self._ends[place] = offset

    def ready(self, ends_at: Callable[[Place], int]) -> Iterator[Decoded]:
        """The records that no record still to come can precede, in their order.

        Args:
            ends_at: Asks Kafka for the offset at which a partition ends now.
        """
        lanes: defaultdict[int, list[Place]] = defaultdict(list)
        for place in sorted(self._waiting, key=lambda place: self._rank[place[0]]):
            lanes[place[1]].append(place)
        for lane in lanes.values():
            if any(self._waiting[place] for place in lane):
                yield from self._ready_of(lane, ends_at)

    def flow(self) -> tuple[set[Place], set[Place]]:
        """The partitions to pause, since much of them waits, and those to resume."""
        full = {place for place, records in self._waiting.items() if len(records) >= _FULL} - self._paused
        drained = {place for place in self._paused if len(self._waiting[place]) <= _DRAINED}
        self._paused = (self._paused | full) - drained
        return full, drained

    def _ready_of(self, lane: list[Place], ends_at: Callable[[Place], int]) -> Iterator[Decoded]:
        known = [place for place in lane if not self._waiting[place]]
        if not all(self._is_at_end(place, ends_at) for place in known):
            return
        open_places = [place for place in lane if place not in known]
        while all(self._waiting[place] for place in open_places):
            first = min(open_places, key=lambda place: _moment(self._waiting[place][0]))
            yield self._waiting[first].popleft()

    def _is_at_end(self, place: Place, ends_at: Callable[[Place], int]) -> bool:
        return place in self._ends and ends_at(place) <= self._ends[place]


def _moment(record: Decoded) -> str:
    """When a record's message was received: its ``ingestId``, which begins with that; a tombstone comes after it."""
    if isinstance(record.value, dict) and "ingestId" in record.value:
        return str(record.value["ingestId"])
    return f"{record.timestamp >> 16:08x}-{record.timestamp & 0xFFFF:04x}-~"
