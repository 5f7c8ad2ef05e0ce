"""Why a TLS handshake failed: what is wrong with a certificate, theirs or ours.

librdkafka and libpq say that a handshake failed; whether a certificate's time is over or its authority is another one
they do not. A handshake of our own with the same server shows it, or the certificate that we show.
"""

import re
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

_SECONDS: Final = 3.0
_THEIRS_REFUSED: Final = "certificate verify failed"
_OURS_REFUSED: Final = re.compile(r"alert (?:.*certificate|unknown ca)")


def cause(
    words: str,
    host: str,
    port: str,
    *,
    trust: Callable[[], ssl.SSLContext],
    ours: Callable[[], str] | None,
    before: bytes = b"",
) -> str | None:
    """The cause in one sentence; None where it is no certificate.

    It may ask the server for its certificate, which takes some seconds at most.

    Args:
        words: The text of an error, of OpenSSL's errors in it.
        host: Of the server, as it is to be named in the certificate.
        port: Of the server.
        trust: Makes the context of what we trust.
        ours: Says what is wrong with our certificate; None where none is shown.
        before: What has to be said before the handshake; one byte answers it.
    """
    server = f"{host}:{port}"
    if _THEIRS_REFUSED in words:
        reason = _reason(host, port, trust, before)
        return reason and f"{server} shows a certificate that is not to be trusted: {reason}"
    if ours is not None and _OURS_REFUSED.search(words):
        return f"{server} refuses our certificate: {ours()}"
    return None


def state_of_ours(location: Any, text: Any = None) -> str:
    """What may be wrong with the certificate that we show, in a file or as text."""
    try:
        pem = Path(str(location)).read_bytes() if location else str(text).encode()
        over = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except (OSError, ValueError):
        return "it cannot be read"
    if over < datetime.now(UTC):
        return f"it has expired ({over:%Y-%m-%dT%H:%M:%SZ})"
    return "it is of an authority that is not known there"


def _reason(host: str, port: str, trust: Callable[[], ssl.SSLContext], before: bytes) -> str | None:
    """Why a server's certificate is not trusted; None where we find nothing."""
    try:
        context = trust()
        with socket.create_connection((host, int(port)), _SECONDS) as plain:
            if before:
                plain.sendall(before)
                plain.recv(1)
            with context.wrap_socket(plain, server_hostname=host):
                return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip(".")
    except (OSError, ValueError):
        return None
