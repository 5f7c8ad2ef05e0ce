"""Draws docs/demo.svg, what a terminal shows of the demo: ``python -m tools.demo_picture``.

The demo really runs, for a few seconds, on an embedded broker; its lines are the picture, and appear as they did in the
terminal.
"""

import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

PICTURE: Final = Path(__file__).parents[1] / "docs" / "demo.svg"
DEMO: Final = ("demo", "--instances", "4", "--rate", "10", "--seconds", "6", "--seed", "7", "--port", "0")
COMMAND: Final = 'make demo DEMO_ARGS="--instances 4 --rate 10 --seconds 6"'
WIDTH: Final = 108
"""Columns of the terminal."""

STAND_SECONDS: Final = 6.0
"""How long the whole is seen before it begins again."""

_INSTANT: Final = 0.01
_TEXT: Final = re.compile(r'<text [^>]*clip-path="url\(#demo-line-(?P<row>\d+)\)"[^>]*>')

_FONTS_FROM_AFAR: Final = re.compile(r"\s*@font-face {.*?}", re.DOTALL)
_LENGTH: Final = re.compile(r' textLength="[^"]*"')  # rich takes a Chinese letter for one column and would squeeze it


def main() -> None:
    """Run the demo and draw it."""
    PICTURE.write_text(drawn(*played()), encoding="utf-8")


def played() -> tuple[list[str], list[float]]:
    """The lines that the demo writes, and after how many seconds each."""
    lines: list[str] = []
    times: list[float] = []
    with subprocess.Popen(
        [sys.executable, "-m", "connector", *DEMO], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as demo:
        if demo.stdout is None:
            raise RuntimeError("the demo has no output")
        for line in demo.stdout:
            lines.append(line.rstrip("\n"))
            times.append(time.monotonic())
    if demo.returncode:
        raise RuntimeError(f"the demo ended with {demo.returncode}")
    return lines, [at - times[0] for at in times]


def drawn(lines: list[str], times: list[float]) -> str:
    """The lines as an SVG picture in which each appears at its time; it needs no font but the reader's own."""
    terminal = StringIO()
    console = Console(record=True, width=WIDTH, file=terminal, force_terminal=True, legacy_windows=False)
    console.print(Text(f"$ {COMMAND}", style="bold"))
    rows: list[float | None] = [None]
    for line, at in zip(lines, times, strict=True):
        console.print(Text(line, style=_style(line), no_wrap=True, overflow="ellipsis"))
        rows += [at] * (terminal.getvalue().count("\n") - len(rows))  # a long line takes several
    picture = console.export_svg(title="WeDa → Kafka", unique_id="demo")
    return _animated(_LENGTH.sub("", _FONTS_FROM_AFAR.sub("", picture)), rows)


def _animated(picture: str, rows: list[float | None]) -> str:
    """Let each row appear at its time, again and again; a reader who wants no motion sees all of them at once.

    Args:
        picture: The picture.
        rows: After how many seconds each row appears; None: at once.
    """
    times = [at for at in rows if at is not None]
    whole = times[-1] + STAND_SECONDS
    moments = sorted({_share(at, whole) for at in times})
    rules = [
        f"@keyframes at-{number} {{ 0%, {share}% {{ opacity: 0 }} {share + _INSTANT:.2f}%, 100% {{ opacity: 1 }} }}"
        f" .at-{number} {{ animation: at-{number} {whole:.1f}s infinite }}"
        for number, share in enumerate(moments)
    ]
    style = f"@media (prefers-reduced-motion: no-preference) {{ {' '.join(rules)} }}"

    def timed(text: re.Match[str]) -> str:
        at = rows[int(text["row"])]
        if at is None:
            return text[0]
        return text[0].replace('class="', f'class="at-{moments.index(_share(at, whole))} ', 1)

    return _TEXT.sub(timed, picture).replace("</style>", f"{style}</style>", 1)


def _share(at: float, whole: float) -> float:
    """When in the whole, in percent; lines of one tenth of a second appear together."""
    return round(round(at, 1) / whole * 100, 2)


def _style(line: str) -> str:
    if line.startswith("instance "):
        return "green"
    return "bold cyan" if line.startswith("{") else ""


if __name__ == "__main__":
    main()
