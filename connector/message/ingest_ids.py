"""``ingestId``: UUIDv7 text that never goes backwards in one connector, clock steps and restarts included.

RFC 9562, section 5.7: 48 bits of milliseconds, then bits that grow within the millisecond (method 2, monotonic random).
When the clock steps back, the ids do not: they go on counting in the latest millisecond that was used.
"""

import secrets
import time
from array import array
from typing import Final

from connector.values import IngestId

_RANDOM_BITS: Final = 74
_LOW_BITS: Final = 32
_LOW: Final = (1 << _LOW_BITS) - 1
_WORDS: Final = 1_024


class IngestIds:
    """Makes ids above a floor.

    Args:
        floor: Epoch milliseconds that earlier runs may have used; the first id is above them.
    """

    def __init__(self, floor: int = 0) -> None:
        self._words = array("I")
        self._milliseconds = floor
        self._counter = (1 << _RANDOM_BITS) - 1 if floor else 0
        self._written = (0, 0)
        self._text = ""

    def next(self) -> IngestId:
        """The next id."""
        now = time.time_ns() // 1_000_000
        if now > self._milliseconds:
            self._milliseconds = now
            self._counter = self._random_counter()
        else:
            self._count_on()
        begins = self._milliseconds, self._counter >> _LOW_BITS
        if begins != self._written:  # within a millisecond most ids differ only in their last digits
            self._written, self._text = begins, _beginning(*begins)
        return IngestId(f"{self._text}{self._counter & _LOW:08x}")

    def _count_on(self) -> None:
        counter = self._counter + 1 + self._random_word()
        if counter >> _RANDOM_BITS:
            self._milliseconds += 1
            counter = self._random_counter()
        self._counter = counter

    def _random_counter(self) -> int:
        """A start with the first bit clear, so that there is room to count on."""
        words = self._random_word() << 2 * _LOW_BITS | self._random_word() << _LOW_BITS | self._random_word()
        return words >> 3 * _LOW_BITS - (_RANDOM_BITS - 1)

    def _random_word(self) -> int:
        """32 random bits."""
        if not self._words:  # many at a time: each call into the operating system is expensive
            self._words.frombytes(secrets.token_bytes(_WORDS * self._words.itemsize))
        return self._words.pop()

    @property
    def latest(self) -> int:
        """The latest millisecond that was used."""
        return self._milliseconds


def _beginning(milliseconds: int, counter: int) -> str:
    """An id without its last eight digits: time, version 7, 12 bits, variant, 30 bits."""
    high, low = counter >> 30, counter & ((1 << 30) - 1)
    digits = f"{milliseconds << 48 | 7 << 44 | high << 32 | 0b10 << 30 | low:024x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
