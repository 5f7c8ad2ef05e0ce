"""How long messages have waited, by the monotonic clock: the wall clock may have been hours ahead, and may step.

A process draws its own sequences in order, so samples of the counter are enough to tell when each was drawn. Of a
message that an earlier process or another replica received, only the wall clock of that time is known: it is used
unless it is in the future, and from the first sample on the monotonic clock counts.
"""

import time
from bisect import bisect_right
from typing import Final

_MAX_SAMPLES: Final = 2_048


class Ages:
    """When each message began to wait, on the monotonic clock.

    Args:
        first: The first sequence that this process draws; None where others draw them too.
    """

    def __init__(self, first: int | None) -> None:
        self._started = self._sampled_at = time.monotonic()
        self._is_alone = first is not None
        self._sequences: list[int] = [] if first is None else [first]
        self._moments = [] if first is None else [self._started]
        self._oldest: tuple[int, float] | None = None

    def sample(self, last_sequence: int) -> None:
        """Record the last sequence that was drawn; call it every second or so.

        When there are too many samples every second one is dropped: the ages of a process that runs for weeks are
        known to seconds.
        """
        self._sampled_at = time.monotonic()
        next_sequence = last_sequence + 1
        if not self._is_alone or next_sequence <= self._sequences[-1]:
            return
        if len(self._sequences) == _MAX_SAMPLES:
            del self._sequences[1::2], self._moments[1::2]
        self._sequences.append(next_sequence)
        self._moments.append(self._sampled_at)

    def since(self, sequence: int, waits_since: int) -> float:
        """The moment on the monotonic clock from which on a message waits, or one not long before.

        Args:
            sequence: Its position in the order.
            waits_since: Epoch milliseconds, as the clock was then.
        """
        if self._is_alone and sequence >= self._sequences[0]:
            at = bisect_right(self._sequences, sequence)
            return self._sampled_at if at == len(self._sequences) else self._moments[at - 1]
        since = time.monotonic() - max(time.time() - waits_since / 1000, 0)
        return min(since, self._started) if self._is_alone else since

    def since_oldest(self, sequence: int, waits_since: int) -> float:
        """The moment for the message that has waited longest: however the wall clock steps, its age grows."""
        if self._oldest is None or self._oldest[0] != sequence:
            self._oldest = sequence, self.since(sequence, waits_since)
        return self._oldest[1]
