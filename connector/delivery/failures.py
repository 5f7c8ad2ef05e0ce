"""What failed deliveries leave behind: which lanes wait before they are tried again, and why Kafka rejects records."""

import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from connector import supervision
from connector.journal.model import Admission
from connector.kafka.publisher import Failure, FailureKind
from connector.values import ProducibleRecord

Restamp = Callable[[ProducibleRecord], ProducibleRecord]
"""Gives a record a timestamp that its topic takes; returns the same record if its timestamp is not the problem."""

_MAX_LANES: Final = 10_000
_MAX_DOUBLINGS: Final = 16
_FIRST_SECONDS: Final = 0.1
_MAX_SECONDS: Final = 10.0
_FAILING_SECONDS: Final = 30.0  # longer than the longest back-off, so that a failing topic stays listed


class BackOff:
    """Lanes that are not replayed for a while, longer after each failure.

    A lane stays in it after its wait, until a message of it is published: rule 4 asks whether its last delivery failed.

    Args:
        clock: Seconds, as the event loop has them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lanes: dict[str, tuple[float, int]] = {}
        self._has_forgotten = False

    def failed(self, lane: str) -> None:
        """A delivery of the lane has failed. Beyond 10,000 lanes it is not kept, and replay pauses instead."""
        attempts = self._lanes.get(lane, (0.0, 0))[1]
        seconds = supervision.back_off_seconds(attempts, _FIRST_SECONDS, _MAX_SECONDS)
        if len(self._lanes) < _MAX_LANES:
            until = self._clock() + seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
            self._lanes[lane] = until, min(attempts + 1, _MAX_DOUBLINGS)
        elif lane not in self._lanes:
            self._has_forgotten = True

    def rejected(self, lane: str) -> None:
        """A record of the lane was rejected by Kafka, and will be again: wait for the longest time."""
        self._lanes[lane] = self._clock() + _MAX_SECONDS, _MAX_DOUBLINGS

    def end(self, lane: str) -> None:
        """Try the lane at once, and begin with the shortest wait after its next failure."""
        self._lanes.pop(lane, None)

    @property
    def waiting(self) -> frozenset[str]:
        """The lanes that are not to be tried now."""
        now = self._clock()
        return frozenset(lane for lane, (until, _) in self._lanes.items() if until > now)

    def must_pause(self) -> bool:
        """Whether so many lanes wait that replay has to pause. Forgets those whose wait is over, to make room."""
        if len(self._lanes) >= _MAX_LANES:
            now = self._clock()
            self._lanes = {lane: wait for lane, wait in self._lanes.items() if wait[0] > now}
            self._has_forgotten = True
        return len(self._lanes) >= _MAX_LANES

    def may_have_failed(self, lane: str) -> bool:
        """Whether the lane's last delivery may have failed: once a lane had to be forgotten, that of any lane may."""
        return lane in self._lanes or self._has_forgotten


class TopicFailures:
    """Why Kafka rejects records, and the timestamps of records that are published again.

    Args:
        restamp: Replaces timestamps that Kafka rejects.
        clock: Seconds, as the event loop has them.
    """

    def __init__(self, restamp: Restamp, clock: Callable[[], float]) -> None:
        self._restamp = restamp
        self._clock = clock
        self._failing: dict[str, tuple[float, Failure]] = {}
        self._restamps_until = 0.0

    @property
    def recent(self) -> dict[str, Failure]:
        """Why Kafka rejects records, by topic, from the delivery reports of the last 30 seconds."""
        now = self._clock()
        return {topic: failure for topic, (at, failure) in self._failing.items() if now - at < _FAILING_SECONDS}

    def published(self, record: ProducibleRecord) -> None:
        """A record is acknowledged: its topic takes records again."""
        if self._failing:
            self._failing.pop(record.topic, None)

    def to_retry(self, failed: Sequence[tuple[ProducibleRecord, Failure]]) -> tuple[ProducibleRecord, ...]:
        """The records to publish again, with other timestamps where those were rejected."""
        for record, failure in failed:
            if failure.is_of_topic:
                self._failing[record.topic] = self._clock(), failure
            if failure.kind is FailureKind.TIMESTAMP:
                self._restamps_until = self._clock() + _FAILING_SECONDS
        return tuple(
            self._restamp(record) if failure.kind is FailureKind.TIMESTAMP else record for record, failure in failed
        )

    def to_replay(self, row: Admission) -> Admission:
        """A row to publish: while Kafka rejects timestamps, its records may get others."""
        if self._clock() >= self._restamps_until:
            return row
        return msgspec.structs.replace(row, records=tuple(map(self._restamp, row.records)))
