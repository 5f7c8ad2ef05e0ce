"""HTTP answers: the one place that turns an error into status, JSON body and headers.

Both listeners answer from here, so the module is below the packages of both: `connector.receiver` and
`connector.operations` must not import each other.
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
    """A whole HTTP response with a JSON body.

    Args:
        status: HTTP's.
        body: JSON.
        headers: Beside ``content-type`` and ``content-length``, names in lower case.
        is_last: The connection ends with it.
        nominal_status: The status that fits what happened, where the one sent is always 200; None: the one sent.

    Attributes:
        nominal_status: The status that fits what happened.
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
            request_id: The id of the request in the log; empty where there is no request that has one.
            keep_alive: The connection stays open after it.
        """
        request_header = b"x-request-id: %b\r\n" % request_id.encode() if request_id else b""
        return b"".join((self._head, request_header, b"" if keep_alive else _CLOSE, b"\r\n", self.body))

    async def send(self, send: Send, request_id: str = "") -> None:
        """Send it by ASGI."""
        headers = self.headers.copy()
        if request_id:
            headers.append((b"x-request-id", request_id.encode()))
        if self.is_last:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    @cached_property
    def _head(self) -> bytes:
        """The status line and the headers that are the same for each request."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n".encode()]
        return b"".join([*lines, *(b"%b: %b\r\n" % header for header in self.headers)])


ACCEPTED: Final = Answer(200, weda.ACCEPTED)
HEALTHY: Final = Answer(200, b"{}")
UNHEALTHY: Final = Answer(503, b"{}")
"""What a load balancer is answered: it takes the status, and nobody else learns anything."""


def url_too_long() -> TooLarge:
    """The error of a request whose URL has more than `MAX_URL_BYTES`."""
    return TooLarge(f"the URL is over {MAX_URL_BYTES} bytes: send the message as the body of a POST")


def to_source(error: ConnectorError, *, is_code_only: bool = False) -> Answer:
    """The answer of the receiver's listener, as the contract has it; its status is the first digits of ``code``.

    A connection ends with a wrong credential, so that each guess costs one, and with bytes that can be read in two
    ways, because what follows them can be too.

    Args:
        error: Why the message was not accepted.
        is_code_only: The status is 200 all the same: the source reads no body of another one.
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
    """Cached, because under overload thousands a second get the same answer."""
    body = {"code": code, "message": message, "stage": stage, "retriable": retriable}
    nominal_status = code // 100
    status = HTTPStatus.OK.value if is_code_only else nominal_status
    return Answer(status, msgspec.json.encode(body), headers, is_last=is_last, nominal_status=nominal_status)


def to_operator(error: ConnectorError, status: int | None = None) -> Answer:
    """The answer of the operations listener to a request that failed.

    Args:
        error: Why it failed.
        status: HTTP's, where the class of the error does not say it.
    """
    if isinstance(error, Refused):
        return notice(error.code // 100, error.message, [_retry_after(error)])
    if status is None:
        status = 502 if isinstance(error, OutsideUnreachable | ConfigurationError) else 500
    return notice(status, error.message)


def notice(status: int, message: str, headers: Headers = ()) -> Answer:
    """An answer of the operations listener that is a sentence."""
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
