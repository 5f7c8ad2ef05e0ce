"""Free ports on the loopback."""

import os
import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST = 10_000
HIGHEST = 65_535
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds now, outside the range that the kernel gives to outgoing connections.

    A port out of that range could be taken by any client while its broker is down, and a client that keeps
    knocking at it can even connect to itself.
    """
    low, high = map(int, OUTGOING.read_text().split())
    candidates = [port for port in range(LOWEST, HIGHEST + 1) if not low <= port <= high]
    # Each of several workers has its own: a port is held by nobody until its server binds it, and between two starts.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    candidates = candidates[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    random.shuffle(candidates)
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            attempt = held.enter_context(socket.socket())
            port = candidates.pop()
            with suppress(OSError):
                attempt.bind((LOOPBACK, port))
                found.append(port)
    return found
