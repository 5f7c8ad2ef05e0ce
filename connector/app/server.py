"""The two HTTP servers: their sockets, and uvicorn with the connector's own connections."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from connector.errors import ConfigurationError
from connector.receiver.connection import SWEEP_SECONDS, Listener, sweep
from connector.receiver.tls import ServerTls

ACCEPTS_PER_ITERATION: Final = 16
"""Connections to a listener that one iteration of the event loop accepts."""

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
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigurationError(f"{setting}: cannot listen on {host}:{port} ({error.strerror})") from error
    return listener


def duplicated_listeners(listener: socket.socket) -> list[socket.socket]:
    """A listener and duplicates of it: the event loop accepts one connection from each per iteration.

    Under load an iteration takes as long as all connected clients already need. With a single listener, a thousand
    clients that connect at once would be accepted one by one, the last of them after minutes.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTS_PER_ITERATION - 1))]


class HttpServer:
    """One HTTP server on a bound socket.

    Args:
        app: An ASGI application.
        listener: The bound socket.
        bounds: The bounds of its connections.
        tls: Its certificates; None means plain HTTP.
        grace_seconds: How long a shutdown waits for requests in progress.
    """

    def __init__(
        self, app: Any, listener: socket.socket, bounds: Listener, tls: ServerTls | None, *, grace_seconds: int
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
        """Listen; returns once connections are accepted."""
        self._task = task = asyncio.create_task(self._server.serve(sockets=duplicated_listeners(self._listener)))
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
    def lives(self) -> bool:
        """Whether it is serving."""
        return self._task is not None and not self._task.done()

    @property
    def url(self) -> str:
        """Its address, with the port that the system chose for port 0."""
        host, port = self._listener.getsockname()[:2]
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the connector."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
