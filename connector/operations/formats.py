"""How the console shows durations, sizes and bodies."""

import codecs
import json
from typing import Any, Final

from connector.errors import Unreadable
from connector.message.parsing import load
from connector.message.weda import ENVELOPE

CUT: Final = "…"
ARRIVED_BYTES: Final = 2 * 1024
READ_CHARACTERS: Final = 4 * 1024
"""What a list of requests shows of each body, as it arrived and as it reads."""


_UNITS: Final = {
    "en": (" ms", " s", " min", " h", " d", " min"),
    "zh": (" 毫秒", " 秒", " 分钟", " 小时", " 天", " 分"),
}
"""Milliseconds, seconds, minutes, hours, days, and minutes behind hours."""


def duration(milliseconds: float | None, language: str = "en") -> str:
    """As people say it: 350 ms, 12 s, 3 min, 2 h 5 min, 4 d 3 h; what is nought at the end is left out."""
    if milliseconds is None:
        return "–"
    a_millisecond, a_second, a_minute, an_hour, a_day, minutes_more = _UNITS[language]
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
    """Bytes in a unit that fits."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def shown(body: bytes, most_bytes: int = ARRIVED_BYTES, most_characters: int = READ_CHARACTERS) -> tuple[str, str]:
    """The beginning of a body as it arrived and as it reads."""
    return beginning(body, most_bytes), formatted(body, most_characters)


def beginning(body: bytes, most: int) -> str:
    """The first bytes as text, ended where a character ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    is_whole = len(body) <= most
    return decoder.decode(body[:most], final=is_whole) + ("" if is_whole else CUT)


def formatted(body: bytes, most: int) -> str:
    """The body as people read it, where it is JSON: indented, what is JSON text inside opened; else nothing.

    Stops after so many characters: indentation can multiply the size of deeply nested JSON.
    """
    try:
        value = load(body.decode("utf-8-sig"))
        if isinstance(value, dict) and isinstance(value.get(ENVELOPE), str):
            value[ENVELOPE] = load(value[ENVELOPE])
        text, is_whole = _indented(value, most)
    except (ValueError, RecursionError, Unreadable):
        return ""
    return text.encode(errors="backslashreplace").decode() + ("" if is_whole else CUT)


def _indented(value: Any, most: int) -> tuple[str, bool]:
    parts: list[str] = []
    left = most
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        parts.append(part[:left])
        left -= len(part)
        if left < 0:
            return "".join(parts), False
    return "".join(parts), True


def hexdump(body: bytes, most: int = 256) -> str:
    """The first bytes as hex and text, sixteen a line."""
    lines = []
    for at in range(0, min(len(body), most), 16):
        part = body[at : at + 16]
        text = "".join(chr(one) if 32 <= one < 127 else "." for one in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)
