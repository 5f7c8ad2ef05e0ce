"""A disk that fails when a test says so."""

from collections.abc import Callable

import apsw


class FailingDisk(apsw.VFS):
    """A file system of SQLite whose syncs and writes can be made to fail.

    Attributes:
        failing: What fails: ``sync``, ``write``.
        failures: How often it did.
        on_failure: Called at each failure, on the thread of the journal.
    """

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.failures = 0
        self.on_failure: Callable[[], None] = lambda: None
        self.name = f"failing-{id(self)}"
        super().__init__(self.name, "")

    def fail(self) -> None:
        """Count a failure."""
        self.failures += 1
        self.on_failure()

    def xOpen(self, name, flags):  # noqa: N802
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    """A file of it."""

    def __init__(self, disk: FailingDisk, name, flags) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags):  # noqa: N802
        if "sync" in self._disk.failing:
            self._disk.fail()
            raise apsw.IOError("the disk does not sync")
        return super().xSync(flags)

    def xWrite(self, content, offset):  # noqa: N802
        if "write" in self._disk.failing:
            self._disk.fail()
            raise apsw.FullError("the disk is full")
        return super().xWrite(content, offset)
