"""A leader elected a moment ago may not know how far its partition goes, nor a broker a topic made a moment ago.

Kafka answers a fetch with the end that such a leader knows; the question where a partition ends waits until it knows.
A real cluster does this for milliseconds only, so the client library is replaced here, by one that answers like that.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from connector.kafka import consumer as consumer_module
from connector.kafka import reader, subscription
from connector.kafka.deadline import Deadline
from connector.kafka.reader import ConsumerRecord, TopicReader, read_records
from connector.kafka.subscription import Subscription

TOPIC = "weda.events"


class Answer:
    """A record, or the end of the partition, at an offset."""

    def __init__(self, offset: int, *, is_end: bool = False) -> None:
        self.offset = lambda: offset
        self.error = lambda: KafkaError(KafkaError._PARTITION_EOF) if is_end else None
        self.topic, self.partition, self.key = lambda: TOPIC, lambda: 0, lambda: b"i-1"
        self.value, self.headers, self.timestamp = lambda: None, list, lambda: (1, 1_700_000_000_123)


class LateConsumer:
    """Knows the topic when asked for the second time; says too early that the partition ended, and then reads on."""

    def __init__(self, _: dict[str, Any]) -> None:
        self.asked = 0
        self.answers = [Answer(0, is_end=True), Answer(0), Answer(1), Answer(2, is_end=True)]

    def list_topics(self, topic: str, timeout: float) -> Any:
        self.asked += 1
        known = {} if self.asked == 1 else {0: None}
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=known)})

    def poll(self, _: float) -> Answer | None:
        return self.answers.pop(0) if self.answers else None

    def consume(self, _: int, __: float) -> list[Answer]:
        return [self.answers.pop(0)] if self.answers else []

    @staticmethod
    def offsets_for_times(places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, 2 if each.offset == OFFSET_END else 0) for each in places]

    def assign(self, _: list[TopicPartition]) -> None: ...

    def incremental_unassign(self, _: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...


def by_read_records() -> list[int]:
    reading = read_records("kafka:9092", {}, stream="events", topic=TOPIC, from_beginning=True, until_end=True)
    return [record.offset for record in reading]


def by_batches() -> list[int]:
    one = TopicReader("kafka:9092", {}, TOPIC, is_bulk=True)
    return [message.offset() or 0 for batch in one.batches(one.offset_ranges(one.partitions())) for message in batch]


def by_subscription() -> list[int]:
    def decode(message: Any) -> ConsumerRecord:
        return reader.decode_record("events", TOPIC, message)

    one, found = Subscription("kafka:9092", {}, [TOPIC], decode, until_end=True), []
    while not one.is_over:
        record = one.poll()
        found += [] if record is None else [record.offset]
    return found


@pytest.mark.parametrize("read", [by_read_records, by_batches, by_subscription])
def test_nothing_is_left_out_of_what_a_new_leader_does_not_know_yet(
    read: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reader, subscription):
        monkeypatch.setattr(module, "Consumer", LateConsumer)

    assert read() == [0, 1]


class NewLeader:
    """Does not know a time at first, then says that there is no record of it, so that it is asked for the end too."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.timeouts.append(timeout)
        if len(self.timeouts) == 1:
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        offset = OFFSET_END if len(self.timeouts) == 2 else 7
        return [TopicPartition(each.topic, each.partition, offset) for each in places]


def test_all_attempts_and_questions_share_one_deadline() -> None:
    consumer: Any = NewLeader()

    assert consumer_module.offsets_at(consumer, [TopicPartition(TOPIC, 0)], 1_700_000_000_000, Deadline(5)) == [7]
    first, second, third = consumer.timeouts
    assert 5 >= first > second > third
    assert second <= 5 - consumer_module.RETRY_SECONDS
