"""Publishes admitted messages: straight to Kafka, or through the journal and replay.

- A message goes to the publisher when its lane is free. If Kafka does not acknowledge it within the publish wait, it is
  written to the journal, which makes it safe. It stays with librdkafka: a later acknowledgement removes its row.
- While Kafka acknowledges nothing at all, publishing is *stalled*: messages go to the journal at once.
- A message whose delivery failed goes to the journal and is published again, ahead of everything behind it in its lane.
  Unless it was rejected, it counts as one that Kafka may have. If the journal refuses it then, it is *held* at the
  head of its lane, and published again from memory.
- `connector.delivery.replay` reads the rows of the journal. A row is removed once all its records are acknowledged.
- A record that Kafka rejects is published once more, alone (`connector.delivery.alone`). If Kafka rejects it again, a
  dead letter takes its place.

The rules of order are in `connector.delivery.lanes`; comments here and in `connector.delivery.replay` say where each is
enforced. All of this runs on the event loop; only the publisher and the journal have threads.
"""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog

from connector import supervision
from connector.delivery.ages import Ages
from connector.delivery.alone import AlonePublisher
from connector.delivery.completion import Completion, Durability
from connector.delivery.failures import BackOff, Restamp, TopicFailures
from connector.delivery.lanes import JournaledLanes, Lane, LaneCounts, LaneEntry, Lanes, RowState
from connector.delivery.replay import Replay
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Contents, Journal, Oldest, outcome_unknown
from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.values import ProducibleRecord, Request

_STALLED_STOP_SECONDS: Final = 1.0
_HOLD_SECONDS: Final = 0.5
_LAST_WRITES_SECONDS: Final = 3.0
_LOG = structlog.get_logger()


class Ledger(Protocol):
    """Counts the outcomes of admissions; the metrics of a running connector."""

    def accepted(self, admission: Admission, *, is_journaled: bool) -> None:
        """The message is safe: published, or in the journal."""

    def published(self, admission: Admission) -> None:
        """Every record of the message is acknowledged."""

    def published_directly(self, admission: Admission) -> None:
        """The message was published without a row in the journal, so the journal cannot count it."""

    def record_published(self, record: ProducibleRecord, seconds: float) -> None:
        """One record is acknowledged, this many seconds after its message was admitted."""

    def journaled(self, admission: Admission) -> None:
        """The message now waits in the journal."""

    def removed(self, admission: Admission) -> None:
        """The message no longer waits in the journal: it is published."""

    def dead_lettered(self, admission: Admission, letter: ProducibleRecord) -> None:
        """Kafka rejected a record for its own sake; a dead letter has taken the message's place."""


MakeDeadLetter = Callable[[Request, tuple[ProducibleRecord, ...], Failure], ProducibleRecord]
"""Makes the dead letter of a message, from its request, the records that Kafka lacks, and the rejection."""


def _as_it_is(record: ProducibleRecord) -> ProducibleRecord:
    return record


class Delivery:
    """Publishes admitted messages, in order per lane, through outages and restarts.

    Args:
        publisher: Produces records and reports what became of them.
        journal: Keeps messages until they are published; already open.
        contents: What the journal held when it was opened.
        ledger: Counts the outcomes.
        make_dead_letter: Makes the dead letter of a message whose record Kafka rejected.
        restamp: Replaces timestamps that Kafka rejects.
        journaled: Which lanes have rows in the journal; by default those of ``contents``.
        publish_wait_seconds: How long a message waits for Kafka before it is written to the journal.

    Attributes:
        removed: Rows that were removed from the journal since the start.
        is_stalled: Kafka has acknowledged nothing for as long as the publish wait.
        topics_ready: The topics exist. Until then every message goes to the journal.
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
        self._ages = Ages(contents.next_sequence)
        self._publish_wait = publish_wait_seconds
        self._lanes = Lanes(LaneCounts(contents.lanes) if journaled is None else journaled)
        self._loop = asyncio.get_running_loop()
        self._topic_failures = TopicFailures(restamp, self._loop.time)
        self._back_off = BackOff(self._loop.time)
        self._background = supervision.BackgroundTasks()
        self._alone = AlonePublisher(publisher, lambda: self._in_flight_count, self._background)
        self._replay = Replay(
            journal,
            self._lanes,
            self._back_off,
            is_open=lambda: publisher.is_open,
            publish_rows=self._publish_rows,
        )
        self._in_memory_since: dict[int, float] = {}
        self._in_flight_count = 0
        self._last_sequence = 0
        self._last_acknowledgement = self._loop.time()
        self._stopping = False
        self.removed = 0
        self.is_stalled = False
        self.topics_ready = False

    @property
    def is_alive(self) -> bool:
        """False if replay was started and has ended."""
        return self._replay.is_alive

    @property
    def waiting_rows(self) -> int:
        """Rows in the journal, including those that are being written or removed."""
        return self._lanes.journaled.total

    def waiting_since(self, oldest: Oldest | None) -> float | None:
        """When the oldest unpublished message began to wait, on the monotonic clock; None if all are published.

        Call it every second or so: each call samples the sequence, by which ages are known.

        Args:
            oldest: The first row of the journal.
        """
        self._ages.sample(self._last_sequence)
        waiting = [] if oldest is None else [self._ages.since_oldest(*oldest)]
        waiting += [*self._in_memory_since.values()][:1]
        return min(waiting, default=None)

    @property
    def failing(self) -> dict[str, Failure]:
        """Why Kafka rejects records, by topic, from the delivery reports of the last 30 seconds."""
        return self._topic_failures.recent

    def start_publishing(self) -> None:
        """Publish from now on: the topics exist."""
        self.topics_ready = True
        self._replay.start()

    def admit(self, admission: Admission, *, lane_has_rows: bool = False) -> Completion[Durability]:
        """Publish a message in its lane, behind those that were admitted before it, or write it to the journal.

        Args:
            admission: The message and its position, which `connector.delivery.order` has fixed. One with a note always
                gets a row.
            lane_has_rows: Whether the claim of the position in a shared journal found rows in front of it. Those of a
                local journal are counted here.

        Returns:
            Why the message is safe. The error is ``Unavailable`` if nothing of it is kept, and ``OutcomeUnknown`` if
            Kafka may have some of its records.
        """
        completion: Completion[Durability] = Completion()
        self._last_sequence, lane = admission.sequence, admission.lane
        entry = LaneEntry(admission, row=RowState.NONE, completion=completion, since=self._loop.time())
        if admission.note is not None or lane_has_rows or self._must_journal(lane):
            self._spill(lane, entry)
        else:
            self._send(lane, entry)
        return completion

    async def stop(self, deadline_seconds: float) -> None:
        """Flush the publisher, then write to the journal whatever Kafka has not acknowledged within the deadline."""
        self._stopping = True
        ends = self._loop.time() + deadline_seconds
        await self._replay.stop()
        # The publisher reports what it could not flush as failed, and a failed message goes to the journal.
        limit = _STALLED_STOP_SECONDS if self.is_stalled else deadline_seconds
        await self._publisher.stop(min(limit, deadline_seconds))
        for name in self._lanes.busy_names:  # messages that are held
            self._spill(name)
        # Closing the journal ends what waits for a failing disk; all that is accepted is safe.
        await self._background.wait(max(ends - self._loop.time(), _LAST_WRITES_SECONDS))

    def _must_journal(self, lane: str) -> bool:
        closed = self._stopping or self._alone.is_active or not self.topics_ready or not self._publisher.is_open
        # A lost journal refuses the message. Its copy, which a restart uses, may still have rows of the lane.
        closed = closed or self.is_stalled or bool(self._journal.lost_reason)
        return closed or self._lanes.journaled.needs_row(lane)  # rule 2

    # --- straight to Kafka ---

    def _send(self, name: str, entry: LaneEntry) -> None:
        self._in_memory_since[entry.admission.sequence] = entry.since
        entry.timer = self._loop.call_later(self._publish_wait, self._on_publish_wait_elapsed, entry)
        lane = self._lanes.get_or_create(name)
        if lane.head is None:
            self._produce(lane, entry)
        else:
            lane.waiting.append(entry)  # rule 1

    def _produce(self, lane: Lane, entry: LaneEntry) -> None:
        lane.head = entry
        self._in_flight_count += 1
        self._publisher.publish(entry.admission.records, partial(self._reported, lane, entry))

    def _on_publish_wait_elapsed(self, entry: LaneEntry) -> None:
        """Write the lane to the journal; publishing is stalled if nothing was acknowledged during the wait."""
        entry.timer = None
        lane = self._lanes.get(entry.admission.lane)
        if lane is not None and lane.head is entry and self._silent_seconds() >= self._publish_wait:
            self._stall()
        self._spill(entry.admission.lane)

    def _stall(self) -> None:
        if not self.is_stalled:
            _LOG.warning("publishing is stalled: messages go to the journal until Kafka acknowledges a record")
        self.is_stalled = True

    def _silent_seconds(self) -> float:
        return self._loop.time() - self._last_acknowledgement

    def _reported(self, lane: Lane, entry: LaneEntry, failures: Failures) -> None:
        self._in_flight_count -= 1
        lane.head = None
        failed = self._record_reports(entry, failures)
        if failed:
            self._requeue(lane, entry, failed)
        else:
            self._finish(entry)
        self._advance(entry.admission.lane, lane)

    def _record_reports(self, entry: LaneEntry, failures: Failures) -> list[tuple[ProducibleRecord, Failure]]:
        """Count the acknowledged records, and end a stall; return the others, each with its failure."""
        seconds = self._loop.time() - entry.since
        failed = []
        for record, failure in zip(entry.admission.records, failures, strict=True):
            if failure is None:
                self._ledger.record_published(record, seconds)
                self._topic_failures.published(record)
            else:
                failed.append((record, failure))
        if len(failed) < len(failures):
            self._acknowledged()
        return failed

    def _acknowledged(self) -> None:
        self._last_acknowledgement = self._loop.time()
        if self.is_stalled:
            self.is_stalled = False
            _LOG.info("publishing goes on")

    def _finish(self, entry: LaneEntry) -> None:
        self._stop_waiting(entry)
        self._back_off.end(entry.admission.lane)
        entry.is_published = True
        self._complete_durable(entry, Durability.PUBLISHED)
        self._ledger.published(entry.admission)
        if entry.row is RowState.NONE:
            self._ledger.published_directly(entry.admission)
        elif entry.row is RowState.STORED:  # one that is being written is removed by `_write`
            self._ledger.removed(entry.admission)
            self._replay.row_published(entry.admission.sequence)
            self._background.start(self._remove(entry.admission))

    def _advance(self, name: str, lane: Lane) -> None:
        """Produce the next message of a lane, after the report about the one before (rule 1)."""
        if lane.head is None and lane.read_ahead:
            if self._alone.is_active or self._stopping or not self._publisher.is_open:
                self._lanes.drop_read_ahead(lane)
            else:
                self._produce(lane, lane.read_ahead.pop(0))
        elif lane.head is None and lane.waiting:
            # A closed publisher reports the message as failed, which makes it a row.
            if self._alone.is_active or self._stopping:
                self._spill(name)
            else:
                self._produce(lane, lane.waiting.pop(0))
        self._forget_if_idle(name)

    def _forget_if_idle(self, name: str) -> None:
        """Forget the lane if nothing of it is in memory; from then on replay may read its rows."""
        self._lanes.forget_if_idle(name)
        self._wake_replay()

    def _wake_replay(self) -> None:
        if not self.is_stalled:  # else replay looks by itself, several times a second
            self._replay.wake()

    def _complete_durable(self, entry: LaneEntry, durability: Durability) -> None:
        """Complete a message as safe, and count it the first time."""
        if not entry.is_counted:
            entry.is_counted = True
            self._ledger.accepted(entry.admission, is_journaled=durability is Durability.JOURNALED)
        self._complete(entry, durability)

    @staticmethod
    def _complete(entry: LaneEntry, result: Durability | Unavailable) -> None:
        """Run the callbacks; an error in one must not stop the lane."""
        try:
            if entry.completion is not None:
                entry.completion.complete(result)
        except Exception:  # noqa: BLE001 - the lane goes on whatever its listeners do
            _LOG.exception("a callback of a completion failed")

    def _stop_waiting(self, entry: LaneEntry) -> None:
        """The entry no longer waits for Kafka: end its timer, and if replay read it, its place in memory."""
        self._in_memory_since.pop(entry.admission.sequence, None)
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.is_replayed:
            self._lanes.rows_in_memory -= 1

    # --- into the journal ---

    def _spill(self, name: str, *behind: LaneEntry) -> None:
        """Write to the journal, in order, what a lane has in memory and then the entries behind it."""
        lane = self._lanes.get(name)
        entries: list[LaneEntry] = []
        if lane is not None:
            entries += [lane.head] if lane.head is not None else []
            entries += lane.waiting
            lane.waiting.clear()
        for entry in (*entries, *behind):
            if entry.row is RowState.NONE:
                self._start_writing(entry)
        self._forget_if_idle(name)

    def _start_writing(self, entry: LaneEntry) -> None:
        entry.row = RowState.PENDING
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        # rule 2, and before the write: from this step on every message of the lane has to go behind this row
        self._lanes.journaled.add(entry.admission.lane)
        self._background.start(self._write(entry))

    async def _write(self, entry: LaneEntry) -> None:
        admission = entry.admission
        self._in_memory_since[admission.sequence] = entry.since
        try:
            await self._journal.store(admission)
        except Unavailable as refusal:
            entry.row = RowState.NONE
            self._not_written(entry, refusal)
            # rule 3: a row whose commit failed counts until it is certainly not on the disk
            if not isinstance(refusal, OutcomeUnknown) or await self._is_undone(admission):
                self._lanes.journaled.written(admission.lane, is_stored=False)
            return
        entry.row = RowState.STORED
        self._lanes.journaled.written(admission.lane, is_stored=True)
        self._replay.row_written(admission.lane)
        if entry.is_held:  # replay publishes it
            entry.is_held = False
            self._lanes.get_or_create(admission.lane).head = None
            self._forget_if_idle(admission.lane)
        if entry.is_published:  # Kafka acknowledged it while it was being written
            self._replay.row_published(admission.sequence)
            await self._remove(admission)
        else:
            self._complete_durable(entry, Durability.JOURNALED)
            self._ledger.journaled(admission)
            self._wake_replay()
        self._in_memory_since.pop(admission.sequence, None)

    async def _is_undone(self, admission: Admission) -> bool:
        """Wait until no row of a refused message is on the disk: a crash could bring it back behind what is direct."""
        if self._stopping:
            return False  # nothing is direct any more
        # The command is queued before the message can be stored again. Among replicas the outcome is unknown only once
        # the lease is lost, and then nothing is removed: the row's key is safe since its commit, so that the message
        # sent again is a duplicate, and without the row it would be lost.
        try:
            await self._journal.remove(admission.sequence)
        except Unavailable:
            return False  # the journal has failed for good
        return True

    def _not_written(self, entry: LaneEntry, refusal: Unavailable) -> None:
        """The journal refused the message. While Kafka may take it, or have some of it, its completion stays open."""
        lane = self._lanes.get_or_create(entry.admission.lane)
        if entry.is_published:  # it needs no row any more
            self._in_memory_since.pop(entry.admission.sequence, None)
            self._ledger.published_directly(entry.admission)
        elif lane.is_in_flight(entry):  # the delivery report decides
            return
        elif entry.may_be_in_kafka and not self._stopping and lane.head in {None, entry}:
            self._hold(lane, entry)
            return
        else:
            self._refused(lane, entry, refusal)
        self._forget_if_idle(entry.admission.lane)

    def _refused(self, lane: Lane, entry: LaneEntry, refusal: Unavailable) -> None:
        if entry.is_held:
            lane.head = None
        self._stop_waiting(entry)
        self._alone.sequences.discard(entry.admission.sequence)
        if entry.may_be_in_kafka:
            refusal = outcome_unknown(refusal, "Kafka may have taken it: send it again with the same msgId")
        self._complete(entry, refusal)

    def _hold(self, lane: Lane, entry: LaneEntry) -> None:
        """Keep a message in memory, at the head of its lane, and publish it again in a moment.

        Kafka may have some of its records. If it were refused, its duplicate would be published as another message.
        """
        entry.is_held = True
        lane.head = entry  # nothing of the lane may overtake it
        entry.timer = self._loop.call_later(_HOLD_SECONDS, self._publish_held, lane, entry)

    def _publish_held(self, lane: Lane, entry: LaneEntry) -> None:
        if self._alone.is_active:
            self._hold(lane, entry)
            return
        entry.timer = self._loop.call_later(self._publish_wait, self._on_publish_wait_elapsed, entry)
        entry.is_held = False
        self._produce(lane, entry)

    async def _remove(self, admission: Admission) -> None:
        try:
            await self._journal.remove(admission.sequence)
        except Unavailable:
            return  # the journal has failed for good; its next owner publishes the row again
        self._replay.row_removed(admission.sequence)
        self.removed += 1
        self._lanes.journaled.removed(admission.lane)  # rule 3: not before the removal is on the disk
        self._wake_replay()

    # --- failed deliveries ---

    def _requeue(self, lane: Lane, entry: LaneEntry, failed: list[tuple[ProducibleRecord, Failure]]) -> None:
        """Make a message whose delivery failed the next of its lane.

        Without a row it is written to the journal, ahead of what waits behind it; with one, replay reads the row again.
        """
        admission = entry.admission
        records, failures = self._topic_failures.to_retry(failed), [failure for _, failure in failed]
        is_restamped = any(record is not before for record, (before, _) in zip(records, failed, strict=True))
        _LOG.warning(
            "a delivery failed; the message will be published again",
            error=failures[0].name,
            detail=failures[0].detail,
            topic=records[0].topic,
            **({"timestamp": "replaced by the current time"} if is_restamped else {}),
        )
        if is_restamped:  # the cause is gone: begin with the shortest wait again
            self._back_off.end(admission.lane)
        is_partly_published = len(records) < len(admission.records)
        is_uncertain = any(failure.kind is FailureKind.UNCERTAIN for failure in failures)
        entry.may_be_in_kafka |= is_partly_published or is_uncertain
        is_changed = is_restamped or is_partly_published
        entry.admission = msgspec.structs.replace(admission, records=records)
        # rule 1: this message is the next one again; replay reads what was read ahead once more, behind it
        self._lanes.drop_read_ahead(lane)
        self._stop_waiting(entry)
        if any(failure.kind is FailureKind.REJECTED for failure in failures):
            self._alone.sequences.add(admission.sequence)
        self._back_off.failed(admission.lane)
        if entry.row is RowState.NONE:
            lane.waiting.insert(0, entry)  # in front of what waits, so that it is written first
            self._spill(admission.lane)
        elif is_changed:
            self._replay.amend_begun(admission.sequence)  # already now: replay may look before the task begins
            self._background.start(self._amend_open(entry.admission))

    async def _amend_open(self, admission: Admission) -> None:
        with contextlib.suppress(Unavailable):  # the next owner publishes the acknowledged records once more
            await self._amend(admission)

    async def _amend(self, admission: Admission) -> None:
        self._replay.amend_begun(admission.sequence)
        try:
            await self._journal.amend(admission)
        finally:
            self._replay.amend_ended(admission.sequence)

    # --- rows that are replayed ---

    async def _publish_rows(self, rows: list[Admission]) -> int:
        """Begin to publish the first rows of a lane that is not busy; returns how many were taken."""
        lane = self._lanes.get_or_create(rows[0].lane)
        first = self._entry(rows[0])
        self._lanes.rows_in_memory += 1
        if rows[0].sequence in self._alone.sequences:
            lane.head = first
            # Awaited, so that replay hands over nothing meanwhile: it would be in flight too.
            await self._alone.run(self._publish_alone(lane, first))
            return 1
        lane.read_ahead.extend(map(self._entry, rows[1:]))
        self._lanes.rows_in_memory += len(rows) - 1
        self._produce(lane, first)
        return len(rows)

    def _entry(self, row: Admission) -> LaneEntry:
        since = self._ages.since(row.sequence, row.request.waits_since)
        return LaneEntry(self._topic_failures.to_replay(row), row=RowState.STORED, completion=None, since=since)

    async def _publish_alone(self, lane: Lane, entry: LaneEntry) -> None:
        failures = await self._alone.publish(entry.admission)
        rejection = next((one for one in failures if one and one.kind is FailureKind.REJECTED), None)
        if rejection is None:
            self._in_flight_count += 1  # `_reported` counts it down
            self._reported(lane, entry, failures)
        else:
            await self._rejected_alone(lane, entry, failures, rejection)

    async def _rejected_alone(self, lane: Lane, entry: LaneEntry, failures: Failures, rejection: Failure) -> None:
        """Replace the row by a dead letter, which names the streams that lack the message."""
        failed = self._record_reports(entry, failures)
        admission = msgspec.structs.replace(entry.admission, records=tuple(record for record, _ in failed))
        lane.head = None
        self._stop_waiting(entry)
        if admission.is_dead_letter:
            _LOG.error("Kafka rejects a dead letter; it stays in the journal", error=rejection.name)
            self._back_off.rejected(admission.lane)
        else:
            letter = self._make_dead_letter(admission.request, admission.records, rejection)
            dead_letter_lane = f"{DEAD_LETTER_LANE}{admission.sequence}"
            self._lanes.journaled.add(dead_letter_lane)
            try:
                await self._amend(Admission(admission.sequence, dead_letter_lane, admission.request, (letter,)))
            except Unavailable:  # the row is as it was: try it again
                self._lanes.journaled.written(dead_letter_lane, is_stored=False)
                self._back_off.failed(admission.lane)
            else:
                self._lanes.journaled.written(dead_letter_lane, is_stored=True)
                self._lanes.journaled.removed(admission.lane)
                self._ledger.dead_lettered(admission, letter)
        self._forget_if_idle(admission.lane)
