"""SQLite's write-ahead log, as far as a damaged journal needs it read without SQLite.

The format is that of https://www.sqlite.org/fileformat2.html#walformat: a header of 32 bytes, then frames of a header
of 24 bytes and a page; a frame belongs to the log if its salts are the header's, and the frames up to one whose "size
after commit" is not 0 are a transaction.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_PLACE: Final = 8  # bytes of a frame's header that its checksum covers
_ORDER: Final = {0x377F0682: "<", 0x377F0683: ">"}
_WORD: Final = 0xFFFFFFFF
_PAGE_SIZES: Final = frozenset(1 << power for power in range(9, 17))


class Frame(NamedTuple):
    """One page in the log.

    Attributes:
        number: Its place in the log, from 1.
        page: The page's number in the database, from 1.
        is_commit: Whether a transaction ends with it.
        offset: Where the page's bytes are in the log.
        checksum: Of everything up to it, as it says.
        order: Byte order of the words that are summed up.
    """

    number: int
    page: int
    is_commit: bool
    offset: int
    checksum: tuple[int, int]
    order: str

    def follows(self, before: tuple[int, int], header_and_page: bytes) -> bool:
        """Whether its checksum is right, given that of the frame (or header) before it."""
        first, second = before
        for one, other in struct.iter_unpack(f"{self.order}2I", header_and_page):
            first = (first + one + second) & _WORD
            second = (second + other + first) & _WORD
        return (first, second) == self.checksum


def frames(path: Path) -> Iterator[Frame]:
    """The frames that belong to the log, whether their contents are whole or not; none where there is no log."""
    if not path.exists():
        return
    with path.open("rb") as log:
        header = log.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        magic, _, page_size, _, *salts, _, _ = _HEADER.unpack(header)
        if magic not in _ORDER or page_size not in _PAGE_SIZES:
            return
        step = _FRAME.size + page_size
        for number in range(1, (path.stat().st_size - _HEADER.size) // step + 1):
            offset = _HEADER.size + (number - 1) * step
            log.seek(offset)
            page, after_commit, *salted, first, second = _FRAME.unpack(log.read(_FRAME.size))
            if salted == salts:
                yield Frame(number, page, after_commit != 0, offset + _FRAME.size, (first, second), _ORDER[magic])


def commits(path: Path) -> list[int]:
    """The numbers of the frames that end a transaction."""
    return [frame.number for frame in frames(path) if frame.is_commit]


def whole_frames(path: Path) -> int:
    """How many frames of the log are as they were written, from the first on."""
    whole, before = -1, (0, 0)
    for frame, summed_up in _summed_up(path):
        if frame.number != whole + 1 or not frame.follows(before, summed_up):
            break
        whole, before = frame.number, frame.checksum
    return max(whole, 0)


def _summed_up(path: Path) -> Iterator[tuple[Frame, bytes]]:
    """The log's header, as a frame with the number 0, and its frames; each with the bytes of its checksum."""
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
            yield frame, content[:_PLACE] + content[_FRAME.size :]


def pages(path: Path, page_size: int) -> dict[int, int]:
    """Page → where its last committed version is in the log, versions that are known to be broken left out."""
    found: dict[int, int] = {}
    pending: dict[int, int] = {}
    before = 0, (0, 0)
    with path.open("rb") as log:
        for frame in frames(path):
            log.seek(frame.offset - _FRAME.size)
            content = log.read(_FRAME.size + page_size)
            is_known = before[0] == frame.number - 1 and frame.number > 1
            if not is_known or frame.follows(before[1], content[:_PLACE] + content[_FRAME.size :]):
                pending[frame.page] = frame.offset
            before = frame.number, frame.checksum
            if frame.is_commit:
                found |= pending
                pending.clear()
    return found
