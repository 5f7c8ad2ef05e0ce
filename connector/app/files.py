"""Watches files that may change while the connector runs: settings, certificates and keys."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 1.0
"""Seconds between two checks of the files."""

# The inode too: a file that replaces another by a rename or through a symbolic link may have the same time and size.
Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, modification time and size of each file; None for a missing file."""


@dataclass
class _Watched:
    files: Callable[[], Iterable[Path]]
    act: Callable[[], None]
    stamp: Stamp


class WatchedFiles:
    """Calls functions when files have changed, including files that a rename or a symbolic link has replaced."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []

    def watch(
        self, files: Callable[[], Iterable[Path]], act: Callable[[], None], *, since: Stamp | None = None
    ) -> None:
        """Call ``act`` on the event loop after one of the files has changed.

        Args:
            files: Returns the files; called at every check.
            act: The function to call.
            since: The stamp of the files when they were last read; None means their stamp now.
        """
        self._watched.append(_Watched(files, act, stamp(files()) if since is None else since))

    async def run(self) -> None:
        """Check the files until cancelled, or until ``act`` raises."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for watched in self._watched:
                latest = await asyncio.to_thread(stamp, tuple(watched.files()))
                if latest != watched.stamp:
                    watched.stamp = latest  # before the action: a change while it reads is then noticed as a new one
                    watched.act()


def stamp(files: Iterable[Path]) -> Stamp:
    """The stamp of some files: it differs once one of them has changed."""
    return tuple(_stamp_of(path) for path in files)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
