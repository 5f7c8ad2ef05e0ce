"""``simulate``: send simulated workflow messages to a connector."""

import asyncio
import secrets
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from connector.app.signals import on_interrupt
from connector.cli.exits import Exit, failed_if
from connector.cli.options import Seed, moment_option
from connector.cli.progress import ProgressDisplay
from connector.errors import ConfigurationError
from connector.simulator import Answer, Outcome, Plan, Shape, Summary, play
from connector.text import counted, one_line

_MAX_REASONS = 20


def simulate(
    *,
    url: Annotated[
        str, typer.Option(metavar="URL", help="The connector's address; without a path, /messageDeliver is added.")
    ],
    token: Annotated[str | None, typer.Option(envvar="WEDA_TOKEN", help="Sent as a bearer token.")] = None,
    instances: Annotated[int, typer.Option(help="Process instances to play; 0: endless.")] = 20,
    rate: Annotated[float, typer.Option(help="Messages a second over all instances; 0: as fast as possible.")] = 0.0,
    shape: Annotated[Shape, typer.Option(help="Format of the request body.")] = Shape.TEXT,
    seed: Seed = None,
    concurrency: Annotated[int, typer.Option(help="Instances at the same time.")] = 64,
    ramp: Annotated[float, typer.Option(metavar="SECONDS", help="Time in which the rate rises from 0.")] = 0.0,
    seconds: Annotated[float | None, typer.Option(metavar="SECONDS", help="Send nothing new after this long.")] = None,
    since: Annotated[
        int | None, moment_option("Fill the past: instances that started since then; some stay open")
    ] = None,
    repeats: Annotated[float, typer.Option(help="Share of accepted messages that are sent again, 0 to 1.")] = 0.0,
    overlaps: Annotated[
        float, typer.Option(help="Share that is sent together with the next one of the instance, 0 to 1.")
    ] = 0.0,
    retries: Annotated[int, typer.Option(help="Attempts after the first, on 429, 503 or no answer.")] = 5,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write requests and answers to this file, as JSON Lines.")
    ] = None,
) -> None:
    """Send simulated workflow messages to a connector, as WeDa does.

    The messages of an instance are sent one after the other, each after the answer to the one before. The last line
    on stdout is {"sent":…,"accepted":…,"refused":…,"failed":…}; why messages were refused goes to standard error.

    \b
    Examples:
      weda-connector simulate --url http://127.0.0.1:8080
      weda-connector simulate --url http://127.0.0.1:8080 --rate 200 --ramp 10
      weda-connector simulate --url http://127.0.0.1:8080 --seed 7 --shape mixed
      weda-connector simulate --url http://127.0.0.1:8080 --ledger sent.jsonl
      weda-connector simulate --url http://127.0.0.1:8080 --since 14d --instances 500

    Exit codes: 0 every message was accepted, 1 some were not, 2 bad usage, 3 nothing ever answered.
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
            since_seconds=None if since is None else time.time() - since / 1000,
        )
        summary, refusals = _played(plan)
    except ConfigurationError as error:
        raise typer.BadParameter(error.message) from error
    except OSError as error:
        raise typer.BadParameter(f"--ledger {ledger}: {error.strerror}") from error
    _print_refusals(refusals)
    print(_last_line(summary), flush=True)
    if summary.sent and not summary.reached:
        print(f"weda-connector: nothing answers at {plan.url}: is the connector running there?", file=sys.stderr)
    raise typer.Exit(_exit_code(summary))


def _announced(seed: int | None) -> int:
    if seed is not None:
        return seed
    # Printed, so that a run that shows a fault can be repeated.
    drawn_seed = secrets.randbits(31)
    print(f"seed {drawn_seed}", file=sys.stderr)
    return drawn_seed


def _played(plan: Plan) -> tuple[Summary, Counter[str]]:
    with ProgressDisplay() as progress:
        counts = _Counts(plan.instances, progress)
        return asyncio.run(_until_interrupted(plan, counts)), counts.refusals


def _print_refusals(refusals: Counter[str]) -> None:
    for why, count in refusals.most_common():
        print(f"weda-connector: {counted(count, 'message')} refused: {why}", file=sys.stderr)


async def _until_interrupted(plan: Plan, counts: "_Counts") -> Summary:
    """Play the plan; Ctrl-C and SIGTERM stop it at once, and messages sent so far are counted."""
    stop = asyncio.Event()
    on_interrupt(stop.set)
    return await play(plan, on_answer=counts.add, stop=stop)


def _last_line(summary: Summary) -> str:
    counts = {name: getattr(summary, name) for name in ("sent", "accepted", "refused", "failed")}
    return msgspec.json.encode(counts).decode()


def _exit_code(summary: Summary) -> Exit:
    if summary.sent and not summary.reached:
        return Exit.UNREACHABLE
    return failed_if(summary.accepted != summary.sent)


class _Counts:
    """Counts answers by outcome and by reason of refusal, and shows how many instances they complete.

    Attributes:
        refusals: Reason → number of messages; only the first twenty reasons.
    """

    def __init__(self, instances: int | None, progress: ProgressDisplay) -> None:
        self._instances = instances
        self._progress = progress
        self._counts = dict.fromkeys(Outcome, 0)
        self._done = 0.0
        self.refusals: Counter[str] = Counter()

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self._counts[answer.outcome] += 1
        if answer.outcome is Outcome.REFUSED:
            why = _why(answer)
            # The receiver words its reasons: without a bound an endless run could fill the memory.
            if why in self.refusals or len(self.refusals) < _MAX_REASONS:
                self.refusals[why] += 1
        self._done += 1 / answer.total  # a message is this share of its instance
        text = " ".join(f"{outcome} {count}" for outcome, count in self._counts.items())
        self._progress.show(text, self._done, self._instances)


def _why(answer: Answer) -> str:
    code = "" if answer.code is None else f" (code {answer.code})"
    return f"{answer.status}{code}: {one_line(answer.reason)}"
