"""The measured processes: each started for one measurement, on a core of its own (Linux)."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.load import Plan
from bench.sample import Sample
from tests.servers.ports import LOOPBACK
from tests.servers.processes import ServerProcess

READY_SECONDS = 120
STOP_SECONDS = 40


@dataclass(frozen=True)
class Cores:
    """Which cores measure and which are measured.

    Attributes:
        server: The one core of the measured process.
        others: The load generator's and the broker's; the same one where the machine has no more.
    """

    server: frozenset[int]
    others: frozenset[int]

    @classmethod
    def divide(cls) -> "Cores":
        """Divide the cores that this process may use."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others or {first}))


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started within stays on these cores; so do its threads and children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def server(
    name: str, command: Sequence[str], *, environment: Mapping[str, str], port: int, state: Path, cores: Cores
) -> Iterator[int]:
    """A running server, which ends with the block; gives its pid.

    Its log goes to /dev/null, written as in production and not kept.

    Raises:
        RuntimeError: It does not listen in time.
    """
    variables = [f"{key}={text}" for key, text in environment.items()]
    silently = ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command]
    process = ServerProcess(name, ["env", *variables, *silently], state, detached=False)
    with pinned(cores.server):
        process.start()
    try:
        _wait_for(port, process, command)
        yield int((state / f"{name}.pid").read_text().split()[0])
        process.terminate(seconds=STOP_SECONDS)
    finally:
        process.kill()


def load(plan: Plan, cores: Cores) -> Sample:
    """Run our load generator against a server.

    Raises:
        subprocess.CalledProcessError: It failed; it has said why on standard error.
    """
    return _measured(["bench.load", msgspec.json.encode(plan).decode()], cores.others)


def produce(bootstrap_servers: str, topic: str, seconds: float, cores: Cores) -> Sample:
    """Measure librdkafka alone, on the servers' core."""
    return _measured(["bench.produce", bootstrap_servers, topic, str(seconds)], cores.server)


def _measured(arguments: Sequence[str], cores: frozenset[int]) -> Sample:
    with pinned(cores):
        done = subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Sample)


def _wait_for(port: int, process: ServerProcess, command: Sequence[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.running:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.name} does not listen; run it by hand to see why: {' '.join(command)}")
