"""Server processes: started, broken on purpose, and never left behind (Linux)."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.errors import DidNotStart, ServerError
from tests.waiting import PATIENCE_SECONDS, NotInTime, wait_until

LAST_LINES = 25

# The guard of a process ends its whole group once the pipe to us closes, which the kernel does however we end. (The
# kernel's own PR_SET_PDEATHSIG acts when the starting thread ends: a broker restarted from a worker thread would die.)
GUARD = 'read -r _; kill -9 "-$1"'


@dataclass(frozen=True)
class Identity:
    """A process beyond doubt: a pid is given out again, a pid with its time of birth is not."""

    pid: int
    born: int
    """In the kernel's clock ticks since boot."""

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Who runs under the pid now; None for nobody and for one who is dead and not reaped."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # what is before may hold blanks
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))


class Server(ABC):
    """What is stopped at the end of its ``with`` block, however that ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def stop(self) -> None:
        """End it."""


class ServerProcess:
    """One server: its command, log and pid file in the state folder.

    Unless ``detached`` it ends with us, however we end. A detached one is found again through its pid file.
    """

    def __init__(self, name: str, command: Sequence[str], state: Path, *, detached: bool) -> None:
        self.name = name
        self.log = state / f"{name}.log"
        self._command = command
        self._detached = detached
        self._pid_file = state / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._running_pid() is not None

    @property
    def paused(self) -> bool:
        """Whether the process exists and every thread of it is stopped."""
        pid = self._running_pid()
        return pid is not None and _is_stopped(pid)

    def start(self) -> None:
        """Start the process; it appends to its log. ``wait_until`` tells when it serves."""
        if self.running:
            raise ServerError(f"{self.name} is running already")
        self._clean_up()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if not self._detached:
            self._guard = _start_guard(self._child.pid)
        if identity := Identity.of(self._child.pid):
            self._pid_file.write_text(f"{identity.pid} {identity.born}")

    def wait_for_log_line(self, text: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """As ``wait_until``, for a text in the log of this start."""
        self.wait_until(lambda: text in self._log_of_this_start(), seconds=seconds)

    def wait_until(self, serves: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it serves; ``DidNotStart`` with the log's end when the process dies or time is up."""
        try:
            wait_until(lambda: serves() or not self.running, seconds=seconds)
        except NotInTime:
            raise DidNotStart(
                f"{self.name} was not ready within {seconds:g} s; its log ends:\n{self.last_lines()}"
            ) from None
        if not self.running:
            raise DidNotStart(f"{self.name} died at its start; its log ends:\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of the log."""
        return "\n".join(self._log_of_this_start().splitlines()[-LAST_LINES:])

    def pause(self) -> None:
        """Stop the process in its tracks; its sockets stay open and nobody answers."""
        self._signal(signal.SIGSTOP)
        pid = self._running_pid()
        if pid is not None:
            wait_until(lambda: _is_stopped(pid))  # each thread stops only when it next gets a core

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process at once, paused or not; fine when it is gone already."""
        if pid := self._running_pid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait_for_end()

    def terminate(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Ask the process to end in good order and wait for that."""
        self._signal(signal.SIGTERM)
        self._wait_for_end(seconds)

    def _signal(self, number: signal.Signals) -> None:
        pid = self._running_pid()
        if pid is None:
            raise ServerError(f"{self.name} is not running")
        os.kill(pid, number)

    def _wait_for_end(self, seconds: float = PATIENCE_SECONDS) -> None:
        try:
            wait_until(lambda: not self.running, seconds=seconds)
        except NotInTime:
            raise ServerError(f"{self.name} did not end within {seconds:g} s") from None
        self._clean_up()

    def _clean_up(self) -> None:
        """Clear away what is left of a process that has ended."""
        self._pid_file.unlink(missing_ok=True)
        if self._child:
            self._child.wait()
            self._child = None
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None

    def _running_pid(self) -> int | None:
        try:
            pid, born = map(int, self._pid_file.read_text().split())
        except FileNotFoundError:
            return None
        return pid if Identity.of(pid) == Identity(pid, born) else None

    def _log_of_this_start(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")


def _start_guard(group: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "guard", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _is_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped, or has ended; where there is no /proc, nobody can tell."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            states.append(stat.read_text().rpartition(") ")[2][:1])
    return {*states} <= {"T", "t", "X", "Z"}
