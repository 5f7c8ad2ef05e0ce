"""Why Kafka or the database cannot be reached, or does not let us in, in one sentence that names the cause.

librdkafka and libpq say that a handshake failed; whether a certificate's time is over or its authority is another one
they do not. Where their words leave that open, a handshake of our own with the same server tells, or the certificate
that we show.
"""

import re
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509

_SECONDS: Final = 3.0
_LONGEST: Final = 300
_TIMES: Final = re.compile(r" \(after \d+ms in state \w+\)|: now=\d+ms, exp=\d+ms")
_SSL_BROKER: Final = re.compile(r"ssl://\[?(?P<host>[^/\s]+?)\]?:(?P<port>\d+)/")
_OURS_REFUSED: Final = re.compile(r"alert (?:.*certificate|unknown ca)")
_WANTS_OURS: Final = "requires a valid client certificate"
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
"""PostgreSQL's request for TLS, before the handshake; its answer is one letter."""
_DATABASE_PORT: Final = "5432"
_Trust = Callable[[], ssl.SSLContext]
_HINTS: Final = (
    ('{"status":"invalid_token"}', "the broker's log says whether for its issuer, audience, key or time"),
    ("adding trust anchors", "name the file of the endpoint's authorities in https.ca.location"),
    ("unexpired token", "the one that came has expired: see the endpoint's clock"),
    ("OpenSSL verify result", "the endpoint's authority has to be in https.ca.location"),
)


def sentence(words: str, properties: Mapping[str, Any]) -> str:
    """What Kafka's or librdkafka's words mean, the same each time that the same is wrong.

    It may ask a broker for its certificate, which takes some seconds at most.

    Args:
        words: The text of an error.
        properties: Those of the client that it befell.
    """
    broker = _SSL_BROKER.search(words)
    if broker is not None:
        trust, ours = partial(_context, properties), partial(_our_certificate, properties)
        found = _certificates(words, broker["host"], broker["port"], trust, ours)
        if found is not None:
            return found
    text = " ".join(_TIMES.sub("", words).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "; ".join([text, *(hint for mark, hint in _HINTS if mark in text)])


def silence(properties: Mapping[str, Any]) -> str:
    """What may be the cause where librdkafka says nothing but that there is no answer; empty where nothing is known."""
    endpoint = properties.get("sasl.oauthbearer.token.endpoint.url")
    return f"; perhaps no token comes from {endpoint}" if endpoint else ""


def database_sentence(words: str, parameters: Mapping[str, Any]) -> str:
    """What libpq's words mean; it may ask the server for its certificate, which takes some seconds at most.

    Args:
        words: The text of an error.
        parameters: Those of the connection, by libpq's names.
    """
    host, port = (str(parameters.get(name, "")).partition(",")[0] for name in ("host", "port"))
    shown, trust = parameters.get("sslcert"), partial(_database_context, parameters)
    ours = partial(_state_of, shown, None) if shown else None
    found = _certificates(words, host, port or _DATABASE_PORT, trust, ours, before=_SSL_REQUEST)
    if found is not None:
        return found
    return f"{words}; name one in sslcert and sslkey" if _WANTS_OURS in words and not shown else words


def _certificates(
    words: str, host: str, port: str, trust: _Trust, ours: Callable[[], str] | None, *, before: bytes = b""
) -> str | None:
    """What is wrong with a certificate, theirs or (where one may be shown) ours; None where it is something else."""
    place = f"{host}:{port}"
    if "certificate verify failed" in words:
        verdict = _verdict(host, port, trust, before)
        return verdict and f"{place} shows a certificate that is not to be trusted: {verdict}"
    if ours is not None and _OURS_REFUSED.search(words):
        return f"{place} refuses our certificate: {ours()}"
    return None


def _verdict(host: str, port: str, trust: _Trust, before: bytes) -> str | None:
    """What is wrong with a server's certificate; None where we find nothing.

    Args:
        host: Of the server, as it is to be named in the certificate.
        port: Of the server.
        trust: Makes the context of what we trust.
        before: What has to be said before the handshake; one byte answers it.
    """
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


def _context(properties: Mapping[str, Any]) -> ssl.SSLContext:
    authorities = properties.get("ssl.ca.location")
    known: dict[str, Any] = {"cadata": properties.get("ssl.ca.pem")}
    if authorities not in (None, "", "probe"):
        known["capath" if Path(str(authorities)).is_dir() else "cafile"] = str(authorities)
    context = ssl.create_default_context(**known)
    context.check_hostname = properties.get("ssl.endpoint.identification.algorithm") != "none"
    return context


def _database_context(parameters: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=parameters.get("sslrootcert"))
    context.check_hostname = False  # a wrong name libpq tells itself
    return context


def _our_certificate(properties: Mapping[str, Any]) -> str:
    location, text = properties.get("ssl.certificate.location"), properties.get("ssl.certificate.pem")
    if not location and not text:
        return "none is shown, name one in ssl.certificate.location"
    return _state_of(location, text)


def _state_of(location: Any, text: Any) -> str:
    """What may be wrong with the client's certificate, in a file or as text."""
    try:
        pem = Path(str(location)).read_bytes() if location else str(text).encode()
        over = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except (OSError, ValueError):
        return "it cannot be read"
    if over < datetime.now(UTC):
        return f"it has expired ({over:%Y-%m-%dT%H:%M:%SZ})"
    return "it is of an authority that is not known there"
