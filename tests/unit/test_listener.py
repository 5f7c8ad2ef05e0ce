"""Clients that connect while the connector is busy are accepted soon, however long an iteration of the loop takes."""

import asyncio
import contextlib
import errno
import socket
import ssl

import pytest
import uvloop

from connector.app import server
from connector.app.server import ACCEPTS_PER_ITERATION, Acceptor
from tests.waiting import PATIENCE_SECONDS, until

CLIENTS = 512


class Made(asyncio.Protocol):
    """Remembers the transports of all connections."""

    transports: list

    def connection_made(self, transport):
        self.transports.append(transport)


def protocol():
    return type("Made", (Made,), {"transports": []})


async def iterations(listener):
    """Iterations of the event loop until all clients that wait at once are connected."""
    made = protocol()
    acceptor = Acceptor(listener, made, None)
    acceptor.start()
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):  # the kernel connects them while the event loop is busy
            stack.enter_context(socket.create_connection(listener.getsockname()))
        count = 0
        while len(made.transports) < CLIENTS:
            await asyncio.sleep(0)
            count += 1
        for transport in made.transports:
            transport.abort()
        acceptor.close()
        await acceptor.wait_closed()
    return count


def test_an_iteration_of_the_event_loop_accepts_many():
    listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)

    assert uvloop.run(iterations(listener)) <= 8 * CLIENTS / ACCEPTS_PER_ITERATION


class OutOfFiles(socket.socket):
    """A listener whose process has no file descriptor left, once."""

    failed = False

    def accept(self):
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_connection_that_could_not_be_accepted_is_accepted_later(monkeypatch):
    monkeypatch.setattr(server, "_ACCEPT_RETRY_SECONDS", 0.05)

    async def accepted():
        made = protocol()
        listener = OutOfFiles(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        acceptor = Acceptor(listener, made, None)
        acceptor.start()
        with socket.create_connection(listener.getsockname()):
            await until(lambda: made.transports)
            acceptor.close()
            await acceptor.wait_closed()
        return listener.failed

    assert uvloop.run(accepted())


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b""])
def test_a_failed_handshake_harms_nobody(first):
    async def others_go_on():
        made = protocol()
        listener = socket.create_server(("127.0.0.1", 0))
        acceptor = Acceptor(listener, made, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        acceptor.start()
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(first)
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.05)
            await asyncio.wait_for(acceptor.wait_closed(), PATIENCE_SECONDS)
        acceptor.close()
        await acceptor.wait_closed()
        return made.transports

    assert uvloop.run(others_go_on()) == []
