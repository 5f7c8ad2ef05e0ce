"""Files that may change while the connector runs: their modification is noticed, and they are read again."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 1.0
"""How often the files are checked."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, time and size of each file; None for one that is not there."""


@dataclass
class _Watched:
    files: Callable[[], Iterable[Path]]
    act: Callable[[], None]
    stamp: Stamp


class WatchedFiles:
    """Acts when files have changed; replacing one, by a rename or through a symbolic link, is a change too."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []

    def watch(
        self, files: Callable[[], Iterable[Path]], act: Callable[[], None], *, since: Stamp | None = None
    ) -> None:
        """Call ``act`` on the event loop after one of the files has changed.

        Args:
            files: The files; called at every check.
            act: What to do.
            since: The files as they were read last; None: as they are now.
        """
        self._watched.append(_Watched(files, act, stamp(files()) if since is None else since))

    async def run(self) -> None:
        """Check the files until cancelled; an exception of an action ends it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for watched in self._watched:
                latest = await asyncio.to_thread(stamp, tuple(watched.files()))
                if latest != watched.stamp:
                    watched.stamp = latest  # before the action: what changes while it reads is another change
                    watched.act()


def stamp(files: Iterable[Path]) -> Stamp:
    """What shows whether the files have changed."""
    return tuple(_stamp_of(path) for path in files)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
