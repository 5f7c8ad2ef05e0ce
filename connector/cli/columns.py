"""Columns of text that line up in every script, and times in the reader's zone."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from connector.text import one_line

_GAP: Final = "  "


def aligned(values: Sequence[Any], widths: Sequence[int]) -> str:
    """Return one line, with each value padded to the width of its column.

    Args:
        values: One value a column; they may come from a sender, and are made harmless.
        widths: Widths of all columns but the last, in terminal cells. A longer value is cut on a terminal and kept
            whole elsewhere.
    """
    cells = [_fitted(one_line(value), width) for value, width in zip(values, widths, strict=False)]
    return _GAP.join([*cells, *map(one_line, values[len(widths) :])])


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return lines whose columns are as wide as their widest value; None is shown as ``-``, empty text as nothing."""
    if not rows:
        return []
    texts = [["" if value == "" else one_line(value) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)][:-1]
    return [_GAP.join([*map(set_cell_size, row[:-1], widths), row[-1]]).rstrip() for row in texts]


def local_time(milliseconds: int) -> str:
    """Return a time in this machine's zone (or ``TZ``), with its offset except on a terminal."""
    # On a terminal the reader knows the zone; a file may be read elsewhere.
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    return moment.replace(tzinfo=None if sys.stdout.isatty() else moment.tzinfo).isoformat(" ", "seconds")


def zone() -> str:
    """Return the name of the reader's zone, such as ``CST``."""
    return datetime.now(UTC).astimezone().tzname() or "local"


def _fitted(text: str, width: int) -> str:
    cells = cell_len(text)  # not len: a Chinese character takes two cells
    if cells <= width:
        return text + " " * (width - cells)
    return set_cell_size(text, width - 1) + "…" if sys.stdout.isatty() else text
