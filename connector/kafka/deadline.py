"""Deadlines for Kafka's answers."""

import time
from typing import Final

_MIN_SECONDS: Final = 0.1


class Deadline:
    """A deadline for one or more answers.

    Args:
        seconds: Seconds from now, and from each `restart`.
    """

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def restart(self) -> None:
        """Start again with the whole time: Kafka has answered, or did not have to."""
        self._at = time.monotonic() + self._seconds

    def extend(self, seconds: float) -> None:
        """Add seconds in which no answer was waited for, up to the whole time from now."""
        self._at = min(self._at + seconds, time.monotonic() + self._seconds)

    @property
    def left(self) -> float:
        """Remaining seconds, never fewer than librdkafka accepts as a timeout."""
        return max(_MIN_SECONDS, self._at - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._at
