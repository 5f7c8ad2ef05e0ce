"""Verifies Standard Webhooks signatures: a request's body was signed recently with one of its source's secrets.

The signed content is ``<webhook-id>.<webhook-timestamp>.<body>``; the signature ``v1`` is its HMAC-SHA256 in Base64.
Source: the Standard Webhooks specification. Pure: the caller passes the time.
"""

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from connector.errors import Unauthenticated
from connector.settings.signing_secrets import WINDOW_SECONDS

HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
MAX_SIGNATURES: Final = 16
"""Maximum signatures of a request that are checked; a sender adds one for each of its secrets."""

_MAX_ID_CHARS: Final = 256
_MAX_TIMESTAMP_CHARS: Final = 12
_VERSION: Final = "v1"


@dataclass(frozen=True, slots=True)
class Signature:
    """The headers of a signed request.

    Attributes:
        webhook_id: ``webhook-id``, the same for each attempt to send a message.
        timestamp: ``webhook-timestamp``, epoch seconds as text.
        signatures: ``webhook-signature``, one or more of ``v1,<Base64>`` separated by spaces.
    """

    webhook_id: str
    timestamp: str
    signatures: str

    def check_time(self, now: float) -> None:
        """Reject a signature that is too old or too new, before the body is read.

        Args:
            now: Epoch seconds.

        Raises:
            Unauthenticated: A header is malformed, or the time is outside the window.
        """
        if not 0 < len(self.webhook_id) <= _MAX_ID_CHARS:
            raise Unauthenticated(f"webhook-id is missing or over {_MAX_ID_CHARS} characters", reason="signature")
        if not (self.timestamp.isascii() and self.timestamp.isdigit() and len(self.timestamp) <= _MAX_TIMESTAMP_CHARS):
            raise Unauthenticated("webhook-timestamp is no time in epoch seconds", reason="timestamp")
        if abs(now - int(self.timestamp)) > WINDOW_SECONDS:
            raise Unauthenticated(
                f"webhook-timestamp is more than {WINDOW_SECONDS} seconds from the connector's clock: sign it again, "
                "and compare the clocks",
                reason="timestamp",
            )

    def verify(self, body: bytes, secrets: Iterable[bytes]) -> None:
        """Reject a body that was not signed with one of the secrets.

        Raises:
            Unauthenticated: No signature was made with one of the secrets over this id, time and body.
        """
        content = f"{self.webhook_id}.{self.timestamp}.".encode("latin-1", errors="replace") + body
        signatures = _decoded(self.signatures)
        expected = [hmac.digest(secret, content, "sha256") for secret in secrets]
        # Every pair is compared, so that the time does not show which secret matched.
        if not any([hmac.compare_digest(actual, wanted) for actual in signatures for wanted in expected]):  # noqa: C419
            raise Unauthenticated(
                "no signature in webhook-signature is one of the source's secrets over this id, time and body",
                reason="signature",
            )


def _decoded(signatures: str) -> list[bytes]:
    """The signatures of version ``v1`` that are valid Base64."""
    decoded = []
    for signature in signatures.split(" ", MAX_SIGNATURES)[:MAX_SIGNATURES]:
        version, _, text = signature.partition(",")
        if version == _VERSION:  # others may be beside it, such as v1a with a public key
            try:
                decoded.append(base64.b64decode(text, validate=True))
            except ValueError:
                continue
    return decoded
