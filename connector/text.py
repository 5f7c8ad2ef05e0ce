"""Formats text for people: makes untrusted text harmless, cuts long text, and writes counts, durations and sizes. Pure.

A sender's text can hold control characters that a terminal obeys, or that change the direction of a line:

- `visible` is for JSON and pages: it shows each control character as its code, and keeps lines.
- `escaped` is for a line of the log: it shows every character that is not printable as its code.
- `one_line` is for a cell of a table: it replaces characters that are not printable by spaces, and cuts the text.
- `printable` is for a whole body: it replaces them by spaces, and keeps lines.
- `without_controls` is for messages to other platforms: it removes control characters, and keeps the joiners of emoji.
"""

import re
from base64 import b64encode
from typing import Any, Final
from unicodedata import category

CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters other than tab and line ends, direction marks, and Unicode's own line ends."""

MAX_LINE_CHARS: Final = 200
CUT: Final = "…"
"""The last character of a text that was cut."""

_UNSENT: Final = frozenset({"Cc", "Cs"})  # control characters, and surrogates, which UTF-8 cannot encode
_UNITS: Final = {
    "en": (" ms", " s", " min", " h", " d", " min"),
    "zh": (" 毫秒", " 秒", " 分钟", " 小时", " 天", " 分"),
}
"""Language → units: milliseconds, seconds, minutes, hours, days, and minutes that follow hours."""


def visible(text: str) -> str:
    r"""Return the text with each control character written as in ``\u202e``, which is also its escape in JSON."""
    return CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escaped(text: str) -> str:
    r"""Return one line in which every character that is not printable is written as in ``\n`` or ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def one_line(value: Any, limit: int = MAX_LINE_CHARS) -> str:
    """Return one line of printable text, ``-`` if empty, of at most ``limit`` characters."""
    text = "-" if value is None or value == "" else str(value)
    # Cut first: a value can be as long as a body.
    return "".join(letter if letter.isprintable() else " " for letter in cut(text, limit))


def printable(text: str) -> str:
    """Return the text with control characters replaced by spaces; line breaks are kept."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def without_controls(text: str) -> str:
    """Return the text without control characters other than tab and line end."""
    # By category and not by `isprintable`, to which the zero-width joiner of emoji is not printable.
    return "".join(letter for letter in text if letter in "\n\t" or category(letter) not in _UNSENT)


def cut(text: str, limit: int) -> str:
    """Return the text, or its beginning and ``…``, of at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + CUT


def text_or_base64(body: bytes) -> tuple[str, bool]:
    """The bytes as text, and whether they had to be written as Base64, because they are not UTF-8."""
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return b64encode(body).decode(), True


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 message``, ``2 messages``; ``plural`` is for nouns that take no s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def duration(milliseconds: float | None, language: str = "en") -> str:
    """Format a duration: 350 ms, 12 s, 3 min, 2 h 5 min, 4 d 3 h; ``–`` for None."""
    if milliseconds is None:
        return "–"
    millisecond, second, minute, hour, day, minute_after_hours = _UNITS[language]
    # The two times can come from the clocks of different machines, and be in the wrong order.
    milliseconds = max(milliseconds, 0)
    seconds = int(milliseconds // 1000)
    if seconds < 1:
        return f"{milliseconds:.0f}{millisecond}"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds}{second}"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 1:
        return f"{minutes}{minute}"
    count, rest, rest_unit = (hours, minutes % 60, minute_after_hours) if days < 1 else (days, hours % 24, hour)
    return f"{count}{hour if days < 1 else day}" + (f" {rest}{rest_unit}" if rest else "")


def size(count: float | None) -> str:
    """Format a number of bytes in a suitable unit; ``–`` for None."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
