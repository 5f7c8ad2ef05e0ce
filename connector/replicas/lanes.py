"""A replica's view of the lanes in the shared journal."""

from collections import Counter
from collections.abc import Callable


class SharedLanes:
    """The lanes in use by this replica; implements `connector.delivery.lanes.JournaledLanes`.

    The result of a claim says whether its lane has rows. The database cannot know what this replica has claimed and
    not yet made safe, or is about to write: such lanes are in use, and are not released.

    Args:
        on_free: Called with a lane that is no longer in use; the database keeps one that has rows.

    Attributes:
        own_rows: Rows in this replica's lanes, as last counted by the database, less those removed since.
        bytes: Bytes that wait in all lanes, as last counted by the database, plus what was written here since.
    """

    def __init__(self, on_free: Callable[[str], None]) -> None:
        self._on_free = on_free
        self._pins: Counter[str] = Counter()
        self._writes: Counter[str] = Counter()
        self.own_rows = 0
        self.bytes = 0

    def pin(self, lane: str) -> None:
        """Keep a lane in use from before a claim until its message is published, a row, or refused."""
        self._pins[lane] += 1

    def unpin(self, lane: str) -> None:
        """End a `pin`: the message is published, a row, or refused."""
        self._decrement(self._pins, lane)

    def add(self, lane: str) -> None:
        """Record that a row of the lane is about to be written."""
        self._writes[lane] += 1

    def written(self, lane: str, *, is_stored: bool) -> None:
        """Record that a write has ended; claims see a stored row from now on."""
        if is_stored:
            self.set_has_rows()
        self._decrement(self._writes, lane)

    def removed(self, lane: str) -> None:
        """Record that a row of the lane was removed."""
        # The count stays above 0 until the database says otherwise: other replicas may have written more rows.
        if self.own_rows > 1:
            self.own_rows -= 1
        # Only the database knows whether this was the last row; it does not release a lane that has rows.
        self._free_unless_in_use(lane)

    def set_has_rows(self) -> None:
        """Record that this replica's lanes have at least one row."""
        self.own_rows = max(self.own_rows, 1)

    def is_in_use(self, lane: str) -> bool:
        """Whether a message of the lane is claimed and not yet safe, or a row of it is being written."""
        return lane in self._pins or lane in self._writes

    def may_get_earlier_rows(self, lane: str) -> bool:
        """Whether a message that was claimed here may become a row in front of those that were read."""
        # Another replica may have appended a row between a claim here and the write of what was claimed.
        return self.is_in_use(lane)

    @property
    def total(self) -> int:
        """Known rows in this replica's lanes; rows that others write are counted once a second."""
        return self.own_rows + len(self._writes)

    def needs_row(self, lane: str) -> bool:
        """Whether this replica is writing a row of the lane; the result of a claim tells of stored ones."""
        return lane in self._writes

    def _decrement(self, counts: Counter[str], lane: str) -> None:
        counts[lane] -= 1
        if not counts[lane]:
            del counts[lane]
        self._free_unless_in_use(lane)

    def _free_unless_in_use(self, lane: str) -> None:
        if not self.is_in_use(lane):
            self._on_free(lane)
