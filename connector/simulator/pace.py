"""The pace of a simulation: determines when each message is due."""

from math import sqrt
from typing import Final

RESTART_AFTER_SECONDS: Final = 1.0


class Pace:
    """Spreads messages evenly at ``rate`` a second (0: all due at once), rising linearly from 0 over ``ramp_seconds``.

    After a delay of more than a second the schedule restarts, to avoid a burst.
    """

    def __init__(self, rate: float, ramp_seconds: float, *, started: float) -> None:
        self._rate = rate
        self._ramp_seconds = ramp_seconds
        self._origin = started
        self._taken = 0

    def wait_seconds(self, now: float) -> float:
        """Take the next turn and return the seconds to wait for it from ``now`` (on the clock of ``started``)."""
        if self._rate == 0:
            return 0.0
        due = self._origin + self._seconds_until(self._taken)
        self._taken += 1
        late = now - due
        if late > RESTART_AFTER_SECONDS:
            self._origin += late
        return max(0.0, -late)

    def _seconds_until(self, turn: int) -> float:
        # While the rate rises linearly, the number of turns grows with the square of the time.
        turns_in_ramp = self._rate * self._ramp_seconds / 2
        if turn < turns_in_ramp:
            return sqrt(2 * self._ramp_seconds * turn / self._rate)
        return self._ramp_seconds + (turn - turns_in_ramp) / self._rate
