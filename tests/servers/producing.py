"""Puts records into topics, independently of the connector."""

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.waiting import PATIENCE_SECONDS


def produce(bootstrap: str, records: Iterable[Mapping[str, Any]], properties: Mapping[str, Any] | None = None) -> None:
    """Produce records and wait until a broker has reported the offset of each; fails where one was not taken.

    Each record is what ``Producer.produce`` takes, by name: topic, value, key, partition, headers, timestamp.
    Partitions are chosen as Java clients choose them. ``properties`` are the client's.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "log_level": 2,  # brokers that a test killed are no news
            **(properties or {}),
        }
    )
    not_taken: list[str] = []

    def report(error: KafkaError | None, message: Message) -> None:
        if error is not None or message.offset() is None:  # without an offset it is librdkafka's conclusion
            not_taken.append(f"{message.topic()} {message.key()!r}: {error}")

    produced = 0
    for record in records:
        while True:
            try:
                producer.produce(**record, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        produced += 1
    waiting = producer.flush(PATIENCE_SECONDS)
    assert not waiting, f"{waiting} of {produced} records were not acknowledged in {PATIENCE_SECONDS} s"
    assert not not_taken, f"{len(not_taken)} of {produced} records were not taken: {not_taken[:5]}"
