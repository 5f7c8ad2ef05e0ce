"""Text for people: untrusted text made harmless, long text cut, counts, durations and sizes in words. Pure.

What a sender wrote can hold codes that a terminal obeys, or that turn the direction of a line. Which function to use:

- `visible` for JSON and pages: shows each such character as its code, keeps lines.
- `escaped` for a line of the log: shows every character that is not printable as its code.
- `one_line` for a cell of a table: spaces in their place, and cut.
- `printable` for a whole body: spaces in their place, keeps lines.
- `without_controls` for messages to other platforms: removes them, and keeps what emoji are joined with.
"""

import re
from base64 import b64encode
from typing import Any, Final
from unicodedata import category

CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters other than tab and line ends, direction marks, and Unicode's own line ends."""

MAX_LINE_CHARS: Final = 200
CUT: Final = "…"
"""Stands at the end of a text that was cut."""

_UNSENT: Final = frozenset({"Cc", "Cs"})  # control characters, and half pairs that no encoding has
_UNITS: Final = {
    "en": (" ms", " s", " min", " h", " d", " min"),
    "zh": (" 毫秒", " 秒", " 分钟", " 小时", " 天", " 分"),
}
"""Milliseconds, seconds, minutes, hours, days, and minutes behind hours."""


def visible(text: str) -> str:
    r"""The text with each control character as ``\u202e``, which is also how JSON writes it."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escaped(text: str) -> str:
    r"""One line in which every character that is not printable is written as in ``\n`` or ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def one_line(value: Any, limit: int = MAX_LINE_CHARS) -> str:
    """One line of printable text, ``-`` if empty, of at most ``limit`` characters."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(letter if letter.isprintable() else " " for letter in cut(text, limit))


def printable(text: str) -> str:
    """The text with control characters replaced by spaces; line breaks are kept."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def without_controls(text: str) -> str:
    """The text without control characters other than tab and line end."""
    return "".join(letter for letter in text if letter in "\n\t" or category(letter) not in _UNSENT)


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and ``…``: together at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + CUT


def text_or_base64(body: bytes) -> tuple[str, bool]:
    """The bytes as text, and whether they had to be written as Base64, because they are not UTF-8."""
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return b64encode(body).decode(), True


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 message``, ``2 messages``; ``plural`` where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def duration(milliseconds: float | None, language: str = "en") -> str:
    """How long, as people say it: 350 ms, 12 s, 3 min, 2 h 5 min, 4 d 3 h; ``–`` for None."""
    if milliseconds is None:
        return "–"
    a_millisecond, a_second, a_minute, an_hour, a_day, minutes_more = _UNITS[language]
    milliseconds = max(milliseconds, 0)  # clocks of different machines are compared
    seconds = int(milliseconds // 1000)
    if seconds < 1:
        return f"{milliseconds:.0f}{a_millisecond}"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds}{a_second}"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 1:
        return f"{minutes}{a_minute}"
    whole, rest, unit = (hours, minutes % 60, minutes_more) if days < 1 else (days, hours % 24, an_hour)
    return f"{whole}{an_hour if days < 1 else a_day}" + (f" {rest}{unit}" if rest else "")


def size(count: float | None) -> str:
    """Bytes in a unit that fits; ``–`` for None."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
