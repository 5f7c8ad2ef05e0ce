"""What a shared journal costs: one connector with a journal of its own, and the same with one in PostgreSQL, in turn.

Run `python -m bench.replicas [--seconds 8] [--rounds 3]`; it prints what docs/scaling.md quotes.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.load import Plan
from bench.process import Cores, load, server
from bench.sample import Sample, cpu_seconds
from bench.traffic import TOKEN
from tests.servers import KafkaCluster
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.postgres import Postgres

KINDS = ("own journal", "shared journal")


class Round(NamedTuple):
    """One measurement, and the CPU time that PostgreSQL used for a message, in microseconds."""

    sample: Sample
    database: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.replicas", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    cores = Cores.divide()
    rounds: dict[str, list[Round]] = {kind: [] for kind in KINDS}
    with KafkaCluster.start() as cluster, Postgres.start() as postgres:
        postgres.migrate()
        for _ in range(chosen.rounds):
            for kind in KINDS:
                rounds[kind].append(_measure(kind, cluster, postgres, cores, chosen.seconds))
                print(kind, _summary(rounds[kind][-1:]), file=sys.stderr)
    for kind in KINDS:
        print(f"{kind}: {_summary(rounds[kind])}")


def _measure(kind: str, cluster: KafkaCluster, postgres: Postgres, cores: Cores, seconds: float) -> Round:
    more = {"WEDA_JOURNAL__URL": postgres.url()} if kind == "shared journal" else {}
    with _started(cluster, more, cores) as (pid, port):
        before = _cpu_of_all(postgres)
        sample = load(Plan(port, pid, seconds), cores)
        spent = _cpu_of_all(postgres) - before
    return Round(sample, 1e6 * spent / max(sample.accepted, 1))


@contextmanager
def _started(cluster: KafkaCluster, more: dict[str, str], cores: Cores) -> Iterator[tuple[int, int]]:
    port, operations = free_ports(2)
    state = Path(tempfile.mkdtemp(prefix="weda-bench-"))
    environment = {
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "WEDA_TOKEN": TOKEN,
        "WEDA_RECEIVER__HOST": LOOPBACK,
        "WEDA_RECEIVER__PORT": str(port),
        "WEDA_OPERATIONS__PORT": str(operations),
        "WEDA_JOURNAL__PATH": str(state / "journal.db"),
        "WEDA_LOG__FORMAT": "json",
        **more,
    }
    command = [sys.executable, "-m", "connector", "serve"]
    try:
        with server("connector", command, environment=environment, port=port, state=state, cores=cores) as pid:
            yield pid, port
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _cpu_of_all(postgres: Postgres) -> float:
    """CPU time of the server's living processes."""
    return sum(cpu_seconds(pid) for pid in postgres.pids())


def _summary(rounds: list[Round]) -> str:
    median = statistics.median
    return (
        f"{median(one.sample.per_second for one in rounds):.0f} messages/s, "
        f"{median(one.sample.cpu_microseconds for one in rounds):.0f} us of CPU a message in the connector, "
        f"{median(one.database for one in rounds):.0f} us in PostgreSQL, "
        f"p50 {median(one.sample.p50 or 0 for one in rounds):.0f} ms, "
        f"refused {sum(one.sample.refused for one in rounds)}"
    )


if __name__ == "__main__":
    main()
