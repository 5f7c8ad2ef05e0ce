"""A replica's view of the lanes in the shared journal."""

from collections import Counter
from collections.abc import Callable


class SharedLanes:
    """The lanes of which this replica has something in memory; implements `connector.delivery.lanes.JournaledLanes`.

    The result of a claim says whether its lane has rows. The database cannot know what this replica is about to write,
    or has claimed and not yet admitted: such lanes are in use here, and are not released.

    Args:
        on_free: Called with a lane of which nothing is left in memory.

    Attributes:
        own_rows: Rows in this replica's lanes, as last counted by the database.
        bytes: Bytes that wait in all lanes, as last counted by the database, plus what was written here since.
    """

    def __init__(self, on_free: Callable[[str], None]) -> None:
        self._on_free = on_free
        self._pins: Counter[str] = Counter()
        self._writes: Counter[str] = Counter()
        self.own_rows = 0
        self.bytes = 0

    def pin(self, lane: str) -> None:
        """Keep a lane in use while a message of it is being claimed or is in memory."""
        self._pins[lane] += 1

    def unpin(self, lane: str) -> None:
        """End a `pin`: the message is no longer in memory."""
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
        """Whether something of the lane is in memory."""
        return lane in self._pins or lane in self._writes

    def may_get_earlier_rows(self, lane: str) -> bool:
        """Whether a claim of the lane may have a lower sequence than the rows that were read."""
        # Another replica may have appended a row between a claim here and the write of what was claimed.
        return self.is_in_use(lane)

    @property
    def total(self) -> int:
        """Known rows in this replica's lanes; rows that others write are counted once a second."""
        return self.own_rows + len(self._writes)

    def __contains__(self, lane: str) -> bool:
        # The result of a claim includes committed rows, but not one that this replica is still writing.
        return lane in self._writes

    def _decrement(self, counts: Counter[str], lane: str) -> None:
        counts[lane] -= 1
        if not counts[lane]:
            del counts[lane]
        self._free_unless_in_use(lane)

    def _free_unless_in_use(self, lane: str) -> None:
        if not self.is_in_use(lane):
            self._on_free(lane)
