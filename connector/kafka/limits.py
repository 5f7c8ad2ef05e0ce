"""What each topic takes: the bytes of its largest record, and timestamps near the brokers' clocks.

A record's timestamp is when its request was received. Kafka rejects one that is too far from its own clock, and with it
the whole record batch. A clock that was ahead, or a message that has waited for days, can make it one that a topic
rejects for hours, or for good; such a record gets the current time instead.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from connector.clock import now_ms
from connector.kafka.topics import TopicState
from connector.values import ProducibleRecord


class TopicLimits(Mapping[str, int]):
    """Topic → its ``max.message.bytes``, for the topics that have been described; and their limits of timestamps.

    Only the watcher of the topics calls `record`; everyone else reads.

    Args:
        on_restamp: Called with each record whose timestamp is replaced.
    """

    def __init__(self, on_restamp: Callable[[ProducibleRecord], None]) -> None:
        self._on_restamp = on_restamp
        self._max_bytes: dict[str, int] = {}
        self._timestamps: dict[str, tuple[int, int]] = {}

    def record(self, state: TopicState) -> None:
        """Keep what a broker says about a topic."""
        self._max_bytes[state.name] = state.max_message_bytes
        self._timestamps[state.name] = state.timestamp_before_ms, state.timestamp_after_ms

    def restamp(self, record: ProducibleRecord) -> ProducibleRecord:
        """A record of a batch that Kafka rejected for a timestamp: with the current time, if its own is beyond a limit.

        Where the limits are not known every record of the batch gets it. While the clock of this machine is wrong Kafka
        rejects the current time too, and the record comes here again.
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
