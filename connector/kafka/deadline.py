"""By when Kafka has to have answered."""

import time
from typing import Final

_MIN_SECONDS: Final = 0.1


class Deadline:
    """A moment by which everything must have been answered.

    Args:
        seconds: From now, and from each `restart`.
    """

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def restart(self) -> None:
        """Start over: Kafka has answered, or had no reason to, and has the whole time for its next answer."""
        self._at = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """Seconds; never so few that librdkafka would reject them."""
        return max(_MIN_SECONDS, self._at - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the moment has come."""
        return time.monotonic() >= self._at
