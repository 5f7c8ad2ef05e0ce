"""``ingestId``: UUIDv7 text that never goes backwards in one connector, clock steps and restarts included.

RFC 9562, section 5.7: 48 bits of milliseconds, then bits that grow within the millisecond (method 2, monotonic random).
A clock that steps back does not take the ids with it: they go on counting in the latest millisecond that was used.
"""

import secrets
import time
from array import array
from typing import Final

from connector.values import IngestId

_RANDOM_BITS: Final = 74
_STEPS: Final = 1_024


class IngestIds:
    """Makes ids above a floor.

    Args:
        floor: Epoch milliseconds that earlier runs may have used; the first id is above them.
    """

    def __init__(self, floor: int = 0) -> None:
        self._steps = array("I")
        self._milliseconds = floor
        self._counter = (1 << _RANDOM_BITS) - 1 if floor else 0

    def next(self) -> IngestId:
        """The next id."""
        now = time.time_ns() // 1_000_000
        if now > self._milliseconds:
            self._milliseconds = now
            self._counter = secrets.randbits(_RANDOM_BITS - 1)
        else:
            self._count_on()
        return _text(self._milliseconds, self._counter)

    def _count_on(self) -> None:
        if not self._steps:  # many at a time: each call of the operating system is dear
            self._steps.frombytes(secrets.token_bytes(_STEPS * self._steps.itemsize))
        counter = self._counter + 1 + self._steps.pop()
        if counter >> _RANDOM_BITS:
            self._milliseconds += 1
            counter = secrets.randbits(_RANDOM_BITS - 1)
        self._counter = counter

    @property
    def latest(self) -> int:
        """The latest millisecond that was used."""
        return self._milliseconds


def _text(milliseconds: int, counter: int) -> IngestId:
    high, low = counter >> 62, counter & ((1 << 62) - 1)
    digits = f"{milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
    return IngestId(f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")
