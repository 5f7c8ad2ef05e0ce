"""Progress of a long command on standard error: a bar on a terminal, otherwise a line every few seconds."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES: Final = 5.0
SECONDS_BETWEEN_BARS: Final = 0.1


class ProgressDisplay:
    """Shows the progress of a command; a context manager.

    Args:
        stays: Whether the bar is left on the terminal at the end.
        seconds_between_lines: Minimum time between two lines if standard error is no terminal.
    """

    def __init__(self, *, stays: bool = True, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._bar = Bar(
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            redirect_stdout=False,  # else rich would print it on standard error
            transient=not stays,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._seconds_between_lines = seconds_between_lines
        # A command that ends within the first seconds prints no line at all.
        self._next = time.monotonic() + (seconds_between_lines if self._bar.disable else 0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, text: str, done: float, total: float | None) -> None:
        """Update the display, at most every 0.1 s (bar) or 5 s (lines); a completed bar is always shown.

        Args:
            text: The progress in words.
            done: The amount done.
            total: The total amount; None if there is no end.
        """
        now = time.monotonic()
        is_last = done == total and not self._bar.disable  # a bar that stops short of its end looks like a failure
        if now < self._next and not is_last:
            return
        if self._bar.disable:
            self._next = now + self._seconds_between_lines
            print(text, file=sys.stderr, flush=True)
        else:
            self._next = now + SECONDS_BETWEEN_BARS
            self._bar.update(self._task, completed=done, total=total, description=text)
            self._bar.start()

    def hide(self) -> None:
        """Remove the bar until the next call of `show`, so that the command can print on standard output."""
        if not self._bar.disable:
            self._bar.stop()
            self._next = 0.0
