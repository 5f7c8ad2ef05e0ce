"""A model world for delivery: a disk that loses what is not synced, a Kafka that answers late or never, no real time.

Everything runs on one event loop whose clock jumps to the next timer, so that a history of hours takes milliseconds,
and the same history always ends the same way.
"""

import asyncio
import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from connector.delivery.completion import Completion, Durability
from connector.delivery.delivery import Delivery
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal.model import Account, Admission, Contents, JournalState
from connector.kafka.publisher import Failure, FailureKind, Failures
from connector.message.routes import DEAD_LETTERS
from connector.values import ProducibleRecord, Request

WAIT_SECONDS = 0.4
REST_SECONDS = 600
UNCERTAIN = Failure(FailureKind.UNCERTAIN, "_MSG_TIMED_OUT", "no report came in time")
DISTURBANCES = {"fail", "refuse", "rebuild", "crash", "restart"}
"""Steps after which a record may be published again; never without one."""
TOO_LARGE = Failure(FailureKind.REJECTED, "MSG_SIZE_TOO_LARGE", "the topic takes no record of this size")


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without files or sockets; when nothing is ready its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits for somebody: nothing will ever happen again")
        self._now += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else to wake."""

    def run_ready(self) -> None:
        """Run what is ready, and what that makes ready, without letting time pass."""
        for _ in range(25):
            self.run_until_complete(asyncio.sleep(0))


@dataclass
class Command:
    """Something asked of the disk, answered when its transaction is committed."""

    act: Callable[["Disk"], Any]
    done: asyncio.Future[Any]
    is_critical: bool
    adds: int | None = None


@dataclass
class Disk:
    """What is on the disk for good."""

    rows: dict[int, Admission] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    def copy(self) -> "Disk":
        return Disk(dict(self.rows), dict(self.accounts))

    def insert(self, admission: Admission) -> None:
        self.rows[admission.sequence] = admission
        self._count(accepted=1)

    def delete(self, sequence: int) -> None:
        if self.rows.pop(sequence, None) is not None:
            self._count(published=1)

    def undo_insert(self, sequence: int) -> None:
        if self.rows.pop(sequence, None) is not None:
            self._count(accepted=-1)

    def replace(self, admission: Admission) -> None:
        before = self.rows.get(admission.sequence)
        if before is not None:
            self.rows[admission.sequence] = admission
            if before.lane != admission.lane:
                self._count(accepted=1, dead_lettered=1)

    def add_direct(self, published: int) -> None:
        self._count(accepted=published, published=published)

    def first_rows(self, after: str, lanes: int, depth: int, skip: Container[str]) -> list[list[Admission]]:
        names = sorted({row.lane for row in self.rows.values() if row.lane > after and row.lane not in skip})
        by_sequence = [self.rows[sequence] for sequence in sorted(self.rows)]
        return [[row for row in by_sequence if row.lane == name][:depth] for name in names[:lanes]]

    @property
    def imbalance(self) -> int:
        account = self.accounts.get("s", Account())
        return account.accepted - account.published - account.dead_lettered - len(self.rows)

    def _count(self, *, accepted: int = 0, published: int = 0, dead_lettered: int = 0) -> None:
        before = self.accounts.get("s", Account())
        self.accounts["s"] = Account(
            before.accepted + accepted, before.published + published, before.dead_lettered + dead_lettered
        )


class ModelJournal:
    """The journal as its protocol promises: a group of commands is committed as a whole, or not at all."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.is_full = False
        self.syncs_by_itself = False
        self._committing: list[Command] = []
        self._gathering: list[Command] = []
        self._to_undo: list[int] = []

    # --- the protocol ---

    async def open(self) -> Contents:
        lanes: dict[str, int] = {}
        for row in self.disk.rows.values():
            lanes[row.lane] = lanes.get(row.lane, 0) + 1
        sources = {"s": len(self.disk.rows)} if self.disk.rows else {}
        return Contents(lanes, sources, max(self.disk.rows, default=0) + 1, dict(self.disk.accounts))

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def lost_reason(self) -> str:
        return ""

    async def store(self, admission: Admission) -> None:
        if self.is_full:
            raise Unavailable("full")
        await self._ask(lambda disk: disk.insert(admission), adds=admission.sequence)

    async def remove(self, sequence: int) -> None:
        await self._ask(lambda disk: disk.delete(sequence), is_critical=True)

    async def amend(self, admission: Admission) -> None:
        await self._ask(lambda disk: disk.replace(admission), is_critical=True)

    async def add_direct(self, published: dict[str, int]) -> None:
        await self._ask(lambda disk: disk.add_direct(published["s"]))

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: Container[str] = frozenset()
    ) -> list[list[Admission]]:
        found: list[list[Admission]] = await self._ask(lambda disk: disk.first_rows(after, lanes, depth, skip))
        return found

    async def state(self) -> JournalState:
        return JournalState(0, None)

    async def write_note(self, name: str, value: int) -> None:
        """Not of interest here."""

    async def read_note(self, name: str) -> int:
        return 0

    # --- the disk's side ---

    def sync(self, *, backwards: bool = False) -> None:
        """The transaction under way is on the disk, and is answered; what gathered meanwhile is the next one."""
        answers = self._commit()
        if backwards:  # no order among the answers is promised
            answers.reverse()
        for command, answer in answers:
            if not command.done.done():
                command.done.set_result(answer)
        self._committing, self._gathering = self._gathering, []

    def fail(self, *, reached: bool) -> None:
        """The transaction under way fails; it may have reached the disk all the same."""
        failed = self._committing
        if reached:
            self._commit()
        self._to_undo += [command.adds for command in failed if command.adds is not None]
        for command in failed:
            if not command.is_critical and not command.done.done():
                failure = Unavailable if command.adds is None else OutcomeUnknown
                command.done.set_exception(failure("its disk failed"))
        self._committing = [command for command in failed if command.is_critical] + self._gathering
        self._gathering = []

    def crash(self, *, reached: bool) -> Disk:
        """What a restart finds: the transaction under way may have reached the disk as a whole."""
        if reached:
            self._commit()
        return self.disk

    def _commit(self) -> list[tuple[Command, Any]]:
        for sequence in self._to_undo:
            self.disk.undo_insert(sequence)
        self._to_undo = []
        commands, self._committing = self._committing, []
        return [(command, command.act(self.disk)) for command in commands]

    async def _ask(self, act: Callable[[Disk], Any], *, is_critical: bool = False, adds: int | None = None) -> Any:
        command = Command(act, asyncio.get_running_loop().create_future(), is_critical, adds)
        (self._gathering if self._committing else self._committing).append(command)
        if self.syncs_by_itself:
            asyncio.get_running_loop().call_later(0.001, self.sync)
        return await command.done


@dataclass(eq=False)
class Flight:
    """The records of one message on their way."""

    records: tuple[ProducibleRecord, ...]
    report: Callable[[Failures], None]
    landed: bool = False


class ModelPublisher:
    """A producer and its brokers: what landed is in ``topics``, whether it was reported or not."""

    def __init__(self, topics: dict[str, list[ProducibleRecord]]) -> None:
        self.topics = topics
        self.flights: list[Flight] = []
        self.is_open = True
        self.acknowledges_by_itself = False

    # --- the protocol ---

    async def start(self) -> None:
        """Always ready."""

    async def stop(self, deadline_seconds: float) -> None:
        self.is_open = False
        self.lose_all(lambda _: False)
        await asyncio.sleep(0)

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        flight = Flight(tuple(records), report)
        self.flights.append(flight)
        lanes = [one.records[0].key for one in self.flights if one.records[0].stream != DEAD_LETTERS]
        assert len(lanes) == len(set(lanes)), "two messages of one instance are in librdkafka"
        if self.acknowledges_by_itself:
            asyncio.get_running_loop().call_later(0.001, self.acknowledge, flight)

    # --- the brokers' side ---

    def land(self, flight: Flight) -> None:
        """The records are in their topics; nobody knows it yet."""
        if not flight.landed:
            flight.landed = True
            for record in flight.records:
                self.topics.setdefault(record.stream, []).append(record)

    def acknowledge(self, flight: Flight) -> None:
        """The records are in their topics, and it is reported."""
        if flight in self.flights:
            self.land(flight)
            self._report(flight, (None,) * len(flight.records))

    def fail(self, flight: Flight, failure: Failure, failing: int) -> None:
        """Some of the records are reported as failed, bit by bit of a number; the others are published."""
        failures = tuple(failure if failing >> index & 1 else None for index in range(len(flight.records)))
        if not flight.landed:
            flight.landed = True
            for record, failed in zip(flight.records, failures, strict=True):
                if failed is None:
                    self.topics.setdefault(record.stream, []).append(record)
        self._report(flight, failures)

    def lose_all(self, has_landed: Callable[[int], bool]) -> None:
        """The producer is purged: everything in it is reported as failed, whether it has landed or not."""
        for index, flight in enumerate(list(self.flights)):
            if has_landed(index):
                self.land(flight)
            self._report(flight, (UNCERTAIN,) * len(flight.records))

    def _report(self, flight: Flight, failures: Failures) -> None:
        self.flights.remove(flight)
        asyncio.get_running_loop().call_soon(flight.report, failures)


class Ledger:
    """Counts as the metrics do, from the accounts that were found."""

    def __init__(self, contents: Contents) -> None:
        account = contents.accounts.get("s", Account())
        self.counts = {
            "accepted": account.accepted,
            "published": account.published,
            "dead_lettered": account.dead_lettered,
        }
        self.journaled_now = sum(contents.sources.values())
        self.passed = 0

    def accepted(self, _: Admission, *, is_journaled: bool) -> None:
        self.counts["accepted"] += 1

    def published(self, _: Admission) -> None:
        self.counts["published"] += 1

    def published_directly(self, _: Admission) -> None:
        self.passed += 1

    def record_published(self, _: ProducibleRecord, seconds: float) -> None:
        """Not of interest here."""

    def journaled(self, _: Admission) -> None:
        self.journaled_now += 1

    def removed(self, _: Admission) -> None:
        self.journaled_now -= 1

    def dead_lettered(self, _: Admission, letter: ProducibleRecord) -> None:
        self.counts["dead_lettered"] += 1
        self.counts["accepted"] += 1

    @property
    def imbalance(self) -> int:
        return self.counts["accepted"] - self.counts["published"] - self.counts["dead_lettered"] - self.journaled_now


@dataclass(eq=False)
class Sent:
    """One message of the sender, and what it was answered.

    Attributes:
        number: Its number, also the value of its records.
        instance: Whose it is.
        streams: Where it belongs.
        sent_at: Step of the history in which it was sent.
        accepted_at: Step after which the sender had read that it is safe; None if it never has.
    """

    number: int
    instance: str
    streams: tuple[str, ...]
    sent_at: int
    accepted_at: int | None = None


class World:
    """One connector after the other on one disk and one Kafka, and a sender."""

    def __init__(self, delivery: type[Delivery] = Delivery) -> None:
        self.loop = VirtualLoop()
        self._delivery_class = delivery
        self.topics: dict[str, list[ProducibleRecord]] = {}
        self.sent: list[Sent] = []
        self.step = 0
        self.disturbances: list[int] = []
        self._open: list[tuple[Sent, Completion[Durability]]] = []
        self._start(Disk())

    # --- what a history is made of ---

    def accept(self, instance: int, streams: int) -> None:
        """The sender sends a message, whatever became of those before."""
        names = ("events", "tasks")[: 1 + streams % 2]
        sent = Sent(len(self.sent), "abc"[instance % 3], names, self.step)
        self.sent.append(sent)
        records = tuple(_record(sent, stream) for stream in names)
        request = Request("s", str(sent.number).encode(), "", 0)
        admission = Admission(next(self._sequences), sent.instance, request, records)
        self._open.append((sent, self._on_loop(lambda: self.delivery.admit(admission))))

    def land(self, which: int) -> None:
        """Records get into Kafka, unreported."""
        self._with_flight(which, self.publisher.land)

    def acknowledge(self, which: int) -> None:
        """Records get into Kafka, and it is reported."""
        self._with_flight(which, self.publisher.acknowledge)

    def fail(self, which: int, failing: int) -> None:
        """A delivery is reported as failed, in part or whole, whether it has landed or not."""
        self._with_flight(which, lambda flight: self.publisher.fail(flight, UNCERTAIN, failing))

    def refuse(self, which: int) -> None:
        """Kafka rejects the records for their own sake."""
        self._with_flight(
            which,
            lambda flight: flight.landed or self.publisher.fail(flight, TOO_LARGE, (1 << len(flight.records)) - 1),
        )

    def sync(self, backwards: int) -> None:
        """The disk commits the transaction under way."""
        self._on_loop(lambda: self.journal.sync(backwards=bool(backwards)))

    def fail_disk(self, reached: int) -> None:
        """The disk refuses the transaction under way."""
        self._on_loop(lambda: self.journal.fail(reached=bool(reached % 2)))

    def fill(self) -> None:
        """The journal is full, or has room again."""
        self.journal.is_full = not self.journal.is_full

    def wait(self, tenths: int) -> None:
        """Time passes."""
        self.loop.run_until_complete(asyncio.sleep(tenths / 10))

    def rebuild(self, landed: int) -> None:
        """A fatal error: the producer is purged, some of it has landed; then it is there again."""
        self.publisher.is_open = False
        self._on_loop(lambda: self.publisher.lose_all(lambda index: bool(landed >> index & 1)))
        self.loop.run_ready()
        self.publisher.is_open = True

    def crash(self, reached: int) -> None:
        """SIGKILL: what is not synced is gone, what is in flight has landed or not; then a new start."""
        for index, flight in enumerate(list(self.publisher.flights)):
            if reached >> index + 1 & 1:
                self.publisher.land(flight)
        disk = self.journal.crash(reached=bool(reached & 1))
        self._end()
        assert disk.imbalance == 0, "the disk's ledger does not fit its rows"
        self._start(disk)

    def restart(self, reached: int) -> None:
        """SIGTERM: a stop in good order, while the disk still works; then a new start."""
        self.journal.syncs_by_itself = True
        for index, flight in enumerate(list(self.publisher.flights)):
            if reached >> index & 1:
                self.publisher.land(flight)
        self._on_loop(self.journal.sync)
        self._on_loop(self.journal.sync)
        self.loop.run_until_complete(self.delivery.stop(1))
        self._note_answers()
        disk = self.journal.disk
        self._end()
        self._start(disk)

    def mend(self) -> None:
        """Everything works from now on, until nothing waits any more."""
        self.journal.is_full = False
        self.journal.syncs_by_itself = True
        self.publisher.is_open = True
        self.publisher.acknowledges_by_itself = True
        for _ in range(2):
            self._on_loop(self.journal.sync)
        for flight in list(self.publisher.flights):
            self._on_loop(lambda flight=flight: self.publisher.acknowledge(flight))
        for _ in range(REST_SECONDS):
            self.loop.run_until_complete(asyncio.sleep(1))
            if self.delivery.waiting_rows == 0 and not self.publisher.flights:
                break
        self.loop.run_until_complete(asyncio.sleep(1))
        self._note_answers()

    def play(self, step: tuple[str, ...]) -> None:
        """One step of a history."""
        name, *arguments = step
        self.step += 1
        if name in DISTURBANCES:
            self.disturbances.append(self.step)
        getattr(self, name)(*arguments)
        self.loop.run_ready()
        self._note_answers()

    def close(self) -> None:
        """Give everything back."""
        self._end()
        self.loop.close()

    def of(self, stream: str, instance: str) -> Iterator[int]:
        """Numbers of the messages in a topic, of one instance, in their order."""
        for record in self.topics.get(stream, []):
            if record.key == instance.encode():
                yield int(record.value or b"")

    # --- the parts ---

    def _start(self, disk: Disk) -> None:
        self.journal = ModelJournal(disk)
        self.publisher = ModelPublisher(self.topics)
        contents = self.loop.run_until_complete(self.journal.open())
        self._sequences = itertools.count(contents.next_sequence)
        self.ledger = Ledger(contents)

        async def begin() -> Delivery:
            delivery = self._delivery_class(
                self.publisher,
                self.journal,
                contents,
                ledger=self.ledger,
                make_dead_letter=_dead_letter,
                publish_wait_seconds=WAIT_SECONDS,
            )
            delivery.start_publishing()
            return delivery

        self.delivery = self.loop.run_until_complete(begin())

    def _end(self) -> None:
        """Nobody of the old process does anything any more."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._open.clear()
        old, self.loop = self.loop, VirtualLoop()
        self.loop._now = old.time()
        old._ready.clear()
        old._scheduled.clear()
        for task in asyncio.all_tasks(old):
            task._log_destroy_pending = False
        old.close()

    def _on_loop(self, act: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return act()

        return self.loop.run_until_complete(run())

    def _with_flight(self, which: int, act: Callable[[Flight], Any]) -> None:
        if self.publisher.flights:
            flight = self.publisher.flights[which % len(self.publisher.flights)]
            self._on_loop(lambda: act(flight))

    def _note_answers(self) -> None:
        for sent, completion in self._open:
            if isinstance(completion.result, Durability):
                sent.accepted_at = self.step
        self._open = [(sent, completion) for sent, completion in self._open if completion.result is None]


def _record(sent: Sent, stream: str) -> ProducibleRecord:
    return ProducibleRecord(stream, stream, sent.instance.encode(), str(sent.number).encode(), (), 0)


def _dead_letter(request: Request, records: tuple[ProducibleRecord, ...], _: Failure) -> ProducibleRecord:
    return ProducibleRecord(DEAD_LETTERS, DEAD_LETTERS, records[0].key, request.body, (), 0)
