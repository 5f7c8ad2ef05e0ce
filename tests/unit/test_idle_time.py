"""When a reader ends by itself: after a time without a record, of which slow answers and long scans are no part.

The client library and the clock are replaced: each answer takes a time that the test chooses, and nobody waits for it.
"""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from connector.kafka import consumer, deadline, reader
from connector.kafka.reader import read_records

TOPIC = "weda.events"
OURS, OTHER = b"i-1", b"i-2"
MOST_POLLS = 1_000
"""A reader that polls more often does not end."""


class Clock:
    """Moves on only when somebody sleeps or Kafka takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Answer:
    """A record, or without a key the end of the partition."""

    def __init__(self, offset: int, key: bytes | None = OURS) -> None:
        self.offset, self.key = lambda: offset, lambda: key
        self.error = lambda: KafkaError(KafkaError._PARTITION_EOF) if key is None else None
        self.topic, self.partition = lambda: TOPIC, lambda: 0
        self.value, self.headers, self.timestamp = lambda: None, list, lambda: (1, 1_700_000_000_123)


class SlowConsumer:
    """Has a topic of one partition.

    Args:
        clock: The clock that its answers move on.
        keys: The key of each record; None is the end of the partition, reported once.
        request_seconds: How long an answer takes that is no record.
        record_seconds: How long a record takes.
        missing_until: When the topic is created.
    """

    def __init__(
        self,
        clock: Clock,
        keys: Iterable[bytes | None],
        *,
        request_seconds: float = 0.0,
        record_seconds: float = 0.0,
        missing_until: float = 0.0,
    ) -> None:
        self._clock, self._answers = clock, _answers(keys)
        self._request_seconds, self._record_seconds = request_seconds, record_seconds
        self._missing_until = missing_until
        self._polls = 0

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._answer_within(timeout)
        known = {0: None} if self._clock.now >= self._missing_until else {}
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=known)})

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._answer_within(timeout)
        return [TopicPartition(each.topic, each.partition, 2 if each.offset == OFFSET_END else 0) for each in places]

    def poll(self, timeout: float) -> Answer | None:
        self._polls += 1
        assert self._polls < MOST_POLLS, "reading does not end"
        answer = next(self._answers, None)
        self._clock.sleep(timeout if answer is None else self._record_seconds)
        return answer

    def assign(self, _: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...

    def _answer_within(self, timeout: float) -> None:
        self._clock.sleep(min(timeout, self._request_seconds))
        if timeout < self._request_seconds:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def _answers(keys: Iterable[bytes | None]) -> Iterator[Answer]:
    offset = 0
    for key in keys:
        yield Answer(offset, key)
        offset += key is not None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    replaced = Clock()
    for module in (reader, consumer, deadline):
        monkeypatch.setattr(module, "time", replaced)
    return replaced


def read(monkeypatch: pytest.MonkeyPatch, kafka: SlowConsumer, **options: Any) -> list[int]:
    """The offsets of the records that are read from the beginning."""
    monkeypatch.setattr(reader, "Consumer", lambda _properties: kafka)
    reading = {"stream": "events", "topic": TOPIC, "from_beginning": True, **options}
    return [record.offset for record in read_records("kafka:9092", {}, **reading)]


def test_what_comes_before_reading_is_not_counted_as_idle(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [OURS, OURS, None], request_seconds=2)

    assert read(monkeypatch, kafka, idle_seconds=1) == [0, 1]


def test_the_time_in_which_a_topic_was_missing_is_not_counted_as_idle(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = SlowConsumer(clock, [OURS, None], missing_until=4.9, record_seconds=0.2, request_seconds=0.1)

    assert read(monkeypatch, kafka, idle_seconds=5) == [0]
    assert clock.now > 4.9 + 5


def test_a_topic_that_stays_missing_is_awaited_for_the_idle_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [], missing_until=3_600)

    assert read(monkeypatch, kafka, idle_seconds=5) == []
    assert 5 <= clock.now < 2 * 5
