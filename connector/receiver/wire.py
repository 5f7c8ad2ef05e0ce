"""HTTP on the public listener: uvicorn's protocol, with a short way for requests that arrive in one piece.

Most of what a server spends on a small POST is neither parsing nor work: a task, a dozen of ASGI's messages, an event,
timers. A request whose head and body come in one read goes from the parser to the receiver by a plain call, and its
answer to the transport by another. Everything else (bodies in pieces, chunked bodies, GET, HTTP/1.0, ``Expect``, a
connection that is to close, a second request behind one that is not answered yet) takes uvicorn's own way through ASGI;
both end in the same methods of `connector.receiver.Receiver`, and the tests of the contract run over both.

A sender that keeps its connection repeats itself: a head that was parsed before is not parsed again if the same bytes
come between two requests, with a body as long as it says (`connector.heads.Heads`).
"""

from asyncio import TimerHandle
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from connector.receiver.addresses import NOWHERE, ORIGIN
from connector.receiver.application import Answer, Call, Receiver
from connector.receiver.head import Head, Heads
from connector.values import UNKNOWN_SOURCE

REST_SECONDS: Final = 0.25
"""How long nothing is read from a connection whose request was refused for want of room."""

_TOO_MANY: Final = 429
_WITH_BODY: Final = (b"POST", b"PUT")
_NOT_PLAIN: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


class Exchange:
    """A request that is with the receiver and its answer; to uvicorn it looks like a `RequestResponseCycle`.

    Attributes:
        response_complete: The answer is written.
        disconnected: The sender has hung up.
        keep_alive: The connection stays; uvicorn takes that back when it shuts down.
    """

    __slots__ = ("_wire", "disconnected", "keep_alive", "response_complete")
    more_body: ClassVar = False
    response_started: ClassVar = False
    body: ClassVar = b""

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True

    @property
    def message_event(self) -> "Exchange":
        """What uvicorn sets to wake who waits for more of the body: nobody does."""
        return self

    def set(self) -> None:
        """Wake nobody."""

    def answer(self, answer: Answer, request_id: str) -> None:
        """Write the answer, if there is still somebody to read it."""
        self.response_complete = True
        self.keep_alive = self.keep_alive and not answer.is_last
        if not self.disconnected:
            self._wire.write(answer.text(request_id, keep_alive=self.keep_alive), self)
            if answer.status == _TOO_MANY:
                self._wire.rest()


class Wire(HttpToolsProtocol):
    """One connection of the public listener; its ASGI application is a `Receiver`, or one that is traced.

    Attributes:
        heads: What the listener knows of heads; one for all of its connections.
    """

    heads: Heads

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receiver: Receiver = self.config.app  # type: ignore[assignment]  # the listener has no other
        self._is_between = True
        self._is_isolating: bytes | None = None
        self._pieces: list[bytes] | None = None
        self._is_plain = True
        self._running: Exchange | RequestResponseCycle | None = None
        self._idle_since: float | None = None

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_between = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_plain = True
        self._pieces = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head."""
        name = name.lower()
        self.headers.append((name, value))
        if name in _NOT_PLAIN:
            self._is_plain = False
            self.expect_100_continue |= name == b"expect" and value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """The head is there: the body may be in the same read."""
        if self._may_be_short():
            self._pieces = []
        else:
            self._go_the_long_way()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_between = True
        if self._pieces is None:
            super().on_message_complete()
            return
        pieces, self._pieces = self._pieces, None
        head = Head(self.parser.get_method().decode("ascii"), self.url.decode("ascii"), self.headers)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._take(head, body) and self._is_isolating is not None:
            self.heads.keep(self._is_isolating, head, body)

    def data_received(self, data: bytes) -> None:
        """Something has come; what is not a whole request by its end goes the long way."""
        self._is_isolating = data if self._is_between else None
        super().data_received(data)
        self._is_isolating = None
        if self._pieces is not None and self.parser is not None:
            self._go_the_long_way()

    def take_known(self, data: bytes) -> bool:
        """Take what has come if it is one request whose head is known; or leave it to the parser."""
        cycle = self.cycle
        if not self._is_between or self.flow.write_paused or not (cycle is None or cycle.response_complete):
            return False
        known = self.heads.of(data)
        if known is None:
            return False
        self._idle_since = None
        self._take(*known)
        return True

    def _take(self, head: Head, body: bytes) -> bool:
        """To the receiver; gives whether it has let the sender in."""
        self._running = exchange = Exchange(self)
        self.cycle = exchange  # type: ignore[assignment]
        call = Call(head, exchange.answer, self.app_state.get(ORIGIN, NOWHERE))
        self._receiver.take(call, body)
        return call.source is not UNKNOWN_SOURCE

    def _may_be_short(self) -> bool:
        cycle, url, parser = self.cycle, self.url, self.parser
        return (
            self._is_plain
            and (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and parser.get_method() in _WITH_BODY
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and url.startswith(b"/")
            and not (b"?" in url or b"%" in url or b"#" in url)
        )

    def _go_the_long_way(self) -> None:
        """Begin anew as uvicorn does, with the head that was read and what there is of the body."""
        pieces, self._pieces = self._pieces or [], None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        for piece in pieces:
            super().on_body(piece)

    # --- answers ---

    def write(self, text: bytes, exchange: Exchange) -> None:
        """Write an answer and let the connection go on, or end it."""
        self.transport.write(text)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def rest(self) -> None:
        """A request was refused. If all are, leave the next where it is: refusing takes the time of those let in."""
        if self._receiver.is_full and not self.transport.is_closing():
            self.flow.pause_reading()
            self.loop.call_later(REST_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    # --- connections that are idle: one timer each, not one for each request ---

    def on_response_complete(self) -> None:
        """An answer is out: take the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self._look_again(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has rested long enough."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        rested = 0.0 if self._idle_since is None else self.loop.time() - self._idle_since
        if rested >= self.timeout_keep_alive:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self._look_again(self.timeout_keep_alive - rested)

    def _look_again(self, seconds: float) -> TimerHandle:
        return self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: uvicorn tells its last request, but an earlier one may be the one that runs."""
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
