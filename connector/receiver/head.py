"""Interprets a request's head: its first line and header fields. Pure."""

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
"""Maximum characters of a Content-Type: the time to parse its parameters grows with the square of them."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE: Final = re.compile(rb"[0-9a-f-]{1,128}")
_TOKEN: Final = endpoints.TOKEN_HEADER.lower().encode()
_SINGLE: Final = frozenset(
    {b"authorization", _TOKEN, b"content-type", b"content-encoding", b"host"}
    | {name.encode() for name in SIGNATURE_HEADERS}
)
"""Headers that must not come twice: a proxy in front of the connector could use the other one of the two."""


class Head:
    """A request's first line and header fields.

    Args:
        method: The method in capitals.
        path: The decoded path, without the query.
        headers: The headers in the order in which they were sent, with names in lower case.

    Attributes:
        token: The request's token, or None.
        signature: The request's signature headers, or None.
        request_id: The ``x-request-id`` of the proxy or sender, if it is fit for the log and a Kafka header, or None.
        traceparent: The ``traceparent`` as sent, if it has the form of one, or None.
        content_type: The Content-Type as sent, or the empty string.
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
        """The source that the path names, whether it exists or not.

        Raises:
            WrongPath: The path is not in the contract.
        """
        path = self.path
        if path == endpoints.DELIVER_PATH:
            return DEFAULT_SOURCE
        source = path.removeprefix(endpoints.SOURCES_PATH).removesuffix(endpoints.DELIVER_PATH)
        if not source or "/" in source or path != endpoints.path_of(source):
            raise WrongPath(f"no such address: use {endpoints.DELIVER_PATH} or {endpoints.path_of('<source>')}")
        return source

    def validate(self) -> None:
        """Reject a method that is not in the contract, and an ambiguous head.

        Raises:
            WrongMethod: The method is not in the contract.
            Malformed: A header that must be single came twice.
        """
        if self.method not in endpoints.METHODS:
            raise WrongMethod(f"the method is {self.method[:16]}: use POST, PUT or GET")
        if len(self.headers) == len(self._fields):  # no header came twice, as nearly always
            return
        names = [name for name, _ in self.headers]
        if any(names.count(name) > 1 for name in _SINGLE):
            raise Malformed("a header that must be single came twice: send each once")

    def body_kind(self) -> BodyKind:
        """The format of the body.

        Raises:
            WrongMediaType: There is no format with this media type, charset or content encoding.
        """
        if self.method == "GET":
            return BodyKind.QUERY
        if b"content-encoding" in self._fields and self.header(b"content-encoding").lower() not in {"", "identity"}:
            raise WrongMediaType("the body has a Content-Encoding: send it plain")
        text = self.content_type
        if text in BODY_KINDS:  # most requests have no parameters to parse
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
        """A header's text if it matches this form, or None."""
        value = self._fields.get(name)
        return None if value is None or form.fullmatch(value) is None else value.decode("ascii")

    def _signature(self) -> Signature:
        return Signature(*(self.header(name.encode()) for name in SIGNATURE_HEADERS))

    def _token(self) -> str | None:
        scheme, _, token = self.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        return self.header(_TOKEN) or None


def _charset(content_type: str) -> str:
    """The declared charset in lower case, or the empty string."""
    header = Header()
    header["content-type"] = content_type
    return str(header.get_param("charset") or "").lower()
