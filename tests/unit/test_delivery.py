"""Delivery's rules, one by one, on an in-memory publisher and journal."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from connector.delivery import alone
from connector.delivery import delivery as delivery_module
from connector.delivery.completion import Completion, Durability
from connector.delivery.delivery import Delivery
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission
from connector.message.routes import DEAD_LETTERS
from connector.replicas.lanes import SharedLanes
from connector.testing import TIMED_OUT, TOO_LARGE, InMemoryJournal, InMemoryPublisher
from connector.values import ProducibleRecord, Request
from tests.waiting import PATIENCE_SECONDS, equals, until

WAIT = 0.05
REQUEST = Request("default", b"body", "", 1_763_000_000_000)


class CountingLedger:
    """Counts as the metrics do."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("accepted", "published", "dead_lettered", "journaled", "published_directly"), 0)
        self.records = 0

    def accepted(self, admission: Admission, *, is_journaled: bool) -> None:
        self.counts["accepted"] += 1

    def published(self, admission: Admission) -> None:
        self.counts["published"] += 1

    def published_directly(self, admission: Admission) -> None:
        self.counts["published_directly"] += 1

    def record_published(self, record: ProducibleRecord, seconds: float) -> None:
        self.records += 1

    def journaled(self, admission: Admission) -> None:
        self.counts["journaled"] += 1

    def removed(self, admission: Admission) -> None:
        self.counts["journaled"] -= 1

    def dead_lettered(self, admission: Admission, letter: ProducibleRecord) -> None:
        self.counts["dead_lettered"] += 1
        self.counts["accepted"] += 1

    @property
    def imbalance(self) -> int:
        counts = self.counts
        return counts["accepted"] - counts["published"] - counts["dead_lettered"] - counts["journaled"]


class Bench:
    """A delivery and everything around it."""

    def __init__(self, journal: InMemoryJournal) -> None:
        self.publisher = InMemoryPublisher()
        self.journal = journal
        self.ledger = CountingLedger()

    async def begin(self, *, is_publishing: bool = True) -> None:
        contents = await self.journal.open()
        self.sequences = itertools.count(contents.next_sequence)
        self.delivery = Delivery(
            self.publisher,
            self.journal,
            contents,
            ledger=self.ledger,
            make_dead_letter=lambda request, records, failure: record(
                "dead_lettered", records[0].value.decode(), stream=DEAD_LETTERS
            ),
            publish_wait_seconds=WAIT,
        )
        if is_publishing:
            self.delivery.start_publishing()

    def admit(self, lane: str, value: str, *, streams: tuple[str, ...] = ("events",)) -> Completion[Durability]:
        records = tuple(record(lane, value, stream=stream) for stream in streams)
        return self.delivery.admit(Admission(next(self.sequences), lane, REQUEST, records))

    def values(self, lane: str) -> list[str]:
        return [one.value.decode() for one in self.publisher.published if one.key == lane.encode()]

    def is_held(self, lane: str) -> bool:
        busy = self.delivery._lanes.get(lane)
        return busy is not None and busy.head is not None and busy.head.is_held

    async def until_empty(self) -> None:
        await until(lambda: (self.delivery.waiting_rows, self.ledger.imbalance), equals((0, 0)))


def record(lane: str, value: str, *, stream: str = "events") -> ProducibleRecord:
    return ProducibleRecord(stream, f"t.{stream}", lane.encode(), value.encode(), (), 1_763_000_000_000)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(InMemoryJournal())
    await made.begin()
    yield made
    made.publisher.release()
    await made.delivery.stop(1)


async def test_an_acknowledged_message_is_published_and_never_journaled(bench):
    assert await bench.admit("a", "1") is Durability.PUBLISHED
    assert bench.journal.rows == {}
    assert bench.ledger.counts == {
        "accepted": 1,
        "published": 1,
        "dead_lettered": 0,
        "journaled": 0,
        "published_directly": 1,
    }


async def test_a_message_without_records_is_safe_at_once(bench):
    assert await bench.admit("a", "1", streams=()) is Durability.PUBLISHED


async def test_one_message_of_an_instance_is_in_flight_and_the_next_waits(bench):
    """At most one message of an instance is with librdkafka."""
    bench.publisher.hold()
    first, second, other = bench.admit("a", "1"), bench.admit("a", "2"), bench.admit("b", "1")
    assert (bench.values("a"), bench.values("b")) == (["1"], ["1"])

    bench.publisher.release()

    assert [await one for one in (first, second, other)] == [Durability.PUBLISHED] * 3
    assert bench.values("a") == ["1", "2"]


async def test_the_next_waits_until_every_record_of_the_one_before_is_reported(bench):
    bench.publisher.hold()
    bench.admit("a", "1", streams=("events", "tasks"))
    second = bench.admit("a", "2")
    assert bench.values("a") == ["1", "1"]
    bench.publisher.release()
    await second
    assert bench.values("a") == ["1", "1", "2"]


async def test_what_waits_too_long_is_journaled_and_thereby_safe(bench):
    """A message that Kafka has not acknowledged within the publish wait goes to the journal."""
    bench.publisher.hold()

    assert await bench.admit("a", "1") is Durability.JOURNALED

    assert bench.delivery.is_stalled
    assert len(bench.journal.rows) == 1
    bench.publisher.release()
    await bench.until_empty()
    assert bench.values("a") == ["1"]
    assert not bench.delivery.is_stalled


async def test_while_stalled_messages_go_straight_to_the_journal(bench):
    bench.publisher.hold()
    await bench.admit("a", "1")

    second = bench.admit("b", "1")
    for _ in range(10):  # turns of the event loop: no time is waited for
        await asyncio.sleep(0)

    assert second.result is Durability.JOURNALED


async def test_what_waits_behind_a_journaled_message_is_journaled_too_and_stays_behind(bench):
    """While a lane has rows in the journal, none of its messages goes straight to Kafka."""
    bench.publisher.hold()
    first, second = bench.admit("a", "1"), bench.admit("a", "2")
    assert [await first, await second] == [Durability.JOURNALED] * 2
    third = bench.admit("a", "3")
    assert await third is Durability.JOURNALED

    bench.publisher.release()

    await bench.until_empty()
    assert bench.values("a") == ["1", "2", "3"]


async def test_a_failed_delivery_is_published_again_from_the_head_of_its_lane(bench):
    """A failed delivery counts as possibly persisted."""
    bench.publisher.fail_next(1, TIMED_OUT)
    first, second = bench.admit("a", "1"), bench.admit("a", "2")

    assert await first is Durability.JOURNALED
    assert await second in Durability
    await bench.until_empty()
    assert bench.values("a") == ["1", "2"]


async def test_only_the_streams_that_are_open_are_published_again(bench, monkeypatch):
    """A journal row holds a message and the streams that are still open."""
    publish = bench.publisher.publish

    def half(records, report):
        publish(records[:1], lambda failures: report((*failures, TIMED_OUT)))

    monkeypatch.setattr(bench.publisher, "publish", half)
    assert await bench.admit("a", "1", streams=("events", "tasks")) is Durability.JOURNALED
    monkeypatch.undo()

    await bench.until_empty()
    assert [one.stream for one in bench.publisher.published] == ["events", "tasks"]
    assert bench.ledger.records == 2


async def test_while_the_producer_is_rebuilt_messages_go_to_the_journal(bench):
    """A fatal error of the producer refuses no message."""
    bench.publisher.close()
    assert await bench.admit("a", "1") is Durability.JOURNALED
    bench.publisher.reopen()
    await bench.until_empty()
    assert bench.values("a") == ["1"]


async def test_before_the_topics_are_there_messages_go_to_the_journal():
    bench = Bench(InMemoryJournal())
    await bench.begin(is_publishing=False)
    assert await bench.admit("a", "1") is Durability.JOURNALED
    assert bench.publisher.published == []

    bench.delivery.start_publishing()

    await bench.until_empty()
    assert bench.values("a") == ["1"]
    await bench.delivery.stop(1)


async def test_a_record_that_kafka_refuses_alone_becomes_a_dead_letter(bench):
    """A record rejected with others is tried alone; rejected alone it becomes a dead letter, and the lane goes on."""
    bench.publisher.fail_next(2, TOO_LARGE)
    first, second = bench.admit("a", "1"), bench.admit("a", "2")
    await first, await second

    await bench.until_empty()

    assert bench.values("a") == ["2"]
    assert [one.value for one in bench.publisher.of(DEAD_LETTERS)] == [b"1"]
    assert bench.ledger.counts == {
        "accepted": 3,
        "published": 2,
        "dead_lettered": 1,
        "journaled": 0,
        "published_directly": 0,
    }


async def test_a_dead_letter_of_a_rejected_message_names_the_streams_that_lack_it(bench, monkeypatch):
    """Reprocessed, the message must not appear again where it was published."""
    lacking: list[str] = []

    def make_dead_letter(_request, records, _failure):
        lacking.extend(one.stream for one in records)
        return record("a", "letter", stream=DEAD_LETTERS)

    monkeypatch.setattr(bench.delivery, "_make_dead_letter", make_dead_letter)
    bench.publisher.fail_next(1, TOO_LARGE)  # the batch of both
    bench.publisher.fail_next(1, TOO_LARGE, "tasks")  # alone: the first is taken
    bench.publisher.fail_next(1, TOO_LARGE, "tasks")

    await bench.admit("a", "1", streams=("events", "tasks"))
    await bench.until_empty()

    assert lacking == ["tasks"]
    assert [one.stream for one in bench.publisher.published] == ["events", DEAD_LETTERS]
    assert bench.ledger.records == 2


async def test_a_record_without_a_report_is_not_published_again_and_others_go_on(bench, monkeypatch):
    """Rule 1: what is with librdkafka stays there, however long its brokers are away."""
    monkeypatch.setattr(alone, "_TURN_SECONDS", 0.2)
    bench.publisher.fail_next(1, TOO_LARGE)
    await bench.admit("a", "1")
    bench.publisher.hold()  # published alone, and no report comes
    await until(lambda: bench.values("a"), equals(["1"]))
    await until(lambda: not bench.delivery._alone.is_active)
    other = bench.admit("b", "1")
    await until(lambda: bench.values("b"), equals(["1"]))
    await asyncio.sleep(0.5)
    assert bench.values("a") == ["1"]

    bench.publisher.release()

    await other
    await bench.until_empty()
    assert (bench.values("a"), bench.values("b")) == (["1"], ["1"])


async def test_a_stream_that_has_the_message_does_not_get_it_again_while_the_row_is_amended(bench, monkeypatch):
    amend, may_amend = bench.journal.amend, asyncio.Event()

    async def amend_late(admission):
        await may_amend.wait()
        await amend(admission)

    monkeypatch.setattr(bench.journal, "amend", amend_late)
    bench.publisher.close()
    await bench.admit("a", "1", streams=("events", "tasks"))
    bench.publisher.fail_next(1, TIMED_OUT, "tasks")
    bench.publisher.reopen()
    await until(lambda: len(bench.publisher.published), equals(1))
    await asyncio.sleep(0.5)  # longer than the back-off
    assert len(bench.publisher.published) == 1

    may_amend.set()
    await bench.until_empty()
    assert [one.stream for one in bench.publisher.published] == ["events", "tasks"]


async def test_of_a_rejected_message_that_the_journal_refuses_nothing_is_left(bench):
    bench.journal.is_full = True
    bench.publisher.fail_next(1, TOO_LARGE)

    with pytest.raises(Unavailable):
        await bench.admit("a", "1")
    assert bench.delivery._alone.sequences == set()


async def test_a_dead_letter_that_the_journal_cannot_take_is_tried_again(bench, monkeypatch):
    amend, tried = bench.journal.amend, []

    async def amend_later(admission):
        tried.append(admission)
        if len(tried) == 1:
            raise Unavailable("the disk is away")
        await amend(admission)

    monkeypatch.setattr(bench.journal, "amend", amend_later)
    bench.publisher.fail_next(4, TOO_LARGE)

    await bench.admit("a", "1")
    await bench.until_empty()

    assert len(tried) == 2
    assert [one.value for one in bench.publisher.of(DEAD_LETTERS)] == [b"1"]
    assert await bench.admit("a", "2") is Durability.PUBLISHED


async def test_a_record_that_was_refused_for_anothers_sake_is_published(bench):
    bench.publisher.fail_next(1, TOO_LARGE)
    await bench.admit("a", "1")
    await bench.until_empty()
    assert bench.values("a") == ["1"]
    assert bench.ledger.counts["dead_lettered"] == 0


async def test_a_dead_letter_that_kafka_refuses_stays_and_blocks_nothing(bench):
    """P5."""
    bench.publisher.fail_next(2, TOO_LARGE)
    letter = record("a", "letter", stream=DEAD_LETTERS)
    lane = f"{DEAD_LETTER_LANE}1"
    safe = bench.delivery.admit(Admission(next(bench.sequences), lane, REQUEST, (letter,)))
    assert await safe is Durability.JOURNALED
    await asyncio.sleep(0.3)

    assert await bench.admit("a", "1") is Durability.PUBLISHED
    assert bench.delivery.waiting_rows == 1
    assert bench.ledger.imbalance == 0


async def test_a_full_journal_refuses_and_what_is_refused_is_not_published_later(bench):
    """P6: never an acceptance that is not durable."""
    bench.publisher.hold()
    await bench.admit("a", "1")
    bench.journal.is_full = True

    with pytest.raises(Unavailable):
        await bench.admit("a", "2")

    bench.publisher.release()
    await bench.until_empty()
    assert bench.values("a") == ["1"]


async def test_what_is_in_flight_when_the_journal_is_full_has_an_open_outcome(bench):
    """P4: it may land yet, so nothing is reported of it until it did; its repeats wait for the same."""
    bench.publisher.hold()
    bench.journal.is_full = True
    first = bench.admit("a", "1")
    await asyncio.sleep(2 * WAIT)
    assert first.result is None

    bench.publisher.release()

    assert await first is Durability.PUBLISHED
    assert bench.ledger.counts == {
        "accepted": 1,
        "published": 1,
        "dead_lettered": 0,
        "journaled": 0,
        "published_directly": 1,
    }


async def test_what_was_in_flight_when_the_journal_was_full_is_journaled_once_there_is_room(bench):
    bench.publisher.hold()
    bench.journal.is_full = True
    first = bench.admit("a", "1")
    await asyncio.sleep(2 * WAIT)
    bench.journal.is_full = False

    second = bench.admit("a", "2")

    assert [await first, await second] == [Durability.JOURNALED] * 2
    bench.publisher.release()
    await bench.until_empty()
    assert bench.values("a") == ["1", "2"]


async def test_what_may_be_in_kafka_and_finds_no_room_is_published_again_before_anything_behind_it(bench):
    """P3 and P4: neither is it forgotten, nor overtaken."""
    bench.journal.is_full = True
    bench.publisher.fail_next(1, TIMED_OUT)

    first, second = bench.admit("a", "1"), bench.admit("a", "2")

    assert await first is Durability.PUBLISHED
    with pytest.raises(Unavailable):  # it was with nobody yet
        await second
    assert await bench.admit("a", "3") is Durability.PUBLISHED
    assert bench.values("a") == ["1", "3"]
    assert bench.delivery.waiting_since(None) is None


@pytest.fixture
async def held(bench, monkeypatch) -> Completion[Durability]:
    """A message that Kafka may have and the full journal refused."""
    monkeypatch.setattr(delivery_module, "_HOLD_SECONDS", 60)
    bench.journal.is_full = True
    bench.publisher.fail_next(1, TIMED_OUT)
    completion = bench.admit("a", "1")
    await until(lambda: bench.is_held("a"))
    return completion


async def test_what_is_held_in_memory_goes_to_the_journal_with_what_comes_behind_it(bench, held):
    bench.journal.is_full = False

    second = bench.admit("a", "2")

    assert (await held, await second) == (Durability.JOURNALED, Durability.JOURNALED)
    await bench.until_empty()
    assert bench.values("a") == ["1", "2"]


async def test_what_is_held_in_memory_when_the_process_stops_has_an_unknown_outcome(bench, held):
    await bench.delivery.stop(1)

    with pytest.raises(OutcomeUnknown, match="Kafka may have taken it"):
        await held


async def test_what_kafka_rejected_and_finds_no_room_is_refused(bench):
    """It is certainly not in Kafka."""
    bench.journal.is_full = True
    bench.publisher.fail_next(1, TOO_LARGE)

    with pytest.raises(Unavailable) as refusal:
        await bench.admit("a", "1")

    assert not isinstance(refusal.value, OutcomeUnknown)


async def test_what_is_partly_in_kafka_and_finds_no_room_is_published_where_it_lacks(bench):
    bench.journal.is_full = True
    bench.publisher.fail_next(1, TOO_LARGE, "tasks")

    assert await bench.admit("a", "1", streams=("events", "tasks")) is Durability.PUBLISHED
    assert [one.stream for one in bench.publisher.published] == ["events", "tasks"]


async def test_replay_is_round_robin_over_instances():
    """A hot instance does not starve the others."""
    rows = [Admission(n, "hot", Request("default", b"", "", 1), (record("hot", str(n)),)) for n in range(1, 500)]
    rows += [Admission(900 + n, f"i{n}", Request("default", b"", "", 1), (record(f"i{n}", "1"),)) for n in range(20)]
    bench = Bench(InMemoryJournal(rows))
    bench.ledger.counts.update(accepted=len(rows), journaled=len(rows))
    await bench.begin()
    await bench.until_empty()

    published = [one.key for one in bench.publisher.published]
    assert bench.values("hot") == [str(n) for n in range(1, 500)]
    last_of_the_others = max(published.index(f"i{n}".encode()) for n in range(20))
    assert last_of_the_others < 200
    await bench.delivery.stop(1)


async def test_replay_survives_what_it_does_not_expect(bench, monkeypatch):
    """P8: back up again by itself."""
    first_rows = bench.journal.first_rows
    tries = []

    async def failing(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise ValueError("a row that cannot be read")
        return await first_rows(*arguments)

    monkeypatch.setattr(bench.journal, "first_rows", failing)
    bench.publisher.fail_next(1, TIMED_OUT)
    await bench.admit("a", "1")
    await bench.until_empty()

    assert bench.values("a") == ["1"]


async def test_a_restart_publishes_what_the_journal_holds_before_anything_newer():
    """P3 across a restart."""
    bench = Bench(InMemoryJournal())
    await bench.begin()
    bench.publisher.hold()
    await bench.admit("a", "1")
    await bench.admit("a", "2")
    await bench.delivery.stop(0.1)

    again = Bench(bench.journal)
    again.ledger.counts.update(accepted=2, journaled=2)
    await again.begin()
    await again.admit("a", "3")
    await again.until_empty()

    assert again.values("a") == ["1", "2", "3"]
    await again.delivery.stop(1)


async def test_stop_journals_what_is_not_acknowledged(bench):
    bench.publisher.hold()
    safe = [bench.admit("a", "1"), bench.admit("a", "2"), bench.admit("b", "1")]

    await bench.delivery.stop(0.01)

    assert [await one for one in safe] == [Durability.JOURNALED] * 3
    assert len(bench.journal.rows) == 3


async def test_a_cancelled_waiter_leaves_its_message_on_its_way(bench):
    bench.publisher.hold()
    waiter = asyncio.ensure_future(bench.admit("a", "1"))
    await asyncio.sleep(0)
    waiter.cancel()
    second = bench.admit("a", "2")
    bench.publisher.release()
    assert await second is Durability.PUBLISHED
    assert bench.values("a") == ["1", "2"]


class SlowJournal(InMemoryJournal):
    """A journal whose answers come late: what it was asked is done, then it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write, self.may_read, self.has_read = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def store(self, admission: Admission) -> None:
        await self.may_write.wait()
        await super().store(admission)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        found = await super().first_rows(after, lanes, depth, skip)
        if found:
            self.has_read.set()
            await self.may_read.wait()
        return found


async def test_a_row_that_is_written_while_replay_reads_is_not_overtaken_by_the_rows_behind_it():
    """Of two replicas: this one's message has number 1 and fails; meanwhile the other one has written number 2."""
    journal, publisher, lanes = SlowJournal(), InMemoryPublisher(), SharedLanes(lambda _: None)
    delivery = Delivery(
        publisher,
        journal,
        await journal.open(),
        ledger=CountingLedger(),
        make_dead_letter=lambda *_: record("dead_lettered", ""),
        publish_wait_seconds=60,
        journaled=lanes,
    )
    lanes.own_rows = 1
    lanes.pin("a")
    publisher.fail_next(1)
    delivery.start_publishing()
    first = delivery.admit(Admission(1, "a", REQUEST, (record("a", "1"),)))
    journal.rows[2] = Admission(2, "a", REQUEST, (record("a", "2"),))
    await asyncio.wait_for(journal.has_read.wait(), PATIENCE_SECONDS)
    journal.may_write.set()
    assert await first is Durability.JOURNALED
    lanes.unpin("a")
    journal.may_read.set()
    await until(lambda: len(publisher.published), equals(2))
    await delivery.stop(1)

    assert [one.value for one in publisher.published] == [b"1", b"2"]


async def test_a_message_that_needs_no_row_any_more_is_not_counted_as_waiting(bench):
    """Its report comes before its write begins, which the journal then refuses."""
    bench.journal.is_full = True
    bench.publisher.hold()
    bench.admit("a", "1")
    bench.publisher.release()  # the report comes with the next step of the loop, the write begins in the one after
    bench.delivery._spill("a")
    await bench.until_empty()

    assert bench.delivery.waiting_since(None) is None


class LostJournal(InMemoryJournal):
    """A journal that is no longer at its path: its copy may have rows that the open file has no more."""

    @property
    def lost_reason(self) -> str:
        return "somebody moved it"

    async def store(self, admission: Admission) -> None:
        raise Unavailable("its file is no longer at its path")


async def test_while_the_journal_is_lost_nothing_goes_straight_to_kafka():
    bench = Bench(LostJournal())
    await bench.begin()
    with pytest.raises(Unavailable, match="no longer at its path"):
        await bench.admit("a", "1")

    assert bench.values("a") == []
    await bench.delivery.stop(1)
