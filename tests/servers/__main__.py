"""The command ``python -m tests.servers``."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.servers import debian, kafka, npm, postgres, registry
from tests.servers.artifacts import CONNECT, ICEBERG, PLUGINS, READERS, SPARK, SPARK_SOURCES, cache_folder, fetch
from tests.servers.errors import NotInstalled, ServerError
from tests.servers.kafka import KafkaCluster
from tests.servers.monitoring import fetch_tools

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run one command; 1 and a line on stderr when it failed."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except ServerError as error:
        sys.stderr.write(f"tests.servers: {error}\n")
        return 1
    return 0


def _install(_: argparse.Namespace) -> None:
    fetch()
    fetch_tools()
    postgres.install()
    kafka.archive_classes()
    registry.archive_classes()
    for fetch_one in (
        *(partial(fetch, pom) for pom in (READERS, CONNECT, PLUGINS, ICEBERG, SPARK, SPARK_SOURCES)),
        partial(debian.fetch, debian.KCAT),
        partial(debian.fetch, debian.HAPROXY),
        *(partial(npm.installed, package, package.parent.name) for package in sorted(ROOT.glob("t*/*/package.json"))),
    ):
        try:
            fetch_one()
        except NotInstalled as error:  # the tests that need it will fail with it; the others need not wait
            sys.stderr.write(f"tests.servers: {error}\n")


def _up(arguments: argparse.Namespace) -> None:
    cluster = KafkaCluster.start(arguments.nodes, state=arguments.state, detached=True)
    sys.stdout.write(f"KAFKA_BOOTSTRAP={cluster.bootstrap_servers}\n")


def _down(arguments: argparse.Namespace) -> None:
    KafkaCluster.attach(arguments.state).stop()


def _node(arguments: argparse.Namespace) -> None:
    cluster = KafkaCluster.attach(arguments.state)
    if arguments.node == "all":
        _ALL[arguments.act](cluster)
    elif arguments.node.isdigit() and int(arguments.node) in cluster.nodes:
        _ONE[arguments.act](cluster, int(arguments.node))
    else:
        raise ServerError(f"no node {arguments.node}; there are {cluster.nodes} and all")


_ONE: dict[str, Callable[[KafkaCluster, int], None]] = {
    "kill": KafkaCluster.kill,
    "pause": KafkaCluster.pause,
    "resume": KafkaCluster.resume,
    "start": KafkaCluster.restart,
}
_ALL: dict[str, Callable[[KafkaCluster], None]] = {
    "kill": KafkaCluster.kill_all,
    "pause": KafkaCluster.pause_all,
    "resume": KafkaCluster.resume_all,
    "start": KafkaCluster.start_all,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description="Real Kafka brokers for the tests.")
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument("--state", type=Path, default=cache_folder() / "up", help="folder of the running cluster")
    commands = parser.add_subparsers(required=True)
    install = commands.add_parser("install", help="fetch the servers, the readers, Prometheus and PostgreSQL, once")
    install.set_defaults(run=_install)
    up = commands.add_parser("up", parents=[state], help="start a cluster, leave it running, print KAFKA_BOOTSTRAP")
    up.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    up.set_defaults(run=_up)
    down = commands.add_parser("down", parents=[state], help="kill the cluster and forget it")
    down.set_defaults(run=_down)
    node = commands.add_parser("node", parents=[state], help="break or mend one broker")
    node.add_argument("node", metavar="N", help='number from 1, or "all"')
    node.add_argument("act", choices=sorted(_ONE))
    node.set_defaults(run=_node)
    return parser


if __name__ == "__main__":
    sys.exit(main())
