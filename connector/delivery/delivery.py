"""From admission to published: straight to Kafka, or through the journal and replay.

A message goes to the publisher when its lane is free. If Kafka has not acknowledged it after the publish wait, it is
written to the journal and thereby safe. While nothing at all is acknowledged the publisher is *stalled*, and messages
go to the journal at once. A failed delivery counts as possibly persisted: the message goes to the journal and is
published again from the head of its lane. Replay takes the first rows of the journaled lanes round-robin, so that a
busy instance does not delay the others, and removes each row once its records are acknowledged.

Everything here runs on the event loop; only the publisher and the journal have threads.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import structlog

from connector import supervision
from connector.delivery.ages import Ages
from connector.delivery.completion import Completion, Durability
from connector.delivery.lanes import Entry, JournaledLanes, Lane, LaneCounts, Lanes, Row
from connector.errors import Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Contents, Journal, Note, Oldest
from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.values import ProducibleRecord, Request

REPLAY_WINDOW: Final = 4_096
"""Most rows of the journal that are in memory for replay."""

REPLAY_DEPTH: Final = 32
"""Most rows of one lane that are read ahead."""

_REPLAY_LANES: Final = 64
_MAX_BACKING_OFF: Final = 10_000
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02
_LONGEST_IDLE_SECONDS: Final = 0.1
_FAILED_ROUND_SECONDS: Final = 1.0
_ALONE_SECONDS: Final = 30.0
_FAILING_SECONDS: Final = 30.0  # what is refused is tried again more often than that
_STALLED_STOP_SECONDS: Final = 1.0
_LOG = structlog.get_logger("connector.delivery")


class Ledger(Protocol):
    """Counts the outcomes of admissions; the metrics of a running connector."""

    def accepted(self, admission: Admission) -> None:
        """It is safe: published or in the journal."""

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

    def dead_lettered(self, admission: Admission, failure: Failure) -> None:
        """Kafka refused its record, and would again: a dead letter has replaced it."""


MakeDeadLetter = Callable[[Request, tuple[ProducibleRecord, ...], Failure], ProducibleRecord]
"""Makes the dead letter of a message whose record Kafka refused, and would again."""


Restamp = Callable[[ProducibleRecord], ProducibleRecord]
"""Gives a record a timestamp that its topic takes; returns the same record if its timestamp is not the problem."""


def _as_it_is(record: ProducibleRecord) -> ProducibleRecord:
    return record


@dataclass(frozen=True, slots=True)
class Reservation:
    """A position in a lane that a shared journal has given.

    Attributes:
        sequence: The position, in the order that lane and journal share.
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
        make_dead_letter: Makes dead letters of refused records.
        restamp: Replaces timestamps that Kafka refuses.
        journaled: Which lanes the journal holds; those of ``contents`` if not given.
        publish_wait_seconds: How long a message waits for Kafka before it goes to the journal.

    Attributes:
        removed: Rows that were removed from the journal since the start.
        is_stalled: Kafka has acknowledged nothing for the publish wait.
        is_connected: The topics exist.
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
        self._restamp = restamp
        self._ages = Ages(contents.next_sequence or None)
        self._failing: dict[str, tuple[float, Failure]] = {}
        self._restamps_until = 0.0
        self._publish_wait = publish_wait_seconds
        self._lanes = Lanes(LaneCounts(contents.lanes) if journaled is None else journaled)
        self._next_sequence = contents.next_sequence
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_since: dict[int, float] = {}
        self._in_flight_count = 0
        self._last_report = self._loop.time()
        self._rows_in_memory = 0
        self._removals_pending: set[int] = set()
        self._removed_since_read: set[int] = set()
        self._backing_off: dict[str, tuple[float, int]] = {}
        self._retry_alone: set[int] = set()
        self._is_isolating = False
        self._work_available = asyncio.Event()
        self._stopping = False
        self._replayer: asyncio.Task[None] | None = None
        self.removed = 0
        self.is_stalled = False
        self.is_connected = False

    @property
    def lives(self) -> bool:
        """Whether replay runs, if it was started."""
        return self._replayer is None or not self._replayer.done()

    @property
    def waiting_rows(self) -> int:
        """Rows in the journal, those about to be written or removed included."""
        return self._lanes.journaled.total

    def waiting_since(self, oldest: Oldest | None) -> float | None:
        """When the oldest unpublished message began to wait, on the monotonic clock; None if there is none.

        Call it every second or so: it notes which sequences were drawn when.

        Args:
            oldest: The first row of the journal.
        """
        self._ages.look(self._next_sequence)
        waiting = [] if oldest is None else [self._ages.since_oldest(*oldest)]
        waiting += [*self._waiting_since.values()][:1]
        return min(waiting, default=None)

    @property
    def failing(self) -> dict[str, Failure]:
        """Why Kafka refuses records, by topic, from the delivery reports of the last 30 seconds."""
        now = self._loop.time()
        return {topic: failure for topic, (at, failure) in self._failing.items() if now - at < _FAILING_SECONDS}

    def connect(self) -> None:
        """Publish from now on, since the topics exist. Until then every message goes to the journal."""
        self.is_connected = True
        if self._replayer is None:
            self._replayer = asyncio.create_task(supervision.forever("replay", self._replay))

    def admit(
        self,
        lane: str,
        request: Request,
        records: tuple[ProducibleRecord, ...],
        *,
        note: Note | None = None,
        reservation: Reservation | None = None,
    ) -> Completion[Durability]:
        """Fix a message's position in its lane, and publish it or write it to the journal.

        Args:
            lane: What is kept in order: the instance's id.
            request: What was received.
            records: Its records, all of which must be acknowledged.
            note: A number that the journal must keep if, and only if, the message is safe. A message with a note always
                goes through the journal.
            reservation: Its position, if a shared journal has given one.

        Returns:
            Why the message is safe; its error is :class:`~connector.errors.Unavailable`.
        """
        completion: Completion[Durability] = Completion()
        if reservation is None:
            reservation = Reservation(self._next_sequence, is_behind_rows=False)
            self._next_sequence += 1
        admission = Admission(reservation.sequence, lane, request, records, note)
        entry = Entry(admission, row=Row.NONE, completion=completion, since=self._loop.time())
        if note is not None or reservation.is_behind_rows or self._must_journal(lane):
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
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _must_journal(self, lane: str) -> bool:
        closed = self._stopping or self._is_isolating or not self.is_connected or not self._publisher.is_open
        return closed or self.is_stalled or lane in self._lanes.journaled

    # --- straight to Kafka ---

    def _send(self, name: str, entry: Entry) -> None:
        self._waiting_since[entry.admission.sequence] = entry.since
        entry.timer = self._loop.call_later(self._publish_wait, self._overdue, entry)
        lane = self._lanes.busy(name)
        if lane.in_flight is None:
            self._produce(lane, entry)
        else:
            lane.waiting.append(entry)

    def _produce(self, lane: Lane, entry: Entry) -> None:
        lane.in_flight = entry
        self._in_flight_count += 1
        self._publisher.publish(entry.admission.records, partial(self._reported, lane, entry))

    def _overdue(self, entry: Entry) -> None:
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

    def _reported(self, lane: Lane, entry: Entry, failures: Failures) -> None:
        self._in_flight_count -= 1
        lane.in_flight = None
        records = entry.admission.records
        if not any(failures):
            self._count_published(entry, records)
            if records:
                self._note_progress()
            self._finish(entry)
        else:
            self._partly_failed(lane, entry, failures)
        self._advance(entry.admission.lane, lane)

    def _partly_failed(self, lane: Lane, entry: Entry, failures: Failures) -> None:
        pairs = [*zip(entry.admission.records, failures, strict=True)]
        published = [record for record, failure in pairs if failure is None]
        self._count_published(entry, published)
        if published:
            self._note_progress()
        self._retry(lane, entry, [(record, failure) for record, failure in pairs if failure is not None])

    def _count_published(self, entry: Entry, records: Sequence[ProducibleRecord]) -> None:
        seconds = self._loop.time() - entry.since
        for record in records:
            self._ledger.record_published(record, seconds)
            if self._failing:
                self._failing.pop(record.topic, None)

    def _note_progress(self) -> None:
        self._last_report = self._loop.time()
        if self.is_stalled:
            self.is_stalled = False
            _LOG.info("publishing goes on")

    def _finish(self, entry: Entry) -> None:
        self._forget(entry)
        self._backing_off.pop(entry.admission.lane, None)
        entry.is_published = True
        self._settle(entry, Durability.PUBLISHED)
        self._ledger.published(entry.admission)
        if entry.row is Row.NONE:
            self._ledger.published_directly(entry.admission)
        elif entry.row is Row.STORED:
            self._ledger.removed(entry.admission)
            self._removals_pending.add(entry.admission.sequence)
            self._background(self._remove(entry.admission))

    def _advance(self, name: str, lane: Lane) -> None:
        """Produce the next message of a lane after a report."""
        if lane.in_flight is None and lane.read_ahead:
            if self._is_isolating or self._stopping or not self._publisher.is_open:
                self._drop_read_ahead(lane)
            else:
                self._produce(lane, lane.read_ahead.pop(0))
        elif lane.in_flight is None and lane.waiting:
            if self._is_isolating or self._stopping:
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

    def _settle(self, entry: Entry, durability: Durability) -> None:
        """The message is safe: count it once, and complete it."""
        if not entry.is_counted:
            entry.is_counted = True
            self._ledger.accepted(entry.admission)
        self._complete(entry, durability)

    @staticmethod
    def _complete(entry: Entry, result: Durability | Unavailable) -> None:
        """Tell the callers; an error of theirs must not stop the lane."""
        try:
            if entry.completion is not None:
                entry.completion.complete(result)
        except Exception:  # noqa: BLE001 - the lane goes on whatever its listeners do
            _LOG.exception("a callback of a completion failed")

    def _forget(self, entry: Entry) -> None:
        self._waiting_since.pop(entry.admission.sequence, None)
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.completion is None:
            self._rows_in_memory -= 1

    # --- into the journal ---

    def _spill(self, name: str, *behind: Entry) -> None:
        """Write what a lane has in memory to the journal, in order, then the entries behind it."""
        lane = self._lanes.get(name)
        entries: list[Entry] = []
        if lane is not None:
            entries += [lane.in_flight] if lane.in_flight is not None else []
            entries += lane.waiting
            lane.waiting.clear()
        for entry in (*entries, *behind):
            if entry.row is Row.NONE:
                self._store(entry)
        self._release(name)

    def _store(self, entry: Entry) -> None:
        entry.row = Row.PENDING
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        self._lanes.journaled.add(entry.admission.lane)
        self._background(self._keep(entry))

    async def _keep(self, entry: Entry) -> None:
        admission = entry.admission
        self._waiting_since[admission.sequence] = entry.since
        try:
            await self._journal.admit(admission)
        except Unavailable as refusal:
            self._lanes.journaled.written(admission.lane, is_stored=False)
            entry.row = Row.NONE
            self._refuse(entry, refusal)
            return
        entry.row = Row.STORED
        self._lanes.journaled.written(admission.lane, is_stored=True)
        if entry.is_published:
            self._removals_pending.add(admission.sequence)
            await self._remove(admission)
        else:
            self._settle(entry, Durability.JOURNALED)
            self._ledger.journaled(admission)
            self._wake_replay()
        self._waiting_since.pop(admission.sequence, None)

    def _refuse(self, entry: Entry, refusal: Unavailable) -> None:
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

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- failed deliveries ---

    def _retry(self, lane: Lane, entry: Entry, failed: list[tuple[ProducibleRecord, Failure]]) -> None:
        """Put a message whose delivery failed back at the head of its lane, in the journal."""
        admission = entry.admission
        records, failures = self._still_open(failed), [failure for _, failure in failed]
        is_restamped = any(record is not before for record, (before, _) in zip(records, failed, strict=True))
        _LOG.warning(
            "a delivery failed; the message waits in the journal",
            error=failures[0].name,
            detail=failures[0].detail,
            topic=records[0].topic,
            **({"timestamp": "replaced by the current time"} if is_restamped else {}),
        )
        if is_restamped:
            self._backing_off.pop(admission.lane, None)
        is_changed = is_restamped or len(records) < len(admission.records)
        entry.admission = msgspec.structs.replace(admission, records=records)
        self._drop_read_ahead(lane)
        self._forget(entry)
        if any(failure.kind is FailureKind.REFUSED for failure in failures):
            self._retry_alone.add(admission.sequence)
        self._back_off(admission.lane)
        if entry.row is Row.NONE:
            lane.waiting.insert(0, entry)
            self._spill(admission.lane)
        elif is_changed:
            self._background(self._amend(entry.admission))

    def _still_open(self, failed: list[tuple[ProducibleRecord, Failure]]) -> tuple[ProducibleRecord, ...]:
        """The records to publish again, with other timestamps where those were refused."""
        for record, failure in failed:
            if failure.is_of_topic:
                self._failing[record.topic] = self._loop.time(), failure
            if failure.kind is FailureKind.TIMESTAMP:
                self._restamps_until = self._loop.time() + _FAILING_SECONDS
        return tuple(
            self._restamp(record) if failure.kind is FailureKind.TIMESTAMP else record for record, failure in failed
        )

    async def _amend(self, admission: Admission) -> None:
        with contextlib.suppress(Unavailable):  # the next owner publishes the acknowledged records once more
            await self._journal.amend(admission)

    def _back_off(self, name: str) -> None:
        """Do not replay a lane for a while, longer each time."""
        attempts = self._backing_off.get(name, (0.0, 0))[1]
        seconds = min(_FIRST_BACKOFF_SECONDS * 2**attempts, _MAX_BACKOFF_SECONDS)
        if len(self._backing_off) < _MAX_BACKING_OFF:
            until = self._loop.time() + seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
            self._backing_off[name] = (until, min(attempts + 1, 16))

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
        while self._can_replay():
            self._removed_since_read.clear()
            first_rows = await self._read_first_rows(after)
            for rows in first_rows:
                started += await self._take(rows)
            if len(first_rows) < _REPLAY_LANES:
                break
            after = first_rows[-1][0].lane
        return started

    @property
    def _backing_off_names(self) -> frozenset[str]:
        now = self._loop.time()
        return frozenset(name for name, (until, _) in self._backing_off.items() if until > now)

    def _can_replay(self) -> bool:
        if len(self._backing_off) >= _MAX_BACKING_OFF:
            now = self._loop.time()
            self._backing_off = {name: rest for name, rest in self._backing_off.items() if rest[0] > now}
        has_room = self._rows_in_memory < REPLAY_WINDOW and len(self._backing_off) < _MAX_BACKING_OFF
        return has_room and self._publisher.is_open and self.waiting_rows > 0

    async def _read_first_rows(self, after: str) -> list[list[Admission]]:
        try:
            return await self._journal.first_rows(
                after, _REPLAY_LANES, REPLAY_DEPTH, self._lanes.busy_names | self._backing_off_names
            )
        except Unavailable:
            await asyncio.sleep(_FIRST_BACKOFF_SECONDS)
            return []

    async def _take(self, rows: list[Admission]) -> int:
        """Start publishing rows of a lane, unless it became busy since they were read; returns how many were taken."""
        name = rows[0].lane
        fresh = [
            row
            for row in rows
            if row.sequence not in self._removals_pending and row.sequence not in self._removed_since_read
        ]
        is_busy = self._lanes.get(name) is not None or self._lanes.journaled.may_grow_in_front(name)
        # A row that failed may be in Kafka all the same: published again, it is a repeated tail. That waits until the
        # removals of the published rows in front of it are on the disk. Otherwise a crash could lose the removals, and
        # the restart would publish those rows again, behind the repeated tail although they belong in front of it.
        is_busy = is_busy or (name in self._backing_off and rows[0].sequence in self._removals_pending)
        if not fresh or is_busy or not self._publisher.is_open:
            return 0
        lane = self._lanes.busy(name)
        entries = [self._entry(row) for row in fresh]
        self._rows_in_memory += len(entries)
        if fresh[0].sequence in self._retry_alone:
            self._rows_in_memory -= len(entries) - 1
            await self._publish_alone(lane, entries[0])
            return 1
        lane.read_ahead.extend(entries[1:])
        self._produce(lane, entries[0])
        return len(entries)

    def _entry(self, row: Admission) -> Entry:
        """The entry of a row; while Kafka refuses timestamps, its records may get others."""
        since = self._ages.since(row.sequence, row.request.waits_since)
        if self._loop.time() < self._restamps_until:
            row = msgspec.structs.replace(row, records=tuple(map(self._restamp, row.records)))
        return Entry(row, row=Row.STORED, completion=None, since=since)

    async def _publish_alone(self, lane: Lane, entry: Entry) -> None:
        """Publish a record with nothing else in flight: then a refusal is about this record, not about a batch."""
        lane.in_flight = entry
        self._is_isolating = True
        try:
            async with asyncio.timeout(_ALONE_SECONDS):
                while self._in_flight_count:  # noqa: ASYNC110 - rare, and a count needs no event of its own
                    await asyncio.sleep(0.005)
                failures = [(await self._one_report(record))[0] for record in entry.admission.records]
        except TimeoutError:
            failures = [Failure(FailureKind.UNCERTAIN, "_TIMED_OUT", "no report")] * len(entry.admission.records)
        finally:
            self._is_isolating = False
        self._retry_alone.discard(entry.admission.sequence)
        refusals = [one for one in failures if one is not None and one.kind is FailureKind.REFUSED]
        if refusals:
            await self._refused_alone(lane, entry, refusals[0])
        else:
            self._in_flight_count += 1
            self._reported(lane, entry, tuple(failures))

    async def _one_report(self, record: ProducibleRecord) -> Failures:
        reported: Completion[Failures] = Completion()
        self._publisher.publish((record,), reported.complete)
        return await reported

    async def _refused_alone(self, lane: Lane, entry: Entry, failure: Failure) -> None:
        admission = entry.admission
        lane.in_flight = None
        self._forget(entry)
        if admission.is_dead_letter:
            _LOG.error("Kafka refuses a dead letter; it stays in the journal", error=failure.name)
            self._backing_off[admission.lane] = (self._loop.time() + _MAX_BACKOFF_SECONDS, 16)
        else:
            letter = self._make_dead_letter(admission.request, admission.records, failure)
            dead_letter_lane = f"{DEAD_LETTER_LANE}{admission.sequence}"
            self._lanes.journaled.add(dead_letter_lane)
            await self._journal.amend(Admission(admission.sequence, dead_letter_lane, admission.request, (letter,)))
            self._lanes.journaled.written(dead_letter_lane, is_stored=True)
            self._lanes.journaled.removed(admission.lane)
            self._ledger.dead_lettered(admission, failure)
        self._release(admission.lane)
