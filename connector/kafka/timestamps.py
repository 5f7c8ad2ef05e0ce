"""Which timestamps a topic takes: Kafka rejects those too far from its own clock, and with them whole record batches.

A record's timestamp is when its request was received. A clock that was ahead, or a message that has waited for days,
can make that one that a topic refuses for hours, or for good; such a record gets the current time in its place.
"""

from collections.abc import Callable

import msgspec

from connector.clock import now_ms
from connector.kafka.topics import TopicState
from connector.values import ProducibleRecord


class TimestampLimits:
    """The timestamps that each topic takes.

    Args:
        on_replaced: Called with the record whose timestamp was replaced.
    """

    def __init__(self, on_replaced: Callable[[ProducibleRecord], None]) -> None:
        self._on_replaced = on_replaced
        self._limits: dict[str, tuple[int, int]] = {}

    def note(self, state: TopicState) -> None:
        """A topic was looked at."""
        self._limits[state.name] = state.timestamp_before_ms, state.timestamp_after_ms

    def restamp(self, record: ProducibleRecord) -> ProducibleRecord:
        """A record of a batch that Kafka rejected for a timestamp: with the current time, if its own is beyond a limit.

        Where the limits are not known every record of the batch gets it. While the clock of this machine is wrong Kafka
        refuses the current time too, and the record comes here again.
        """
        now = now_ms()
        before, after = self._limits.get(record.topic, (0, 0))
        if now - before <= record.timestamp <= now + after:
            return record
        self._on_replaced(record)
        return msgspec.structs.replace(record, timestamp=now)
