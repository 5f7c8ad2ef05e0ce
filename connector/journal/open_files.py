"""Whether files that are open are still the ones at their paths, and a database written out again where they are not.

A file that was deleted, moved or replaced goes on for the process that has it open, and is gone with the process.
"""

import os
from pathlib import Path

import apsw


class OpenFiles:
    """Files that are open now, by device and inode, and by what this process has written last.

    Args:
        paths: Where they are; one that does not exist yet is taken as it is found first.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = [(path, os.fspath(path)) for path in paths]
        self._known = {path: _look(name) for path, name in self._paths}

    def remember(self) -> None:
        """This process has written: what they are like now is its own doing."""
        for path, name in self._paths:
            known, found = self._known[path], _look(name)
            if known is None or (found is not None and _same(known, found)):
                self._known[path] = found

    def lost_reason(self, *, written: bool = False) -> str:
        """What has become of the first that is no longer what is open here, as a clause; nothing while all are.

        Args:
            written: Whether one that was written since the last `remember` counts, by whatever program.
        """
        for path, name in self._paths:
            known, found = self._known[path], _look(name)
            if known is None:
                self._known[path] = found
            elif found is None:
                return f"{path} was deleted or moved away"
            elif not _same(known, found):
                return f"{path} was replaced"
            elif written and known != found:
                return f"another program has written into {path}"
        return ""

    def is_known(self, path: Path) -> bool:
        """Whether the file at a path is one of them."""
        found = _look(os.fspath(path))
        return found is not None and any(one is not None and _same(one, found) for one in self._known.values())


_Look = tuple[int, int, int, int]
"""Device, inode, time of the last change, size."""


def _look(name: str) -> _Look | None:
    """None where there is nothing, or nobody can look."""
    try:
        found = os.stat(name)  # noqa: PTH116 - half the time of Path.stat, for every transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _same(one: _Look, other: _Look) -> bool:
    return one[:2] == other[:2]


def write_out(database: apsw.Connection, to: Path) -> None:
    """Write what an open database holds into a new file, and bring that to the disk.

    Raises:
        apsw.Error: It cannot be read, or not be written.
        OSError: The same.
    """
    to.unlink(missing_ok=True)
    database.execute("VACUUM INTO ?", (str(to),))
    to.chmod(0o600)
    sync(to)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
