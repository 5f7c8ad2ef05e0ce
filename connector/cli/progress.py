"""Progress of a long command, on standard error: a bar on a terminal, else a line every few seconds."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES: Final = 5.0
SECONDS_BETWEEN_BARS: Final = 0.1


class Progress:
    """Shows how far a command is; a context manager."""

    def __init__(self) -> None:
        self._bar = Bar(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("starting", total=None)
        self._next = time.monotonic() + (SECONDS_BETWEEN_LINES if self._bar.disable else 0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, text: str, done: float, total: float | None) -> None:
        """Show it, unless that was done a moment ago; the end is always drawn.

        Args:
            text: How far it is, in words.
            done: How much is done.
            total: How much there is; None where it has no end.
        """
        now = time.monotonic()
        is_last = done == total and not self._bar.disable  # a bar that stops short of its end looks like a failure
        if now < self._next and not is_last:
            return
        if self._bar.disable:
            self._next = now + SECONDS_BETWEEN_LINES
            print(text, file=sys.stderr)
        else:
            self._next = now + SECONDS_BETWEEN_BARS
            self._bar.update(self._task, completed=done, total=total, description=text)
