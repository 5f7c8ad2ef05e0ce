"""What every consumer needs: its properties, what a poll has brought, and where partitions begin and end."""

import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connector.kafka.deadline import Deadline
from connector.kafka.errors import END_OF_PARTITION, LOG_NOTHING, MISSING_TOPIC, UNKNOWN_TOPIC, is_transient

REACH_SECONDS: Final = 5.0
"""How long Kafka may take to say what a topic looks like, and to send the next of what is there."""

POLL_SECONDS: Final = 0.2
"""How long one poll may wait: afterwards deadlines and stops are looked at."""

RETRY_SECONDS: Final = 0.5
_MAX_ASKS: Final = 3
_QUEUED_KIB: Final = 8 * 1024
"""What librdkafka reads ahead of one topic."""

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""


class Polled(Enum):
    """What a poll has brought."""

    NOTHING = auto()
    RECORD = auto()
    END = auto()
    """A partition ends at the message's offset."""


def polled(message: Message | None) -> Polled:
    """What a poll has brought.

    Raises:
        KafkaException: An error that does not go away by itself.
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
    """Whether a reader only has to wait: the brokers are away or electing, or the topic is very new."""
    return is_transient(error) or error.name() in MISSING_TOPIC  # or it was created, and not everybody knows it yet


def consumer_properties(
    bootstrap_servers: str, properties: Mapping[str, Any], on_error: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """The librdkafka properties of a consumer that belongs to no group, commits nothing and reports the ends.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: The user's; what reading relies on wins over them.
        on_error: Called with what befalls the connections.
    """
    return {
        "log_level": LOG_NOTHING,
        "queued.max.messages.kbytes": _QUEUED_KIB,
        **properties,
        "bootstrap.servers": bootstrap_servers,
        "group.id": "weda-connector-reading",  # the client wants one; without commits it never exists
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",  # where retention has overtaken the reader
        "isolation.level": "read_committed",
        "error_cb": on_error,
    }


def partitions_of(consumer: Consumer, topic: str, deadline: Deadline) -> list[int]:
    """The numbers of a topic's partitions, none where it does not exist.

    A broker learns of a new topic a moment after it was made, and any broker may answer: it is missing once
    :data:`_MAX_ASKS` answers say so.

    Raises:
        KafkaException: Kafka answers with an error, or not in time.
    """
    for number in range(_MAX_ASKS):
        if number:
            time.sleep(RETRY_SECONDS)
        found = consumer.list_topics(topic, timeout=deadline.left).topics[topic]
        if found.error is not None and found.error.name() != UNKNOWN_TOPIC:
            raise KafkaException(found.error)
        if found.partitions:
            break
    return list(found.partitions)


def offsets_at(consumer: Consumer, partitions: Sequence[TopicPartition], moment: int, deadline: Deadline) -> list[int]:
    """The offset of the first record of a time or later in each partition, by one request to each broker.

    The leader of a new topic, or a new leader, may need a moment to know.

    Args:
        consumer: Asks.
        partitions: Of which.
        moment: Epoch milliseconds; ``OFFSET_BEGINNING`` for the oldest record, ``OFFSET_END`` for the next one.
        deadline: For everything, however often it has to be asked.

    Returns:
        Where there is no record of that time or later, the offset of the next one.

    Raises:
        KafkaException: Kafka answers with an error, or not in time.
    """
    while partitions:
        try:
            found = consumer.offsets_for_times(
                [TopicPartition(each.topic, each.partition, moment) for each in partitions], deadline.left
            )
            error = next((each.error for each in found if each.error is not None), None)
        except KafkaException as exception:
            error = exception.args[0]
        if error is None:
            offsets = [int(each.offset) for each in found]
            if moment == OFFSET_END or OFFSET_END not in offsets:
                return offsets
            ends = offsets_at(consumer, partitions, OFFSET_END, deadline)
            return [end if offset == OFFSET_END else offset for offset, end in zip(offsets, ends, strict=True)]
        if not is_transient_for_reader(error) or deadline.is_over:
            raise KafkaException(error)
        time.sleep(RETRY_SECONDS)
    return []


def remove_if_at_end(unread: dict[Partition, int], partition: Partition, offset: int) -> None:
    """Reading has come to where a partition ends: it is read if it ended there, or before, when reading began.

    A leader elected a moment ago may report an earlier end, because it does not know yet how far it goes.
    """
    if offset >= unread.get(partition, 0):
        unread.pop(partition, None)
