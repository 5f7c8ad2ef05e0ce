"""Standard Webhooks signatures: whether a request's body was signed with a source's secret, and recently.

The signed content is ``<webhook-id>.<webhook-timestamp>.<body>``; the signature ``v1`` is its HMAC-SHA256 in Base64.
Source: the Standard Webhooks specification. Pure: the caller says what time it is.
"""

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from connector.errors import Unauthenticated
from connector.settings.webhooks import WINDOW_SECONDS

HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
MAX_SIGNATURES: Final = 16
"""Most signatures of one request that are checked: one for each of the sender's secrets."""

_MAX_ID_CHARS: Final = 256
_MAX_TIMESTAMP_CHARS: Final = 12
_VERSION: Final = "v1"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signed request says in its headers.

    Attributes:
        webhook_id: ``webhook-id``: the same for each attempt to send one message.
        timestamp: ``webhook-timestamp``: epoch seconds, as text.
        signatures: ``webhook-signature``: one or more of ``v1,<Base64>``, between spaces.
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
        """Reject a body that was signed with none of the secrets.

        Raises:
            Unauthenticated: No signature is one of a secret over this id, time and body.
        """
        content = f"{self.webhook_id}.{self.timestamp}.".encode("latin-1", errors="replace") + body
        given = _decoded(self.signatures)
        expected = [hmac.digest(secret, content, "sha256") for secret in secrets]
        # every pair is compared, so that the time does not show which one was close
        if not any([hmac.compare_digest(one, other) for one in given for other in expected]):  # noqa: C419
            raise Unauthenticated(
                "no signature in webhook-signature is one of the source's secrets over this id, time and body",
                reason="signature",
            )


def _decoded(signatures: str) -> list[bytes]:
    """The signatures of version ``v1``, without what is not Base64."""
    found = []
    for one in signatures.split(" ", MAX_SIGNATURES)[:MAX_SIGNATURES]:
        version, _, text = one.partition(",")
        if version == _VERSION:
            try:
                found.append(base64.b64decode(text, validate=True))
            except ValueError:
                continue
    return found
