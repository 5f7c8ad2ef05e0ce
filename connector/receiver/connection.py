"""One HTTP/1.1 connection of either listener: uvicorn's protocol over llhttp, with limits and a fast path.

**Limits.** uvicorn does not limit the size of a head or the time it takes, a body that nobody reads, answers that the
sender does not read, or the number of connections. This class does, and answers with the contract's JSON if the sender
can still tell which request an answer is for.

**Fast path.** A server spends most of its time for a small POST neither on parsing nor on work, but on a task, a dozen
ASGI messages, an event and timers. So a request whose head and body arrive in one read goes from the parser to the
receiver with two plain calls, and its answer goes to the transport with another. All other requests (bodies in pieces,
chunked bodies, GET, HTTP/1.0, ``Expect``, a URL with ``?`` or ``%``, a connection that closes, a request behind an
unanswered one or behind unread answers) take uvicorn's path through ASGI. Both paths end in
`connector.receiver.application.Receiver.accept_body`; the contract's tests run on both.

A connection is in a head (from the first byte of a request to the empty line), in a body (from there to its last byte,
whether it is read or not), or between two requests.
"""

import asyncio
import re
import time
from asyncio import TimerHandle
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from connector import answers
from connector.answers import MAX_URL_BYTES, Answer
from connector.errors import ConnectorError, HeadTooLarge, Malformed, TooLarge, TooSlow, Unavailable
from connector.receiver.application import Call, Receiver
from connector.receiver.client_address import NOWHERE, ORIGIN, Origin
from connector.receiver.head import Head
from connector.receiver.tls import names_of

MAX_HEAD_BYTES: Final = 64 * 1024
"""Maximum bytes of a request's first line and headers, and of a chunked body's trailers."""

MAX_HEADERS: Final = 100
"""Maximum header fields of a request, and maximum trailers."""

MAX_OPERATIONS_CONNECTIONS: Final = 1024
"""Maximum connections of the operations listener, for probes, Prometheus and a few people."""

MAX_PIPELINED: Final = 16
"""Maximum requests of a connection that wait for the answer to the previous one."""

MAX_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of a body that nobody reads: they are discarded, so that the sender comes to read the answer."""

HEAD_SECONDS: Final = 10.0
"""How long a head may take, from the start of the connection or from the head's first byte."""

UNREAD_SECONDS: Final = 5.0
"""How long a sender may continue a body after its answer."""

ANSWER_SECONDS: Final = 10.0
"""How long a sender may leave answers unread, once the buffers on the way to it are full."""

PAGE_SECONDS: Final = 120.0
"""The same for the operations listener, which sends large pages, perhaps over slow lines."""

PAUSE_SECONDS: Final = 0.5
"""How long a connection is not read after one of its requests was refused for lack of capacity."""

SWEEP_SECONDS: Final = 1.0
"""Seconds between two calls of `sweep` by the owner of the listener."""

_WITH_BODY: Final = (b"POST", b"PUT")
_SLOW_PATH_HEADERS: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_END_OF_HEAD: Final = b"\n\r\n"
# Two plain searches come before the regular expression, because hardly any head has the header.
_UPGRADE_WITHOUT_INITIAL: Final = b"pgrade"
_UPGRADE_IN_CAPITALS: Final = b"PGRADE"
_UPGRADE: Final = re.compile(rb"(?<=\n)upgrade(?=:)", re.IGNORECASE)
HEAD_TOO_LARGE: Final = HeadTooLarge(f"the head is over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} header fields")
_MALFORMED: Final = Malformed("this is no HTTP/1.1 that can be read in one way only")
_LATE_UPGRADE: Final = Malformed("another protocol is offered behind another request: leave Upgrade out, or wait")
_TOO_MANY_AT_ONCE: Final = Malformed("too many requests at once on one connection: wait for the answers")
_LATE: Final = TooSlow(f"the request's head did not arrive within {HEAD_SECONDS:.0f} seconds")


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The limits of a listener's connections, and the receiver of their requests.

    Attributes:
        max_connections: Maximum number of connections.
        on_turned_away: Called for each connection that is rejected or refused, with a reason that the metrics know.
        crowded: The answer to a connection beyond ``max_connections``.
        answer_seconds: How long answers may stay unread.
        receiver: Takes requests that arrive whole; None if every request goes through ASGI.
    """

    max_connections: int
    on_turned_away: Callable[[str], None]
    crowded: Unavailable
    answer_seconds: float
    receiver: Receiver | None

    @classmethod
    def public(
        cls, receiver: Receiver, max_connections: int, on_turned_away: Callable[[str], None]
    ) -> "ConnectionBounds":
        """The bounds of the receiver's listener."""
        crowded = "too many connections (WEDA_RECEIVER__MAX_CONNECTIONS): send it again"
        return cls(max_connections, on_turned_away, Unavailable(crowded, retry_after=1), ANSWER_SECONDS, receiver)

    @classmethod
    def operations(cls) -> "ConnectionBounds":
        """The bounds of the operations listener, which does not count connections that it turns away."""
        crowded = Unavailable("too many connections to the operations listener: ask again", retry_after=1)
        return cls(MAX_OPERATIONS_CONNECTIONS, lambda _reason: None, crowded, PAGE_SECONDS, None)

    @property
    def protocol(self) -> Callable[..., "Connection"]:
        """The factory with which uvicorn makes its connections."""
        return partial(Connection, self)


class Exchange:
    """A request on the fast path; uvicorn uses it in place of a `RequestResponseCycle`.

    Attributes:
        response_complete: Whether the answer was written.
        disconnected: Whether the sender has hung up.
        keep_alive: Whether the connection stays open; uvicorn clears it when it shuts down.
    """

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    more_body: ClassVar = False
    message_event: ClassVar = asyncio.Event()
    """Set by uvicorn, but nobody waits for it, because the body is whole."""

    def __init__(self) -> None:
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True


class _ParsingStopped(Exception):
    """The parser must stop."""


class Connection(HttpToolsProtocol):
    """One connection; made by uvicorn.

    Of uvicorn's attributes, ``cycle`` is the last request, and ``pipeline`` holds requests that wait for the previous
    one.

    Args:
        bounds: The bounds of the listener.
        arguments: uvicorn's positional arguments.
        named: uvicorn's keyword arguments.
    """

    def __init__(self, bounds: ConnectionBounds, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bounds = bounds
        # Where the parser is. `sweep` checks the deadlines, so that a request needs no timer.
        self._in_body = False
        self._late_at: float | None = None
        self._unread_since: float | None = None
        # The bytes of the current read, and those so far that were neither a whole head nor part of a wanted body.
        self._read_bytes = 0
        self._has_progressed = False
        self._incomplete_bytes = 0
        self._held = b""
        # The end: why a callback stopped the parser, and whether everything that still comes is ignored.
        self._error: ConnectorError | None = None
        self._is_ending = False
        # The fast path. A list: the head may take it, and these pieces of its body have come. If it is still here after
        # a read, the body was not complete, and the request goes through ASGI. None: it goes there, or there is none.
        self._pieces: list[bytes] | None = None
        self._running: Exchange | RequestResponseCycle | None = None
        self._idle_since: float | None = None

    # --- the transport's callbacks ---

    def connection_made(self, transport: Any) -> None:
        """Accept a connection, or refuse it if there are too many."""
        super().connection_made(transport)
        self._late_at = time.monotonic() + HEAD_SECONDS
        names = names_of(transport.get_extra_info("ssl_object"))
        self.app_state = self.app_state | {ORIGIN: Origin(None if self.client is None else self.client[0], names)}
        if len(self.connections) > self._bounds.max_connections:
            self._answer_and_close(self._bounds.crowded, "connections")

    def data_received(self, data: bytes) -> None:
        """Parse the data of one read; a request that it does not complete goes through ASGI."""
        if self._is_ending:
            return
        if not self._in_body:
            data = self._without_upgrade(data)
        self._read_bytes, self._has_progressed = len(data), False
        super().data_received(data)
        if self._pieces is not None and self.parser is not None:
            self._start_by_asgi()
        if not self._has_progressed and not self._is_ending:
            self._bound_incomplete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark the running request as disconnected: uvicorn marks only the last one, which may wait behind it."""
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        """Begin a head, without the ASGI scope that uvicorn's own method makes: the fast path does not need it."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._pieces = None
        self._incomplete_bytes = 0
        self._late_at = time.monotonic() + HEAD_SECONDS

    def on_headers_complete(self) -> None:
        """Start the request of a complete head, unless it exceeds a limit or is ambiguous."""
        self._in_body, self._has_progressed = True, True
        self._late_at = None
        names = dict(self.headers)
        # A head is at most as large as the reads that brought it: add up its own size only if they exceed the limit.
        if self._incomplete_bytes + self._read_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._check_head_size()
        self._check_unambiguous(names)
        self._incomplete_bytes = 0
        if self._may_be_whole(names):
            self._pieces = []
            return
        self._start_by_asgi()
        if len(self.pipeline) > MAX_PIPELINED:
            self._stop_parsing(_TOO_MANY_AT_ONCE)
        self.headers = []  # llhttp adds trailers to them, which must not pass for fields of the head

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._pieces is not None:
            self._pieces.append(body)
            return
        self._has_progressed |= not self.cycle.response_complete
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Finish a body, whether it was read or not."""
        self._in_body, self._has_progressed = False, True
        if self._pieces is not None:
            self._late_at = None
            self._accept_whole(self._pieces)
            return
        if len(self.headers) > MAX_HEADERS:
            self._stop_parsing(HEAD_TOO_LARGE)
        super().on_message_complete()
        self.cycle.more_body = False  # uvicorn leaves it True if the answer came before the body's end
        self._late_at = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text is not the contract's
        """Answer a request that stopped the parser: it is not HTTP, or exceeds a limit."""
        error, self._error = self._error, None
        self._answer_and_close(
            error or _MALFORMED, "head" if isinstance(error, HeadTooLarge | TooLarge) else "malformed"
        )

    # --- requests ---

    def _may_be_whole(self, names: Collection[bytes]) -> bool:
        """Whether a request with a complete head may take the fast path, if its body is in the same read."""
        cycle, url, parser = self.cycle, self.url, self.parser
        return (
            self._bounds.receiver is not None
            and (cycle is None or cycle.response_complete)
            and _SLOW_PATH_HEADERS.isdisjoint(names)
            and not self.flow.write_paused
            and parser.get_method() in _WITH_BODY
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and url.startswith(b"/")
            and not (b"?" in url or b"%" in url)
        )

    def _accept_whole(self, pieces: list[bytes]) -> None:
        """Pass a whole request to the receiver."""
        self._pieces = None
        receiver = self._bounds.receiver
        assert receiver is not None, "otherwise there are no pieces"  # noqa: S101 - for the type checker
        # Before the cycle: an error in it is answered as one of the parser's, which a running request would prevent.
        head = Head(self.parser.get_method().decode("ascii"), self.url.decode("ascii"), self.headers)
        self._running = exchange = Exchange()
        self.cycle = exchange  # type: ignore[assignment]  # see `Exchange`
        call = Call(head, partial(self._answer, exchange), self.app_state.get(ORIGIN, NOWHERE))
        if receiver.accept_head(call):
            receiver.accept_body(call, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _start_by_asgi(self) -> None:
        """Start a request as uvicorn does, with its head and the pieces of its body that were read."""
        pieces, self._pieces = self._pieces or [], None
        # uvicorn's method clears what the parser has read of this head since `on_message_begin`.
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        for piece in pieces:
            super().on_body(piece)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # --- answers ---

    def _answer(self, exchange: Exchange, answer: Answer, request_id: str) -> None:
        """Write the answer to a request on the fast path, if its sender is still connected."""
        exchange.response_complete = True
        exchange.keep_alive = exchange.keep_alive and not answer.is_last
        if exchange.disconnected:
            return
        self.transport.write(answer.to_bytes(request_id, keep_alive=exchange.keep_alive))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()
        if answer.nominal_status == 429:  # noqa: PLR2004 - HTTP's own number
            self._pause_reading()

    def on_response_complete(self) -> None:
        """After an answer, start the next request or wait for one."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self._resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._be_idle()
        if self.cycle.response_complete and self.cycle.more_body:
            self._late_at = time.monotonic() + UNREAD_SECONDS

    def _pause_reading(self) -> None:
        """At capacity, pause reading after a 429: further refusals would slow down accepted requests (ADR 0025)."""
        receiver = self._bounds.receiver
        if receiver is not None and receiver.is_full and not self.transport.is_closing():
            self.flow.pause_reading()
            self.loop.call_later(PAUSE_SECONDS, self._resume_reading)

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # --- idle connections: one timer per connection, where uvicorn sets one for each request ---

    def _be_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self._check_idle_in(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle long enough."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        idle = 0.0 if self._idle_since is None else self.loop.time() - self._idle_since
        if idle >= self.timeout_keep_alive:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self._check_idle_in(self.timeout_keep_alive - idle)

    def _check_idle_in(self, seconds: float) -> TimerHandle:
        return self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    # --- bounds ---

    def end_if_late(self, now: float) -> None:
        """Hang up if a head or an unread body takes too long, or if the sender does not read its answers.

        Args:
            now: The time of the monotonic clock.
        """
        if self._late_at is not None and now > self._late_at:
            self._answer_and_close(_LATE, "slow")
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > self._bounds.answer_seconds:
            self._bounds.on_turned_away("slow")
            self.transport.abort()  # `close` would wait until the buffer was read

    def _bound_incomplete(self) -> None:
        """Limit the bytes and the time of reads that bring neither a complete head nor a part of a wanted body."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        if is_answered and not self._in_body and self._late_at is None:
            self._late_at = time.monotonic() + HEAD_SECONDS  # bytes between two requests have the time of a head
        self._incomplete_bytes += self._read_bytes
        if self._incomplete_bytes > (MAX_UNREAD_BYTES if is_answered and self._in_body else MAX_HEAD_BYTES):
            self._answer_and_close(self._too_large(), "head")

    def _check_head_size(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._stop_parsing(self._too_large())

    def _check_unambiguous(self, names: Collection[bytes]) -> None:
        """Reject heads that the parser accepts, but that a proxy may reject or read differently (request smuggling)."""
        version = self.parser.get_http_version()
        is_proper = b"host" in names if version == "1.1" else version == "1.0"
        if b"transfer-encoding" in names:
            codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
            is_proper = is_proper and version == "1.1" and codings == [b"chunked"]
        if not is_proper or b"#" in self.url:
            self._stop_parsing(_MALFORMED)
        if self.parser.should_upgrade():
            self._stop_parsing(_LATE_UPGRADE)

    def _without_upgrade(self, data: bytes) -> bytes:
        """Return the data of a read without ``Upgrade`` headers in the head.

        llhttp would not read the body of a request with this header. A server may ignore an upgrade, so the header is
        renamed to hide it from llhttp. Bytes that may be the start of the header or of the head's end are held back
        until the rest arrives.
        """
        if self._held or _END_OF_HEAD not in data:
            data, self._held = self._held + data, b""
            if _END_OF_HEAD not in data:
                line = data[data.rfind(b"\n") :].lower()
                if _END_OF_HEAD.startswith(line) or b"\nupgrade".startswith(line):
                    data, self._held = data[: -len(line)], data[-len(line) :]
        head, end, rest = data.partition(_END_OF_HEAD)
        if _UPGRADE_WITHOUT_INITIAL in head or _UPGRADE_IN_CAPITALS in head:
            return _UPGRADE.sub(b"x-upgrade", head) + end + rest
        return data

    def _too_large(self) -> ConnectorError:
        return answers.url_too_long() if len(self.url) > MAX_URL_BYTES else HEAD_TOO_LARGE

    def _stop_parsing(self, error: ConnectorError) -> NoReturn:
        """Stop the parser permanently, from one of its callbacks."""
        self._error = error
        raise _ParsingStopped  # not `error`: a shared one would collect the frames of every connection that it ends

    def _answer_and_close(self, error: ConnectorError, reason: str) -> None:
        """Answer and hang up; without an answer if the sender would take it for that of another request."""
        if self._is_ending:
            return
        self._bounds.on_turned_away(reason)
        self._is_ending, self._late_at = True, None
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body and not self.pipeline:
            cycle.keep_alive = False  # the last request is whole, and its own answer closes the connection
            return
        response = answers.to_source(error).to_bytes(keep_alive=False)
        # Nothing is unanswered: this answer is for the bytes that arrive now.
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.transport.write(response)
        # The body of the last request still arrives, and its answer has not begun: this is its answer. In all other
        # cases the sender could not tell which request is answered.
        elif not cycle.response_started and not self.pipeline:
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.write(response)
        self.transport.close()


def sweep(connections: Iterable[Any]) -> None:
    """Hang up on those connections of a listener that take too long."""
    now = time.monotonic()
    for connection in tuple(connections):
        connection.end_if_late(now)
