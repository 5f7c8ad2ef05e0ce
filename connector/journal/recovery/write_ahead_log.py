"""Reads SQLite's write-ahead log without SQLite, which ends the log at the first broken frame.

The format is described in https://www.sqlite.org/fileformat2.html#walformat: a header of 32 bytes, then frames, each
with a header of 24 bytes and a page. A frame belongs to the log if its salts are those of the header. A frame whose
"size after commit" is not 0 ends a transaction.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_SUMMED_HEADER_BYTES: Final = 8  # the part of a frame's header that its checksum covers
_BYTE_ORDERS: Final = {0x377F0682: "<", 0x377F0683: ">"}  # by the header's magic number
_WORD_MASK: Final = 0xFFFFFFFF
_PAGE_SIZES: Final = frozenset(1 << power for power in range(9, 17))


class Frame(NamedTuple):
    """One frame of the log.

    Attributes:
        number: The frame's position in the log, from 1.
        page: The page's number in the database, from 1.
        is_commit: Whether the frame ends a transaction.
        offset: The offset of the page's bytes in the log.
        checksum: The stored checksum, of everything up to this frame.
        order: The byte order of the words that the checksum sums up.
    """

    number: int
    page: int
    is_commit: bool
    offset: int
    checksum: tuple[int, int]
    order: str

    def follows(self, before: tuple[int, int], header_and_page: bytes) -> bool:
        """Whether the checksum is right, given that of the previous frame or of the header."""
        first, second = before
        for even_word, odd_word in struct.iter_unpack(f"{self.order}2I", header_and_page):
            first = (first + even_word + second) & _WORD_MASK
            second = (second + odd_word + first) & _WORD_MASK
        return (first, second) == self.checksum


def frames(path: Path) -> Iterator[Frame]:
    """Yield the frames that belong to the log, whole or broken; none if there is no log."""
    if not path.exists():
        return
    with path.open("rb") as log:
        header = log.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        magic, _, page_size, _, *salts, _, _ = _HEADER.unpack(header)
        if magic not in _BYTE_ORDERS or page_size not in _PAGE_SIZES:
            return
        step = _FRAME.size + page_size
        for number in range(1, (path.stat().st_size - _HEADER.size) // step + 1):
            offset = _HEADER.size + (number - 1) * step
            log.seek(offset)
            page, after_commit, *frame_salts, first, second = _FRAME.unpack(log.read(_FRAME.size))
            # SQLite changes the salts when it starts the log over; frames behind the new ones are old.
            if frame_salts == salts:
                yield Frame(number, page, after_commit != 0, offset + _FRAME.size, (first, second), _BYTE_ORDERS[magic])


def commits(path: Path) -> list[int]:
    """Return the numbers of the frames that end a transaction."""
    return [frame.number for frame in frames(path) if frame.is_commit]


def whole_frames(path: Path) -> int:
    """Return how many frames are as they were written, counted from the first to the first broken one."""
    whole, before = -1, (0, 0)  # -1, because the header is summed up as frame 0
    for frame, summed_up in _summed_up(path):
        if frame.number != whole + 1 or not frame.follows(before, summed_up):
            break
        whole, before = frame.number, frame.checksum
    return max(whole, 0)


def _summed_up(path: Path) -> Iterator[tuple[Frame, bytes]]:
    """Yield the log's header, as frame 0, and its frames, each with the bytes that its checksum covers."""
    if not path.exists() or path.stat().st_size < _HEADER.size:
        return
    with path.open("rb") as log:
        header = log.read(_HEADER.size)
        _, _, page_size, *_, first, second = _HEADER.unpack(header)
        order = ">" if header[3] & 1 else "<"
        yield Frame(0, 0, is_commit=False, offset=0, checksum=(first, second), order=order), header[: _FRAME.size]
        for frame in frames(path):
            log.seek(frame.offset - _FRAME.size)
            content = log.read(_FRAME.size + page_size)
            yield frame, content[:_SUMMED_HEADER_BYTES] + content[_FRAME.size :]


def pages(path: Path, page_size: int) -> dict[int, int]:
    """Return page → offset of its last committed version in the log, without versions that are certainly broken."""
    committed: dict[int, int] = {}
    pending: dict[int, int] = {}
    before = 0, (0, 0)
    with path.open("rb") as log:
        for frame in frames(path):
            log.seek(frame.offset - _FRAME.size)
            content = log.read(_FRAME.size + page_size)
            # A checksum includes the previous one. Behind a gap it cannot be checked: the frame is taken, and the
            # checksums of its rows decide.
            can_check = before[0] == frame.number - 1 and frame.number > 1
            if not can_check or frame.follows(before[1], content[:_SUMMED_HEADER_BYTES] + content[_FRAME.size :]):
                pending[frame.page] = frame.offset
            before = frame.number, frame.checksum
            if frame.is_commit:
                committed |= pending
                pending.clear()
    return committed
