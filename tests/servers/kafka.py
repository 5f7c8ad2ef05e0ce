"""A cluster of real Kafka brokers (KRaft, each node broker and controller) that a test can break and mend."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.artifacts import installed
from tests.servers.errors import DidNotStart, ServerError
from tests.servers.java import find_java
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import Server, ServerProcess
from tests.servers.reading import end_offsets
from tests.waiting import wait_until

READY = "Kafka Server started"
ADMIN_SECONDS = 60
PLAN = "cluster.json"

JVM_OPTIONS = (
    "-Xms256m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a test broker never lives long enough to earn back the optimising compiler
    "-Djava.awt.headless=true",
    "-Xlog:cds=off",
    "-Xlog:cds+dynamic=off",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
    "-Dorg.slf4j.simpleLogger.showShortLogName=true",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
)

SMALL = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "8388608",
    # Records with a time of years ago are kept, unless a topic says otherwise; then they are gone at once, not in one
    # run of many.
    "log.retention.ms": "-1",
    "log.retention.check.interval.ms": "1000",
    "log.initial.task.delay.ms": "500",
}

# A killed broker is let in again only when its old session is over, the only broker of a cluster too.
QUICK_FAILOVER = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "3000",
    "controller.quorum.election.timeout.ms": "500",
    "controller.quorum.fetch.timeout.ms": "1500",
}


@dataclass(frozen=True)
class Plan:
    """What stays the same when brokers are killed and started again."""

    cluster_id: str
    broker_ports: list[int]
    controller_ports: list[int]
    server_properties: dict[str, str] = field(default_factory=dict)
    client_properties: dict[str, str] = field(default_factory=dict)
    doors: list[list[tuple[int, int]]] = field(default_factory=list)
    """For each door and node: the advertised port, and the node's own."""

    listeners: dict[str, list[int]] = field(default_factory=dict)
    """Name of a further listener → its port on each node."""

    @classmethod
    def draw(
        cls,
        nodes: int,
        server: Mapping[str, str],
        client: Mapping[str, str],
        doors: int = 0,
        listeners: Sequence[str] = (),
    ) -> Self:
        """Make a plan with ports that are free now."""
        ports = free_ports(nodes * (2 * (1 + doors) + len(listeners)))
        cluster_id = base64.urlsafe_b64encode(b"\x10" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        further = {name: [ports.pop() for _ in range(nodes)] for name in listeners}
        behind = ports[2 * nodes :]
        pairs = list(zip(behind[::2], behind[1::2], strict=True))
        openings = [pairs[nodes * door : nodes * (door + 1)] for door in range(doors)]
        return cls(cluster_id, ports[:nodes], ports[nodes : 2 * nodes], dict(server), dict(client), openings, further)

    @property
    def node_ids(self) -> range:
        """From 1, as in Kafka's metadata."""
        return range(1, len(self.broker_ports) + 1)

    @property
    def bootstrap_servers(self) -> str:
        """Every broker's address, comma-separated."""
        return ",".join(f"{LOOPBACK}:{port}" for port in self.broker_ports)

    def properties(self, node: int, storage: Path) -> dict[str, str]:
        """The node's ``server.properties``."""
        nodes = len(self.broker_ports)
        replicas, in_sync = str(nodes), str(max(1, nodes - 1))
        broker = f"PLAINTEXT://{LOOPBACK}:{self.broker_ports[node - 1]}"
        controller = f"CONTROLLER://{LOOPBACK}:{self.controller_ports[node - 1]}"
        further = [f"{name}://{LOOPBACK}:{ports[node - 1]}" for name, ports in self.listeners.items()]
        own = [f"DOOR{door}://{LOOPBACK}:{pairs[node - 1][1]}" for door, pairs in enumerate(self.doors)]
        advertised = [f"DOOR{door}://{LOOPBACK}:{pairs[node - 1][0]}" for door, pairs in enumerate(self.doors)]
        protocols = [f"DOOR{door}:PLAINTEXT" for door in range(len(self.doors))]
        voters = (f"{each}@{LOOPBACK}:{self.controller_ports[each - 1]}" for each in self.node_ids)
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(voters),
            "listeners": ",".join([broker, controller, *own, *further]),
            "advertised.listeners": ",".join([broker, *advertised, *further]),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *protocols]),
            "log.dirs": str(storage),
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            **SMALL,
            **QUICK_FAILOVER,
            **self.server_properties,
        }


class KafkaCluster(Server):
    """Brokers on the loopback; nodes are numbered from 1, as in Kafka's metadata.

    They end with this process, however it ends, unless they were started ``detached``. Killed brokers keep their
    ports and their storage. ``min.insync.replicas`` is 2 of 3 with three nodes; topics are never created by themselves.
    """

    def __init__(self, plan: Plan, state: Path, *, detached: bool = False, jvm_options: Sequence[str] = ()) -> None:
        self.state = state
        self.bootstrap_servers = plan.bootstrap_servers
        self._plan = plan
        self._nodes = {
            node: ServerProcess(
                f"broker{node}",
                [*_kafka_command("kafka.Kafka", *jvm_options), str(state / f"server{node}.properties")],
                state,
                detached=detached,
            )
            for node in plan.node_ids
        }

    @classmethod
    def start(
        cls,
        nodes: int = 1,
        server_properties: Mapping[str, str] | None = None,
        *,
        client_properties: Mapping[str, str] | None = None,
        state: Path | None = None,
        detached: bool = False,
        jvm_options: Sequence[str] = (),
        doors: int = 0,
        listeners: Sequence[str] = (),
    ) -> Self:
        """Start a new cluster and wait until every broker serves; ``DidNotStart`` with the log's end otherwise.

        ``server_properties`` win over ours on every node; ``client_properties`` are for this class's own admin
        client (credentials). ``state`` must be new or empty; a temporary folder without. With ``doors`` each node
        also serves so many listeners that tell of ports with nothing behind them: for relays (`tests.servers.wires`).
        ``listeners`` are names of further ones; ``server_properties`` say how they speak.
        """
        installed()  # or stop here, before there is anything to clear away
        plan = Plan.draw(nodes, server_properties or {}, client_properties or {}, doors, listeners)
        cluster = cls(plan, _new_folder(state), detached=detached, jvm_options=jvm_options)
        try:
            cluster._format()
            cluster.start_all()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @classmethod
    def attach(cls, state: Path) -> Self:
        """Take hold of a detached cluster by its state folder."""
        try:
            plan = Plan(**json.loads((state / PLAN).read_text()))
        except FileNotFoundError:
            raise ServerError(f"no cluster in {state}") from None
        return cls(plan, state, detached=True)

    @property
    def client_properties(self) -> Mapping[str, str]:
        """What a client needs beside the address to do everything; nothing unless the cluster was started so."""
        return self._plan.client_properties

    def door(self, number: int) -> tuple[str, dict[int, int]]:
        """The bootstrap servers of a client that uses a door, and for each port advertised to it the node's own."""
        pairs = self._plan.doors[number]
        return ",".join(f"{LOOPBACK}:{advertised}" for advertised, _ in pairs), dict(pairs)

    def listener(self, name: str) -> str:
        """What a client by a further listener gives as bootstrap servers."""
        return ",".join(f"{LOOPBACK}:{port}" for port in self._plan.listeners[name])

    @property
    def nodes(self) -> list[int]:
        """The nodes' numbers."""
        return list(self._nodes)

    def storage(self, node: int) -> Path:
        """The folder of the node's logs."""
        return self.state / f"storage{node}"

    def running(self, node: int) -> bool:
        """Whether the broker's process exists (a paused one does)."""
        return self._nodes[node].running

    @property
    def is_whole(self) -> bool:
        """Whether every broker runs, and none is paused."""
        return all(node.running and not node.paused for node in self._nodes.values())

    def kill(self, node: int) -> None:
        """SIGKILL: connections are reset, then refused."""
        self._nodes[node].kill()

    def pause(self, node: int) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        self._nodes[node].pause()

    def resume(self, node: int) -> None:
        """SIGCONT after ``pause``."""
        self._nodes[node].resume()

    def restart(self, node: int) -> None:
        """Kill the broker, where it is not dead yet, and start it again; needs a majority of the nodes up."""
        self.kill(node)
        self._start([node])

    def kill_all(self) -> None:
        """``kill`` for every node."""
        for node in self._nodes:
            self.kill(node)

    def pause_all(self) -> None:
        """``pause`` for every node that runs."""
        for node in self._running():
            self.pause(node)

    def resume_all(self) -> None:
        """``resume`` for every node that runs."""
        for node in self._running():
            self.resume(node)

    def start_all(self) -> None:
        """Start every node that does not run, together, and wait until they serve."""
        self._start([node for node in self._nodes if not self.running(node)])

    def replace_with_an_empty_one(self) -> None:
        """Kill every broker and start others at the same addresses: another cluster, with no topics."""
        self.kill_all()
        for node in self._nodes:
            shutil.rmtree(self.storage(node))
        self._plan = replace(self._plan, cluster_id=Plan.draw(1, {}, {}).cluster_id)
        self._format()
        self.start_all()

    def stop(self) -> None:
        """Kill everything and remove the state folder."""
        self.kill_all()
        shutil.rmtree(self.state, ignore_errors=True)

    def shut_down(self) -> None:
        """End every broker in good order; the state folder stays."""
        for node in self._running():
            self._nodes[node].terminate()

    def create_topic(
        self, name: str, partitions: int = 1, replication: int = -1, config: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic and wait until each partition has a leader; -1 is the cluster's replication."""
        new = NewTopic(name, partitions, replication, config=dict(config or {}))
        try:
            admin = self.admin()
            admin.create_topics([new])[name].result(ADMIN_SECONDS)
        except TimeoutError:
            sys.stderr.write(f"no answer to a request for topic {name}; {self._last_lines()}\n")
            admin = self.admin()
            _created(admin.create_topics([new])[name])
        wait_until(lambda: _has_leaders(admin, name, partitions))

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition → the offset that its next record gets."""
        return end_offsets(self.bootstrap_servers, topic, ADMIN_SECONDS, self._plan.client_properties)

    def admin(self) -> AdminClient:
        """A new client that may do everything; keep it in a variable while its answers are awaited."""
        quiet = {"log_level": 2}  # brokers that a test killed are no news
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, **quiet, **self._plan.client_properties})

    def _last_lines(self) -> str:
        """How the brokers' logs end."""
        return "\n".join(f"{node.name} ends:\n{node.last_lines()}" for node in self._nodes.values())

    def _running(self) -> Iterator[int]:
        return (node for node in self._nodes if self.running(node))

    def _start(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._nodes[node].start()
        for node in nodes:
            self._nodes[node].wait_for_log_line(READY)

    def _format(self) -> None:
        """Write each node's properties and prepare its storage."""
        (self.state / PLAN).write_text(json.dumps(asdict(self._plan)))
        formats = [self._start_format(node) for node in self._nodes]
        said = [(process.communicate()[0], process.returncode) for process in formats]
        for node, (output, code) in zip(self._nodes, said, strict=True):
            if code:
                raise DidNotStart(f"the storage of broker{node} could not be formatted:\n{output}")

    def _start_format(self, node: int) -> subprocess.Popen[str]:
        properties = self.state / f"server{node}.properties"
        lines = self._plan.properties(node, self.storage(node)).items()
        properties.write_text("".join(f"{name}={text}\n" for name, text in lines))
        tool = _kafka_command("kafka.tools.StorageTool")
        return subprocess.Popen(
            [*tool, "format", "-t", self._plan.cluster_id, "-c", str(properties)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def archive_classes() -> None:
    """Write down once which classes a broker loads, ready to map: later starts take about a third less CPU time."""
    archive = _archive()
    if archive.exists():
        return
    part = archive.with_suffix(f".{os.getpid()}")
    with KafkaCluster.start(jvm_options=[f"-XX:ArchiveClassesAtExit={part}"]) as cluster:
        cluster.shut_down()
    part.rename(archive)


def _archive() -> Path:
    return installed() / f"kafka-java-{find_java().version}.jsa"


def _kafka_command(main: str, *options: str) -> list[str]:
    archive = _archive()
    shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
    classes = ["-cp", f"{installed() / 'kafka'}/*"]
    return [str(find_java().path), *JVM_OPTIONS, *shared, *options, *classes, main]


def _new_folder(state: Path | None) -> Path:
    if state is None:
        return Path(tempfile.mkdtemp(prefix="weda-test-kafka-"))
    if state.exists() and any(state.iterdir()):
        raise ServerError(f"{state} is not empty; take down what runs there first: python -m tests.servers down")
    state.mkdir(parents=True, exist_ok=True)
    return state.resolve()


def _created(answer: "Future[None]") -> None:
    """Wait for the answer to a second request: the first may have come through."""
    try:
        answer.result(ADMIN_SECONDS)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def _has_leaders(admin: AdminClient, topic: str, partitions: int) -> bool:
    seen = admin.list_topics(topic, timeout=ADMIN_SECONDS).topics[topic].partitions.values()
    return len(seen) == partitions and all(partition.leader >= 0 for partition in seen)
