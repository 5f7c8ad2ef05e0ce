"""Reading topics: which time counts as silence, and what is paused, with a client library that is replaced here.

The replacement answers when a test says so: a real cluster would need minutes for what takes no time here.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from connector.errors import OutsideUnreachable
from connector.kafka import subscription
from connector.kafka.consumer import REACH_SECONDS
from connector.kafka.reader import ConsumerRecord
from connector.kafka.subscription import Subscription
from tests.still_clock import StillClock

EVENTS, TASKS = "weda.events", "weda.tasks"
END = 3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    clock = StillClock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


class FakeConsumer:
    """One partition per topic.

    Attributes:
        answers: What each poll returns, or does; None once they are used up.
        answer_seconds: How long each question takes.
        committed_offset: What the group has committed.
        has_leader: Whether the question for an end is answered.
        paused: The topics whose partition is paused.
    """

    clock: StillClock

    def __init__(self, _: dict[str, Any]) -> None:
        self.answers: list[Any] = []
        self.answer_seconds = 0.0
        self.committed_offset = -1001
        self.has_leader = True
        self.paused: set[str] = set()

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._answer(timeout)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if not self.has_leader:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        self._answer(timeout)
        return [TopicPartition(one.topic, 0, END if one.offset == OFFSET_END else 0) for one in places]

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(one.topic, 0, self.committed_offset) for one in places]

    def _answer(self, timeout: float) -> None:
        self.clock.now += min(self.answer_seconds, timeout)
        if self.answer_seconds > timeout:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def subscribe(self, _: list[str], **calls: Callable[..., None]) -> None:
        self.calls = calls

    def poll(self, seconds: float) -> Any:
        self.clock.now += seconds
        answer = self.answers.pop(0) if self.answers else None
        return answer() if callable(answer) else answer

    def consume(self, _: int, seconds: float) -> list[Any]:
        answer = self.poll(seconds)
        return [] if answer is None else [answer]

    def assign(self, _: list[TopicPartition]) -> None: ...

    def incremental_assign(self, _: list[TopicPartition]) -> None: ...

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {one.topic for one in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {one.topic for one in places}


@pytest.fixture
def kafka(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeConsumer.clock = clock
    monkeypatch.setattr(subscription, "Consumer", FakeConsumer)


def record(offset: int, topic: str = EVENTS) -> Any:
    return SimpleNamespace(
        error=lambda: None, topic=lambda: topic, partition=lambda: 0, offset=lambda: offset, value=lambda: b""
    )


def end(offset: int, topic: str = EVENTS) -> Any:
    error = KafkaError(KafkaError._PARTITION_EOF)
    return SimpleNamespace(
        error=lambda: error, topic=lambda: topic, partition=lambda: 0, offset=lambda: offset, value=lambda: None
    )


def decode(message: Any) -> ConsumerRecord:
    offset = message.offset()
    return ConsumerRecord("events", message.topic(), 0, offset, "i-1", offset, {}, {"ingestId": f"{offset:04}"})


def reading(*topics: str, **how: Any) -> tuple[Subscription, FakeConsumer]:
    made = Subscription("kafka:9092", {}, topics or (EVENTS,), decode, **how)
    consumer: Any = made._consumer
    return made, consumer


def read(one: Subscription) -> list[int]:
    found = []
    while not one.is_over:
        taken = one.poll()
        found += [] if taken is None else [taken.offset]
    return found


@pytest.mark.parametrize("how", [{"until_end": True}, {"idle_seconds": 3.0}], ids=lambda how: next(iter(how)))
def test_what_the_caller_does_before_it_reads_is_no_silence(kafka, clock, how):
    one, consumer = reading(**how)
    consumer.answers = [record(0), record(1), record(2), end(END)]
    clock.now += 2 * REACH_SECONDS

    assert read(one) == [0, 1, 2]


def test_what_the_caller_does_before_it_joins_a_group_is_no_silence(kafka, clock):
    one, consumer = reading(group="g", idle_seconds=3.0)
    consumer.answers = [lambda: consumer.calls["on_assign"](consumer, [TopicPartition(EVENTS, 0)]), record(0)]
    clock.now += 100

    assert read(one) == [0]


@pytest.mark.parametrize("how", [{"until_end": True}, {"idle_seconds": 3.0}], ids=lambda how: next(iter(how)))
def test_each_answer_has_the_whole_time(kafka, how):
    one, consumer = reading(**how)
    consumer.answer_seconds = 0.9 * REACH_SECONDS
    consumer.answers = [record(0), record(1), record(2), end(END)]

    assert read(one) == [0, 1, 2]


def test_records_that_must_exist_and_do_not_come_are_an_error(kafka):
    one, consumer = reading(until_end=True)
    consumer.answers = [record(0)]

    with pytest.raises(OutsideUnreachable, match="Timed out"):
        read(one)


def test_what_the_caller_takes_between_two_records_is_no_silence_and_what_it_sleeps_is_not_counted_twice(kafka, clock):
    one, consumer = reading(idle_seconds=3.0)
    consumer.answers = [record(0)]
    assert one.poll() is not None
    one.sleep(60)
    clock.now += 10
    one.exclude(70)

    began = clock.now
    assert not one.is_over
    assert read(one) == []
    assert 3 <= clock.now - began < 4


def test_records_that_one_fetch_made_ready_are_returned_however_long_the_caller_takes(kafka, clock):
    """And a store, whose commit is made between two events."""
    one, consumer = reading(EVENTS, TASKS, idle_seconds=3.0)
    consumer.answers = [end(END, TASKS), record(0), record(1), record(2), end(END)]
    consumer.consume = lambda _, __: [consumer.answers.pop(0) for _ in range(len(consumer.answers))]  # type: ignore[method-assign]
    found = []
    while not one.is_over:
        taken = one.poll()
        if taken is None:
            clock.now += 1
        else:
            found.append(taken.offset)
            clock.now += 10

    assert found == [0, 1, 2]


def test_a_topic_that_does_not_appear_takes_the_idle_time_once(kafka, clock):
    one, consumer = reading(idle_seconds=20.0)
    consumer.list_topics = lambda topic, timeout: SimpleNamespace(  # type: ignore[method-assign]
        topics={topic: SimpleNamespace(error=None, partitions={})}
    )
    began = clock.now

    assert read(one) == []
    assert clock.now - began < 30


def test_a_reader_of_several_topics_waits_for_the_leader_of_one_of_them(kafka):
    one, consumer = reading(EVENTS, TASKS, idle_seconds=60.0)
    consumer.answers = [end(0, TASKS), record(0)]
    for _ in range(3):
        consumer.has_leader = False if one._is_begun else consumer.has_leader
        assert one.poll() is None

    consumer.has_leader = True
    consumer.answers = [end(END, TASKS)]
    taken = one.poll()
    assert taken is not None
    assert taken.offset == 0


def test_what_was_published_before_the_start_is_no_lag(kafka):
    one, consumer = reading(group="g", since=datetime(2026, 1, 1, tzinfo=UTC))
    one.poll()
    consumer.offsets_for_times = lambda places, _: [TopicPartition(each.topic, 0, END) for each in places]  # type: ignore[method-assign]
    consumer.calls["on_assign"](consumer, [TopicPartition(EVENTS, 0)])
    consumer.offsets_for_times = lambda places, _: [  # type: ignore[method-assign]
        TopicPartition(each.topic, 0, END if each.offset == OFFSET_END else 0) for each in places
    ]

    assert one.lag() == 0


def test_partitions_that_come_while_the_caller_sleeps_are_paused(kafka):
    one, consumer = reading(group="g")
    one.poll()
    seen: list[set[str]] = []
    consumer.answers = [
        lambda: consumer.calls["on_assign"](consumer, [TopicPartition(EVENTS, 0)]),
        lambda: seen.append(set(consumer.paused)),
    ]

    one.sleep(1)

    assert (seen, consumer.paused) == ([{EVENTS}], set())


def test_a_topic_that_is_far_ahead_stays_paused_when_the_caller_has_slept(kafka, monkeypatch):
    monkeypatch.setattr("connector.kafka.merge._PAUSE_ABOVE_RECORDS", 2)
    one, consumer = reading(EVENTS, TASKS, idle_seconds=60.0)
    consumer.answers = [record(0), record(1)]
    while consumer.answers:
        one.poll()
    assert consumer.paused == {EVENTS}

    one.sleep(1)

    assert consumer.paused == {EVENTS}
