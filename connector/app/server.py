"""The HTTP servers of the two listeners: their sockets, and uvicorn with the connector's own protocol class."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import structlog
import uvicorn

from connector import supervision
from connector.errors import ConfigurationError
from connector.receiver.connection import SWEEP_SECONDS, ConnectionBounds, sweep
from connector.receiver.tls import ServerTls

_LOG = structlog.get_logger()

ACCEPTS_PER_ITERATION: Final = 256
"""Maximum connections that one iteration of the event loop accepts on a listener: a few tens of milliseconds."""

_BACKLOG: Final = 2_048
"""Connections that the kernel completes and holds until they are accepted; its own limit may be lower."""

_ACCEPT_RETRY_SECONDS: Final = 1.0
"""Pause after an error such as too many open files, during which the listener would be readable all the time."""

_KEEP_ALIVE_SECONDS: Final = 75
_POLL_SECONDS: Final = 0.005


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Reserve a port; connections are refused until its server listens.

    Raises:
        ConfigurationError: The port cannot be used; the message names the setting.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        # Connections of the previous process stay in TIME_WAIT; without this a restart could not bind the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigurationError(f"{setting}: cannot listen on {host}:{port} ({error.strerror})") from error
    return listener


class Acceptor:
    """Accepts the connections of a listener, many in one iteration of the event loop.

    uvloop's own server accepts one per iteration. Under load an iteration takes as long as the connected clients need,
    so that the last of a thousand clients that connect at once would wait for minutes.

    Args:
        listener: A bound socket.
        make_protocol: Makes the protocol of a connection.
        tls: The TLS context; None means plain HTTP.
    """

    def __init__(
        self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._connecting = supervision.BackgroundTasks()
        self._is_closed = False

    def start(self) -> None:
        """Start listening."""
        self._listener.settimeout(0)
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Stop listening; accepted connections stay open."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Wait for accepted connections whose protocol is still being set up."""
        await self._connecting.wait()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_ITERATION):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:  # no more connections are waiting
                return
            except ConnectionAbortedError:  # the client left before its connection was accepted
                continue
            except OSError as error:
                _LOG.warning("connections cannot be accepted", error=error.strerror)
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_ACCEPT_RETRY_SECONDS, self._resume)
                return
            connection.settimeout(0)
            self._connecting.start(self._connect(connection))

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError:  # the client is gone, or its TLS handshake failed
            connection.close()


class HttpServer:
    """One HTTP server on a bound socket.

    Args:
        app: An ASGI application.
        listener: The bound socket.
        bounds: Limits of its connections.
        tls: Its certificates; None means plain HTTP.
        grace_seconds: Seconds that a shutdown waits for requests in progress.
    """

    def __init__(
        self, app: Any, listener: socket.socket, bounds: ConnectionBounds, tls: ServerTls | None, *, grace_seconds: int
    ) -> None:
        self._listener = listener
        self._scheme = "http" if tls is None else "https"
        self._server = _Server(
            uvicorn.Config(
                app,
                http=bounds.protocol,  # type: ignore[arg-type]  # uvicorn only calls it
                ws="none",
                lifespan="off",
                loop="none",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
                timeout_graceful_shutdown=grace_seconds,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start listening, and return once connections are accepted."""
        self._task = task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started and not task.done():  # noqa: ASYNC110 - uvicorn signals its start by a flag
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Stop accepting connections, and wait for the requests in progress."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task

    async def keep_sweeping(self) -> None:
        """Close connections that are too slow, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweep(self._server.server_state.connections)

    @property
    def is_alive(self) -> bool:
        """Whether it is serving."""
        return self._task is not None and not self._task.done()

    @property
    def url(self) -> str:
        """The server's address; for port 0, with the port that the system chose."""
        host, port = self._listener.getsockname()[:2]
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class _Server(uvicorn.Server):
    """A uvicorn server that accepts many connections at once, and leaves signals to the connector."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets, with `Acceptor` in place of uvicorn's asyncio server."""
        config = self.config
        protocol: Callable[..., asyncio.Protocol] = config.http_protocol_class
        make_protocol = partial(protocol, config=config, server_state=self.server_state, app_state=self.lifespan.state)
        acceptors = [Acceptor(listener, make_protocol, config.ssl) for listener in sockets or ()]
        for acceptor in acceptors:
            acceptor.start()
        self.servers = acceptors  # type: ignore[assignment]  # uvicorn only closes them
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield
