"""The limits of each topic: the size of a record, and how far its timestamp may be from the brokers' clocks.

A record's timestamp is the time at which its request was received. Kafka rejects a timestamp that is too far from its
own clock, and with it the whole record batch. After a clock that was ahead, or for a message that has waited for days,
it would do so for hours or for ever; such a record gets the current time instead.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from connector.clock import now_ms
from connector.kafka.topics import TopicState
from connector.values import ProducibleRecord


class TopicLimits(Mapping[str, int]):
    """Topic → its ``max.message.bytes``, for topics that were described; also their timestamp limits.

    Only the watcher of the topics calls `record`; others only read.

    Args:
        on_restamp: Called with each record whose timestamp is replaced.
    """

    def __init__(self, on_restamp: Callable[[ProducibleRecord], None]) -> None:
        self._on_restamp = on_restamp
        self._max_bytes: dict[str, int] = {}
        self._timestamps: dict[str, tuple[int, int]] = {}

    def record(self, state: TopicState) -> None:
        """Store the limits of a topic."""
        self._max_bytes[state.name] = state.max_message_bytes
        self._timestamps[state.name] = state.timestamp_before_ms, state.timestamp_after_ms

    def restamp(self, record: ProducibleRecord) -> ProducibleRecord:
        """Return a record of a batch that Kafka rejected for a timestamp, with the current time if its own is at fault.

        If the topic's limits are unknown, every record of the batch gets the current time. While the clock of this
        machine is wrong, Kafka rejects the current time too, and the record comes here again.
        """
        now = now_ms()
        before, after = self._timestamps.get(record.topic, (0, 0))
        if now - before <= record.timestamp <= now + after:
            return record
        self._on_restamp(record)
        return msgspec.structs.replace(record, timestamp=now)

    def __getitem__(self, topic: str) -> int:
        return self._max_bytes[topic]

    def __iter__(self) -> Iterator[str]:
        return iter(self._max_bytes)

    def __len__(self) -> int:
        return len(self._max_bytes)
