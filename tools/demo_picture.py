"""Draws docs/demo.svg, what a terminal shows of the demo: ``python -m tools.demo_picture``.

The demo really runs, for a few seconds, on an embedded broker; its lines are the picture.
"""

import re
import subprocess
import sys
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

_FONTS_FROM_AFAR: Final = re.compile(r"\s*@font-face {.*?}", re.DOTALL)
_LENGTH: Final = re.compile(r' textLength="[^"]*"')  # rich takes a Chinese letter for one column and would squeeze it


def main() -> None:
    """Run the demo and draw it."""
    done = subprocess.run([sys.executable, "-m", "connector", *DEMO], capture_output=True, check=True, encoding="utf-8")
    PICTURE.write_text(drawn(done.stdout), encoding="utf-8")


def drawn(output: str) -> str:
    """The output as an SVG picture that needs no font but the reader's own."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in output.splitlines():
        console.print(Text(line, style=_style(line), no_wrap=True, overflow="ellipsis"))
    picture = console.export_svg(title="WeDa → Kafka", unique_id="demo")
    return _LENGTH.sub("", _FONTS_FROM_AFAR.sub("", picture))


def _style(line: str) -> str:
    if line.startswith("instance "):
        return "green"
    return "bold cyan" if line.startswith("{") else ""


if __name__ == "__main__":
    main()
