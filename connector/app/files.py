"""Files that may change while the connector runs: their modification is noticed, and they are read again."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 1.0
"""How often the files are checked."""

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass
class _Watched:
    files: Callable[[], Iterable[Path]]
    act: Callable[[], None]
    stamp: Stamp


class WatchedFiles:
    """Acts when files have changed; replacing one, by a rename or through a symbolic link, is a change too."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []

    def watch(self, files: Callable[[], Iterable[Path]], act: Callable[[], None]) -> None:
        """Call ``act`` on the event loop after one of the files has changed; ``files`` is called at every check."""
        self._watched.append(_Watched(files, act, _stamp(files())))

    async def run(self) -> None:
        """Check the files until cancelled; an exception of an action ends it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for one in self._watched:
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
