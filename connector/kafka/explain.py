"""Explains in one sentence why Kafka cannot be reached or rejects the connection."""

import re
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from connector import handshake
from connector.text import cut

_MAX_CHARS: Final = 300
# The part of a message that differs each time, so that the log could not tell that the problem is the same.
_TIMES: Final = re.compile(r" \(after \d+ms in state \w+\)|: now=\d+ms, exp=\d+ms")
_SSL_BROKER: Final = re.compile(r"ssl://\[?(?P<host>[^/\s]+?)\]?:(?P<port>\d+)/")
_HINTS: Final = (
    ('{"status":"invalid_token"}', "the broker's log says whether for its issuer, audience, key or time"),
    ("adding trust anchors", "name the file of the endpoint's authorities in https.ca.location"),
    ("unexpired token", "the one that came has expired: see the endpoint's clock"),
    ("OpenSSL verify result", "the endpoint's authority has to be in https.ca.location"),
)


def sentence(words: str, properties: Mapping[str, Any]) -> str:
    """The meaning of an error of Kafka or librdkafka; the same problem always has the same text.

    It may ask a broker for its certificate, which takes a few seconds at most.

    Args:
        words: The text of the error.
        properties: librdkafka properties of the client that got it.
    """
    broker = _SSL_BROKER.search(words)
    if broker is not None:
        trust, ours = partial(_context, properties), partial(_our_certificate, properties)
        # librdkafka's words for a failed handshake rarely name the cause: see how it goes with Python's TLS.
        cause = handshake.cause(words, broker["host"], broker["port"], trust=trust, ours=ours)
        if cause is not None:
            return cause
    text = cut(" ".join(_TIMES.sub("", words).split()), _MAX_CHARS)
    return "; ".join([text, *(hint for mark, hint in _HINTS if mark in text)])


def silence(properties: Mapping[str, Any]) -> str:
    """The likely cause of a plain timeout; empty if none is known."""
    endpoint = properties.get("sasl.oauthbearer.token.endpoint.url")
    return f"; perhaps no token comes from {endpoint}" if endpoint else ""


def _context(properties: Mapping[str, Any]) -> ssl.SSLContext:
    authorities = properties.get("ssl.ca.location")
    sources: dict[str, Any] = {"cadata": properties.get("ssl.ca.pem")}
    if authorities not in (None, "", "probe"):  # "probe" is librdkafka's word for the system's certificates
        sources["capath" if Path(str(authorities)).is_dir() else "cafile"] = str(authorities)
    context = ssl.create_default_context(**sources)
    context.check_hostname = properties.get("ssl.endpoint.identification.algorithm") != "none"
    return context


def _our_certificate(properties: Mapping[str, Any]) -> str:
    location, text = properties.get("ssl.certificate.location"), properties.get("ssl.certificate.pem")
    if not location and not text:
        return "none is shown, name one in ssl.certificate.location"
    return handshake.state_of_ours(location, text)
