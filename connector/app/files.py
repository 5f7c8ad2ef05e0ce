"""Files that may change while the connector runs: seen by what the file system says of them, and read again."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 1.0
"""How often the files are looked at."""

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass
class _Followed:
    files: Callable[[], Iterable[Path]]
    act: Callable[[], None]
    stamp: Stamp


class Rotation:
    """Acts when files have changed; one that is replaced, by a rename or through a symbolic link, has changed too."""

    def __init__(self) -> None:
        self._followed: list[_Followed] = []

    def follow(self, files: Callable[[], Iterable[Path]], act: Callable[[], None]) -> None:
        """Call ``act``, on the event loop, after one of the files has changed; which they are is asked each time."""
        self._followed.append(_Followed(files, act, _stamp(files())))

    async def run(self) -> None:
        """Look again and again; what an action raises ends it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for one in self._followed:
                stamp = await asyncio.to_thread(_stamp, tuple(one.files()))
                if stamp != one.stamp:
                    one.stamp = stamp
                    one.act()


def _stamp(files: Iterable[Path]) -> Stamp:
    return tuple(_stamp_of(path) for path in files)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
