"""Why the database cannot be reached, or does not let us in, in one sentence that names the cause."""

import ssl
import struct
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from connector import handshake

_PORT: Final = "5432"
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's request for TLS, before the handshake; its answer is one letter."""
_WANTS_OURS: Final = "requires a valid client certificate"


def sentence(words: str, parameters: Mapping[str, Any]) -> str:
    """What libpq's words mean; it may ask the server for its certificate, which takes some seconds at most.

    Args:
        words: The text of an error.
        parameters: The connection's parameters, by libpq's names.
    """
    host, port = (str(parameters.get(name, "")).partition(",")[0] for name in ("host", "port"))
    shown = parameters.get("sslcert")
    trust = partial(_context, parameters)
    ours = partial(handshake.state_of_ours, shown) if shown else None
    found = handshake.cause(words, host, port or _PORT, trust=trust, ours=ours, before=_SSL_REQUEST)
    if found is not None:
        return found
    return f"{words}; name one in sslcert and sslkey" if _WANTS_OURS in words and not shown else words


def _context(parameters: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=parameters.get("sslrootcert"))
    context.check_hostname = False  # libpq reports a wrong name itself
    return context
