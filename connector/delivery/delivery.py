"""From admission to published: straight to Kafka, or through the journal and replay.

A message goes to the publisher when its lane is free. If Kafka has not acknowledged it after the publish wait, it is
written to the journal and thereby safe. While nothing at all is acknowledged the publisher is *stalled*, and messages
go to the journal at once. A failed delivery counts as possibly persisted: the message goes to the journal and is
published again from the head of its lane. Replay takes the first rows of the journaled lanes round-robin, so that a
busy instance does not delay the others, and removes each row once its records are acknowledged. Kafka rejects whole
record batches, so a rejected record is published once more alone; rejected again, it becomes a dead letter.

Everything here runs on the event loop; only the publisher and the journal have threads.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from connector import supervision
from connector.delivery.ages import Ages
from connector.delivery.completion import Completion, Durability
from connector.delivery.failures import BackOff, Restamp, TopicFailures
from connector.delivery.lanes import JournaledLanes, Lane, LaneCounts, LaneEntry, Lanes, RowState
from connector.errors import Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Contents, Journal, Note, Oldest
from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.values import ProducibleRecord, Request

REPLAY_WINDOW: Final = 4_096
"""Most rows of the journal that are in memory for replay."""

REPLAY_DEPTH: Final = 32
"""Most rows of one lane that are read ahead."""

_REPLAY_LANES: Final = 64
_UNREADABLE_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.02
_LONGEST_IDLE_SECONDS: Final = 0.1
_FAILED_ROUND_SECONDS: Final = 1.0
_ALONE_SECONDS: Final = 30.0
_STALLED_STOP_SECONDS: Final = 1.0
_LOG = structlog.get_logger("connector.delivery")


class Ledger(Protocol):
    """Counts the outcomes of admissions; the metrics of a running connector."""

    def accepted(self, admission: Admission, *, is_journaled: bool) -> None:
        """It is safe: published, or in the journal."""

    def published(self, admission: Admission) -> None:
        """Every record of it is acknowledged."""

    def published_directly(self, admission: Admission) -> None:
        """It was published without a row in the journal, which therefore cannot count it."""

    def record_published(self, record: ProducibleRecord, seconds: float) -> None:
        """One record is acknowledged, so long after its message began to wait."""

    def journaled(self, admission: Admission) -> None:
        """It waits in the journal."""

    def removed(self, admission: Admission) -> None:
        """It waits in the journal no longer: it is published."""

    def dead_lettered(self, admission: Admission, letter: ProducibleRecord) -> None:
        """Kafka rejected its record, and would again: a dead letter has replaced it."""


MakeDeadLetter = Callable[[Request, tuple[ProducibleRecord, ...], Failure], ProducibleRecord]
"""Makes the dead letter of a message whose record Kafka rejected, and would again."""


def _as_it_is(record: ProducibleRecord) -> ProducibleRecord:
    return record


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the order of a lane, claimed in a shared journal or the next one of this process.

    Attributes:
        sequence: Its number in the order that lane and journal share.
        is_behind_rows: Whether the lane has rows in front of it.
    """

    sequence: int
    is_behind_rows: bool


class Delivery:
    """Publishes admitted messages, in order per lane, through outages and restarts.

    Args:
        publisher: Where records go.
        journal: Where messages wait; already opened.
        contents: What the journal held when it was opened.
        ledger: Counts the outcomes.
        make_dead_letter: Makes dead letters of rejected records.
        restamp: Replaces timestamps that Kafka rejects.
        journaled: Which lanes the journal holds; those of ``contents`` if not given.
        publish_wait_seconds: How long a message waits for Kafka before it goes to the journal.

    Attributes:
        removed: Rows that were removed from the journal since the start.
        is_stalled: Kafka has acknowledged nothing for the publish wait.
        topics_ready: The topics exist, and messages are published.
    """

    def __init__(
        self,
        publisher: Publisher,
        journal: Journal,
        contents: Contents,
        *,
        ledger: Ledger,
        make_dead_letter: MakeDeadLetter,
        publish_wait_seconds: float,
        journaled: JournaledLanes | None = None,
        restamp: Restamp = _as_it_is,
    ) -> None:
        self._publisher = publisher
        self._journal = journal
        self._ledger = ledger
        self._make_dead_letter = make_dead_letter
        self._ages = Ages(contents.next_sequence or None)
        self._publish_wait = publish_wait_seconds
        self._lanes = Lanes(LaneCounts(contents.lanes) if journaled is None else journaled)
        self._next_sequence = contents.next_sequence
        self._loop = asyncio.get_running_loop()
        self._failures = TopicFailures(restamp, self._loop.time)
        self._back_off = BackOff(self._loop.time)
        self._background = supervision.BackgroundTasks()
        self._waiting_since: dict[int, float] = {}
        self._in_flight_count = 0
        self._last_report = self._loop.time()
        self._rows_in_memory = 0
        self._removals_pending: set[int] = set()
        self._removed_since_read: set[int] = set()
        self._written_since_read: set[str] = set()
        self._retry_alone: set[int] = set()
        self._is_publishing_alone = False
        self._work_available = asyncio.Event()
        self._stopping = False
        self._replayer: asyncio.Task[None] | None = None
        self.removed = 0
        self.is_stalled = False
        self.topics_ready = False

    @property
    def is_alive(self) -> bool:
        """Whether replay runs, if it was started."""
        return self._replayer is None or not self._replayer.done()

    @property
    def waiting_rows(self) -> int:
        """Rows in the journal, those about to be written or removed included."""
        return self._lanes.journaled.total

    def waiting_since(self, oldest: Oldest | None) -> float | None:
        """When the oldest unpublished message began to wait, on the monotonic clock; None if there is none.

        Call it every second or so: it samples the sequence, to know when each was drawn.

        Args:
            oldest: The first row of the journal.
        """
        self._ages.sample(self._next_sequence)
        waiting = [] if oldest is None else [self._ages.since_oldest(*oldest)]
        waiting += [*self._waiting_since.values()][:1]
        return min(waiting, default=None)

    @property
    def failing(self) -> dict[str, Failure]:
        """Why Kafka rejects records, by topic, from the delivery reports of the last 30 seconds."""
        return self._failures.recent

    def start_publishing(self) -> None:
        """Publish from now on, since the topics exist. Until then every message goes to the journal."""
        self.topics_ready = True
        if self._replayer is None:
            self._replayer = asyncio.create_task(supervision.run_forever("replay", self._replay))

    def admit(
        self,
        lane: str,
        request: Request,
        records: tuple[ProducibleRecord, ...],
        *,
        note: Note | None = None,
        position: Position | None = None,
    ) -> Completion[Durability]:
        """Fix a message's position in its lane, and publish it or write it to the journal.

        Args:
            lane: What is kept in order: the instance's id.
            request: What was received.
            records: Its records, all of which must be acknowledged.
            note: A number that the journal must keep if, and only if, the message is safe. A message with a note always
                goes through the journal.
            position: What was claimed for it in a shared journal.

        Returns:
            Why the message is safe; its error is :class:`~connector.errors.Unavailable`.
        """
        completion: Completion[Durability] = Completion()
        if position is None:
            position = Position(self._next_sequence, is_behind_rows=False)
            self._next_sequence += 1
        admission = Admission(position.sequence, lane, request, records, note)
        entry = LaneEntry(admission, row=RowState.NONE, completion=completion, since=self._loop.time())
        if note is not None or position.is_behind_rows or self._must_journal(lane):
            self._spill(lane, entry)
        else:
            self._send(lane, entry)
        return completion

    def admit_dead_letter(
        self, request: Request, record: ProducibleRecord, note: Note | None = None
    ) -> Completion[Durability]:
        """Admit a dead letter, in a lane of its own."""
        return self.admit(f"{DEAD_LETTER_LANE}{self._next_sequence}", request, (record,), note=note)

    async def stop(self, deadline_seconds: float) -> None:
        """Flush for at most so long, then write to the journal what is not acknowledged."""
        self._stopping = True
        if self._replayer is not None:
            self._replayer.cancel()
            await asyncio.gather(self._replayer, return_exceptions=True)
        patience = _STALLED_STOP_SECONDS if self.is_stalled else deadline_seconds
        await self._publisher.stop(min(patience, deadline_seconds))
        await self._background.wait()

    def _must_journal(self, lane: str) -> bool:
        closed = self._stopping or self._is_publishing_alone or not self.topics_ready or not self._publisher.is_open
        return closed or self.is_stalled or lane in self._lanes.journaled

    # --- straight to Kafka ---

    def _send(self, name: str, entry: LaneEntry) -> None:
        self._waiting_since[entry.admission.sequence] = entry.since
        entry.timer = self._loop.call_later(self._publish_wait, self._on_publish_wait_elapsed, entry)
        lane = self._lanes.get_or_create(name)
        if lane.in_flight is None:
            self._produce(lane, entry)
        else:
            lane.waiting.append(entry)

    def _produce(self, lane: Lane, entry: LaneEntry) -> None:
        lane.in_flight = entry
        self._in_flight_count += 1
        self._publisher.publish(entry.admission.records, partial(self._reported, lane, entry))

    def _on_publish_wait_elapsed(self, entry: LaneEntry) -> None:
        """The publish wait is over: write the lane to the journal. With no report meanwhile, publishing is stalled."""
        entry.timer = None
        lane = self._lanes.get(entry.admission.lane)
        if lane is not None and lane.in_flight is entry and self._silent_seconds() >= self._publish_wait:
            self._stall()
        self._spill(entry.admission.lane)

    def _stall(self) -> None:
        if not self.is_stalled:
            _LOG.warning("publishing is stalled: messages go to the journal until a delivery report arrives")
        self.is_stalled = True

    def _silent_seconds(self) -> float:
        return self._loop.time() - self._last_report

    def _reported(self, lane: Lane, entry: LaneEntry, failures: Failures) -> None:
        self._in_flight_count -= 1
        lane.in_flight = None
        records = entry.admission.records
        if not any(failures):
            self._count_published(entry, records)
            if records:
                self._delivery_reported()
            self._finish(entry)
        else:
            self._partly_failed(lane, entry, failures)
        self._advance(entry.admission.lane, lane)

    def _partly_failed(self, lane: Lane, entry: LaneEntry, failures: Failures) -> None:
        pairs = [*zip(entry.admission.records, failures, strict=True)]
        published = [record for record, failure in pairs if failure is None]
        self._count_published(entry, published)
        if published:
            self._delivery_reported()
        self._requeue(lane, entry, [(record, failure) for record, failure in pairs if failure is not None])

    def _count_published(self, entry: LaneEntry, records: Sequence[ProducibleRecord]) -> None:
        seconds = self._loop.time() - entry.since
        for record in records:
            self._ledger.record_published(record, seconds)
            self._failures.published(record)

    def _delivery_reported(self) -> None:
        self._last_report = self._loop.time()
        if self.is_stalled:
            self.is_stalled = False
            _LOG.info("publishing goes on")

    def _finish(self, entry: LaneEntry) -> None:
        self._forget(entry)
        self._back_off.end(entry.admission.lane)
        entry.is_published = True
        self._complete_durable(entry, Durability.PUBLISHED)
        self._ledger.published(entry.admission)
        if entry.row is RowState.NONE:
            self._ledger.published_directly(entry.admission)
        elif entry.row is RowState.STORED:  # one that is being written is removed by `_write`
            self._ledger.removed(entry.admission)
            self._removals_pending.add(entry.admission.sequence)
            self._background.start(self._remove(entry.admission))

    def _advance(self, name: str, lane: Lane) -> None:
        """Produce the next message of a lane after a report."""
        if lane.in_flight is None and lane.read_ahead:
            if self._is_publishing_alone or self._stopping or not self._publisher.is_open:
                self._drop_read_ahead(lane)
            else:
                self._produce(lane, lane.read_ahead.pop(0))
        elif lane.in_flight is None and lane.waiting:
            if self._is_publishing_alone or self._stopping:  # a closed publisher reports the message as failed
                self._spill(name)
            else:
                self._produce(lane, lane.waiting.pop(0))
        self._release(name)

    def _release(self, name: str) -> None:
        """Forget the lane if it is idle; replay may find rows of it."""
        self._lanes.release(name)
        self._wake_replay()

    def _wake_replay(self) -> None:
        if self.waiting_rows and not self.is_stalled:
            self._work_available.set()

    def _complete_durable(self, entry: LaneEntry, durability: Durability) -> None:
        """The message is safe: count it once, and complete it."""
        if not entry.is_counted:
            entry.is_counted = True
            self._ledger.accepted(entry.admission, is_journaled=durability is Durability.JOURNALED)
        self._complete(entry, durability)

    @staticmethod
    def _complete(entry: LaneEntry, result: Durability | Unavailable) -> None:
        """Notify the callers; an error of theirs must not stop the lane."""
        try:
            if entry.completion is not None:
                entry.completion.complete(result)
        except Exception:  # noqa: BLE001 - the lane goes on whatever its listeners do
            _LOG.exception("a callback of a completion failed")

    def _forget(self, entry: LaneEntry) -> None:
        self._waiting_since.pop(entry.admission.sequence, None)
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.completion is None:
            self._rows_in_memory -= 1

    # --- into the journal ---

    def _spill(self, name: str, *behind: LaneEntry) -> None:
        """Write what a lane has in memory to the journal, in order, then the entries behind it."""
        lane = self._lanes.get(name)
        entries: list[LaneEntry] = []
        if lane is not None:
            entries += [lane.in_flight] if lane.in_flight is not None else []
            entries += lane.waiting
            lane.waiting.clear()
        for entry in (*entries, *behind):
            if entry.row is RowState.NONE:
                self._start_writing(entry)
        self._release(name)

    def _start_writing(self, entry: LaneEntry) -> None:
        entry.row = RowState.PENDING
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        self._lanes.journaled.add(entry.admission.lane)
        self._background.start(self._write(entry))

    async def _write(self, entry: LaneEntry) -> None:
        admission = entry.admission
        self._waiting_since[admission.sequence] = entry.since
        try:
            await self._journal.admit(admission)
        except Unavailable as refusal:
            self._lanes.journaled.written(admission.lane, is_stored=False)
            entry.row = RowState.NONE
            self._not_written(entry, refusal)
            return
        entry.row = RowState.STORED
        self._lanes.journaled.written(admission.lane, is_stored=True)
        self._written_since_read.add(admission.lane)
        if entry.is_published:
            self._removals_pending.add(admission.sequence)
            await self._remove(admission)
        else:
            self._complete_durable(entry, Durability.JOURNALED)
            self._ledger.journaled(admission)
            self._wake_replay()
        self._waiting_since.pop(admission.sequence, None)

    def _not_written(self, entry: LaneEntry, refusal: Unavailable) -> None:
        """The journal refused it. While it is in flight it may still be published: its completion stays open."""
        lane = self._lanes.get(entry.admission.lane)
        if entry.is_published:
            self._ledger.published_directly(entry.admission)
            return
        if lane is not None and lane.in_flight is entry:
            return
        self._forget(entry)
        self._complete(entry, refusal)

    async def _remove(self, admission: Admission) -> None:
        try:
            await self._journal.remove(admission.sequence)
        except Unavailable:
            return  # the journal has failed for good; its next owner publishes the row again
        self._removals_pending.discard(admission.sequence)
        self._removed_since_read.add(admission.sequence)
        self.removed += 1
        self._lanes.journaled.removed(admission.lane)
        self._wake_replay()

    # --- failed deliveries ---

    def _requeue(self, lane: Lane, entry: LaneEntry, failed: list[tuple[ProducibleRecord, Failure]]) -> None:
        """Put a message whose delivery failed back at the head of its lane, in the journal."""
        admission = entry.admission
        records, failures = self._failures.to_retry(failed), [failure for _, failure in failed]
        is_restamped = any(record is not before for record, (before, _) in zip(records, failed, strict=True))
        _LOG.warning(
            "a delivery failed; the message waits in the journal",
            error=failures[0].name,
            detail=failures[0].detail,
            topic=records[0].topic,
            **({"timestamp": "replaced by the current time"} if is_restamped else {}),
        )
        if is_restamped:
            self._back_off.end(admission.lane)
        is_changed = is_restamped or len(records) < len(admission.records)
        entry.admission = msgspec.structs.replace(admission, records=records)
        self._drop_read_ahead(lane)
        self._forget(entry)
        if any(failure.kind is FailureKind.REJECTED_BY_BROKER for failure in failures):
            self._retry_alone.add(admission.sequence)
        self._back_off.failed(admission.lane)
        if entry.row is RowState.NONE:
            lane.waiting.insert(0, entry)
            self._spill(admission.lane)
        elif is_changed:
            self._background.start(self._amend(entry.admission))

    async def _amend(self, admission: Admission) -> None:
        with contextlib.suppress(Unavailable):  # the next owner publishes the acknowledged records once more
            await self._journal.amend(admission)

    def _drop_read_ahead(self, lane: Lane) -> None:
        self._rows_in_memory -= len(lane.read_ahead)
        lane.read_ahead.clear()

    # --- replay ---

    async def _replay(self) -> None:
        """Read the journaled lanes in rounds, a few rows of each, while there is room in memory."""
        while True:
            self._work_available.clear()
            started = await self._safe_round()
            if not started:
                await asyncio.sleep(_PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LONGEST_IDLE_SECONDS):
                        await self._work_available.wait()

    async def _safe_round(self) -> int:
        """One round; an error in it does not end replay."""
        try:
            return await self._round()
        except Exception:  # noqa: BLE001 - accepted messages must not wait for a restart
            _LOG.exception("a round of replay failed")
            await asyncio.sleep(_FAILED_ROUND_SECONDS)
            return 0

    async def _round(self) -> int:
        """Start the first rows of each journaled lane that is neither busy nor backing off; returns how many."""
        after = ""
        started = 0
        self._forget_changes()
        while self._can_replay():
            first_rows = await self._read_first_rows(after)
            for rows in first_rows:
                started += await self._start_replaying(rows)
            if len(first_rows) < _REPLAY_LANES:
                break
            after = first_rows[-1][0].lane
            self._forget_changes()
        return started

    def _forget_changes(self) -> None:
        """Before a read, and in every round, so that they are few also while nothing may be read."""
        self._removed_since_read.clear()
        self._written_since_read.clear()

    def _can_replay(self) -> bool:
        has_room = self._rows_in_memory < REPLAY_WINDOW and not self._back_off.is_full
        return has_room and self._publisher.is_open and self.waiting_rows > 0

    async def _read_first_rows(self, after: str) -> list[list[Admission]]:
        try:
            return await self._journal.first_rows(
                after, _REPLAY_LANES, REPLAY_DEPTH, self._lanes.busy_names | self._back_off.waiting
            )
        except Unavailable:
            await asyncio.sleep(_UNREADABLE_SECONDS)
            return []

    async def _start_replaying(self, rows: list[Admission]) -> int:
        """Start publishing rows of a lane, unless it became busy since they were read; returns how many were taken."""
        name = rows[0].lane
        fresh = [
            row
            for row in rows
            if row.sequence not in self._removals_pending and row.sequence not in self._removed_since_read
        ]
        is_busy = self._lanes.get(name) is not None or self._lanes.journaled.may_insert_before(name)
        # What was written after the read may belong in front of what was read: in a shared journal, numbers are given
        # before rows are written.
        is_busy = is_busy or name in self._written_since_read
        # A row that failed may be in Kafka all the same: published again, it is a repeated tail. That waits until the
        # removals of the published rows in front of it are on the disk. Otherwise a crash could lose the removals, and
        # the restart would publish those rows again, behind the repeated tail although they belong in front of it.
        is_busy = is_busy or (name in self._back_off and rows[0].sequence in self._removals_pending)
        if not fresh or is_busy or not self._publisher.is_open:
            return 0
        lane = self._lanes.get_or_create(name)
        entries = [self._entry(row) for row in fresh]
        self._rows_in_memory += len(entries)
        if fresh[0].sequence in self._retry_alone:
            self._rows_in_memory -= len(entries) - 1
            await self._publish_alone(lane, entries[0])
            return 1
        lane.read_ahead.extend(entries[1:])
        self._produce(lane, entries[0])
        return len(entries)

    def _entry(self, row: Admission) -> LaneEntry:
        since = self._ages.since(row.sequence, row.request.waits_since)
        return LaneEntry(self._failures.to_replay(row), row=RowState.STORED, completion=None, since=since)

    # --- records published alone ---

    async def _publish_alone(self, lane: Lane, entry: LaneEntry) -> None:
        """Publish a record with nothing else in flight: then a rejection is about no other of its batch."""
        lane.in_flight = entry
        self._is_publishing_alone = True
        try:
            async with asyncio.timeout(_ALONE_SECONDS):
                while self._in_flight_count:  # noqa: ASYNC110 - rare, and a count needs no event of its own
                    await asyncio.sleep(0.005)
                failures = [(await self._one_report(record))[0] for record in entry.admission.records]
        except TimeoutError:
            failures = [Failure(FailureKind.UNCERTAIN, "_TIMED_OUT", "no report")] * len(entry.admission.records)
        finally:
            self._is_publishing_alone = False
        self._retry_alone.discard(entry.admission.sequence)
        rejections = [one for one in failures if one is not None and one.kind is FailureKind.REJECTED_BY_BROKER]
        if rejections:
            await self._rejected_alone(lane, entry, rejections[0])
        else:
            self._in_flight_count += 1
            self._reported(lane, entry, tuple(failures))

    async def _one_report(self, record: ProducibleRecord) -> Failures:
        reported: Completion[Failures] = Completion()
        self._publisher.publish((record,), reported.complete)
        return await reported

    async def _rejected_alone(self, lane: Lane, entry: LaneEntry, failure: Failure) -> None:
        admission = entry.admission
        lane.in_flight = None
        self._forget(entry)
        if admission.is_dead_letter:
            _LOG.error("Kafka rejects a dead letter; it stays in the journal", error=failure.name)
            self._back_off.rejected(admission.lane)
        else:
            letter = self._make_dead_letter(admission.request, admission.records, failure)
            dead_letter_lane = f"{DEAD_LETTER_LANE}{admission.sequence}"
            self._lanes.journaled.add(dead_letter_lane)
            await self._journal.amend(Admission(admission.sequence, dead_letter_lane, admission.request, (letter,)))
            self._lanes.journaled.written(dead_letter_lane, is_stored=True)
            self._lanes.journaled.removed(admission.lane)
            self._ledger.dead_lettered(admission, letter)
        self._release(admission.lane)
