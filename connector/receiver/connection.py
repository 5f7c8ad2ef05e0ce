"""One HTTP/1.1 connection of either listener: uvicorn's protocol over llhttp, with bounds and a fast path.

**Bounds.** uvicorn does not bound the size of a head or the time it takes, a body that nobody reads, answers that the
sender leaves unread, or the number of connections. This class does, and answers with the contract's JSON where the
sender can still tell which request an answer is for.

**Fast path.** Most of what a server spends on a small POST is neither parsing nor work, but a task, a dozen ASGI
messages, an event, timers. So a request whose head and body arrive in one read goes from the parser to the receiver
with one call, and its answer goes to the transport with another. Everything else (bodies in pieces, chunked bodies,
GET, HTTP/1.0, ``Expect``, a connection that is to close, a request behind one that is not answered yet) takes uvicorn's
path through ASGI. Both paths end in `connector.receiver.application.Receiver.accept_body`; the contract's tests run on
both.

A connection is in a head (from the first byte of a request to the empty line), in a body (from there to its last byte,
whether somebody reads it or not), or between two requests.
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
"""Most bytes of a request's first line and headers, and of a chunked body's trailers."""

MAX_HEADERS: Final = 100
"""Most header fields of a request, and most trailers."""

MAX_OPERATIONS_CONNECTIONS: Final = 1024
"""Most connections of the operations listener: of probes, Prometheus and a few people."""

MAX_PIPELINED: Final = 16
"""Most requests of one connection that wait for the answer to the one before."""

MAX_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of a body that nobody reads: taken and thrown away, so that its sender gets to read the answer."""

HEAD_SECONDS: Final = 10.0
"""How long a head may take, from the start of the connection or from its own first byte."""

UNREAD_SECONDS: Final = 5.0
"""How long a sender may go on with a body after its answer."""

ANSWER_SECONDS: Final = 10.0
"""How long a sender may leave answers unread, once the buffers on the way to it are full."""

PAGE_SECONDS: Final = 120.0
"""The same for the operations listener, whose pages are large and whose readers may be on slow lines."""

PAUSE_SECONDS: Final = 0.5
"""How long nothing is read from a connection whose request was refused for want of capacity."""

SWEEP_SECONDS: Final = 1.0
"""How often the owner of the listener calls `sweep`."""

_WITH_BODY: Final = (b"POST", b"PUT")
_NOT_PLAIN: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_END_OF_HEAD: Final = b"\n\r\n"
_PART_OF_UPGRADE: Final = b"pgrade"
_IN_CAPITALS: Final = _PART_OF_UPGRADE.upper()
_UPGRADE: Final = re.compile(rb"(?<=\n)upgrade(?=:)", re.IGNORECASE)
HEAD_TOO_LARGE: Final = HeadTooLarge(f"the head is over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} header fields")
_MALFORMED: Final = Malformed("this is no HTTP/1.1 that can be read in one way only")
_LATE_UPGRADE: Final = Malformed("another protocol is offered behind another request: leave Upgrade out, or wait")
_TOO_MANY_AT_ONCE: Final = Malformed("too many requests at once on one connection: wait for the answers")
_LATE: Final = TooSlow(f"the request's head did not arrive within {HEAD_SECONDS:.0f} seconds")


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The bounds of a listener's connections, and where their requests go.

    Attributes:
        max_connections: Most of them.
        on_turned_away: Called for each connection that is rejected or refused, with a reason that the metrics know.
        crowded: What a connection beyond ``max_connections`` is answered.
        answer_seconds: How long answers may stay unread.
        receiver: Takes requests that arrived whole; None where every request goes by ASGI.
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
        """Of the receiver's listener."""
        crowded = "too many connections (WEDA_RECEIVER__MAX_CONNECTIONS): send it again"
        return cls(max_connections, on_turned_away, Unavailable(crowded, retry_after=1), ANSWER_SECONDS, receiver)

    @classmethod
    def operations(cls) -> "ConnectionBounds":
        """Of the operations listener, which counts nobody that it turns away."""
        crowded = Unavailable("too many connections to the operations listener: ask again", retry_after=1)
        return cls(MAX_OPERATIONS_CONNECTIONS, lambda _reason: None, crowded, PAGE_SECONDS, None)

    @property
    def protocol(self) -> Callable[..., "Connection"]:
        """What uvicorn makes its connections with."""
        return partial(Connection, self)


class Exchange:
    """A request on the fast path; uvicorn finds it where it expects a `RequestResponseCycle`, and uses it the same way.

    Attributes:
        response_complete: The answer is written.
        disconnected: The sender has hung up.
        keep_alive: The connection stays open; uvicorn clears it when it shuts down.
    """

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    more_body: ClassVar = False
    message_event: ClassVar = asyncio.Event()
    """Nobody waits for it: the body is whole."""

    def __init__(self) -> None:
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True


class _ParsingStopped(Exception):
    """The parser must stop."""


class Connection(HttpToolsProtocol):
    """One connection; made by uvicorn.

    uvicorn's attributes count: ``cycle`` is the last request, ``pipeline`` holds those that wait for the one before.

    Args:
        bounds: Those of its listener.
        arguments: uvicorn's, for every protocol.
        named: uvicorn's, by name.
    """

    def __init__(self, bounds: ConnectionBounds, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bounds = bounds
        # Where the parser is. Deadlines are looked at by `sweep`, so that a request sets no timer.
        self._in_body = False
        self._late_at: float | None = None
        self._unread_since: float | None = None
        # What one read brought, and what reads brought that was neither a whole head nor a body.
        self._read_bytes = 0
        self._has_progressed = False
        self._incomplete_bytes = 0
        self._held = b""
        # The end: why a callback stopped the parser, and whether nothing more is read.
        self._error: ConnectorError | None = None
        self._is_ending = False
        # The fast path: the pieces of a body, of which this read may bring the last; None for requests that go by ASGI.
        self._pieces: list[bytes] | None = None
        self._running: Exchange | RequestResponseCycle | None = None
        self._idle_since: float | None = None

    # --- the transport's callbacks ---

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self._late_at = time.monotonic() + HEAD_SECONDS
        names = names_of(transport.get_extra_info("ssl_object"))
        self.app_state = self.app_state | {ORIGIN: Origin(None if self.client is None else self.client[0], names)}
        if len(self.connections) > self._bounds.max_connections:
            self._answer_and_close(self._bounds.crowded, "connections")

    def data_received(self, data: bytes) -> None:
        """Parse what has come; a request that is not whole by its end goes by ASGI."""
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
        """The connection is gone: uvicorn marks its last request, but an earlier one may be the one that runs."""
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        """A head begins. uvicorn's own method makes an ASGI scope, which the fast path does not need."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._pieces = None
        self._incomplete_bytes = 0
        self._late_at = time.monotonic() + HEAD_SECONDS

    def on_headers_complete(self) -> None:
        """A head is whole: start its request, unless it is over a bound or can be read in two ways."""
        self._in_body, self._has_progressed = True, True
        self._late_at = None
        names = dict(self.headers)
        if self._incomplete_bytes + self._read_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._check_size()
        self._check_reading(names)
        self._incomplete_bytes = 0
        if self._may_be_whole(names):
            self._pieces = []
            return
        self._start_by_asgi()
        if len(self.pipeline) > MAX_PIPELINED:
            self._stop_parsing(_TOO_MANY_AT_ONCE)
        self.headers = []  # of trailers: they say nothing, and must not pass for fields of the head

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._pieces is not None:
            self._pieces.append(body)
            return
        self._has_progressed |= not self.cycle.response_complete
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A body is whole, whether somebody reads it or not."""
        self._in_body, self._has_progressed = False, True
        if self._pieces is not None:
            self._late_at = None
            self._accept_whole(self._pieces)
            return
        if len(self.headers) > MAX_HEADERS:
            self._stop_parsing(HEAD_TOO_LARGE)
        super().on_message_complete()
        self.cycle.more_body = False  # uvicorn leaves it True where the answer came before the body's end
        self._late_at = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not the contract's
        """The parser stopped: answer what is no HTTP, or over a bound."""
        error, self._error = self._error, None
        self._answer_and_close(
            error or _MALFORMED, "head" if isinstance(error, HeadTooLarge | TooLarge) else "malformed"
        )

    # --- requests ---

    def _may_be_whole(self, names: Collection[bytes]) -> bool:
        """Whether a request whose head is whole may take the fast path, if its body is in the same read."""
        cycle, url, parser = self.cycle, self.url, self.parser
        return (
            self._bounds.receiver is not None
            and (cycle is None or cycle.response_complete)
            and _NOT_PLAIN.isdisjoint(names)
            and not self.flow.write_paused
            and parser.get_method() in _WITH_BODY
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and url.startswith(b"/")
            and not (b"?" in url or b"%" in url)
        )

    def _accept_whole(self, pieces: list[bytes]) -> None:
        """A request is whole: to the receiver."""
        self._pieces = None
        receiver = self._bounds.receiver
        assert receiver is not None, "else there would be no pieces"  # noqa: S101 - for the type checker
        self._running = exchange = Exchange()
        self.cycle = exchange  # type: ignore[assignment]  # see `Exchange`
        head = Head(self.parser.get_method().decode("ascii"), self.url.decode("ascii"), self.headers)
        call = Call(head, partial(self._answer, exchange), self.app_state.get(ORIGIN, NOWHERE))
        if receiver.accept_head(call):
            receiver.accept_body(call, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _start_by_asgi(self) -> None:
        """Start a request as uvicorn does, with the head that was read and what there is of the body."""
        pieces, self._pieces = self._pieces or [], None
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
        """Write the answer to a request on the fast path, if its sender is still there."""
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
        """An answer is out: take the next request, or wait for one."""
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
        """At capacity, pause reading after a 429: more refusals would slow down accepted requests."""
        receiver = self._bounds.receiver
        if receiver is not None and receiver.is_full and not self.transport.is_closing():
            self.flow.pause_reading()
            self.loop.call_later(PAUSE_SECONDS, self._resume_reading)

    def _resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # --- idle connections: one timer each, where uvicorn has one for each request ---

    def _be_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self._look_again(self.timeout_keep_alive)

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
            self.timeout_keep_alive_task = self._look_again(self.timeout_keep_alive - idle)

    def _look_again(self, seconds: float) -> TimerHandle:
        return self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    # --- bounds ---

    def end_if_late(self, now: float) -> None:
        """Hang up on a head or an unread body that takes too long, and on senders that do not read their answers.

        Args:
            now: Of the monotonic clock.
        """
        if self._late_at is not None and now > self._late_at:
            self._answer_and_close(_LATE, "slow")
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > self._bounds.answer_seconds:
            self._bounds.on_turned_away("slow")
            self.transport.abort()  # to close it would be to wait for the reader

    def _bound_incomplete(self) -> None:
        """A read brought no whole head and nothing of a body that is read: bound what may come like that."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        if is_answered and not self._in_body and self._late_at is None:
            self._late_at = time.monotonic() + HEAD_SECONDS  # whatever comes between two requests has a head's time
        self._incomplete_bytes += self._read_bytes
        if self._incomplete_bytes > (MAX_UNREAD_BYTES if is_answered and self._in_body else MAX_HEAD_BYTES):
            self._answer_and_close(self._too_large(), "head")

    def _check_size(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._stop_parsing(self._too_large())

    def _check_reading(self, names: Collection[bytes]) -> None:
        """Reject what the parser lets through, and another reader may refuse or take for something else."""
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
        """A read that may hold a head, without an ``Upgrade`` header.

        llhttp would leave the body of such a request unread. A server may ignore an upgrade, so the header is renamed
        and llhttp does not see one. What may be the start of it, or of the head's end, is held back until the rest
        arrives.
        """
        if self._held or _END_OF_HEAD not in data:
            data, self._held = self._held + data, b""
            if _END_OF_HEAD not in data:
                line = data[data.rfind(b"\n") :].lower()
                if _END_OF_HEAD.startswith(line) or b"\nupgrade".startswith(line):
                    data, self._held = data[: -len(line)], data[-len(line) :]
        head, end, rest = data.partition(_END_OF_HEAD)
        if _PART_OF_UPGRADE in head or _IN_CAPITALS in head:
            return _UPGRADE.sub(b"x-upgrade", head) + end + rest
        return data

    def _too_large(self) -> ConnectorError:
        return answers.url_too_long() if len(self.url) > MAX_URL_BYTES else HEAD_TOO_LARGE

    def _stop_parsing(self, error: ConnectorError) -> NoReturn:
        """Stop the parser for good, from one of its callbacks."""
        self._error = error
        raise _ParsingStopped  # not the error: a shared one would gather the frames of every connection that it ended

    def _answer_and_close(self, error: ConnectorError, reason: str) -> None:
        """Answer and hang up, unless the answer would be taken for that of another request."""
        if self._is_ending:
            return
        self._bounds.on_turned_away(reason)
        self._is_ending, self._late_at = True, None
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body and not self.pipeline:
            cycle.keep_alive = False  # it is whole, and gets its own answer
            return
        response = answers.to_source(error).to_bytes(keep_alive=False)
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            self.transport.write(response)
        elif not cycle.response_started and not self.pipeline:
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.write(response)
        self.transport.close()


def sweep(connections: Iterable[Any]) -> None:
    """Hang up on every connection of a listener that takes too long."""
    now = time.monotonic()
    for connection in tuple(connections):
        connection.end_if_late(now)
