"""HTTP answers: turns an error into a status, a JSON body and headers, for both listeners.

`connector.receiver` and `connector.operations` must not import each other, so what they share is below them.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property, lru_cache
from http import HTTPStatus
from typing import Any, Final

import msgspec

from connector import endpoints
from connector.errors import (
    ConfigurationError,
    ConnectorError,
    Malformed,
    OutsideUnreachable,
    Refused,
    TooLarge,
    Unauthenticated,
    WrongCredential,
    WrongMethod,
)
from connector.message import weda

MAX_URL_BYTES: Final = 8 * 1024

_ANSWERS: Final = 64
_CLOSE: Final = b"connection: close\r\n"
_BEARER: Final = (b"www-authenticate", b"Bearer")
_OUTCOME: Final = endpoints.OUTCOME_HEADER.lower().encode()

Headers = Iterable[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Answer:
    """An HTTP response with a JSON body.

    Args:
        status: The HTTP status.
        body: JSON.
        headers: Further headers besides ``content-type`` and ``content-length``; names in lower case.
        is_last: The connection is closed after it.
        nominal_status: The status of what happened, where the HTTP status is always 200; None means ``status``.

    Attributes:
        nominal_status: The status of what happened, which the pause after a 429 and a span's status follow.
    """

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: Headers = (),
        *,
        is_last: bool = False,
        nominal_status: int | None = None,
    ) -> None:
        self.status = status
        self.nominal_status = status if nominal_status is None else nominal_status
        self.body = body
        self.is_last = is_last
        self.headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *headers,
        ]

    def to_bytes(self, request_id: str = "", *, keep_alive: bool) -> bytes:
        """The bytes of the response.

        Args:
            request_id: The request's id in the log; the empty string if it has none.
            keep_alive: The connection stays open.
        """
        request_header = b"x-request-id: %b\r\n" % request_id.encode() if request_id else b""
        return b"".join((self._head, request_header, b"" if keep_alive else _CLOSE, b"\r\n", self.body))

    async def send(self, send: Send, request_id: str = "") -> None:
        """Send the response by ASGI."""
        headers = self.headers.copy()
        if request_id:
            headers.append((b"x-request-id", request_id.encode()))
        if self.is_last:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    @cached_property
    def _head(self) -> bytes:
        """The status line and the headers that do not depend on the request."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n".encode()]
        return b"".join([*lines, *(b"%b: %b\r\n" % header for header in self.headers)])


ACCEPTED: Final = Answer(200, weda.ACCEPTED_BODY)
HEALTHY: Final = Answer(200, b"{}")
UNHEALTHY: Final = Answer(503, b"{}")
"""For load balancers, which read the status only. The path is public, so the body tells nothing."""


def url_too_long() -> TooLarge:
    """The error of a request whose URL is longer than `MAX_URL_BYTES`."""
    return TooLarge(f"the URL is over {MAX_URL_BYTES} bytes: send the message as the body of a POST")


def to_source(error: ConnectorError, *, is_code_only: bool = False) -> Answer:
    """The receiver's answer to a source; the status is the first three digits of ``code``.

    A wrong credential ends the connection, so that each guess costs one. So do ambiguous bytes, because whatever
    follows them on the connection is ambiguous too.

    Args:
        error: Why the message was not accepted.
        is_code_only: Always send status 200: some sources read the body of no other.
    """
    is_last = isinstance(error, WrongCredential | Malformed)
    return _to_source(
        error.code, error.message, error.stage, error.retriable, _headers_of(error), is_last, is_code_only
    )


@lru_cache(maxsize=_ANSWERS)
def _to_source(  # noqa: PLR0917 - positional, as keys of the cache
    code: int,
    message: str,
    stage: str,
    retriable: bool,  # noqa: FBT001
    headers: tuple[tuple[bytes, bytes], ...],
    is_last: bool,  # noqa: FBT001
    is_code_only: bool,  # noqa: FBT001
) -> Answer:
    """Cached: under overload thousands of requests a second get the same answer."""
    body = {"code": code, "message": message, "stage": stage, "retriable": retriable}
    nominal_status = code // 100
    status = HTTPStatus.OK.value if is_code_only else nominal_status
    return Answer(status, msgspec.json.encode(body), headers, is_last=is_last, nominal_status=nominal_status)


def to_operator(error: ConnectorError, status: int | None = None) -> Answer:
    """The answer of the operations listener to a request that failed.

    Args:
        error: Why it failed.
        status: The HTTP status, if the error's class does not determine it.
    """
    if isinstance(error, Refused):
        return notice(error.code // 100, error.message, [_retry_after(error)])
    if status is None:
        status = 502 if isinstance(error, OutsideUnreachable | ConfigurationError) else 500
    return notice(status, error.message)


def notice(status: int, message: str, headers: Headers = ()) -> Answer:
    """An answer of the operations listener with a message for people."""
    if status == HTTPStatus.UNAUTHORIZED:
        headers = [*headers, _BEARER]
    return Answer(status, msgspec.json.encode({"message": message}), headers)


def _headers_of(error: ConnectorError) -> tuple[tuple[bytes, bytes], ...]:
    if isinstance(error, Refused):
        return _retry_after(error), (_OUTCOME, error.outcome.encode())
    if isinstance(error, WrongMethod):
        return ((b"allow", ", ".join(endpoints.METHODS).encode()),)
    return (_BEARER,) if isinstance(error, Unauthenticated) else ()


def _retry_after(error: Refused) -> tuple[bytes, bytes]:
    return b"retry-after", str(error.retry_after).encode()
