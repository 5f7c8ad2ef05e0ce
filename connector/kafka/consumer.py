"""Functions that all consumers share: properties, results of polls, and where partitions begin and end."""

import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connector.kafka.deadline import Deadline
from connector.kafka.errors import END_OF_PARTITION, LOG_NOTHING, MISSING_TOPIC, UNKNOWN_TOPIC, is_transient

REACH_SECONDS: Final = 5.0
"""How long Kafka may take to describe a topic, and to send the next record that exists."""

POLL_SECONDS: Final = 0.2
"""How long one poll may wait; between polls, deadlines and stops are checked."""

RETRY_SECONDS: Final = 0.5
_MAX_ASKS: Final = 3
_QUEUED_KIB: Final = 8 * 1024
"""Limit of what librdkafka reads ahead; its own default is 64 MiB."""

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""


class Polled(Enum):
    """The result of a poll."""

    NOTHING = auto()
    RECORD = auto()
    END = auto()
    """The end of a partition, at the message's offset."""


def polled(message: Message | None) -> Polled:
    """Classify the result of a poll.

    Raises:
        KafkaException: The message is an error that does not go away by itself.
    """
    if message is None:
        return Polled.NOTHING
    error = message.error()
    if error is None:
        return Polled.RECORD
    if error.name() == END_OF_PARTITION:
        return Polled.END
    if is_transient_for_reader(error):
        return Polled.NOTHING
    raise KafkaException(error)


def is_transient_for_reader(error: KafkaError) -> bool:
    """Whether a reader only has to wait: brokers are away or electing a leader, or the topic is new."""
    return is_transient(error) or error.name() in MISSING_TOPIC  # not every broker knows a new topic yet


def consumer_properties(
    bootstrap_servers: str, properties: Mapping[str, Any], on_error: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """The librdkafka properties of a consumer that belongs to no group, commits nothing and reports ends of partitions.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: The user's properties; those that reading relies on override them.
        on_error: Called with each error of the connections.
    """
    return {
        "log_level": LOG_NOTHING,
        "queued.max.messages.kbytes": _QUEUED_KIB,
        **properties,
        "bootstrap.servers": bootstrap_servers,
        "group.id": "weda-connector-reading",  # the client demands one; without commits the group never exists in Kafka
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # if retention has deleted the next record
        "isolation.level": "read_committed",
        "error_cb": on_error,
    }


def partitions_of(consumer: Consumer, topic: str, deadline: Deadline) -> list[int]:
    """The numbers of a topic's partitions; empty if the topic does not exist.

    Any broker may answer, and brokers learn of a new topic at different times, so a topic counts as missing only after
    :data:`_MAX_ASKS` answers.

    Raises:
        KafkaException: Kafka answers with an error, or not in time.
    """
    for number in range(_MAX_ASKS):
        if number:
            time.sleep(RETRY_SECONDS)
        metadata = consumer.list_topics(topic, timeout=deadline.left).topics[topic]
        if metadata.error is not None and metadata.error.name() != UNKNOWN_TOPIC:
            raise KafkaException(metadata.error)
        if metadata.partitions:
            break
    return list(metadata.partitions)


def offsets_at(consumer: Consumer, partitions: Sequence[TopicPartition], moment: int, deadline: Deadline) -> list[int]:
    """The offset of the first record of this time or later in each partition, with one request to each broker.

    A new leader, or the leader of a new topic, may not know it for a moment; the request is then repeated.

    Args:
        consumer: Sends the requests.
        partitions: The partitions.
        moment: Epoch milliseconds; ``OFFSET_BEGINNING`` means the oldest record, ``OFFSET_END`` the next one.
        deadline: The deadline for all requests together.

    Returns:
        The offsets in the order of the partitions; that of the next record where none has this time or a later one.

    Raises:
        KafkaException: Kafka answers with an error, or not in time.
    """
    while partitions:
        try:
            answers = consumer.offsets_for_times(
                [TopicPartition(partition.topic, partition.partition, moment) for partition in partitions],
                deadline.left,
            )
            error = next((answer.error for answer in answers if answer.error is not None), None)
        except KafkaException as exception:
            error = exception.args[0]
        if error is None:
            offsets = [int(answer.offset) for answer in answers]
            if moment == OFFSET_END or OFFSET_END not in offsets:
                return offsets
            # OFFSET_END as an answer means that no record is so late: ask for the end itself.
            ends = offsets_at(consumer, partitions, OFFSET_END, deadline)
            return [end if offset == OFFSET_END else offset for offset, end in zip(offsets, ends, strict=True)]
        if not is_transient_for_reader(error) or deadline.is_over:
            raise KafkaException(error)
        time.sleep(RETRY_SECONDS)
    return []


def remove_if_at_end(unread: dict[Partition, int], partition: Partition, offset: int) -> None:
    """Remove a partition whose reported end is at or behind the end that it had when reading began.

    An earlier end does not count: a leader that was just elected may not know the high watermark yet (ADR 0079).
    """
    if offset >= unread.get(partition, 0):
        unread.pop(partition, None)
