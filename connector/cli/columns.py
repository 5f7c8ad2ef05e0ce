"""Columns of text that line up, whatever script they hold, and times in the reader's zone."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from connector.text import one_line

_GAP: Final = "  "


def aligned(values: Sequence[Any], widths: Sequence[int]) -> str:
    """One line: each value padded to the width of its column.

    Args:
        values: One a column; they may come from a sender, and are made harmless.
        widths: In terminal cells; of all columns but the last, which ends the line. On a terminal a longer value is
            cut, elsewhere it is whole.
    """
    cells = [_fitted(one_line(value), width) for value, width in zip(values, widths, strict=False)]
    return _GAP.join([*cells, *map(one_line, values[len(widths) :])])


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines whose columns are as wide as their widest value; ``-`` stands for None, nothing for an empty text."""
    if not rows:
        return []
    texts = [["" if value == "" else one_line(value) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)][:-1]
    return [_GAP.join([*map(set_cell_size, row[:-1], widths), row[-1]]).rstrip() for row in texts]


def local_time(milliseconds: int) -> str:
    """A time in the zone of this machine (or of ``TZ``): with its offset, except on a terminal."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    return moment.replace(tzinfo=None if sys.stdout.isatty() else moment.tzinfo).isoformat(" ", "seconds")


def zone() -> str:
    """The name of the reader's zone, as ``CST``."""
    return datetime.now(UTC).astimezone().tzname() or "local"


def _fitted(text: str, width: int) -> str:
    length = cell_len(text)
    if length <= width:
        return text + " " * (width - length)
    return set_cell_size(text, width - 1) + "…" if sys.stdout.isatty() else text
