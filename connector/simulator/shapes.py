"""Writes messages in the body shapes that WeDa's request template can produce."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote, quote_plus
from zlib import crc32

import msgspec

MAX_URL_BYTES: Final = 8192


class Shape(StrEnum):
    """The shape of a message in a request."""

    TEXT = "text"
    OBJECT = "object"
    BARE = "bare"
    FORM = "form"
    QUERY = "query"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """One HTTP call; ``query`` is already percent-encoded and has no question mark."""

    method: str
    body: bytes = b""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def render(message: Mapping[str, Any], shape: Shape, *, url_bytes: int = 0) -> OutgoingRequest:
    """Write a message in a shape; ``url_bytes`` is the length of the URL to which a query would be added.

    ``query`` becomes ``text`` if the URL would exceed 8 KiB. ``mixed`` chooses by the message's id, so that the same
    message always has the same bytes.
    """
    if shape is Shape.MIXED:
        # crc32 and not `hash`, which differs between processes.
        shape = _MIX[crc32(str(message.get("msgId")).encode()) % len(_MIX)]
    if shape is not Shape.QUERY:
        return _WITH_BODY[shape](message)
    query = f"msgContext={quote(msgspec.json.encode(message), safe='')}"
    if url_bytes + len("?") + len(query) > MAX_URL_BYTES:
        return _text(message)
    return OutgoingRequest("GET", query=query)


_JSON: Final = {"Content-Type": "application/json"}
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


def _text(message: Mapping[str, Any]) -> OutgoingRequest:
    body = msgspec.json.encode({"msgContext": msgspec.json.encode(message).decode()})
    return OutgoingRequest("POST", body, headers=_JSON)


def _object(message: Mapping[str, Any]) -> OutgoingRequest:
    return OutgoingRequest("POST", msgspec.json.encode({"msgContext": message}), headers=_JSON)


def _bare(message: Mapping[str, Any]) -> OutgoingRequest:
    # the other method with a body that a request template offers, so that both occur
    return OutgoingRequest("PUT", msgspec.json.encode(message), headers=_JSON)


def _form(message: Mapping[str, Any]) -> OutgoingRequest:
    body = f"msgContext={quote_plus(msgspec.json.encode(message))}".encode()
    return OutgoingRequest("POST", body, headers=_FORM)


_WITH_BODY: Final[Mapping[Shape, Callable[[Mapping[str, Any]], OutgoingRequest]]] = {
    Shape.TEXT: _text,
    Shape.OBJECT: _object,
    Shape.BARE: _bare,
    Shape.FORM: _form,
}
_MIX: Final = (*_WITH_BODY, Shape.QUERY)
