"""The order of each instance, fixed at admission: what may go to the publisher now, what waits.

Each instance has one lane. At most one of its messages is with librdkafka. A lane is *direct* while none of its
messages stands in the journal; as soon as one does, every message behind it goes to the journal too, and the lane is
direct again only after the removal of its last row is on the disk. So the sequence alone decides what is next, and a
crash can at most repeat the unacknowledged tail of an instance, whole and in order.

Pure bookkeeping for one thread: no I/O, no clock. The memory of a lane exists only while it is busy.
"""

import zlib
from array import array
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, Protocol

from connector.delivery.deadlines import Deadline
from connector.errors import Unavailable
from connector.journal.sqlite import DEAD_LETTER_LANE, Admission

_SLOTS: Final = 1 << 20


class LaneCounts:
    """How many rows of the journal each lane has, in fixed memory (4 MiB).

    Lanes share slots by hash, so a lane may look occupied because of another one: its messages then take the way
    through the journal, which is slower and never wrong.

    Attributes:
        total: Rows of all lanes.
    """

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._slots = array("I", bytes(4 * _SLOTS))
        self.total = 0
        self._letters = 0
        for lane, count in rows.items():
            self._slots[_slot(lane)] += count
            self.total += count
            self._letters += count if lane.startswith(DEAD_LETTER_LANE) else 0

    @property
    def letters(self) -> int:
        """How many of the rows are dead letters."""
        return self._letters

    def add(self, lane: str) -> None:
        """A row of the lane is about to be written."""
        self._slots[_slot(lane)] += 1
        self.total += 1
        self._letters += lane.startswith(DEAD_LETTER_LANE)

    def stored(self, lane: str) -> None:
        """It is on the disk."""

    def remove(self, lane: str) -> None:
        """It never got there."""
        self._slots[_slot(lane)] -= 1
        self.total -= 1
        self._letters -= lane.startswith(DEAD_LETTER_LANE)

    def removed(self, lane: str) -> None:
        """A row of the lane is gone from the disk."""
        self.remove(lane)

    def moved(self, lane: str, to: str) -> None:
        """A row of the lane is in another one now."""
        self.add(to)
        self.remove(lane)

    def is_held(self, lane: str) -> bool:  # noqa: ARG002 - here admission and place are one step
        """Whether something of the lane may come that stands before the rows that were read."""
        return False

    def __contains__(self, lane: str) -> bool:
        return self._slots[_slot(lane)] > 0


class JournaledLanes(Protocol):
    """Which lanes have rows in the journal; see :class:`LaneCounts`, and for what each call tells."""

    @property
    def total(self) -> int:
        """Rows."""

    @property
    def letters(self) -> int | None:
        """How many of them are dead letters; None where the journal has to be asked."""

    def add(self, lane: str) -> None:
        """A row of the lane is about to be written."""

    def stored(self, lane: str) -> None:
        """It is written."""

    def remove(self, lane: str) -> None:
        """It was not."""

    def removed(self, lane: str) -> None:
        """A row of the lane is gone."""

    def moved(self, lane: str, to: str) -> None:
        """A row of the lane is in another one now."""

    def is_held(self, lane: str) -> bool:
        """Whether something of the lane may come that stands before the rows that were read."""

    def __contains__(self, lane: str) -> bool:
        """Whether a message of the lane has to go behind rows."""


class Row(Enum):
    """Whether an admission stands in the journal."""

    NONE = "none"
    PENDING = "pending"
    STORED = "stored"


class Durability(Enum):
    """Why a message is safe."""

    PUBLISHED = "published"
    JOURNALED = "journaled"
    REPEATED = "repeated"
    """Another replica has it."""


class Completion:
    """What becomes of a message, decided once: why it is safe, or why it is not.

    Attributes:
        result: None until it is decided.
    """

    __slots__ = ("_then", "result")

    def __init__(self) -> None:
        self.result: Durability | Unavailable | None = None
        self._then: list[Callable[[Durability | Unavailable], None]] = []

    @classmethod
    def of(cls, result: Durability | Unavailable) -> "Completion":
        """A fate that is decided."""
        completion = cls()
        completion.decide(result)
        return completion

    def then(self, act: Callable[[Durability | Unavailable], None]) -> None:
        """Call ``act`` with the result, as soon as there is one."""
        if self.result is None:
            self._then.append(act)
        else:
            act(self.result)

    def decide(self, result: Durability | Unavailable) -> None:
        """Decide it, unless it is decided already, and tell everyone."""
        if self.result is not None:
            return
        self.result = result
        acts, self._then = self._then, []
        for act in acts:
            act(result)


class Entry:
    """One admission and how far it has come.

    Attributes:
        admission: What is to be published; its records shrink to those that are still open.
        row: Whether it stands in the journal.
        completion: Decided once. None for what was read from the journal.
        timer: Comes due when it has waited for Kafka long enough; only while it is in memory alone.
        is_counted: The ledger knows that it was accepted.
        is_published: Every record is acknowledged.
        since: When it began to wait, on the monotonic clock.
    """

    __slots__ = ("admission", "completion", "is_counted", "is_published", "row", "since", "timer")

    def __init__(self, admission: Admission, *, row: Row, completion: Completion | None, since: float) -> None:
        self.admission = admission
        self.since = since
        self.row = row
        self.completion = completion
        self.timer: Deadline | None = None
        self.is_counted = completion is None
        self.is_published = False


class Lane:
    """One busy lane.

    Attributes:
        in_flight: What is with the publisher, or None.
        waiting: Entries behind it that are in memory only: the lane is direct.
        read_ahead: Rows of the journal, read ahead, that follow the one in flight.
    """

    __slots__ = ("in_flight", "read_ahead", "waiting")

    def __init__(self) -> None:
        self.in_flight: Entry | None = None
        self.waiting: list[Entry] = []
        self.read_ahead: list[Entry] = []


class Lanes:
    """Every busy lane, and which lanes the journal holds."""

    def __init__(self, journaled: JournaledLanes) -> None:
        self.journaled = journaled
        self._busy: dict[str, Lane] = {}

    def get(self, name: str) -> Lane | None:
        """The lane, if it is busy."""
        return self._busy.get(name)

    def busy(self, name: str) -> Lane:
        """The lane, made busy."""
        lane = self._busy.get(name)
        if lane is None:
            lane = self._busy[name] = Lane()
        return lane

    @property
    def busy_names(self) -> frozenset[str]:
        """The lanes of which something is in memory."""
        return frozenset(self._busy)

    def release(self, name: str) -> None:
        """Forget the lane if nothing of it is left in memory."""
        lane = self._busy.get(name)
        if lane is not None and lane.in_flight is None and not lane.waiting and not lane.read_ahead:
            del self._busy[name]

    def __len__(self) -> int:
        return len(self._busy)


def _slot(lane: str) -> int:
    return zlib.crc32(lane.encode()) & (_SLOTS - 1)
