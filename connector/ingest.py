"""``ingestId``: UUIDv7 text that never goes backwards in one connector, clock steps and restarts included.

RFC 9562, section 5.7: 48 bits of milliseconds, then bits that grow within the millisecond (method 2, monotonic random).
A clock that steps back does not take the ids with it: they go on counting in the latest millisecond that was used.
"""

import secrets
import time
from typing import Final

from connector.values import IngestId

_RANDOM_BITS: Final = 74
_LARGEST_STEP_BITS: Final = 32


class IngestIds:
    """Makes ids above a floor.

    Args:
        floor: Epoch milliseconds that earlier runs may have used; the first id is above them.
    """

    def __init__(self, floor: int = 0) -> None:
        self._dice = _Dice()
        self._milliseconds = floor
        self._counter = (1 << _RANDOM_BITS) - 1 if floor else 0

    def next(self) -> IngestId:
        """The next id."""
        now = time.time_ns() // 1_000_000
        step = 1 + self._dice.bits(_LARGEST_STEP_BITS)
        if now > self._milliseconds:
            self._milliseconds = now
            self._counter = self._dice.bits(_RANDOM_BITS - 1)
        elif self._counter + step >> _RANDOM_BITS:
            self._milliseconds += 1
            self._counter = self._dice.bits(_RANDOM_BITS - 1)
        else:
            self._counter += step
        return _text(self._milliseconds, self._counter)

    @property
    def latest(self) -> int:
        """The latest millisecond that was used."""
        return self._milliseconds


def _text(milliseconds: int, counter: int) -> IngestId:
    high, low = counter >> 62, counter & ((1 << 62) - 1)
    digits = f"{milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low:032x}"
    return IngestId(f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}")


class _Dice:
    """Random bits of the operating system, fetched by the page: a call for each id is dear."""

    _PAGE: Final = 4_096

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def bits(self, count: int) -> int:
        """So many random bits."""
        length = (count + 7) // 8
        if self._at + length > len(self._page):
            self._page, self._at = secrets.token_bytes(self._PAGE), 0
        start, self._at = self._at, self._at + length
        return int.from_bytes(self._page[start : self._at], "big") >> (8 * length - count)
