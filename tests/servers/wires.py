"""Wires to a server that can be cut: relays on the loopback, with a thread of their own."""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.servers.ports import LOOPBACK

CHUNK = 1 << 16


class Wires:
    """Relays, each from a port to a port, that are cut and mended together.

    Cut, they take connections and pass nothing on, either way: nobody is refused, nobody is answered. When they are
    mended the connections of before are reset, and what was under way on them is gone.
    """

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._ports = ports
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._relays: set[asyncio.Task[None]] = set()
        self._is_whole = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Pass nothing on from now on."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()  # nothing passes once this is answered

    def mend(self) -> None:
        """Reset the connections of before, and pass on what comes on new ones."""
        asyncio.run_coroutine_threadsafe(self._mend(), self._loop).result()

    async def _open(self) -> None:
        self._is_whole.set()
        for port, target in self._ports.items():
            self._servers.append(await asyncio.start_server(self._taking(target), LOOPBACK, port))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._reset()

    async def _cut(self) -> None:
        self._is_whole.clear()

    async def _mend(self) -> None:
        await self._reset()
        self._is_whole.set()

    async def _reset(self) -> None:
        relays = list(self._relays)
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)

    def _taking(self, target: int):
        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            relay = self._loop.create_task(self._relay(reader, writer, target))
            self._relays.add(relay)
            relay.add_done_callback(self._relays.discard)

        return take

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        ends = [writer]
        try:
            await self._is_whole.wait()
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, target)
            ends.append(far_writer)
            ways = (self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
            tasks = [asyncio.create_task(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            pass  # the server is not there: the client sees a connection that ends
        finally:
            for end in ends:
                end.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._is_whole.wait()
                writer.write(chunk)
                await writer.drain()
