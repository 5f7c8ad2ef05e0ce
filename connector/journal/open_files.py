"""Checks whether open files are still the ones at their paths, and writes a database out again if they are not.

A file that was deleted, moved or replaced continues to exist for the process that has it open, and ends with it.
"""

import contextlib
import os
from pathlib import Path

import apsw


class OpenFiles:
    """The identity (device and inode) of open files, and their state after this process last wrote.

    Args:
        paths: The files; one that does not exist yet is registered when it first appears.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = [(path, os.fspath(path)) for path in paths]
        self._states = {path: _state(name) for path, name in self._paths}
        self._overwritten: set[Path] = set()

    def remember(self) -> None:
        """Register the files' current state: this process has just written to them."""
        for path, name in self._paths:
            known, current = self._states[path], _state(name, self._states[path])
            # A file that was replaced meanwhile must stay unknown.
            if known is None or (current is not None and _is_same(known, current)):
                self._states[path] = current

    @property
    def is_overwritten(self) -> bool:
        """Whether `lost_reason` has found that another program has written into one of them."""
        return bool(self._overwritten)

    def lost_reason(self, *, written: bool = False) -> str:
        """Return what happened to the first file that is no longer the open one, as a clause; empty if none is.

        Args:
            written: Whether a file counts, too, that another program has written into since `remember`; from then on it
                always does, whatever this process writes.
        """
        for path, name in self._paths:
            known, current = self._states[path], _state(name, self._states[path])
            if known is None:
                self._states[path] = current
            elif current is None:
                return f"{path} was deleted or moved away"
            elif not _is_same(known, current):
                return f"{path} was replaced"
            # A copy that is written into the file keeps the inode: only size and time show it.
            elif written and (path in self._overwritten or known != current):
                self._overwritten.add(path)
                return f"another program has written into {path}"
        return ""

    def is_known(self, path: Path) -> bool:
        """Whether the file at a path is one of the open files."""
        current = _state(os.fspath(path))
        return current is not None and any(
            known is not None and _is_same(known, current) for known in self._states.values()
        )


_State = tuple[int, int, int, int]
"""Device, inode, time of the last change, size."""


def _state(name: str, known: _State | None = None) -> _State | None:
    """Return the state of a file, or None if there is none; ``known`` if a failing disk does not tell."""
    try:
        status = os.stat(name)  # noqa: PTH116 - half the time of Path.stat, for every transaction
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return known
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _is_same(known: _State, current: _State) -> bool:
    return known[:2] == current[:2]


def write_out(database: apsw.Connection, to: Path) -> None:
    """Write the content of an open database into a new file, and sync it.

    Raises:
        apsw.Error: The database cannot be read, or the file not be written.
        OSError: The same.
    """
    remove_draft(to)  # VACUUM INTO fails if the file exists
    try:
        database.execute("VACUUM INTO ?", (str(to),))
        to.chmod(0o600)
        sync(to)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_draft(to)  # part of a copy would fill the disk
        raise


def remove_draft(draft: Path) -> None:
    """Delete what `write_out` has left of a file that it could not complete."""
    draft.unlink(missing_ok=True)
    draft.with_name(f"{draft.name}-journal").unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
