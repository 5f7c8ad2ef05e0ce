"""Replay: from the journal to Kafka, the first rows of every lane in turn.

It reads a few rows of each lane at a time, so that a busy instance does not delay the others, and hands them to
`connector.delivery.delivery`, which publishes and removes them. Between a read and the moment at which its rows are
handed over, rows may have been published, removed or written: what the read does not show is kept here until the next
one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from connector import supervision
from connector.delivery.failures import BackOff
from connector.delivery.lanes import Lanes
from connector.errors import Unavailable
from connector.journal.model import Admission, Journal

REPLAY_WINDOW: Final = 4_096
"""Most rows of the journal that are in memory for replay."""

REPLAY_DEPTH: Final = 32
"""Most rows of one lane that are read ahead."""

_LANES: Final = 64
_UNREADABLE_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.02
_MAX_IDLE_SECONDS: Final = 0.1
_FAILED_ROUND_SECONDS: Final = 1.0
_LOG = structlog.get_logger()

PublishRows = Callable[[list[Admission]], Awaitable[int]]
"""Begins to publish rows of one lane that is not busy; returns how many it took."""


class Replay:
    """Reads the rows of lanes that are not busy, and has them published.

    Args:
        journal: Where the rows are.
        lanes: Which lanes are busy, and which have rows.
        back_off: Which lanes wait after a failure.
        is_open: Whether the publisher takes records.
        publish_rows: Begins to publish the rows of a lane.
    """

    def __init__(
        self,
        journal: Journal,
        lanes: Lanes,
        back_off: BackOff,
        *,
        is_open: Callable[[], bool],
        publish_rows: PublishRows,
    ) -> None:
        self._journal = journal
        self._lanes = lanes
        self._back_off = back_off
        self._is_open = is_open
        self._publish_rows = publish_rows
        self._removals_pending: set[int] = set()
        self._removed_since_read: set[int] = set()
        self._written_since_read: set[str] = set()
        self._amends_pending: set[int] = set()
        self._amended_since_read: set[int] = set()
        self._work_available = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it runs, if it was started."""
        return self._task is None or not self._task.done()

    def start(self) -> None:
        """Replay from now on; does nothing if it was started before."""
        if self._task is None:
            self._task = asyncio.create_task(supervision.run_forever("replay", self._run))

    async def stop(self) -> None:
        """Hand over no more rows."""
        if self._task is not None:
            await supervision.cancel([self._task])

    def wake(self) -> None:
        """There may be rows to publish: end the idle wait."""
        if self._lanes.journaled.total:
            self._work_available.set()

    def row_written(self, lane: str) -> None:
        """A row of the lane was written."""
        if self._task is not None:  # the first read, which may be long in coming, shows what was written before it
            self._written_since_read.add(lane)

    def row_published(self, sequence: int) -> None:
        """A row is published; its removal begins."""
        self._removals_pending.add(sequence)

    def row_removed(self, sequence: int) -> None:
        """The removal of a row is on the disk."""
        self._removals_pending.discard(sequence)
        self._removed_since_read.add(sequence)

    def amend_begun(self, sequence: int) -> None:
        """A row is being amended."""
        self._amends_pending.add(sequence)

    def amend_ended(self, sequence: int) -> None:
        """A row was amended, or stays as it was."""
        self._amends_pending.discard(sequence)
        self._amended_since_read.add(sequence)

    async def _run(self) -> None:
        while True:
            self._work_available.clear()
            started = await self._safe_round()
            if not started:
                await asyncio.sleep(_PAUSE_SECONDS)
                await supervision.is_set_within(self._work_available, _MAX_IDLE_SECONDS)

    async def _safe_round(self) -> int:
        """One round; an error in it does not end replay."""
        try:
            return await self._round()
        except Exception:  # noqa: BLE001 - accepted messages must not wait for a restart
            _LOG.exception("a round of replay failed")
            await asyncio.sleep(_FAILED_ROUND_SECONDS)
            return 0

    async def _round(self) -> int:
        """Hand over the first rows of each lane that has rows and is neither busy nor backing off; returns how many."""
        after = ""
        started = 0
        self._forget_changes()
        while self._has_work():
            lanes = await self._read_first_rows(after)
            for rows in lanes:
                started += await self._hand_over(rows)
            if len(lanes) < _LANES:
                break
            after = lanes[-1][0].lane
            self._forget_changes()
        return started

    def _forget_changes(self) -> None:
        """The next read shows them. In every round, so that they stay few also while nothing may be read."""
        self._removed_since_read.clear()
        self._written_since_read.clear()
        self._amended_since_read.clear()

    def _has_work(self) -> bool:
        has_room = self._lanes.rows_in_memory < REPLAY_WINDOW and not self._back_off.must_pause()
        return has_room and self._is_open() and self._lanes.journaled.total > 0

    async def _read_first_rows(self, after: str) -> list[list[Admission]]:
        skip = self._lanes.busy_names | self._back_off.waiting
        try:
            return await self._journal.first_rows(after, _LANES, REPLAY_DEPTH, skip)
        except Unavailable:
            await asyncio.sleep(_UNREADABLE_SECONDS)
            return []

    async def _hand_over(self, rows: list[Admission]) -> int:
        fresh = [
            row
            for row in rows
            if row.sequence not in self._removals_pending and row.sequence not in self._removed_since_read
        ]
        if not fresh or self._must_wait(rows) or not self._is_open():
            return 0
        return await self._publish_rows(fresh)

    def _must_wait(self, rows: list[Admission]) -> bool:
        """Whether rows of a lane may not be published now.

        Args:
            rows: All rows that were read, including those whose removal is pending.
        """
        lane = rows[0].lane
        return (
            # rule 1: something of the lane is in memory, since the read.
            self._lanes.get(lane) is not None
            # Replicas number a message before they write its row: an older one may still come, or may have been
            # written behind the read.
            or self._lanes.journaled.may_get_earlier_rows(lane)
            or lane in self._written_since_read
            # A shared journal may have been read without the change: what was acknowledged would be published again.
            or any(row.sequence in self._amends_pending or row.sequence in self._amended_since_read for row in rows)
            # rule 4: the last delivery of the lane failed, and a removal in front of that row is not on the disk yet. A
            # crash now would publish what was removed again, behind the message that failed and may be in Kafka. Not
            # only the first row: of a shared journal its removal may be on the disk since the read.
            or (self._back_off.may_have_failed(lane) and any(row.sequence in self._removals_pending for row in rows))
        )
