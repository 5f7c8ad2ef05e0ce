"""A request's head: its first line and header fields, and what follows from them. Pure."""

import re
from collections.abc import Sequence
from email.message import Message as Header
from typing import Final

from connector import endpoints
from connector.errors import Malformed, WrongMediaType, WrongMethod, WrongPath
from connector.message import weda
from connector.message.parsing import BODY_KINDS, BodyKind, media_type
from connector.receiver.signatures import HEADERS as SIGNATURE_HEADERS
from connector.receiver.signatures import Signature
from connector.settings import DEFAULT_SOURCE

MAX_CONTENT_TYPE_CHARS: Final = 256
"""Most characters of a Content-Type: reading its parameters takes the square of them."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE: Final = re.compile(rb"[0-9a-f-]{1,128}")
_TOKEN: Final = endpoints.TOKEN_HEADER.lower().encode()
_SINGLE: Final = frozenset(
    {b"authorization", _TOKEN, b"content-type", b"content-encoding", b"host"}
    | {name.encode() for name in SIGNATURE_HEADERS}
)
"""Headers that must not come twice: a proxy in front could choose another of the two than the connector."""


class Head:
    """A request's first line and header fields.

    Args:
        method: In capitals.
        path: Decoded, without the query.
        headers: Names in lower case, in the order they were sent.

    Attributes:
        token: The credential that the request presents, or None.
        signature: What the request says of its signature, or None.
        request_id: The ``x-request-id`` of the proxy or sender, if log and Kafka header can hold it.
        traceparent: If it can be one: every record carries it unchanged.
        content_type: As sent, or the empty string.
    """

    __slots__ = (
        *("_fields", "content_type", "headers", "method", "path", "request_id", "signature", "token", "traceparent"),
    )

    def __init__(self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self._fields = fields = dict(headers)
        self.request_id = self._fitting(b"x-request-id", _REQUEST_ID)
        self.traceparent = self._fitting(b"traceparent", _TRACE)
        self.signature = self._signature() if b"webhook-signature" in fields else None
        self.token = self._token()
        self.content_type = self.header(b"content-type")

    def header(self, name: bytes) -> str:
        """A header's text, or the empty string."""
        value = self._fields.get(name)
        return "" if value is None else value.decode("latin-1").strip()

    def source(self) -> str:
        """The source that the path names, whether there is one of this name or not.

        Raises:
            WrongPath: It is no path of the contract.
        """
        path = self.path
        if path == endpoints.DELIVER_PATH:
            return DEFAULT_SOURCE
        source = path.removeprefix(endpoints.SOURCES_PATH).removesuffix(endpoints.DELIVER_PATH)
        if not source or "/" in source or path != endpoints.path_of(source):
            raise WrongPath(f"no such address: use {endpoints.DELIVER_PATH} or {endpoints.path_of('<source>')}")
        return source

    def validate(self) -> None:
        """Reject a method that the contract does not have, and a head that can be read in two ways.

        Raises:
            WrongMethod: It is none of the contract's.
            Malformed: A header that must be single came twice.
        """
        if self.method not in endpoints.METHODS:
            raise WrongMethod(f"the method is {self.method[:16]}: use POST, PUT or GET")
        if len(self.headers) == len(self._fields):
            return
        names = [name for name, _ in self.headers]
        if any(names.count(name) > 1 for name in _SINGLE):
            raise Malformed("a header that must be single came twice: send each once")

    def body_kind(self) -> BodyKind:
        """How the body is written.

        Raises:
            WrongMediaType: No body shape has this media type, charset or content encoding.
        """
        if self.method == "GET":
            return BodyKind.QUERY
        if b"content-encoding" in self._fields and self.header(b"content-encoding").lower() not in {"", "identity"}:
            raise WrongMediaType("the body has a Content-Encoding: send it plain")
        text = self.content_type
        if text in BODY_KINDS:
            return BODY_KINDS[text]
        if len(text) > MAX_CONTENT_TYPE_CHARS:
            raise WrongMediaType(f"the Content-Type has more than {MAX_CONTENT_TYPE_CHARS} characters")
        if _charset(text) not in {"", "utf-8", "utf8"}:
            raise WrongMediaType("the body is declared in another charset: send UTF-8")
        kind = BODY_KINDS.get(media_type(text))
        if kind is None:
            raise WrongMediaType(f"use Content-Type: application/json or {weda.FORM}")
        return kind

    def _fitting(self, name: bytes, form: re.Pattern[bytes]) -> str | None:
        """A header's text, if the whole of it has this form."""
        given = self._fields.get(name)
        return None if given is None or form.fullmatch(given) is None else given.decode("ascii")

    def _signature(self) -> Signature:
        return Signature(*(self.header(name.encode()) for name in SIGNATURE_HEADERS))

    def _token(self) -> str | None:
        scheme, _, token = self.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        return self.header(_TOKEN) or None


def _charset(content_type: str) -> str:
    """In lower case; empty where none is declared."""
    header = Header()
    header["content-type"] = content_type
    return str(header.get_param("charset") or "").lower()
