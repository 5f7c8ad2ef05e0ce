"""Bytes on a connection: every answer is the contract's JSON, none is a 500, and nothing outlives the connection."""

import asyncio
import json
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import structlog
import uvicorn
from uvicorn.server import ServerState

from connector.receiver.connection import ConnectionBounds
from tests.contract.test_http import Served

TOKEN = b"authorization: Bearer t-default\r\n"
BODY = b'{"msgType":"Task","instanceId":"i-1"}'
POST = b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\n"
SIGNED = b"webhook-id: 1\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA\r\n"
MOST_TURNS = 12
WORDS = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"HTTP/2.0",
        b"host: x\r\n",
        b"http://x",
        b"://[::1",
        b":99999",
    ),
    *(
        b"content-length: ",
        b"transfer-encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"connection: close\r\n",
        b"content-type: ",
    ),
    *(
        b"expect: 100-continue\r\n",
        b"upgrade: ",
        b"x-forwarded-for: ",
        b"webhook-id: ",
        b"charset=",
        b"%00",
        b"?msgContext=",
    ),
    *(TOKEN, b"/sources/hr/messageDeliver", b"/messageDeliver", b"DELETE ", b"PUT ", b"HEAD "),
]
"""What mutations may put in."""
CUT = b"|"
"""Where the bytes of an input are cut into what comes at once; after the last of them the sender hangs up."""

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class Defects(logging.Handler):
    """Whatever the server logs of an error is a finding."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)
        self.seen: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it for the end of the execution."""
        self.seen.append(self.format(record))


class Transport(asyncio.Transport):
    """A connection of nothing."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.closing = False
        self.is_gone = False

    def write(self, data: Any) -> None:
        """Keep what is answered; what comes after the end is lost or an error, as on uvloop's."""
        if self.is_gone:
            raise RuntimeError("the handler is closed")
        if not self.closing:
            self.written += data

    def close(self) -> None:
        """Hang up."""
        self.closing = True

    def is_closing(self) -> bool:
        """Whether it was hung up."""
        return self.closing

    def pause_reading(self) -> None:
        """All of an input is fed."""

    def resume_reading(self) -> None:
        """All of an input is fed."""


LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)


class Fuzzed(Served):
    """A receiver without a port."""

    async def _listen(self) -> None:
        config = uvicorn.Config(
            self.receiver,
            http=ConnectionBounds.public(self.receiver, 64, self.metrics.connection_turned_away).protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        config.load()
        self.state = ServerState()
        self.protocol = partial(config.http_protocol_class, config=config, server_state=self.state, app_state={})

    async def play(self, data: bytes) -> bytes:
        """Feed the bytes to a new connection, and end it, before or after its answers; gives all that was answered."""
        transport, connection = Transport(), self.protocol()
        connection.connection_made(transport)
        for part in data.split(CUT):
            if part and not transport.closing:
                connection.data_received(part)
                await asyncio.sleep(0)
        if not data.endswith(CUT):
            await _until_quiet()
        connection._unset_keepalive_if_required()
        connection.connection_lost(None)
        transport.is_gone = True
        tasks = tuple(self.state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=60)
        assert not self.state.tasks, "a request outlives its connection"
        assert self.receiver._open_requests == 0
        assert self.receiver._body_memory._taken == 0
        self.publisher.published.clear()
        return bytes(transport.written)


async def _until_quiet() -> None:
    """Let the event loop do what there is to do; a timer without delay comes one turn late: one quiet turn is none."""
    quiet = 0
    for _ in range(MOST_TURNS):
        quiet = 0 if LOOP._ready else quiet + 1  # type: ignore[attr-defined]  # no other way to know
        if quiet > 1:
            return
        await asyncio.sleep(0)


def _start() -> Fuzzed:
    logging.getLogger("uvicorn.error").addHandler(DEFECTS)
    logging.getLogger("uvicorn.error").propagate = False
    logging.getLogger("asyncio").addHandler(DEFECTS)
    served = Fuzzed()
    LOOP.run_until_complete(served.start())
    served.receiver._rejection_delay._seconds = 0
    return served


DEFECTS = Defects()
SERVED = _start()


def seeds() -> Iterator[bytes]:
    """Requests of every kind, whole and cut."""
    whole = POST + TOKEN + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    chunked = POST + TOKEN + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nx-t: 1\r\n\r\n" % (len(BODY), BODY)
    yield from (whole, chunked, whole * 2, whole.replace(b"\r\n\r\n", b"\r\n|\r\n|"), whole.replace(TOKEN, SIGNED))
    yield whole * 2 + CUT
    yield b"GET /messageDeliver?msgContext=%7B%22msgType%22:%22Task%22%7D HTTP/1.1\r\nhost: x\r\n" + TOKEN + b"\r\n"
    yield POST + TOKEN + b"content-type: application/x-www-form-urlencoded\r\ncontent-length: 14\r\n\r\nmsgContext=%7B"
    yield POST + TOKEN + b"expect: 100-continue\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n|{}"
    yield b"PUT /sources/hr/messageDeliver HTTP/1.0\r\nx-weda-token: t-hr\r\nconnection: keep-alive\r\n\r\n"
    yield whole.replace(b"host: x", b"host: x\r\nupgrade: h2c\r\nconnection: upgrade")
    yield chunked.replace(b"\r\n{", b';a="b";c\r\n{').replace(b"POST /", b"POST http://x/")
    yield whole.replace(b"POST /messageDeliver", b"OPTIONS /sources/%68r/messageDeliver?a#b")


def execute(data: bytes) -> None:
    """One execution: a connection from its begin to its end."""
    written = LOOP.run_until_complete(SERVED.play(data))
    assert DEFECTS.seen == [], DEFECTS.seen
    for status, reported in _answers(written):
        assert status < 500, (status, reported)
        assert reported["code"] == 0 or reported["code"] // 100 == status
        assert reported["code"] == 0 or {*reported} == {"code", "message", "stage", "retriable"}


def _answers(written: bytes) -> Iterator[tuple[int, Any]]:
    while written:
        head, end, rest = written.partition(b"\r\n\r\n")
        assert end, "an answer without an end"
        first, *lines = head.split(b"\r\n")
        status = int(first.split()[1])
        if status == 100:
            written = rest
            continue
        length = int(dict(line.lower().split(b": ", 1) for line in lines)[b"content-length"])
        if status in {404, 405} and not rest.startswith(b"{"):
            length = 0  # the answer to a HEAD
        else:
            yield status, json.loads(rest[:length])
        written = rest[length:]
