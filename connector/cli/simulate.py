"""``weda-connector simulate``: plays a WeDa platform against a connector."""

import asyncio
import secrets
import signal
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from connector.cli.progress import Progress
from connector.errors import ConfigurationError
from connector.simulator import Answer, Outcome, Plan, Shape, Summary, play

EXIT_NOT_ALL_ACCEPTED = 1
EXIT_UNREACHABLE = 3


def simulate(
    *,
    url: Annotated[str, typer.Option(help="The connector's address; without a path, /messageDeliver is added.")],
    token: Annotated[str | None, typer.Option(envvar="WEDA_TOKEN", help="Sent as a bearer token.")] = None,
    instances: Annotated[int, typer.Option(help="Process instances to play; 0: without end.")] = 20,
    rate: Annotated[float, typer.Option(help="Messages a second over all instances; 0: as fast as answered.")] = 0.0,
    shape: Annotated[Shape, typer.Option(help="How a message stands in the request.")] = Shape.TEXT,
    seed: Annotated[int | None, typer.Option(help="The same seed plays the same runs; random if not given.")] = None,
    concurrency: Annotated[int, typer.Option(help="Instances in flight at once.")] = 64,
    ramp: Annotated[float, typer.Option(help="Seconds in which the rate rises from 0.")] = 0.0,
    seconds: Annotated[float | None, typer.Option(help="Send nothing new after so many seconds.")] = None,
    repeats: Annotated[float, typer.Option(help="Share of accepted messages sent once more, 0 to 1.")] = 0.0,
    overlaps: Annotated[float, typer.Option(help="Share sent at once with the next of the instance, 0 to 1.")] = 0.0,
    retries: Annotated[int, typer.Option(help="Attempts after the first, on 429, 503 or no answer.")] = 5,
    ledger: Annotated[Path | None, typer.Option(help="Write what was sent and answered, a JSON object a line.")] = None,
) -> None:
    """Play a WeDa platform: whole process runs, sent to a connector in WeDa's order.

    The messages of an instance are sent one after the other, each after the answer to the one before. The last line
    on stdout is {"sent":…,"accepted":…,"refused":…,"failed":…}.

    Exit codes: 0 every message was accepted, 1 some were not, 2 bad usage, 3 nothing ever answered.

    \b
    Examples:
      weda-connector simulate --url http://127.0.0.1:8080
      weda-connector simulate --url http://127.0.0.1:8080 --rate 200 --ramp 10
      weda-connector simulate --url http://127.0.0.1:8080 --seed 7 --shape mixed
      weda-connector simulate --url http://127.0.0.1:8080 --ledger sent.jsonl
    """
    try:
        plan = Plan(
            url=url,
            token=token,
            instances=instances or None,
            rate=rate,
            shape=shape,
            seed=_announced(seed),
            concurrency=concurrency,
            ramp_seconds=ramp,
            seconds=seconds,
            repeats=repeats,
            overlaps=overlaps,
            retries=retries,
            ledger=ledger,
        )
        summary = _played(plan)
    except ConfigurationError as error:
        raise typer.BadParameter(error.message) from error
    except OSError as error:
        raise typer.BadParameter(f"--ledger {ledger}: {error.strerror}") from error
    print(_last_line(summary), flush=True)
    if summary.sent and not summary.reached:
        print(f"weda-connector: nothing answers at {plan.url}: is the connector running there?", file=sys.stderr)
    raise typer.Exit(_exit_code(summary))


def _announced(seed: int | None) -> int:
    if seed is not None:
        return seed
    drawn = secrets.randbits(31)
    print(f"seed {drawn}", file=sys.stderr)
    return drawn


def _played(plan: Plan) -> Summary:
    with Progress() as shown:
        return asyncio.run(_until_interrupted(plan, _Counts(plan.instances, shown)))


async def _until_interrupted(plan: Plan, counts: "_Counts") -> Summary:
    """Play the plan; Ctrl-C and SIGTERM end it at once, with what has been counted."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await play(plan, on_answer=counts.add, stop=stop)


def _last_line(summary: Summary) -> str:
    counts = {name: getattr(summary, name) for name in ("sent", "accepted", "refused", "failed")}
    return msgspec.json.encode(counts).decode()


def _exit_code(summary: Summary) -> int:
    if summary.sent and not summary.reached:
        return EXIT_UNREACHABLE
    return 0 if summary.accepted == summary.sent else EXIT_NOT_ALL_ACCEPTED


class _Counts:
    """Answers by outcome, and the instances that they complete."""

    def __init__(self, instances: int | None, shown: Progress) -> None:
        self._instances = instances
        self._shown = shown
        self._counts = dict.fromkeys(Outcome, 0)
        self._done = 0.0

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self._counts[answer.outcome] += 1
        self._done += 1 / answer.of
        text = " ".join(f"{outcome} {count}" for outcome, count in self._counts.items())
        self._shown.show(text, self._done, self._instances)
