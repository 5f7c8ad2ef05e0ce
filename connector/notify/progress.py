"""Whether the group has read what was in the topic when the notifier started."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, TopicPartition

from connector.kafka.consumer import REACH_SECONDS, consumer_properties, offsets_at, partitions_of
from connector.kafka.deadline import Deadline
from connector.kafka.errors import Problems, translated


class CatchUp:
    """Compares what the group has committed with where the topic ended when `is_done` was first answered.

    `Events.lag` does not tell: it is 0 too while Kafka has given the reader no partitions yet.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        topic: The topic.
        group: The consumer group.
        since: Where the group begins to read a partition in which it has committed nothing.
    """

    def __init__(
        self, bootstrap_servers: str, properties: Mapping[str, Any], topic: str, group: str, since: datetime
    ) -> None:
        self._servers, self._properties, self._topic, self._group = bootstrap_servers, properties, topic, group
        self._since = int(since.timestamp() * 1000)
        self._ends: dict[int, int] | None = None

    def is_done(self) -> bool:
        """Whether nothing is left to read of what was in the topic then; true of a topic that does not exist.

        Raises:
            OutsideUnreachable: Kafka does not answer within 5 seconds.
            ConfigurationError: Kafka rejects the request.
        """
        problems = Problems(lambda: consumer.poll(0))
        properties = consumer_properties(self._servers, self._properties, problems.record)
        # It only asks, and so is no member of the group.
        consumer = Consumer(properties | {"group.id": self._group})
        try:
            with translated(f"ask how far the group {self._group} has read", problems=problems.recent):
                return self._has_read(consumer, Deadline(REACH_SECONDS))
        finally:
            consumer.close()

    def _has_read(self, consumer: Consumer, deadline: Deadline) -> bool:
        numbers = partitions_of(consumer, self._topic, deadline)
        partitions = [TopicPartition(self._topic, number) for number in numbers]
        if self._ends is None:
            self._ends = dict(zip(numbers, offsets_at(consumer, partitions, OFFSET_END, deadline), strict=True))
        positions = dict(zip(numbers, self._positions(consumer, partitions, deadline), strict=True))
        return all(positions.get(number, end) >= end for number, end in self._ends.items())

    def _positions(self, consumer: Consumer, partitions: list[TopicPartition], deadline: Deadline) -> list[int]:
        """The offset of the next record that the group reads in each partition."""
        if not partitions:
            return []
        committed = consumer.committed(partitions, timeout=deadline.left)
        # Retention may have deleted the records behind what was committed.
        firsts, oldest = (
            offsets_at(consumer, partitions, moment, deadline) for moment in (self._since, OFFSET_BEGINNING)
        )
        # A negative offset means that the group has committed none.
        starts = (
            position.offset if position.offset >= 0 else first
            for position, first in zip(committed, firsts, strict=True)
        )
        return list(map(max, starts, oldest))
