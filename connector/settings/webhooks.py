"""The secrets of signed requests, as Standard Webhooks writes them, and how long a signature is good."""

import base64
from typing import Final

WINDOW_SECONDS: Final = 300
"""How far a signature's time may be from ours, either way."""

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the form of all of them


def secret_bytes(text: str) -> bytes:
    """The key that ``whsec_<Base64>`` stands for; the Base64 may lack its padding.

    Raises:
        ValueError: It is no such text.
    """
    try:
        encoded = text.removeprefix(SECRET_PREFIX).rstrip("=")
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:  # binascii's error is one, and so is text beyond ASCII
        raise ValueError(f"must be {SECRET_PREFIX} and Base64") from None
