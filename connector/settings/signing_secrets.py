"""Secrets of signed requests in the form of Standard Webhooks, and how long a signature is valid."""

import base64
from typing import Final

WINDOW_SECONDS: Final = 300
"""Maximum difference between a signature's time and ours, in either direction."""

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - every secret starts with it


def secret_bytes(text: str) -> bytes:
    """The key in ``whsec_<Base64>``; the Base64 may lack its padding.

    Raises:
        ValueError: The text is not Base64.
    """
    try:
        encoded = text.removeprefix(SECRET_PREFIX).rstrip("=")
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:  # binascii.Error, which is a ValueError, or characters beyond ASCII
        raise ValueError(f"must be {SECRET_PREFIX} and Base64") from None
