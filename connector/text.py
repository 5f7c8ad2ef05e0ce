"""Characters that are not seen but obeyed, by terminals or by the direction of text, and what is shown instead."""

import re
from typing import Final

OBEYED: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls but tab and line ends, marks of direction, and Unicode's own line ends."""


def visible(text: str) -> str:
    r"""The text with each of them as ``\u202e``, which is also how JSON writes it."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
