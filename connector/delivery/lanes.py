"""The state of each instance's lane, by which `connector.delivery.delivery` decides what is published and what waits.

Each instance has one lane. The rules of its order:

1. At most one of its messages is with librdkafka: of those still to be published, the one with the lowest sequence.
   So one whose delivery failed is the next again, ahead of all behind it.
2. A lane is *direct* while none of its messages is in the journal. As soon as one is, every message behind it goes to
   the journal too.
3. The lane is direct again only after the removal of its last row is on the disk. A row whose commit failed counts
   until it is certainly not on the disk.
4. A row whose delivery failed may be in Kafka all the same. It is published again only after the removals of the rows
   in front of it are on the disk: a crash that lost them would publish those rows once more, behind it.

So a crash can at most repeat the tail of an instance, whole and in order: its rows whose removal is not on the disk,
acknowledged or not. Rule 3 sees to it that nothing is in Kafka behind them that is not repeated as well.

Pure bookkeeping for one thread: no I/O, no clock. The memory of a lane exists only while it is busy.
"""

import zlib
from array import array
from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol

from connector.delivery.completion import Completion, Durability
from connector.journal.model import DEAD_LETTER_LANE, Admission

_SLOTS: Final = 1 << 20


class JournaledLanes(Protocol):
    """Which lanes have rows in the journal, as far as this process has to know."""

    @property
    def total(self) -> int:
        """Rows of the lanes that this process publishes, those about to be written included."""

    def add(self, lane: str) -> None:
        """A row of the lane is about to be written; the caller says with :meth:`written` what came of it."""

    def written(self, lane: str, *, is_stored: bool) -> None:
        """The row is on the disk, or will never be."""

    def removed(self, lane: str) -> None:
        """The removal of a row of the lane is on the disk."""

    def may_get_earlier_rows(self, lane: str) -> bool:
        """Whether the lane may still get rows with lower sequences than those that were already read."""

    def needs_row(self, lane: str) -> bool:
        """Whether the lane's next message must become a row, as far as memory tells.

        With a local journal: whether the lane has any row, stored or being written. With a shared one: whether this
        replica is writing a row of it; the result of a claim says whether rows are stored.
        """


class LaneCounts:
    """How many rows of the journal each lane has, in fixed memory (4 MiB).

    Lanes share slots by hash, so a lane may look journaled because of another one: its messages then go through the
    journal, which is slower and never wrong.

    Args:
        rows: Rows of each lane that has some.

    Attributes:
        total: Rows of all lanes.
        dead_letters: How many of them are dead letters.
    """

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._slots = array("I", bytes(4 * _SLOTS))
        self.total = 0
        self.dead_letters = 0
        for lane, count in rows.items():
            self._change(lane, count)

    def add(self, lane: str) -> None:
        """A row of the lane is about to be written: from now on it counts."""
        self._change(lane, 1)

    def written(self, lane: str, *, is_stored: bool) -> None:
        """It counts no more if it was not stored."""
        if not is_stored:
            self._change(lane, -1)

    def removed(self, lane: str) -> None:
        """A row of the lane is gone from the disk."""
        self._change(lane, -1)

    def may_get_earlier_rows(self, lane: str) -> bool:  # noqa: ARG002 - the same for every lane
        """Never: a message is numbered in the step in which it takes its position in the lane."""
        return False

    def needs_row(self, lane: str) -> bool:
        """Whether the lane has a row, stored or being written."""
        return self._slots[_slot(lane)] > 0

    def _change(self, lane: str, by: int) -> None:
        self._slots[_slot(lane)] += by
        self.total += by
        if lane.startswith(DEAD_LETTER_LANE):
            self.dead_letters += by


class Timer(Protocol):
    """What is to be called later, unless it is cancelled: a handle of the event loop."""

    def cancel(self) -> None:
        """Do not call it."""


class RowState(Enum):
    """Whether an admission has a row in the journal."""

    NONE = "none"
    PENDING = "pending"
    STORED = "stored"


class LaneEntry:
    """One admission of a busy lane in memory (at its head, waiting or read ahead), and how far it has come.

    Attributes:
        admission: What is to be published; its records shrink to those that are still open.
        row: Whether it has a row in the journal.
        completion: Completed when it is safe, or refused. None for a row that replay read.
        timer: Runs out after the publish wait, or when a held entry is published again; only while it has no row.
        is_counted: The ledger knows that it was accepted.
        is_published: Every record is acknowledged.
        may_be_in_kafka: A delivery of it failed, and Kafka may have some of its records.
        is_held: The journal refused it although it may be in Kafka: it stays in memory until it is published again.
        since: When it began to wait, on the monotonic clock.
    """

    __slots__ = (
        "admission",
        "completion",
        "is_counted",
        "is_held",
        "is_published",
        "may_be_in_kafka",
        "row",
        "since",
        "timer",
    )

    def __init__(
        self, admission: Admission, *, row: RowState, completion: Completion[Durability] | None, since: float
    ) -> None:
        self.admission = admission
        self.since = since
        self.row = row
        self.completion = completion
        self.timer: Timer | None = None
        self.is_counted = completion is None
        self.is_published = False
        self.may_be_in_kafka = False
        self.is_held = False

    @property
    def is_replayed(self) -> bool:
        """Whether replay read it from the journal."""
        return self.completion is None


class Lane:
    """One busy lane.

    Attributes:
        head: The entry that is with the publisher, or held back until it is published again; or None.
        waiting: Entries behind it that are in memory only: the lane is direct.
        read_ahead: Rows of the journal, read ahead, that follow the head.
    """

    __slots__ = ("head", "read_ahead", "waiting")

    def __init__(self) -> None:
        self.head: LaneEntry | None = None
        self.waiting: list[LaneEntry] = []
        self.read_ahead: list[LaneEntry] = []

    def is_in_flight(self, entry: LaneEntry) -> bool:
        """Whether an entry is with the publisher."""
        return self.head is entry and not entry.is_held


class Lanes:
    """Every busy lane, and which lanes the journal holds.

    Attributes:
        journaled: Which lanes have rows in the journal.
        rows_in_memory: Rows that replay has read and that are not published yet, at the head or read ahead.
    """

    def __init__(self, journaled: JournaledLanes) -> None:
        self.journaled = journaled
        self.rows_in_memory = 0
        self._busy: dict[str, Lane] = {}

    def get(self, name: str) -> Lane | None:
        """The lane, if it is busy."""
        return self._busy.get(name)

    def get_or_create(self, name: str) -> Lane:
        """The lane; from now on it is busy."""
        lane = self._busy.get(name)
        if lane is None:
            lane = self._busy[name] = Lane()
        return lane

    @property
    def busy_names(self) -> frozenset[str]:
        """The lanes of which something is in memory."""
        return frozenset(self._busy)

    def forget_if_idle(self, name: str) -> None:
        """Forget the lane if nothing of it is left in memory."""
        lane = self._busy.get(name)
        if lane is not None and lane.head is None and not lane.waiting and not lane.read_ahead:
            del self._busy[name]

    def drop_read_ahead(self, lane: Lane) -> None:
        """Forget rows that were read ahead; replay reads them again."""
        self.rows_in_memory -= len(lane.read_ahead)
        lane.read_ahead.clear()

    def __len__(self) -> int:
        return len(self._busy)


def _slot(lane: str) -> int:
    return zlib.crc32(lane.encode()) & (_SLOTS - 1)
