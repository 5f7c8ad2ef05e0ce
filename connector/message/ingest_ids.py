"""Makes ``ingestId``: UUIDv7 text that never goes backwards in one connector, despite clock steps and restarts.

RFC 9562, section 5.7: 48 bits of milliseconds, 12 bits of the fraction of a millisecond (section 6.2, method 3), and
62 random bits. When the clock stands still or steps back, the ids continue from the latest fraction that was used.
"""

import secrets
import time
from array import array
from typing import Final

from connector.values import IngestId

_FRACTION_BITS: Final = 12
_LAST_FRACTION: Final = (1 << _FRACTION_BITS) - 1
_BUFFERED_WORDS: Final = 1_024


class IngestIds:
    """Makes ids above a floor.

    Args:
        floor: The latest epoch millisecond that earlier runs may have used; every id is later.
    """

    def __init__(self, floor: int = 0) -> None:
        # Milliseconds and their fraction are one integer: adding 1 is the next fraction, or the next millisecond.
        self._latest = floor << _FRACTION_BITS | _LAST_FRACTION if floor else 0
        self._words = array("Q")

    def next(self) -> IngestId:
        """Return the next id."""
        now = (time.time_ns() << _FRACTION_BITS) // 1_000_000
        self._latest = latest = now if now > self._latest else self._latest + 1
        if not self._words:  # many at a time, because each call into the operating system is expensive
            self._words.frombytes(secrets.token_bytes(_BUFFERED_WORDS * self._words.itemsize))
        word = self._words.pop()
        return IngestId(  # 7 is the version; 0x8000 sets the two bits of the variant
            f"{latest >> 28:08x}-{latest >> 12 & 0xFFFF:04x}-7{latest & 0xFFF:03x}"
            f"-{0x8000 | word >> 50:04x}-{word & 0xFFFF_FFFF_FFFF:012x}"
        )

    @property
    def latest(self) -> int:
        """The latest epoch millisecond that was used."""
        return self._latest >> _FRACTION_BITS
