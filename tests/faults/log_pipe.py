"""The reader of a connector's log, at the other end of a pipe: it may stand still, and it may go."""

import os
import select
import threading
from pathlib import Path


class LogPipe:
    """Copies what comes out of a named pipe into the log's file, on a thread, until it is stopped."""

    def __init__(self, pipe: Path, log: Path) -> None:
        os.mkfifo(pipe, 0o600)
        self._log = log
        self._reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._reads = threading.Event()
        self._reads.set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def stall(self) -> None:
        """Read no more, and keep the pipe open."""
        self._reads.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reads.set()

    def close(self) -> None:
        """Close the reading end: writing fails from now on."""
        self._ended.set()
        self._reads.set()
        self._thread.join()

    def _copy(self) -> None:
        with self._log.open("ab") as log:
            while not self._ended.is_set():
                self._reads.wait()
                if select.select([self._reader], [], [], 0.1)[0]:
                    log.write(os.read(self._reader, 1 << 16))
                    log.flush()
        os.close(self._reader)
