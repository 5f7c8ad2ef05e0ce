"""What is measured: speed side by side, the journal, and growth."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

from bench import backlog
from bench.load import Plan
from bench.process import Cores, load, produce, server
from bench.results import Growth, Outage, Overload
from bench.sample import Sample, cpu_seconds
from bench.traffic import FIXED, SIMULATED, TOKEN
from tests.servers import KafkaCluster, artifacts
from tests.servers.java import find_java
from tests.servers.ports import LOOPBACK, free_ports

TOPIC: Final = "bench.events"
PARTITIONS: Final = 12
SIZES: Final = (512, 8 * 1024, 128 * 1024, 500 * 1000)
STREAMS: Final = ("events", "tasks", "instances", "state")
SPEED: Final = ("bare", "connector-events", "connector", "connector-fixed", "librdkafka", "everyday", "camel")
LATENCY: Final = "latency"
OVERLOAD: Final = "overload"
JOURNAL: Final = "journal"
GROWTH: Final = "growth"
SOAK: Final = "soak"
NAMES: Final = (*SPEED, LATENCY, OVERLOAD, JOURNAL, GROWTH, SOAK)

_DRAINED_SECONDS: Final = 300
_LOOK_SECONDS: Final = 0.1
_WARM_UP_SECONDS: Final = 1.0
_JAVA_WARM_UP_SECONDS: Final = 20.0
"""On one core a virtual machine compiles for so long before it is as fast as it gets."""

_WARM_UP_MESSAGES: Final = 60_000
"""Before so many a broker's compiler has not seen enough: the connector, which waits for it, would look dearer."""
_HALF: Final = 0.5
_OVER: Final = 3.0
_CROWD: Final = 2_048
"""Connections of an open loop: more than the connector lets in at once, so that it has to refuse."""

_JOURNAL: Final = "journal.db"
_CAMEL: Final = Path(__file__).with_name("camel.xml")
_LEGS: Final = 6
_FEW_REPEATS: Final = "20000"
"""Bound of the index of repeats in a soak: once it is full, nothing is meant to grow."""

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
        most: The longest steps of growth go up to so many instances and so many messages in the journal.
        say: Called with what is being measured.
    """

    def __init__(self, cluster: KafkaCluster, cores: Cores, *, seconds: float, most: int, say: Say) -> None:
        self._cluster = cluster
        self._cores = cores
        self._seconds = seconds
        self._most = most
        self._say = say
        cluster.create_topic(TOPIC, PARTITIONS)

    def speed(self, name: str) -> Sample:
        """One measurement of one of `SPEED`."""
        self._say(name)
        if name == "librdkafka":
            return produce(self._cluster.bootstrap_servers, TOPIC, self._seconds, self._cores)
        with self._started(name) as running:
            warm_up = _JAVA_WARM_UP_SECONDS if name == "camel" else _WARM_UP_SECONDS
            traffic = FIXED if name == "connector-fixed" else SIMULATED
            return load(Plan(running.port, running.pid, self._seconds, warm_up, traffic), self._cores)

    def latency(self) -> Sample:
        """An open loop at half of what the connector takes in a closed one."""
        self._say("latency at half load")
        with self._started("connector-events") as running:
            peak = self._load(running)
            return self._load(running, rate=_HALF * peak.per_second)

    def overload(self) -> Overload:
        """An open loop at three times of what the connector takes in a closed one."""
        self._say("overload")
        with self._started("connector-events") as running:
            peak = self._load(running)
            return Overload(peak, self._load(running, rate=_OVER * peak.per_second, connections=_CROWD))

    def soak(self) -> list[Sample]:
        """One connector under load for six times as long as anything else, measured leg by leg."""
        self._say("soak")
        with self._started("connector-events", WEDA_REPEATS__MAX_ENTRIES=_FEW_REPEATS) as running:
            return [self._load(running) for _ in range(_LEGS)]

    def warm_up(self) -> None:
        """Let the broker's compiler see the load before anything counts."""
        self._say("warm-up")
        with self._started("connector") as running:
            self._load(running, messages=_WARM_UP_MESSAGES)

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

    def growth(self) -> Iterator[Growth]:
        """Cost, speed and memory against everything that may grow."""
        yield from self._growth_of_instances()
        yield from self._growth_of_bodies()
        yield from self._growth_of_streams()
        yield from self._growth_of_backlogs()

    def _growth_of_instances(self) -> Iterator[Growth]:
        for instances in _powers(100, self._most):
            self._say(f"growth: {instances} instances")
            with self._started("connector-events") as running:
                sample = self._load(running, instances=instances, messages=instances)
                yield Growth("instances", instances, sample)

    def _growth_of_bodies(self) -> Iterator[Growth]:
        for size in SIZES:
            self._say(f"growth: {size} bytes")
            with self._started("connector-events") as running:
                yield Growth("bytes", size, self._load(running, traffic=FIXED, size=size))

    def _growth_of_streams(self) -> Iterator[Growth]:
        for count in range(1, len(STREAMS) + 1):
            self._say(f"growth: {count} streams")
            with self._started("connector", WEDA_STREAMS=",".join(STREAMS[:count])) as running:
                yield Growth("streams", count, self._load(running))

    def _growth_of_backlogs(self) -> Iterator[Growth]:
        """While Kafka is paused: the load goes behind what the journal holds already."""
        for rows, instances in [(0, 0), *((rows, 0) for rows in _powers(1_000, self._most)), (self._most // 10, 1)]:
            what = "messages of one instance in the journal" if instances else "messages in the journal"
            self._say(f"growth: {rows} {what}")
            with self._started("connector-events", waiting=(rows, instances)) as running:
                down, replay = self._behind(running)
                yield Growth(what, rows, down, replay)

    def _behind(self, running: Running) -> tuple[Sample, float]:
        """The load while Kafka is paused, and the messages a second that leave the journal afterwards."""
        self._cluster.pause_all()
        try:
            down = self._load(running)
        finally:
            self._cluster.resume_all()
        return down, self._replay_rate(running)

    def _replay_rate(self, running: Running) -> float:
        """Messages a second, from the first that leaves the journal until it is empty or the time is up."""
        left = start = _journal_messages(running.operations)
        deadline = time.monotonic() + _DRAINED_SECONDS
        while 0 < start <= (left := _journal_messages(running.operations)) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        began, began_with = time.monotonic(), left
        while left and time.monotonic() < began + self._seconds:
            time.sleep(_LOOK_SECONDS)
            left = _journal_messages(running.operations)
        return (began_with - left) / max(time.monotonic() - began, _LOOK_SECONDS)

    def _load(self, running: Running, **changes: Any) -> Sample:
        return load(Plan(running.port, running.pid, self._seconds, _WARM_UP_SECONDS, **changes), self._cores)

    @contextmanager
    def _started(self, name: str, *, waiting: tuple[int, int] = (0, 0), **settings: str) -> Iterator[Running]:
        port, operations = free_ports(2)
        state = Path(tempfile.mkdtemp(prefix="weda-bench-"))
        command, environment = self._command(name, port, operations, state)
        environment = {**environment, **settings} if environment else environment
        try:
            _fill(state, *waiting)
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
        if name == "camel":
            jars = artifacts.fetch(_CAMEL) / "camel" / "*"
            java = [str(find_java().path), "-cp", str(jars), str(_CAMEL.with_name("Camel.java"))]
            return [*java, str(port), self._cluster.bootstrap_servers, TOPIC], {}
        streams = {} if name == "connector" else {"WEDA_STREAMS": "events"}
        return [*python, "connector", "serve"], streams | {
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": self._cluster.bootstrap_servers,
            "WEDA_TOKEN": TOKEN,
            "WEDA_RECEIVER__HOST": LOOPBACK,
            "WEDA_RECEIVER__PORT": str(port),
            "WEDA_OPERATIONS__PORT": str(operations),
            "WEDA_JOURNAL__PATH": str(state / _JOURNAL),
            "WEDA_JOURNAL__MAX_BYTES": str(backlog.MAX_BYTES),
            "WEDA_LOG__LEVEL": "info",
            "WEDA_LOG__FORMAT": "json",
        }


def _fill(state: Path, rows: int, instances: int) -> None:
    if rows:
        backlog.fill(state / _JOURNAL, rows, instances=instances)


def _powers(first: int, last: int) -> Iterator[int]:
    """Ten times as many each, from the first to the last."""
    while first <= last:
        yield first
        first *= 10


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
