"""How the console shows bodies."""

import codecs
import json
from typing import Any, Final

from connector.errors import Unreadable
from connector.message.parsing import load_json
from connector.message.weda import ENVELOPE
from connector.text import CUT

MAX_ARRIVED_BYTES: Final = 2 * 1024
MAX_READ_CHARS: Final = 4 * 1024
"""Limits of a body in a list of requests: as received, and formatted."""


def shown(body: bytes, max_bytes: int = MAX_ARRIVED_BYTES, max_chars: int = MAX_READ_CHARS) -> tuple[str, str]:
    """Return the beginning of a body, as received and formatted."""
    return beginning(body, max_bytes), formatted(body, max_chars)


def beginning(body: bytes, limit: int) -> str:
    """Return the first bytes as text, without a partial character at the cut."""
    # Decoded incrementally: a character that the cut splits is left out and not shown as escapes.
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    is_whole = len(body) <= limit
    return decoder.decode(body[:limit], final=is_whole) + ("" if is_whole else CUT)


def formatted(body: bytes, limit: int) -> str:
    """Return a JSON body indented, with the JSON text of its envelope expanded; empty if it is not JSON.

    Stops after ``limit`` characters: indentation can multiply the size of deeply nested JSON.
    """
    try:
        value = load_json(body.decode("utf-8-sig"))
        if isinstance(value, dict) and isinstance(value.get(ENVELOPE), str):
            value[ENVELOPE] = load_json(value[ENVELOPE])
        text, is_whole = _indented(value, limit)
    except (ValueError, RecursionError, Unreadable):
        return ""
    # JSON may escape a lone surrogate, which UTF-8 cannot encode.
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
    """Return the first bytes as hexadecimal and text, sixteen bytes a line."""
    lines = []
    for at in range(0, min(len(body), limit), 16):
        part = body[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)
