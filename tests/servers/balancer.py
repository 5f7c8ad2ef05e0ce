"""A real HAProxy with the configuration that docker-compose.yml gives it, in front of connectors on this machine."""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import debian
from tests.servers.names import Names
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import ServerProcess

FRONT, PUBLIC, OPERATIONS, NAMES = "bind :8080", "replica:8080", "port 9464", "127.0.0.11:53"
"""What is in the configuration and cannot be the same here: addresses and ports."""


@contextmanager
def balancing(configuration: str, *, public: int, operations: int, addresses: Sequence[str]) -> Iterator[str]:
    """Run one for connectors at these addresses, all with the same two ports; gives where sources send to.

    It is there at once; its replicas are when they answer.
    """
    front, names = free_ports(2)
    here = {
        FRONT: f"bind {LOOPBACK}:{front}",
        PUBLIC: f"replica:{public}",
        OPERATIONS: f"port {operations}",
        NAMES: f"{LOOPBACK}:{names}",
    }
    for there, text in here.items():
        assert configuration.count(there) == 1
        configuration = configuration.replace(there, text)
    with tempfile.TemporaryDirectory(prefix="weda-test-balancer-") as state, Names(names, list(addresses)):
        file = Path(state) / "haproxy.cfg"
        file.write_text(configuration)
        process = ServerProcess(
            "haproxy", [*debian.program(debian.HAPROXY), "-db", "-f", str(file)], Path(state), detached=False
        )
        process.start()
        try:
            yield f"http://{LOOPBACK}:{front}"
        finally:
            process.kill()


def opinion(configuration: str) -> str:
    """What HAProxy says of a configuration."""
    checked = subprocess.run(
        [*debian.program(debian.HAPROXY), "-c", "-f", "/dev/stdin"],
        input=configuration,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return checked.stdout.strip()
