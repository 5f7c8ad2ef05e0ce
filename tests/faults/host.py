"""The connector, with faults that exist in tests only: ``python -m tests.faults.host serve``.

The connector's own code knows nothing of them: its methods are wrapped, its clock and its journal's disk replaced, from
here. What is broken is set by a control file (`Control`), which a scenario rewrites while the connector runs.
"""

import inspect
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from connector.app.brokers import BrokerWatch
from connector.cli import main
from connector.delivery.delivery import Delivery
from connector.intake.pipeline import Pipeline
from connector.journal.file import JournalFile
from connector.journal.sqlite import SqliteJournal
from connector.kafka.publisher import KafkaPublisher

CONTROL: Final = "FAULTS_CONTROL"
"""Environment variable with the path of the control file."""
LOOK_SECONDS: Final = 0.05

Disk = Literal["whole", "full", "unsynced", "read-only"]


@dataclass(frozen=True)
class Point:
    """A stage at which the process can be killed: before or after a method, in the n-th call."""

    owner: type
    method: str
    when: Literal["before", "after"]


POINTS: Final = {
    "request read": Point(Pipeline, "accept", "before"),
    "before produce": Point(KafkaPublisher, "publish", "before"),
    "after produce": Point(KafkaPublisher, "publish", "after"),
    "delivery reported": Point(Delivery, "_reported", "before"),
    "published, not answered": Point(Delivery, "_finish", "after"),
    "before a commit of the journal": Point(JournalFile, "transact", "before"),
    "after a commit, before its answers": Point(JournalFile, "transact", "after"),
    "before a checkpoint": Point(JournalFile, "checkpoint", "before"),
    "a row is published, not removed": Point(Delivery, "_remove", "before"),
    "replay takes a lane": Point(Delivery, "_publish_rows", "before"),
    "start: the journal is open": Point(SqliteJournal, "open", "after"),
    "start: before the topics": Point(BrokerWatch, "_describe_topics", "before"),
    "stop: before delivery ends": Point(Delivery, "stop", "before"),
    "stop: before the journal closes": Point(SqliteJournal, "close", "before"),
}


@dataclass(frozen=True)
class Control:
    """What is broken now.

    Attributes:
        point: Where the process kills itself; empty for nowhere.
        pending: On which visit of the point, counted since the process has read this.
        clock_seconds: How far the process's wall clock is off.
        disk: The state of the journal's disk.
    """

    point: str = ""
    pending: int = 1
    clock_seconds: float = 0.0
    disk: Disk = "whole"

    def write(self, path: Path) -> None:
        """Tell a running host; it looks some twenty times a second."""
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)


class Host:
    """Reads the control file, and does what it says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._visits: Counter[tuple[str, int]] = Counter()
        self._looked = -1.0
        self._control = Control()
        self.time, self.time_ns = time.time, time.time_ns

    @property
    def control(self) -> Control:
        """What is broken now."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._control = Control(**json.loads(self._path.read_text()))
        return self._control

    def pass_by(self, name: str) -> None:
        """The process is at a point: perhaps it ends here."""
        control = self.control
        if control.point != name:
            return
        self._visits[name, control.pending] += 1
        if self._visits[name, control.pending] >= control.pending:
            with self._path.with_suffix(".reached").open("a") as reached:
                reached.write(f"{name}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def break_clock(self) -> None:
        """The wall clock is off by as much as the control file says."""
        time.time = lambda: self.time() + self.control.clock_seconds
        time.time_ns = lambda: self.time_ns() + int(self.control.clock_seconds * 10**9)

    def break_journal(self) -> None:
        """The journal's files are on a disk that fails as the control file says."""
        disk = FailingDisk(self)
        real = SqliteJournal.__init__

        @wraps(real)
        def made(journal: SqliteJournal, path: Path, **options: Any) -> None:
            real(journal, path, **{"vfs": disk.name, **options})

        setattr(SqliteJournal, "__init__", made)  # noqa: B010 - mypy forbids to assign to a method

    def lay_points(self) -> None:
        """Wrap every method at which the process may have to end."""
        for name, point in POINTS.items():
            real = getattr(point.owner, point.method)
            setattr(point.owner, point.method, self._wrapped(real, name, point.when))

    def _wrapped(self, real: Callable[..., Any], name: str, when: str) -> Callable[..., Any]:
        @wraps(real)
        async def waiting(*arguments: Any, **options: Any) -> Any:
            if when == "before":
                self.pass_by(name)
            outcome = await real(*arguments, **options)
            if when == "after":
                self.pass_by(name)
            return outcome

        @wraps(real)
        def at_once(*arguments: Any, **options: Any) -> Any:
            if when == "before":
                self.pass_by(name)
            outcome = real(*arguments, **options)
            if when == "after":
                self.pass_by(name)
            return outcome

        return waiting if inspect.iscoroutinefunction(real) else at_once


class FailingDisk(apsw.VFS):
    """A file system that fails as the host says."""

    def __init__(self, host: Host) -> None:
        self.name = "failing"
        self.host = host
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> "FailingFile":  # noqa: N802
        return FailingFile(self.host, name, flags)


class FailingFile(apsw.VFSFile):
    """A file of it."""

    def __init__(self, host: Host, name: Any, flags: list[int]) -> None:
        self._host = host
        super().__init__("", name, flags)

    def xWrite(self, content: Any, offset: int) -> None:  # noqa: N802
        disk = self._host.control.disk
        if disk == "full":
            raise apsw.FullError("the disk is full")
        if disk == "read-only":
            raise apsw.ReadOnlyError("the disk is read-only")
        super().xWrite(content, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._host.control.disk == "unsynced":
            raise apsw.IOError("the disk does not sync")
        super().xSync(flags)


if __name__ == "__main__":
    host = Host(Path(os.environ[CONTROL]))
    host.break_clock()
    host.break_journal()
    host.lay_points()
    main()
