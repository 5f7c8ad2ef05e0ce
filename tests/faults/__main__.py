"""The command ``python -m tests.faults``."""

import argparse
import asyncio
import json
import secrets
import sys

from tests.faults.run import Report, perform
from tests.faults.scenarios import Scenario, scenarios
from tests.servers import KafkaCluster, ServerError


def main() -> int:
    """Play the scenarios one after the other; 1 when a promise broke or a part did not start."""
    arguments = _arguments()
    every = {scenario.name: scenario for scenario in scenarios()}
    if arguments.list:
        sys.stdout.writelines(f"{name:28} {scenario.does}\n" for name, scenario in every.items())
        return 0
    unknown = sorted({*arguments.scenario} - {*every})
    if unknown:
        sys.stderr.write(f"tests.faults: no scenario {', '.join(unknown)}; --list shows them\n")
        return 2
    chosen = [every[name] for name in arguments.scenario or every]
    return 0 if all([_play(scenario, arguments) for scenario in chosen]) else 1  # noqa: C419 - a failure stops no other


def _play(scenario: Scenario, arguments: argparse.Namespace) -> bool:
    sys.stderr.write(f"{scenario.name}: {scenario.does} (seed {arguments.seed})\n")
    try:
        report = _report(scenario, arguments)
    except ServerError as error:
        sys.stderr.write(f"tests.faults: {scenario.name}: {error}\n")
        return False
    told = json.dumps(report.as_json(), ensure_ascii=False) if arguments.json else str(report)
    sys.stdout.write(f"{told}\n")
    sys.stdout.flush()
    return report.ok


def _report(scenario: Scenario, arguments: argparse.Namespace) -> Report:
    with KafkaCluster.start(scenario.nodes) as cluster:
        return asyncio.run(
            perform(
                scenario,
                cluster,
                seed=arguments.seed,
                seconds=arguments.seconds,
                instances=arguments.instances,
                rate=arguments.rate,
            )
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault runs, on real brokers.")
    parser.add_argument("--scenario", metavar="NAME", nargs="+", default=[], help="these only; all of them without")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats a run's messages and chances")
    parser.add_argument("--seconds", type=float, help="how long each scenario plays")
    parser.add_argument("--instances", type=int, help="how many workflow instances send at once")
    parser.add_argument("--rate", type=float, help="messages a second over all instances")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and scenario")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
