"""What is measured: speed side by side, the journal, and growth."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

from bench.load import TOKEN, Plan
from bench.process import Cores, load, produce, server
from bench.results import Growth, Outage
from bench.sample import Sample, cpu_seconds
from tests.servers import KafkaCluster
from tests.servers.ports import LOOPBACK, free_ports

TOPIC: Final = "bench.events"
PARTITIONS: Final = 12
INSTANCES: Final = (100, 10_000, 100_000)
SIZES: Final = (512, 8 * 1024, 128 * 1024)
SPEED: Final = ("bare", "connector-events", "connector", "librdkafka", "everyday")
JOURNAL: Final = "journal"
GROWTH: Final = "growth"
NAMES: Final = (*SPEED, JOURNAL, GROWTH)

_DRAINED_SECONDS: Final = 300
_LOOK_SECONDS: Final = 0.1
_WARM_UP_SECONDS: Final = 1.0

Say = Callable[[str], None]


class Running(NamedTuple):
    """A server under measurement; ``operations`` is the port of the connector's operations listener, 0 for others."""

    pid: int
    port: int
    operations: int


class Laboratory:
    """A broker, and what is measured against it.

    Args:
        cluster: The broker; it runs on the other cores.
        cores: Which cores measure and which are measured.
        seconds: How long one measurement takes.
        say: Told what is being measured.
    """

    def __init__(self, cluster: KafkaCluster, cores: Cores, *, seconds: float, say: Say) -> None:
        self._cluster = cluster
        self._cores = cores
        self._seconds = seconds
        self._say = say
        cluster.create_topic(TOPIC, PARTITIONS)

    def speed(self, name: str) -> Sample:
        """One measurement of one of `SPEED`."""
        self._say(name)
        if name == "librdkafka":
            return produce(self._cluster.bootstrap_servers, TOPIC, self._seconds, self._cores)
        with self._started(name) as running:
            return self._load(running)

    def warm_up(self) -> None:
        """Let the broker's compiler see the load before anything counts."""
        self._say("warm-up")
        with self._started("connector") as running:
            self._load(running)

    def outage(self) -> Outage:
        """Kafka up, Kafka paused, and the replay of what the journal then holds."""
        self._say("journal: Kafka up")
        with self._started("connector") as running:
            up = self._load(running)
            self._say("journal: Kafka paused")
            self._cluster.pause_all()
            try:
                down = self._load(running)
                backlog = _journal_messages(running.operations)
            finally:
                resumed = time.monotonic()
                self._cluster.resume_all()
            self._say(f"journal: replay of {backlog}")
            return _watch_replay(running, up, down, backlog, resumed)

    def growth_of_instances(self) -> Iterator[Growth]:
        """Speed and memory against distinct instances."""
        for instances in INSTANCES:
            self._say(f"growth: {instances} instances")
            with self._started("connector") as running:
                yield Growth("instances", instances, self._load(running, instances=instances))

    def growth_of_bodies(self) -> Iterator[Growth]:
        """Speed and memory against the size of the message."""
        for size in SIZES:
            self._say(f"growth: {size} bytes")
            with self._started("connector") as running:
                yield Growth("bytes", size, self._load(running, size=size))

    def _load(self, running: Running, *, instances: int = 0, size: int | None = None) -> Sample:
        plan = Plan(running.port, running.pid, self._seconds, _WARM_UP_SECONDS, instances, size)
        return load(plan, self._cores)

    @contextmanager
    def _started(self, name: str) -> Iterator[Running]:
        port, operations = free_ports(2)
        state = Path(tempfile.mkdtemp(prefix="weda-bench-"))
        command, environment = self._command(name, port, operations, state)
        try:
            with server(name, command, environment=environment, port=port, state=state, cores=self._cores) as pid:
                yield Running(pid, port, operations)
        finally:
            shutil.rmtree(state, ignore_errors=True)

    def _command(self, name: str, port: int, operations: int, state: Path) -> tuple[list[str], Mapping[str, str]]:
        python = [sys.executable, "-m"]
        if name == "bare":
            return [*python, "bench.bare", str(port)], {}
        if name == "everyday":
            return [*python, "bench.everyday", str(port), self._cluster.bootstrap_servers, TOPIC], {}
        streams = {"WEDA_STREAMS": "events"} if name == "connector-events" else {}
        return [*python, "connector", "serve"], streams | {
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": self._cluster.bootstrap_servers,
            "WEDA_TOKEN": TOKEN,
            "WEDA_RECEIVER__HOST": LOOPBACK,
            "WEDA_RECEIVER__PORT": str(port),
            "WEDA_OPERATIONS__PORT": str(operations),
            "WEDA_JOURNAL__PATH": str(state / "journal.db"),
            "WEDA_LOG__LEVEL": "info",
            "WEDA_LOG__FORMAT": "json",
        }


def _watch_replay(running: Running, up: Sample, down: Sample, backlog: int, resumed: float) -> Outage:
    """Look at the journal until it is empty; the rate counts from the first look that finds it shrinking."""
    began, began_with, cpu = 0.0, backlog, 0.0
    while (left := _journal_messages(running.operations)) > 0:
        now = time.monotonic()
        if now - resumed > _DRAINED_SECONDS:
            raise TimeoutError(f"{left} messages are still in the journal {_DRAINED_SECONDS} s after Kafka came back")
        if not began and left < backlog:
            began, began_with, cpu = now, left, cpu_seconds(running.pid)
        time.sleep(_LOOK_SECONDS)
    ended = time.monotonic()
    return Outage(
        up=up,
        down=down,
        backlog=backlog,
        pause_seconds=(began or ended) - resumed,
        replayed=began_with if began else 0,
        replay_seconds=ended - began if began else 0.0,
        replay_cpu_seconds=cpu_seconds(running.pid) - cpu if began else 0.0,
    )


def _journal_messages(port: int) -> int:
    with urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.split()[-1] for line in lines if line.startswith("weda_connector_journal_messages{"))
    return sum(int(float(number)) for number in found)
