"""Reads topics back, independently of the connector."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.waiting import PATIENCE_SECONDS

BATCH = 500
POLL_SECONDS = 0.2
IS_NEW = {
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
}
"""The topic is about to be made; its leader, new in office, does not know yet how much the other replicas have."""


def read_topic(
    bootstrap: str,
    topic: str,
    n: int | None = None,
    timeout: float = PATIENCE_SECONDS,
    properties: Mapping[str, str] | None = None,
) -> list[Message]:
    """Every committed record of a topic from its beginning, all partitions, no consumer group.

    With ``n`` it waits for that many records and returns just as many; without, it reads to where the partitions end
    now. Records of one partition stand in their order; nothing is sorted. ``TimeoutError`` after ``timeout`` seconds.
    ``properties`` are the client's (credentials).
    """
    deadline = time.monotonic() + timeout
    with _consumer(bootstrap, properties) as consumer:
        ends = _end_offsets(consumer, topic, deadline)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
        return _read(consumer, ends, n, deadline)


def end_offsets(
    bootstrap: str, topic: str, timeout: float = PATIENCE_SECONDS, properties: Mapping[str, str] | None = None
) -> dict[int, int]:
    """Partition → the offset that its next record gets."""
    with _consumer(bootstrap, properties) as consumer:
        return _end_offsets(consumer, topic, time.monotonic() + timeout)


@contextmanager
def _consumer(bootstrap: str, properties: Mapping[str, str] | None) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",  # the client wants one; assign() and no commits never make it exist
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 2,  # brokers that a test killed are no news
            **(properties or {}),
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _end_offsets(consumer: Consumer, topic: str, deadline: float) -> dict[int, int]:
    while True:
        try:
            return _end_offsets_now(consumer, topic, deadline)
        except KafkaException as error:
            if error.args[0].code() not in IS_NEW or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def _end_offsets_now(consumer: Consumer, topic: str, deadline: float) -> dict[int, int]:
    found = consumer.list_topics(topic, timeout=_left(deadline)).topics[topic]
    if found.error:
        raise KafkaException(found.error)
    partitions = [TopicPartition(topic, each) for each in found.partitions]
    return {each.partition: consumer.get_watermark_offsets(each, timeout=_left(deadline))[1] for each in partitions}


def _left(deadline: float) -> float:
    return max(POLL_SECONDS, deadline - time.monotonic())


def _read(consumer: Consumer, ends: dict[int, int], n: int | None, deadline: float) -> list[Message]:
    records: list[Message] = []
    unread = {partition for partition, end in ends.items() if end > 0}
    while len(records) < n if n is not None else unread:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(records)} records read, {n or 'the rest'} wanted; unread partitions: {unread}")
        for message in consumer.consume(BATCH, POLL_SECONDS):
            if _is_record(message):
                records.append(message)
            if _next_offset(message) >= ends.get(message.partition() or 0, 0):
                unread.discard(message.partition() or 0)
    return records[:n]


def _is_record(message: Message) -> bool:
    """False for the end of a partition and for errors that the client mends by itself; others raise."""
    error = message.error()
    if error is None:
        return True
    if error.code() == KafkaError._PARTITION_EOF or error.retriable():
        return False
    raise KafkaException(error)


def _next_offset(message: Message) -> int:
    """The offset after a record, or that of a partition's end (control records move it past the last record)."""
    offset = message.offset() or 0
    return offset if message.error() else offset + 1
