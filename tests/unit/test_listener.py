"""Who comes while the connector is busy is let in soon, however long a turn of the event loop takes."""

import asyncio
import contextlib
import socket

import uvloop

from connector.app.server import ACCEPTS_PER_ITERATION, duplicated_listeners

SENDERS = 64


async def turns(listeners):
    """Turns of the event loop until all who wait at once are connected."""
    made = []

    class Counting(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)

    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Counting, sock=each) for each in listeners]
    with contextlib.ExitStack() as stack:
        for _ in range(SENDERS):  # the kernel connects them while the event loop is busy
            stack.enter_context(socket.create_connection(listeners[0].getsockname()))
        count = 0
        while len(made) < SENDERS:
            await asyncio.sleep(0)
            count += 1
        for transport in made:
            transport.abort()
        for server in servers:
            server.close()
            await server.wait_closed()
    return count


def test_a_turn_of_the_event_loop_lets_in_many():
    listener = socket.create_server(("127.0.0.1", 0), backlog=SENDERS)

    assert uvloop.run(turns(duplicated_listeners(listener))) <= 2 * SENDERS / ACCEPTS_PER_ITERATION
