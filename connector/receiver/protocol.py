"""HTTP/1.1 on both listeners, before there is a request: the bounds of heads, connections and patience.

uvicorn's protocol over llhttp, with what it leaves open: a head has a bound in bytes, header fields and time, a body
that nobody reads any more has one in time, connections have one in number, and what is no HTTP gets the contract's
JSON.
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, NoReturn

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from connector.errors import ConnectorError, HeadTooLarge, Malformed, Refused, TooLarge, TooSlow, Unavailable
from connector.receiver.addresses import ORIGIN, Origin
from connector.receiver.head import Heads
from connector.receiver.tls import names_of
from connector.receiver.wire import Wire

MAX_HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a request's first line and headers, and of a chunked body's trailers."""

MAX_URL_BYTES: Final = 8 * 1024
MAX_HEADERS: Final = 100
"""Most header fields of a request, and most trailers."""

MAX_OPERATIONS_CONNECTIONS: Final = 1024
"""Most connections of the operations listener: of probes, Prometheus and a few people."""

MAX_PIPELINED: Final = 16
"""Most requests of one connection that wait for the answer to the one before."""

HEAD_SECONDS: Final = 10.0
"""How long a head may take, from the connection's begin or its own first byte."""

UNREAD_SECONDS: Final = 5.0
"""How long a sender may go on with a body after its answer."""

ANSWER_SECONDS: Final = 10.0
"""How long a sender may leave answers unread, once there is no room for more on the way to it."""

PAGE_SECONDS: Final = 120.0
"""The same of the operations listener, whose pages are large and whose lines may be slow."""

MAX_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""How much of such a body is taken and thrown away, so that its sender gets to read the answer."""

SWEEP_SECONDS: Final = 1.0
"""How often the owner of the listener calls :func:`sweep`."""

_END_OF_HEAD: Final = b"\n\r\n"
_PART_OF_UPGRADE: Final = b"pgrade"
_IN_CAPITALS: Final = _PART_OF_UPGRADE.upper()
_OFFER: Final = re.compile(rb"(?<=\n)upgrade(?=:)", re.IGNORECASE)
HEAD_TOO_LARGE: Final = HeadTooLarge(f"the head is over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} header fields")


class _Refused(Exception):
    """The parser is to go no further."""


class Protocol(Wire):
    """One connection; made by uvicorn.

    Attributes:
        max_connections: Bound of the listener; set by :func:`bounded`.
        on_refusal: Told of each connection that is turned away, with a reason that metrics know.
        crowded: What is answered to a connection too many.
        answer_seconds: How long answers may stay unread.
    """

    crowded: ClassVar = Unavailable(
        "too many connections (WEDA_RECEIVER__MAX_CONNECTIONS): send it again", retry_after=1
    )
    answer_seconds: ClassVar = ANSWER_SECONDS
    max_connections: int
    on_refusal: Callable[[str], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._late_at: float | None = None
        self._unread_since: float | None = None
        self._is_in_head = True
        self._data_bytes = 0
        self._bare_bytes = 0
        self._held = b""
        self._refusal: ConnectorError | None = None
        self._is_ending = False

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or turn it away where there are too many."""
        super().connection_made(transport)
        self._late_at = time.monotonic() + HEAD_SECONDS
        names = names_of(transport.get_extra_info("ssl_object"))
        self.app_state = self.app_state | {ORIGIN: Origin(None if self.client is None else self.client[0], names)}
        if len(self.connections) > self.max_connections:
            self._reject(self.crowded, "connections")

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and keep count of what is neither a whole head nor a body."""
        if self._is_ending:
            return
        if not self._held and self.take_known(data):
            self._late_at, self._is_in_head, self._bare_bytes = None, False, 0
            return
        cycle, was_in_head = self.cycle, self._is_in_head
        if was_in_head or not cycle.more_body:
            if self._held or _END_OF_HEAD not in data:
                data = self._with_whole_names(data)
            if _PART_OF_UPGRADE in data or _IN_CAPITALS in data:
                data = _without_offer(data)
        held = 0 if cycle is None else len(cycle.body)
        was_over = cycle is not None and cycle.response_complete and not cycle.more_body
        self._data_bytes = len(data)
        super().data_received(data)
        if self._is_in_head:
            is_bare = was_in_head
        elif self.cycle is None:
            return  # type: ignore[unreachable]  # the first head was refused; uvicorn says there always is a cycle
        else:
            is_bare = self.cycle.more_body and cycle is self.cycle and len(cycle.body) == held
        if is_bare:
            self._count_bare_bytes()
        elif self._late_at is None and was_over and cycle is self.cycle:
            self._late_at = time.monotonic() + HEAD_SECONDS  # whatever comes between two requests has a head's time

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._late_at = time.monotonic() + HEAD_SECONDS
        self._is_in_head = True
        self._bare_bytes = 0

    def on_headers_complete(self) -> None:
        """A head is whole: start its request, unless it is over a bound."""
        self._late_at = None
        self._is_in_head = False
        if self._bare_bytes + self._data_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._check_head()
        self._check_reading()
        self._bare_bytes = 0
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self._refuse(Malformed("too many requests at once on one connection: wait for the answers"))
        if self._pieces is None:
            self.headers = []  # of trailers: they say nothing, and must not pass for fields of the head

    def on_message_complete(self) -> None:
        """A body is whole, whether somebody reads it or not."""
        if len(self.headers) > MAX_HEADERS:
            self._refuse(HEAD_TOO_LARGE)
        super().on_message_complete()
        if self.cycle.more_body:
            self.cycle.more_body = False
        self._late_at = None

    def on_response_complete(self) -> None:
        """A request is answered: whoever goes on sending its body has a while to end."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._late_at = time.monotonic() + UNREAD_SECONDS

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not the contract's
        """Answer what is no HTTP, or over a bound."""
        refusal, self._refusal = self._refusal, None
        self._reject(refusal or _NO_HTTP, "head" if isinstance(refusal, HeadTooLarge | TooLarge) else "malformed")

    def end_if_late(self, now: float) -> None:
        """Hang up on a head or an unread body that takes too long, and on who does not read its answers."""
        if self._late_at is not None and now > self._late_at:
            self._reject(_LATE, "slow")
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > self.answer_seconds:
            self.on_refusal("slow")
            self.transport.abort()  # to close it would be to wait for the reader

    def _with_whole_names(self, data: bytes) -> bytes:
        """Keep back what may be the begin of an offer, or of the head's end, until the rest of it is there."""
        data, self._held = self._held + data, b""
        if _END_OF_HEAD not in data:
            line = data[data.rfind(b"\n") :].lower()
            if _END_OF_HEAD.startswith(line) or b"\nupgrade".startswith(line):
                data, self._held = data[: -len(line)], data[-len(line) :]
        return data

    def _count_bare_bytes(self) -> None:
        """Bound what the parser may hold of a head, of trailers, or of a body that nobody reads."""
        self._bare_bytes += self._data_bytes
        is_unread = self.cycle is not None and self.cycle.response_complete and self.cycle.more_body
        if self._bare_bytes > (MAX_UNREAD_BYTES if is_unread else MAX_HEAD_BYTES):
            self._reject(self._too_large(), "head")

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(self._too_large())

    def _check_reading(self) -> None:
        """Refuse what the parser lets through, and another reader may refuse or take for something else."""
        version = self.parser.get_http_version()
        is_proper = _names_a_host(self.headers) if version == "1.1" else version == "1.0"
        if not self._is_plain:
            codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            is_proper = is_proper and (not codings or (version == "1.1" and codings == [b"chunked"]))
        if not is_proper or b"#" in self.url:
            self._refuse(_NO_HTTP)
        if self.parser.should_upgrade():
            self._refuse(_LATE_OFFER)

    def _refuse(self, error: ConnectorError) -> NoReturn:
        """End the parser's work on this connection, from one of its callbacks."""
        self._refusal = error
        raise _Refused  # not the error: one that is shared would gather the frames of every connection that it ended

    def _too_large(self) -> ConnectorError:
        if len(self.url) > MAX_URL_BYTES:
            return TooLarge(f"the URL is over {MAX_URL_BYTES} bytes: send the message as the body of a POST")
        return HEAD_TOO_LARGE

    def _reject(self, error: ConnectorError, reason: str) -> None:
        """Answer and hang up, unless the answer would be taken for that of another request."""
        if self._is_ending:
            return
        self.on_refusal(reason)
        self._is_ending, self._late_at = True, None
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body and not self.pipeline:
            cycle.keep_alive = False  # it is whole, and gets its own answer
            return
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.transport.write(_answer(error))
        elif not cycle.response_started and not self.pipeline:
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.write(_answer(error))
        self.transport.close()


class OperationsProtocol(Protocol):
    """One connection of the operations listener: the same bounds, and an application that is asked by ASGI alone."""

    crowded = Unavailable("too many connections to the operations listener: ask again", retry_after=1)
    answer_seconds = PAGE_SECONDS

    def _may_be_short(self) -> bool:
        return False


def bounded(protocol: type[Protocol], max_connections: int, on_refusal: Callable[[str], None]) -> type[Protocol]:
    """The protocol of one listener."""
    own = {"max_connections": max_connections, "on_refusal": staticmethod(on_refusal), "heads": Heads()}
    return type("BoundedProtocol", (protocol,), own)


def sweep(connections: Iterable[Any]) -> None:
    """Hang up on every connection of a listener that takes too long."""
    now = time.monotonic()
    for connection in tuple(connections):
        connection.end_if_late(now)


def _names_a_host(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, _ in headers:  # noqa: SIM110 - for every request, and any() takes four times as long
        if name == b"host":
            return True
    return False


def _without_offer(data: bytes) -> bytes:
    """A head without its offer of another protocol: llhttp would leave the body unread, and a server may decline."""
    head, end, rest = data.partition(_END_OF_HEAD)
    return _OFFER.sub(b"x-upgrade", head) + end + rest


def _answer(error: ConnectorError) -> bytes:
    body = msgspec.json.encode(
        {"code": error.code, "message": error.message, "stage": error.stage, "retriable": error.retriable}
    )
    wait = b""
    if isinstance(error, Refused):
        wait = b"retry-after: %d\r\nx-weda-outcome: %s\r\n" % (error.retry_after, error.outcome.encode())
    head = b"content-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n" % (len(body), wait)
    return STATUS_LINE[error.code // 100] + head + body


_NO_HTTP: Final = Malformed("this is no HTTP/1.1 that can be read in one way only")
_LATE_OFFER: Final = Malformed("another protocol is offered behind another request: leave Upgrade out, or wait")
_LATE: Final = TooSlow(f"the request's head did not arrive within {HEAD_SECONDS:.0f} seconds")
