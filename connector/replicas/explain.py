"""Explains in one sentence why the database cannot be reached, or rejects the connection."""

import ssl
import struct
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from connector import handshake

_PORT: Final = "5432"
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's request for TLS, sent before the handshake; the server answers with one letter."""
_NEEDS_CLIENT_CERTIFICATE: Final = "requires a valid client certificate"


def sentence(words: str, parameters: Mapping[str, Any]) -> str:
    """Explain an error of libpq; may ask the server for its certificate, which takes a few seconds at most.

    Args:
        words: The error's text.
        parameters: The connection's parameters, by libpq's names.
    """
    host, port = (str(parameters.get(name, "")).partition(",")[0] for name in ("host", "port"))
    certificate = parameters.get("sslcert")
    trust = partial(_context, parameters)
    ours = partial(handshake.state_of_ours, certificate) if certificate else None
    cause = handshake.cause(words, host, port or _PORT, trust=trust, ours=ours, before=_SSL_REQUEST)
    if cause is not None:
        return cause
    return (
        f"{words}; name one in sslcert and sslkey" if _NEEDS_CLIENT_CERTIFICATE in words and not certificate else words
    )


def _context(parameters: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=parameters.get("sslrootcert"))
    context.check_hostname = False  # libpq reports a wrong name itself
    return context
