"""What a request says before its body, read once: who keeps a connection sends the same head again and again.

Pure, but for the memory that `Heads` is.
"""

import re
from collections.abc import Sequence
from typing import Final

from connector.errors import Malformed
from connector.receiver.signatures import HEADERS as SIGNATURE_HEADERS
from connector.receiver.signatures import Signature

MOST_HEADS: Final = 256
"""Heads that are remembered at once."""

MOST_HEAD_BYTES: Final = 2 * 1024
"""Of a head that is remembered."""

END: Final = b"\r\n\r\n"

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE: Final = re.compile(rb"[0-9a-f-]{1,128}")
_SINGLE: Final = frozenset(
    {b"authorization", b"x-weda-token", b"content-type", b"content-encoding", b"host"}
    | {name.encode() for name in SIGNATURE_HEADERS}
)
"""Headers that must not come twice: which of the two counts is what a proxy in front and we could disagree on."""


class Head:
    """A request's first line and header fields.

    Args:
        method: In capitals.
        path: Decoded, without the query.
        headers: Names in lower case, in their order.

    Attributes:
        token: The credential that the request presents, or None.
        signature: What it says of its signature, or None.
        request_id: The ``x-request-id`` of whoever stands before us, if it is one that a log can hold.
        traceparent: If it can be one: it goes into every record as it stands.
        content_type: As sent, or the empty string.
        is_plain_json: The body is declared as most senders do: nothing is to be read in the headers.
        is_one_of_many: Nothing in it is this request's alone, so that the same bytes may come again.
    """

    __slots__ = (
        *("_fields", "content_type", "headers", "is_one_of_many", "is_plain_json", "method", "path", "request_id"),
        *("signature", "token", "traceparent"),
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
        self.is_plain_json = self.content_type == "application/json" and b"content-encoding" not in fields
        self.is_one_of_many = self.signature is None and b"x-request-id" not in fields and b"traceparent" not in fields

    def header(self, name: bytes) -> str:
        """A header's text, or the empty string."""
        value = self._fields.get(name)
        return "" if value is None else value.decode("latin-1").strip()

    def check_headers(self) -> None:
        """Refuse a head that could be read in two ways.

        Raises:
            Malformed: A header that must be single came twice.
        """
        if len(self.headers) == len(self._fields):
            return
        names = [name for name, _ in self.headers]
        if any(names.count(name) > 1 for name in _SINGLE):
            raise Malformed("a header that must be single came twice: send each once")

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
        return self.header(b"x-weda-token") or None


class Heads:
    """The heads of a listener's requests that may come again, by their bytes; in memory, bounded."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Head, int]] = {}

    def of(self, request: bytes) -> tuple[Head, bytes] | None:
        """Head and body of a request, if it is whole, alone, and its head is known.

        Args:
            request: What came in one read on a connection that is between two requests.
        """
        end = request.find(END) + len(END)
        known = self._known.get(request[:end])
        if known is None or len(request) - end != known[1]:
            return None
        return known[0], request[end:]

    def keep(self, request: bytes, head: Head, body: bytes) -> None:
        """Remember the head of a request that was parsed, unless the bytes are more or less than this request."""
        end = request.find(END) + len(END)
        if not head.is_one_of_many or end > MOST_HEAD_BYTES or len(request) - end != len(body):
            return
        if len(self._known) >= MOST_HEADS:
            self._known.clear()
        self._known[request[:end]] = head, len(body)
