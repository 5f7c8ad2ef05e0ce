"""``dead-letters``: what could not become a record, by reason; shown; replayed once it can."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from connector.admin.client import Remote
from connector.cli.output import print_json
from connector.cli.progress import Progress
from connector.cli.tail import plain
from connector.cli.topics import File, Json
from connector.errors import OutsideUnreachable
from connector.intake.reprocessing import MOST_ATTEMPTS
from connector.message.conversion import timestamp_text
from connector.message.routes import STREAMS, Routes
from connector.settings import DEFAULT_SOURCE, Settings

EXIT_CHECK_FAILED: Final = 1

_AGO: Final = re.compile(r"(\d{1,6})\s*([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PLACE: Final = re.compile(r"(?:(?P<topic>[A-Za-z0-9._-]+)/)?(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")
_COLUMNS: Final = ("waiting", "replayed", "code", "stage", "source", "reason")
_SAID: Final = {
    "accepted": "accepted",
    "repeats": "accepted before, nothing published",
    "failed": "failed again (each is a new dead letter)",
    "refused": "left as they are",
    "held_back": "held back behind one of their instance that failed",
    "exhausted": "tried as often as --max-attempts allows",
}
_T = TypeVar("_T")

dead_letters = typer.Typer(no_args_is_help=True, help="What could not become a record: by reason, in full, replayed.")


def _moment(text: str) -> int:
    """Epoch milliseconds from ``2h`` (ago) or ISO 8601; without a zone, UTC."""
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return int((time.time() - int(ago[1]) * _UNITS[ago[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("write 30m, 2h or 7d (ago), or a time such as 2026-01-31T08:00+08:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _place(text: str) -> tuple[str | None, int, int]:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise typer.BadParameter("write partition/offset or topic/partition/offset, as the list shows it")
    return found["topic"], int(found["partition"]), int(found["offset"])


Codes = Annotated[list[int] | None, typer.Option("--code", help="Code as 42201, or status as 422; may be repeated.")]
Stage = Annotated[str | None, typer.Option(help="Where on the way it failed: parse, convert, publish …")]
Source = Annotated[str | None, typer.Option(help="Who sent it.")]
Instance = Annotated[str | None, typer.Option(help="The instanceId.")]
Reason = Annotated[str | None, typer.Option(help="Text that the reason holds.")]
Since = Annotated[int | None, typer.Option(parser=_moment, metavar="TIME", help="Received since: 2h (ago) or a time.")]
Until = Annotated[int | None, typer.Option(parser=_moment, metavar="TIME", help="Received before: 2h (ago) or a time.")]
Url = Annotated[
    str | None, typer.Option("--operations-url", help="Of the connector; WEDA_OPERATIONS__URL if not given.")
]
Token = Annotated[str | None, typer.Option(help="Token of the operations listener.")]


@dead_letters.command("list")
def list_command(
    *,
    code: Codes = None,
    stage: Stage = None,
    source: Source = None,
    instance: Instance = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Most letters that are listed, the latest first.")] = 20,
    operations_url: Url = None,
    token: Token = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Count dead letters by reason, and list the latest; a running connector is asked.

    \b
    Examples:
      weda-connector dead-letters list
      weda-connector dead-letters list --code 422 --since 2h
      weda-connector dead-letters list --source hr --limit 0 --json

    Exit codes: 0 listed, 2 bad usage or configuration, 3 no connector answers, or it does not reach Kafka.
    """
    selected = _selected(code, stage, source, instance, reason, since, until) | {"limit": limit}
    report = _asked(_settings(file, operations_url, token), lambda remote: remote.dead_letters(selected))
    if as_json:
        print_json(report)
        return
    if report["reasons"] or not report["in_journal"]:
        _print_reasons(report["reasons"])
    if report["in_journal"]:
        print(f"{report['in_journal']} more wait in the journal for Kafka; they are listed once it has them")
    for letter in report["letters"]:
        print(_line(letter))


@dead_letters.command("show")
def show(
    *,
    place: Annotated[str, typer.Argument(help="partition/offset, or topic/partition/offset, as the list has it.")],
    operations_url: Url = None,
    token: Token = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it is one, and its bytes as received.

    \b
    Examples:
      weda-connector dead-letters show 3/17
      weda-connector dead-letters show 3/17 --json

    Exit codes: 0 shown, 1 there is none, 2 bad usage or configuration, 3 no connector answers, or it does not reach
    Kafka.
    """
    topic, partition, offset = _place(place)
    settings = _settings(file, operations_url, token)
    found = _asked(settings, lambda remote: _found(remote, topic, partition, offset))
    if as_json:
        print_json(found)
        return
    for name in ("topic", "partition", "offset", "instance_id", "source", "code", "stage", "reason", "attempt"):
        print(f"{name}: {plain(found[name])}")
    print(f"received: {timestamp_text(found['received_at'])}\nreplayed: {'yes' if found['replayed'] else 'no'}")
    print(f"content-type: {plain(found['content_type'])}\n\n{_multiline(found['body'])}")


@dead_letters.command("replay")
def replay(
    *,
    code: Codes = None,
    stage: Stage = None,
    source: Source = None,
    instance: Instance = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what it would come to; replay nothing.")] = False,
    max_attempts: Annotated[int, typer.Option(min=2, help="Leave alone what was tried so often.")] = MOST_ATTEMPTS,
    operations_url: Url = None,
    token: Token = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Hand dead letters to the running connector once more, those of an instance in the order of their receipt.

    Each is replayed once, however often this is run: the connector remembers. Ctrl-C ends it in good order; run again,
    it goes on where it was. What fails again is a new dead letter, and holds back those of its instance behind it.
    With --json the last line tells what became of all of them.

    \b
    Examples:
      weda-connector dead-letters replay --code 42201 --dry-run
      weda-connector dead-letters replay --code 42201
      weda-connector dead-letters replay --source hr --since 7d --json

    Exit codes: 0 every letter was accepted, 1 some were not, or it was stopped, 2 bad usage or configuration, 3 no
    connector answers, or it does not reach Kafka.
    """
    order = _selected(code, stage, source, instance, reason, since, until) | {"max_attempts": max_attempts}
    settings = _settings(file, operations_url, token)
    if dry_run:
        report = _asked(settings, lambda remote: remote.dry_run(order))
    else:
        with Progress() as shown:
            report = _asked(settings, lambda remote: _until_interrupted(remote, order, partial(_show, shown)))
    if as_json:
        print_json(report)
    else:
        print(_summary(report))
    if report["unreachable"]:
        raise OutsideUnreachable(report["message"])
    raise typer.Exit(
        0 if report["state"] == "ended" and report["accepted"] + report["repeats"] == report["total"] else 1
    )


def _settings(file: Path | None, url: str | None, token: str | None) -> Settings:
    return Settings.load(file=file, flags={"operations.url": url, "operations.token": token})


def _selected(  # noqa: PLR0917 - the filters that two commands share, in their order
    code: list[int] | None,
    stage: str | None,
    source: str | None,
    instance: str | None,
    reason: str | None,
    since: int | None,
    until: int | None,
) -> dict[str, Any]:
    asked = {"codes": code, "stage": stage, "source": source, "instance": instance, "reason": reason}
    return {name: value for name, value in {**asked, "since": since, "until": until}.items() if value is not None}


def _asked(settings: Settings, ask: Callable[[Remote], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with Remote(settings.operations) as remote:
            return await ask(remote)

    return asyncio.run(run())


async def _found(remote: Remote, topic: str | None, partition: int, offset: int) -> dict[str, Any]:
    """The letter; where no topic is named, in that of the default source."""
    if topic is None:
        prefix = (await remote.settings())["topics"]["prefix"]
        topic = Routes(STREAMS, prefix).dead_letter_topic(DEFAULT_SOURCE)
    return await remote.dead_letter(topic, partition, offset)


async def _until_interrupted(
    remote: Remote, order: Mapping[str, Any], show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    task = asyncio.ensure_future(remote.replay(order, show))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def _print_reasons(reasons: list[dict[str, Any]]) -> None:
    if not reasons:
        print("no dead letters")
    elif sys.stdout.isatty():
        table = Table(*_COLUMNS)
        for each in reasons:
            table.add_row(*(plain(each[name]) if name == "reason" else str(each[name]) for name in _COLUMNS))
        Console().print(table)
    else:
        for each in reasons:
            print("  ".join(f"{each[name]}" for name in _COLUMNS[2:]), end="")
            print(f": {each['waiting']} waiting, {each['replayed']} replayed")


def _line(letter: Mapping[str, Any]) -> str:
    place = f"{letter['partition']}/{letter['offset']}"
    state = "replayed" if letter["replayed"] else f"attempt {letter['attempt']}"
    parts = (timestamp_text(letter["received_at"]), letter["instance_id"], letter["code"], letter["reason"])
    return "  ".join((place, state, *(plain(part) for part in parts)))


def _multiline(body: str) -> str:
    """The bytes as text that cannot steer a terminal, its lines kept."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in body)


def _summary(report: Mapping[str, Any]) -> str:
    lines = [f"{report[name]} {said}" for name, said in _SAID.items() if report[name]]
    lines += [f"  {count} times: {why}" for why, count in report["again"].items()]
    left = report["total"] - report["done"]
    if report["state"] != "ended":
        why = f": {report['message']}" if report["message"] else ""
        lines.append(f"{report['state']}{why}; {left} are left: run it again to go on")
    if report["in_journal"]:
        lines.append(f"{report['in_journal']} more wait in the journal for Kafka: run it again once it has them")
    head = "nothing was done; it would come to:" if report["dry_run"] else f"{report['total']} dead letters:"
    return "\n".join([head, *(lines or ["none is waiting"])])


def _show(shown: Progress, report: Mapping[str, Any]) -> None:
    shown.show(f"{report['done']} of {report['total']} replayed", report["done"], report["total"] or None)
