"""``dead-letters``: list, show and replay dead letters."""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final

import typer

from connector.admin.client import OperationsClient, ask
from connector.app.signals import on_interrupt
from connector.cli.columns import local_time, table
from connector.cli.commands import Command, group
from connector.cli.exits import failed_if
from connector.cli.options import (
    File,
    Json,
    OperationsToken,
    OperationsUrl,
    Since,
    Until,
    operations_settings,
)
from connector.cli.output import print_json
from connector.cli.progress import ProgressDisplay
from connector.errors import ConnectorError, OutsideUnreachable
from connector.intake.dead_letters import Selection
from connector.intake.reprocessing import MAX_ATTEMPTS
from connector.message.routes import STREAMS, Routes
from connector.settings import DEFAULT_SOURCE
from connector.text import counted, one_line, printable

_LATEST: Final = "latest"
_PLACE: Final = re.compile(r"(?:(?P<topic>[A-Za-z0-9._-]+)/)?(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")
_LABELS: Final = {
    "accepted": "accepted",
    "repeats": "accepted before, nothing published",
    "failed": "failed again, each as a new dead letter",
    "refused": "not replayed",
    "held_back": "skipped, because an earlier dead letter of the instance failed",
    "exhausted": "skipped, because they had --max-attempts attempts",
}
_LETTER: Final = "dead letter"

dead_letters = group("List, show and replay the messages that could not become a record.")

Codes = Annotated[list[int] | None, typer.Option("--code", help="Code as 42201, or status as 422; may be repeated.")]
Stage = Annotated[str | None, typer.Option(help="Stage at which it failed: parse, convert, publish …")]
Source = Annotated[str | None, typer.Option(help="Source that sent it.")]
Instance = Annotated[str | None, typer.Option(help="The instanceId.")]
Reason = Annotated[str | None, typer.Option(help="Text that the reason contains.")]


@dead_letters.command("list", cls=Command)
def list_command(
    *,
    waiting: Annotated[bool, typer.Option("--waiting", help="Leave out those that were replayed.")] = False,
    code: Codes = None,
    stage: Stage = None,
    source: Source = None,
    instance: Instance = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Most dead letters that are listed, latest first.")] = 20,
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Count dead letters by reason, and list the latest. A running connector is asked.

    \b
    Examples:
      weda-connector dead-letters list
      weda-connector dead-letters list --waiting
      weda-connector dead-letters list --code 422 --since 2h
      weda-connector dead-letters list --source hr --limit 0 --json

    Exit codes: 0 listed, 2 bad usage or configuration, 3 no connector answers, or it does not reach Kafka.
    """
    selected = _selected(code, stage, source, instance, reason, since, until) | {"limit": limit}
    selected |= {"waiting": True} if waiting else {}
    settings = operations_settings(file, operations_url, token)
    report = ask(settings.operations, lambda client: client.dead_letters(selected))
    if as_json:
        print_json(report)
        return
    print("\n".join(_listing(report)))


@dead_letters.command("show", cls=Command)
def show(
    *,
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="partition/offset or topic/partition/offset, as listed; or `latest`.",
            show_default=False,
        ),
    ],
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: the reason, and the body as received.

    \b
    Examples:
      weda-connector dead-letters show latest
      weda-connector dead-letters show 3/17
      weda-connector dead-letters show 3/17 --json

    Exit codes: 0 shown, 1 there is none, 2 bad usage or configuration, 3 no connector answers, or it does not reach
    Kafka.
    """
    at = None if place == _LATEST else _offset_of(place)
    settings = operations_settings(file, operations_url, token)
    letter = ask(settings.operations, _latest if at is None else lambda client: _letter(client, *at))
    if as_json:
        print_json(letter)
        return
    for name in (
        "topic",
        "partition",
        "offset",
        "instance_id",
        "source",
        "code",
        "stage",
        "reason",
        "attempt",
        "request_id",
    ):
        print(f"{name}: {one_line(letter[name])}")
    print(f"received: {local_time(letter['received_at'])}\nreplayed: {'yes' if letter['replayed'] else 'no'}")
    print(f"content-type: {one_line(letter['content_type'])}\n\n{printable(letter['body'])}")


@dead_letters.command("replay", cls=Command)
def replay(
    *,
    code: Codes = None,
    stage: Stage = None,
    source: Source = None,
    instance: Instance = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what a replay would do, without replaying.")] = False,
    max_attempts: Annotated[int, typer.Option(min=2, help="Skip dead letters with this many attempts.")] = MAX_ATTEMPTS,
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Let the running connector process dead letters again, those of an instance in the order of their receipt.

    Each is replayed once, however often this is run: the connector remembers. Ctrl-C stops it cleanly; run it again to
    continue. What fails again is a new dead letter, and the later ones of its instance are skipped. With --json the
    last line has the counts.

    \b
    Examples:
      weda-connector dead-letters replay --code 42201 --dry-run
      weda-connector dead-letters replay --code 42201
      weda-connector dead-letters replay --source hr --since 7d --json

    Exit codes: 0 every dead letter was accepted, 1 some were not, or it was stopped, 2 bad usage or configuration, 3 no
    connector answers, or it does not reach Kafka.
    """
    request = _selected(code, stage, source, instance, reason, since, until) | {"max_attempts": max_attempts}
    settings = operations_settings(file, operations_url, token)
    if dry_run:
        report = ask(settings.operations, lambda client: client.dry_run(request))
    else:
        with ProgressDisplay() as shown:
            report = ask(settings.operations, lambda client: _until_interrupted(client, request, partial(_show, shown)))
    if as_json:
        print_json(report)
    else:
        print(_summary(report))
    # The counts are printed first, so that a script sees what was replayed before Kafka went away.
    if report["unreachable"]:
        raise OutsideUnreachable(report["message"])
    is_complete = report["state"] == "ended" and report["accepted"] + report["repeats"] == report["total"]
    raise typer.Exit(failed_if(not is_complete))


def _offset_of(text: str) -> tuple[str | None, int, int]:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise typer.BadParameter("write partition/offset or topic/partition/offset as the list shows it, or `latest`")
    return match["topic"], int(match["partition"]), int(match["offset"])


def _selected(  # noqa: PLR0917 - the filters that two commands share, in their order
    code: list[int] | None,
    stage: str | None,
    source: str | None,
    instance: str | None,
    reason: str | None,
    since: int | None,
    until: int | None,
) -> dict[str, Any]:
    """Return the filters that are set, as parameters of the API."""
    selection = Selection(
        codes=tuple(code or ()),
        stage=stage,
        source=source,
        instance=instance,
        reason=reason,
        since=since,
        until=until,
    )
    return selection.model_dump(exclude_defaults=True)


async def _latest(client: OperationsClient) -> dict[str, Any]:
    """Return the latest dead letter."""
    letters = (await client.dead_letters({"limit": 1}))["letters"]
    if not letters:
        raise ConnectorError("there is no dead letter")
    (letter,) = letters  # read once more below: a list has only the beginning of a body
    return await client.dead_letter(letter["topic"], letter["partition"], letter["offset"])


async def _letter(client: OperationsClient, topic: str | None, partition: int, offset: int) -> dict[str, Any]:
    """Return a dead letter; without a topic, from the default source's."""
    if topic is None:
        # The prefix is the connector's: the settings here may name another one.
        prefix = (await client.settings())["topics"]["prefix"]
        topic = Routes(STREAMS, prefix).dead_letter_topic(DEFAULT_SOURCE)
    return await client.dead_letter(topic, partition, offset)


async def _until_interrupted(
    client: OperationsClient, request: Mapping[str, Any], show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    # When it is cancelled, the client stops the run in the connector.
    task = asyncio.ensure_future(client.reprocess(request, show))
    on_interrupt(task.cancel)
    return await task


def _listing(report: Mapping[str, Any]) -> list[str]:
    lines = []
    if report["reasons"]:
        names = ("waiting", "replayed", "code", "stage", "source", "reason")
        lines += table(
            [[name.upper() for name in names], *([one[name] for name in names] for one in report["reasons"])]
        )
    elif not report["in_journal"]:
        lines.append("no dead letters")
    if report["in_journal"]:
        lines.append(f"{report['in_journal']:,} more in the journal; they are listed once they are published")
    if report["letters"]:
        head = ("PLACE", "RECEIVED", "STATE", "CODE", "INSTANCE", "REASON")
        lines += ["", *table([head, *map(_row, report["letters"])])]
    return lines


def _row(letter: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        f"{letter['partition']}/{letter['offset']}",
        local_time(letter["received_at"]),
        "replayed" if letter["replayed"] else _waiting(letter["attempt"]),
        letter["code"],
        letter["instance_id"],
        letter["reason"],
    )


def _waiting(attempt: int) -> str:
    """Return the state of a dead letter that was not replayed yet."""
    # Each replay that fails leaves a new dead letter, with the next attempt's number.
    return "waiting" if attempt == 1 else f"waiting, attempt {attempt}"


def _summary(report: Mapping[str, Any]) -> str:
    lines = [f"{report[name]:,} {label}" for name, label in _LABELS.items() if report[name]]
    lines += [f"  {counted(count, 'time')}: {one_line(why)}" for why, count in report["again"].items()]
    if report["state"] != "ended":
        why = f": {report['message']}" if report["message"] else ""
        lines.append(f"{report['state']}{why}; {report['total'] - report['done']:,} left: run it again to continue")
    if report["in_journal"]:
        lines.append(f"{report['in_journal']:,} more in the journal: run it again once they are published")
    if not lines:
        return "no dead letter is waiting"
    head = "dry run; a replay would give:" if report["dry_run"] else f"{counted(report['total'], _LETTER)}:"
    return "\n".join([head, *lines])


def _show(shown: ProgressDisplay, report: Mapping[str, Any]) -> None:
    shown.show(f"{report['done']} of {report['total']} replayed", report["done"], report["total"] or None)
