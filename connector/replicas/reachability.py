"""Whether Kafka answers this replica, and whether it has answered another one since this one lost it."""

import time
from typing import Any


class KafkaReachability:
    """Whether Kafka answers this replica, and what other replicas report.

    Replicas notice an outage at different times, so only reports of answers after this replica's own loss count.
    """

    def __init__(self) -> None:
        self._is_reached = False
        self._reached_at: float | None = None
        self._lost_at = time.monotonic()
        self._others_reach = False

    @property
    def is_isolated(self) -> bool:
        """Whether the brokers answer another replica and not this one."""
        return self._others_reach and not self._is_reached

    @property
    def lost_at(self) -> float:
        """When Kafka last stopped answering this replica, on the monotonic clock."""
        return self._lost_at

    def record_own(self, *, answers: bool) -> None:
        """Record that the brokers have answered this replica now, or no longer answer it."""
        now = time.monotonic()
        if answers:
            self._reached_at = now
        elif self._is_reached:
            self._lost_at = now
            self._others_reach = False  # reports from before this moment are stale
        self._is_reached = answers

    def record_others(self, *, reach: bool, lost_at: float) -> None:
        """Record whether another replica reports an answer of Kafka after `lost_at`."""
        # If Kafka was lost again meanwhile, the report is stale.
        if lost_at == self._lost_at:
            self._others_reach = reach

    def report(self) -> dict[str, Any]:
        """Return this replica's report, as parameters of a statement."""
        # Ages and not times: replicas and database have different clocks.
        now = time.monotonic()
        return {
            "reaches_kafka": self._is_reached,
            "reached_seconds_ago": None if self._reached_at is None else now - self._reached_at,
            "lost_seconds_ago": 0.0 if self._is_reached else now - self._lost_at,
        }
