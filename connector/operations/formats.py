"""How the console shows bodies."""

import codecs
import json
from typing import Any, Final

from connector.errors import Unreadable
from connector.message.parsing import load
from connector.message.weda import ENVELOPE
from connector.text import CUT

MAX_ARRIVED_BYTES: Final = 2 * 1024
MAX_READ_CHARS: Final = 4 * 1024
"""What a list of requests shows of each body, as it arrived and as it reads."""


def shown(body: bytes, max_bytes: int = MAX_ARRIVED_BYTES, max_chars: int = MAX_READ_CHARS) -> tuple[str, str]:
    """The beginning of a body as it arrived and as it reads."""
    return beginning(body, max_bytes), formatted(body, max_chars)


def beginning(body: bytes, limit: int) -> str:
    """The first bytes as text, ended where a character ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    is_whole = len(body) <= limit
    return decoder.decode(body[:limit], final=is_whole) + ("" if is_whole else CUT)


def formatted(body: bytes, limit: int) -> str:
    """The body as people read it, where it is JSON: indented, what is JSON text inside opened; else nothing.

    Stops after so many characters: indentation can multiply the size of deeply nested JSON.
    """
    try:
        value = load(body.decode("utf-8-sig"))
        if isinstance(value, dict) and isinstance(value.get(ENVELOPE), str):
            value[ENVELOPE] = load(value[ENVELOPE])
        text, is_whole = _indented(value, limit)
    except (ValueError, RecursionError, Unreadable):
        return ""
    return text.encode(errors="backslashreplace").decode() + ("" if is_whole else CUT)


def _indented(value: Any, limit: int) -> tuple[str, bool]:
    parts: list[str] = []
    left = limit
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        parts.append(part[:left])
        left -= len(part)
        if left < 0:
            return "".join(parts), False
    return "".join(parts), True


def hexdump(body: bytes, limit: int = 256) -> str:
    """The first bytes as hex and text, sixteen a line."""
    lines = []
    for at in range(0, min(len(body), limit), 16):
        part = body[at : at + 16]
        text = "".join(chr(one) if 32 <= one < 127 else "." for one in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)
