"""Finds out why a TLS handshake failed: what is wrong with the server's certificate or with ours.

librdkafka and libpq report that a handshake failed, but not whether a certificate has expired or is signed by another
authority. For the server's certificate a handshake of our own shows that; ours is read from its file.
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
    """The cause in one sentence, or None if no certificate is to blame.

    May connect to the server, for at most some seconds.

    Args:
        words: The text of an error, with OpenSSL's words in it.
        host: The server's name, which its certificate must have.
        port: The server's port.
        trust: Makes an SSL context with the authorities that we trust.
        ours: Returns what is wrong with our certificate; None if we present none.
        before: Bytes to send before the handshake; the server answers them with one byte.
    """
    server = f"{host}:{port}"
    if _THEIRS_REFUSED in words:
        reason = _reason(host, port, trust, before)
        return reason and f"{server} shows a certificate that is not to be trusted: {reason}"
    if ours is not None and _OURS_REFUSED.search(words):
        return f"{server} rejects our certificate: {ours()}"
    return None


def state_of_ours(location: Any, text: Any = None) -> str:
    """What is wrong with the certificate that we present, given as a file or as text."""
    try:
        pem = Path(str(location)).read_bytes() if location else str(text).encode()
        over = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except (OSError, ValueError):
        return "it cannot be read"
    if over < datetime.now(UTC):
        return f"it has expired ({over:%Y-%m-%dT%H:%M:%SZ})"
    return "it is of an authority that is not known there"


def _reason(host: str, port: str, trust: Callable[[], ssl.SSLContext], before: bytes) -> str | None:
    """Why a server's certificate is not trusted, or None if our handshake succeeds."""
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
