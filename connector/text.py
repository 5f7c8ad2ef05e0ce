"""Text for people: control and bidirectional characters of untrusted text made harmless, counts with their noun."""

import re
from typing import Any, Final

CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters other than tab and line ends, direction marks, and Unicode's own line ends."""

LONGEST_LINE: Final = 200


def visible(text: str) -> str:
    r"""The text with each control character as ``\u202e``, which is also how JSON writes it."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(value: Any, longest: int = LONGEST_LINE) -> str:
    """One line of printable text, ``-`` if empty, cut at ``longest`` characters: the value is a sender's."""
    text = "-" if value is None or value == "" else str(value)
    shown = text if len(text) <= longest else f"{text[:longest]}…"
    return "".join(letter if letter.isprintable() else " " for letter in shown)


def printable(text: str) -> str:
    """The text with control characters replaced by spaces; line breaks are kept."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 message``, ``2 messages``; ``plural`` where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
