"""The command ``python -m tests.faults``: it plays scenarios, and ``check FILE`` judges recorded ones."""

import argparse
import asyncio
import json
import secrets
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults import history, reliability
from tests.faults.reliability import Row
from tests.faults.run import Report, perform
from tests.faults.scenarios import Scenario, scenarios
from tests.servers import KafkaCluster, ServerError
from tests.servers.access import start_secured

TICK_SECONDS = 1.0
CLEAR = "\r\033[K"


def main(words: Sequence[str]) -> int:
    """Play the scenarios one after the other; 1 when a promise broke or a part did not start."""
    if words[:1] == ["check"]:
        return _check(words[1:])
    arguments = _arguments(words)
    every = {scenario.name: scenario for scenario in scenarios()}
    if arguments.list:
        sys.stdout.writelines(f"{name:28} {scenario.does}\n" for name, scenario in every.items())
        return 0
    unknown = sorted({*arguments.scenario} - {*every})
    if unknown:
        sys.stderr.write(f"tests.faults: no scenario {', '.join(unknown)}; --list shows them\n")
        return 2
    return _play_all([every[name] for name in arguments.scenario or every], arguments)


def _play_all(chosen: Sequence[Scenario], arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    rows: list[Row] = []
    document = _document(arguments)
    for number, scenario in enumerate(chosen, start=1):
        clock = Clock(f"[{number}/{len(chosen)}] {scenario.name}", began)
        clock.say(f"{scenario.does} (seed {arguments.seed})")
        report = _play(scenario, arguments, clock)
        if report is None:
            continue  # a failure stops no other
        rows.append(reliability.row(scenario, report, _load_options(arguments)))
        if document is not None:
            reliability.merge(document, rows[-1])
    if len(chosen) > 1:
        (sys.stderr if arguments.json else sys.stdout).write(f"\n{reliability.table(rows)}\n")
        sys.stderr.write(f"{sum(row['ok'] for row in rows)} of {len(chosen)} held, {_minutes(began)} elapsed\n")
    return 0 if len(rows) == len(chosen) and all(row["ok"] for row in rows) else 1


def _play(scenario: Scenario, arguments: argparse.Namespace, clock: "Clock") -> Report | None:
    """None when the run could not be played to its end."""
    try:
        report = _report(scenario, arguments, clock)
    except ServerError as error:
        sys.stderr.write(f"tests.faults: {scenario.name}: {error}\n")
        return None
    except Exception:  # noqa: BLE001 - whatever it was, the other scenarios are played all the same
        sys.stderr.write(f"tests.faults: {scenario.name}: {traceback.format_exc()}\n")
        return None
    reported = json.dumps(report.as_json(), ensure_ascii=False) if arguments.json else str(report)
    sys.stdout.write(f"{reported}\n")
    sys.stdout.flush()
    return report


def _report(scenario: Scenario, arguments: argparse.Namespace, clock: "Clock") -> Report:
    async def performed() -> Report:
        ticking = asyncio.create_task(clock.tick())
        try:
            return await perform(
                scenario,
                cluster,
                seed=arguments.seed,
                seconds=arguments.seconds,
                instances=arguments.instances,
                rate=arguments.rate,
                record=arguments.record,
            )
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    with (
        start_secured(scenario.nodes)
        if scenario.secured
        else KafkaCluster.start(scenario.nodes, doors=scenario.doors) as cluster
    ):
        return asyncio.run(performed())


class Clock:
    """Says on stderr which scenario plays, and for how long; ticks where that is a terminal."""

    def __init__(self, what: str, began: float) -> None:
        self._what = what
        self._all_began = began
        self._began = time.monotonic()

    def say(self, more: str) -> None:
        """One line that stays."""
        sys.stderr.write(f"{self._what}: {more}, {_minutes(self._all_began)} elapsed\n")

    async def tick(self) -> None:
        """Show the time until cancelled, and clear the line then."""
        if not sys.stderr.isatty():
            return
        try:
            while True:
                sys.stderr.write(f"{CLEAR}{self._what}: {_minutes(self._began)}, {_minutes(self._all_began)} elapsed")
                sys.stderr.flush()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            sys.stderr.write(CLEAR)


def _minutes(began: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    return f"{minutes}:{seconds:02}"


def _document(arguments: argparse.Namespace) -> Path | None:
    """Where the figures go: by default only those of the whole list at its own load."""
    asked: Path | None = arguments.write
    if asked is None and not arguments.scenario and not _load_options(arguments):
        return reliability.DOCUMENT
    return asked


def _load_options(arguments: argparse.Namespace) -> list[str]:
    named = {name: getattr(arguments, name) for name in ("seconds", "instances", "rate")}
    return [f"--{name} {value:g}" for name, value in named.items() if value is not None]


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="The fault runs, on real brokers.",
        epilog="python -m tests.faults check FILE: judge recorded runs once more",
    )
    parser.add_argument("--scenario", metavar="NAME", nargs="+", default=[], help="these only; all of them without")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats a run's messages and chances")
    parser.add_argument("--seconds", type=float, help="how long each scenario plays")
    parser.add_argument("--instances", type=int, help="how many workflow instances send at once")
    parser.add_argument("--rate", type=float, help="messages a second over all instances")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and scenario")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep a recording of each run here")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="merge the figures into this document, and the .json and .svg beside it; docs/reliability.md for the list",
    )
    return parser.parse_args(words)


def _check(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults check", description=history.check.__doc__)
    parser.add_argument("file", type=Path, nargs="+", help="a recording, as --record or a failed run leaves it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and file")
    arguments = parser.parse_args(words)
    return history.main(arguments.file, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
