"""A disk whose power can fail: a SQLite file system in which only what was synced is sure to survive.

Files are real, in a real folder, so that code which looks at them beside SQLite sees the same. What is written goes to
the file at once and is noted as pending; a sync makes it durable. When the power fails, each file becomes what was
durable, plus any sectors of what was pending, in any combination; names that were made or removed since the folder was
last synced are there or not. A sync that fails has forgotten what it could not write, as Linux does: the bytes can be
read until the power fails, and no later sync brings them to the disk.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest import mock

import apsw

from connector.journal import file

SECTOR: Final = 512
_NAMES: Final = count()
_SYNCS_ITS_FOLDER: Final = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Fault(Enum):
    """How an operation fails."""

    FULL = "no room: nothing is written"
    BROKEN = "an error of the device: some of it may be written"
    POWER = "the power fails: some of it may be written, and nothing works any more"


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that are not yet durable."""

    offset: int
    content: bytes

    def reach(self, durable: bytearray, chance: Random) -> None:
        """Bring any of the sectors to the disk."""
        kept = chance.choice((0.0, 0.5, 0.9, 1.0))
        start = self.offset
        while start < self.offset + len(self.content):
            end = min((start // SECTOR + 1) * SECTOR, self.offset + len(self.content))
            if chance.random() < kept:
                _put(durable, start, self.content[start - self.offset : end - self.offset])
            start = end

    def settle(self, durable: bytearray) -> None:
        """Bring all of it to the disk."""
        _put(durable, self.offset, self.content)


@dataclass(frozen=True, slots=True)
class Truncation:
    """A shorter (or longer) file that is not yet durable."""

    size: int

    def reach(self, durable: bytearray, chance: Random) -> None:
        """It is on the disk, or not."""
        if chance.random() < 0.5:
            self.settle(durable)

    def settle(self, durable: bytearray) -> None:
        """It is on the disk."""
        del durable[self.size :]
        durable.extend(bytes(self.size - len(durable)))


@dataclass(eq=False)
class Contents:
    """One file: what is durable of it, and what has been asked since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncation] = field(default_factory=list)

    def sync(self) -> None:
        """All that is pending becomes durable."""
        for change in self.pending:
            change.settle(self.durable)
        self.pending.clear()

    def lose(self, chance: Random) -> None:
        """Any part of what is pending becomes durable, the rest never will."""
        for change in self.pending:
            change.reach(self.durable, chance)
        self.pending.clear()


class CrashDisk:
    """What outlives a process: the files of one folder. Each start mounts a file system of its own on it.

    Args:
        folder: A real folder, empty.
        chance: Decides what survives.

    Attributes:
        operations: Writes, syncs, truncations and removals so far.
        is_off: The power has failed: nothing works until the next mount.
    """

    def __init__(self, folder: Path, chance: Random) -> None:
        self.folder = folder
        self.chance = chance
        self.operations = 0
        self.is_off = False
        self._faults: dict[int, Fault] = {}
        self._lasting: Fault | None = None
        self._files: dict[str, Contents] = {}
        self._durable_names: dict[str, Contents] = {}

    @contextmanager
    def mounted(self) -> Iterator[str]:
        """A file system on the disk, by name; the power is on, and faults are over."""
        self.is_off = False
        self.mend()
        system = _FileSystem(self)
        asked_without_sqlite = mock.patch.multiple(file, sync=self._sync, write_again=self._write_again)
        try:
            with asked_without_sqlite:
                yield system.name
        finally:
            system.unregister()

    def fail(self, after: int, fault: Fault, *, lasts: bool = False) -> None:
        """The operation after so many more (0: the next one) fails; or every one from then on."""
        self._faults[self.operations + after] = fault
        self._lasting = fault if lasts else None

    def mend(self) -> None:
        """No operation fails any more."""
        self._faults.clear()
        self._lasting = None

    def crash(self) -> None:
        """The power fails now: the folder becomes what a restart finds."""
        self.is_off = True
        found = {}
        for name in {**self._files, **self._durable_names}:
            known = [names.get(name) for names in (self._files, self._durable_names)]
            chosen = self.chance.choice(known)
            if chosen is not None:
                found[name] = chosen
        for name in self._files:
            (self.folder / name).unlink(missing_ok=True)
        for name, contents in found.items():
            contents.lose(self.chance)
            (self.folder / name).write_bytes(contents.durable)
            (self.folder / name).chmod(0o600)
        self._files, self._durable_names = dict(found), dict(found)

    # --- what the file system asks ---

    def opened(self, name: str) -> tuple[Contents, bool]:
        """The file's contents, and whether it is new to the disk."""
        is_new = name not in self._files
        return self._files.setdefault(name, Contents()), is_new

    def operate(self) -> Fault | None:
        """Count an operation; what becomes of it."""
        if self.is_off:
            return Fault.POWER
        fault = self._faults.get(self.operations)
        if fault is None and self._lasting is not None and self.operations > max(self._faults):
            fault = self._lasting
        self.operations += 1
        self.is_off = fault is Fault.POWER
        return fault

    def remove(self, name: str) -> None:
        """A name is gone until the power fails, and for good once the folder is synced."""
        self._files.pop(name, None)

    def _sync(self, path: Path) -> None:
        fault = self.operate()
        if path != self.folder and fault is not None:
            self._files[path.name].lose(self.chance)
        if fault is not None:
            raise OSError(errno.EIO, "the disk does not answer")
        if path == self.folder:
            self.sync_folder()
        else:
            self._files[path.name].sync()

    def _write_again(self, path: Path) -> None:
        fault = self.operate()
        if fault is not Fault.FULL:
            self._files[path.name].pending.append(Write(0, path.read_bytes()))
        if fault is not None:
            raise OSError(errno.EIO, "the disk does not answer")
        self._sync(path)

    def sync_folder(self) -> None:
        """Names are durable as they are now."""
        self._durable_names = dict(self._files)


class _FileSystem(apsw.VFS):
    def __init__(self, disk: CrashDisk) -> None:
        self._disk = disk
        self.name = f"crash-disk-{next(_NAMES)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "_File":  # noqa: N802 - SQLite's name
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001 - SQLite's
        _raise(self._disk.operate())
        super().xDelete(filename, syncdir)
        self._disk.remove(os.path.basename(filename))  # noqa: PTH119 - SQLite's text
        if syncdir:
            self._disk.sync_folder()


class _File(apsw.VFSFile):
    def __init__(self, disk: CrashDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        super().__init__("", name, flags)
        self._contents, is_new = disk.opened(path.name)
        self._syncs_folder = is_new and bool(flags[0] & _SYNCS_ITS_FOLDER)

    def xWrite(self, content: bytes, offset: int) -> None:  # noqa: N802
        fault = self._disk.operate()
        written = bytes(content)
        if fault is not None:
            written = b"" if fault is Fault.FULL else self._part(written, offset)
        if written:
            super().xWrite(written, offset)
            self._contents.pending.append(Write(offset, written))
        _raise(fault)

    def _part(self, content: bytes, offset: int) -> bytes:
        """The first sectors of it: a sector is written as a whole or not at all."""
        cuts = range(offset // SECTOR * SECTOR + SECTOR, offset + len(content), SECTOR)
        return content[: self._disk.chance.choice([0, *(cut - offset for cut in cuts), len(content)])]

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        _raise(self._disk.operate())
        super().xTruncate(newsize)
        self._contents.pending.append(Truncation(newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        fault = self._disk.operate()
        if fault is Fault.BROKEN or fault is Fault.FULL:
            self._contents.lose(self._disk.chance)
        _raise(fault)
        self._contents.sync()
        if self._syncs_folder:
            self._syncs_folder = False
            self._disk.sync_folder()


def _raise(fault: Fault | None) -> None:
    if fault is Fault.FULL:
        raise apsw.FullError("the disk is full")
    if fault is not None:
        raise apsw.IOError("the disk does not answer")


def _put(durable: bytearray, offset: int, content: bytes) -> None:
    durable.extend(bytes(max(offset - len(durable), 0)))
    durable[offset : offset + len(content)] = content
