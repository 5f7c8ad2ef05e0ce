"""`python -m bench [--seconds S] [--rounds N] [--most N] [--only NAME...] [--json]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import pictures
from bench.experiments import GROWTH, JOURNAL, LATENCY, NAMES, OVERLOAD, SOAK, SPEED, Laboratory
from bench.machine import describe
from bench.process import Cores, pinned
from bench.results import Results, render
from tests.servers import KafkaCluster

BROKER = ("-XX:TieredStopAtLevel=4", "-Xms1g", "-Xmx1g")
"""The tests' brokers do without the optimising compiler; a measured one has to be as fast as in production."""

RESULTS = Path(__file__).with_name("RESULTS.md")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    made.add_argument("--seconds", type=float, default=10.0, help="of one measurement (default 10)")
    made.add_argument("--rounds", type=int, default=5, help="every one is measured once a round (default 5)")
    made.add_argument("--most", type=int, default=10_000, help="instances, and messages in the journal (default 10000)")
    made.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    made.add_argument("--json", action="store_true", help="print the samples as JSON, not the tables")
    return made


def main(arguments: Sequence[str]) -> None:
    """Measure and print; a run that leaves nothing out also writes RESULTS.md."""
    chosen = parser().parse_args(arguments)
    cores = Cores.divide()
    with pinned(cores.others):
        cluster = KafkaCluster.start(jvm_options=BROKER)
    with cluster:
        laboratory = Laboratory(cluster, cores, seconds=chosen.seconds, most=chosen.most, say=_say)
        results = _measure(laboratory, chosen, cores, " ".join(["python -m bench", *arguments]))
    print(msgspec.json.encode(results).decode() if chosen.json else render(results))
    if set(chosen.only) == set(NAMES):
        RESULTS.write_text(render(results), encoding="utf-8")
        for name, picture in pictures.draw(results).items():
            RESULTS.with_name(name).write_text(picture, encoding="utf-8")


def _measure(laboratory: Laboratory, chosen: argparse.Namespace, cores: Cores, command: str) -> Results:
    results = Results(command, describe(cores), {name: [] for name in SPEED if name in chosen.only}, [], [], [], [], [])
    laboratory.warm_up()
    for number in range(chosen.rounds):
        _say(f"round {number + 1} of {chosen.rounds}")
        for name, samples in results.speed.items():
            samples.append(laboratory.speed(name))
        if LATENCY in chosen.only:
            results.latency.append(laboratory.latency())
        if OVERLOAD in chosen.only:
            results.overloads.append(laboratory.overload())
        if JOURNAL in chosen.only:
            results.outages.append(laboratory.outage())
    if GROWTH in chosen.only:
        results.growth.extend(laboratory.growth())
    if SOAK in chosen.only:
        results.soak.extend(laboratory.soak())
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
