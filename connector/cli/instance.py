"""``instance``: the history of an instance, or where a message is."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

import typer

from connector.admin.search import Bounds, search
from connector.cli import history
from connector.cli.columns import local_time
from connector.cli.exits import Exit
from connector.cli.options import (
    OPERATIONS_TOKEN,
    OPERATIONS_URL,
    SERVERS,
    File,
    Json,
    OperationsToken,
    OperationsUrl,
    Servers,
    Since,
)
from connector.cli.output import print_json
from connector.cli.progress import Progress
from connector.kafka.reader import ConsumerRecord
from connector.lookup.model import Coverage, Match, SearchReport
from connector.settings import Settings
from connector.text import counted, one_line

_INDENT: Final = "    "


def instance(
    *,
    text: Annotated[
        str, typer.Argument(metavar="ID", help="An instanceId, a msgId, a part of a title, or the id of a request.")
    ],
    since: Since = None,
    all_partitions: Annotated[
        bool,
        typer.Option("--all-partitions", help="Read every partition for an instanceId too: partitions were added."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Give up after this long, with what was found.")
    ] = 120.0,
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
    bootstrap_servers: Servers = None,
    as_json: Json = False,
) -> None:
    """Show the history of an instance, or where a message is: published, in the journal, a dead letter, or nowhere.

    Of an instance its events are drawn: a column per node, a row per event. The records of an instanceId are in one
    partition of each topic, which is read from its beginning, or from --since; for a msgId or a part of a title all
    partitions are read, and for the id of a request: records and dead letters carry its X-Request-Id. A running
    connector is asked for its journal and for dead letters, and knows its last 20,000 requests by the id of each, also
    repeats and those without an X-Request-Id. If none answers, journal and dead letters are read here.

    \b
    Examples:
      weda-connector instance 1f0c7a
      weda-connector instance "Zhang's leave" --since 2d
      weda-connector instance 9b2f41aa-1c --json

    Exit codes: 0 found, 1 it never came, 2 bad usage or configuration, 3 not found, and not everything was searched.
    """
    flags = {
        SERVERS: bootstrap_servers,
        OPERATIONS_URL: operations_url,
        OPERATIONS_TOKEN: token,
    }
    settings = Settings.load(file=file, flags=flags)
    events: list[ConsumerRecord] = []
    with Progress(stays=False) as shown:
        report = search(
            settings,
            text,
            Bounds(since, all_partitions, timeout),
            lambda read, total: shown.show(f"{read:,} of {total:,} records read", read, total),
            events.append,
        )
    if as_json:
        print_json(report.as_dict())
    else:
        print("\n".join(_lines(report, events)))
    raise typer.Exit(_exit_code(report))


def _exit_code(report: SearchReport) -> Exit:
    if report.found:
        return Exit.DONE
    return Exit.FAILED if report.is_whole else Exit.UNREACHABLE


def _lines(report: SearchReport, events: Sequence[ConsumerRecord]) -> Iterator[str]:
    yield f"{one_line(report.text)}: {report.verdict}"
    if report.request is not None:
        asked = report.request
        parts = (one_line(asked.request_id), local_time(asked.received_at), asked.source, _answer(asked.code))
        yield f"request {'  '.join(parts)}"
    is_history = len(events) > 1 and len({record.key for record in events}) == 1
    if is_history:
        yield from history.lines(events)
    for found in report.found:
        if not (is_history and found.state == "published"):
            yield from _found(found)
    for searched in report.searched:
        yield f"searched: {_searched(searched)}"


def _found(found: Match) -> Iterator[str]:
    parts = (found.instance_id, found.message_id, found.what, found.title)
    yield "  ".join(
        (local_time(found.received_at), found.state, found.source, _answer(found.code), *map(one_line, parts))
    )
    for place in found.places:
        yield f"{_INDENT}{place.topic} {place.partition}/{place.offset}"
    if found.reason:
        yield f"{_INDENT}attempt {found.attempt}, {one_line(found.stage)}: {one_line(found.reason)}"
    if found.fix:
        yield f"{_INDENT}do: {found.fix}"


def _answer(code: int) -> str:
    return "answered 200" if code == 0 else f"answered {code // 100} (code {code})"


def _searched(searched: Coverage) -> str:
    parts = [searched.place]
    if searched.partitions is not None:
        which = (
            f"partition {searched.partitions[0]}"
            if len(searched.partitions) == 1
            else counted(len(searched.partitions), "partition")
        )
        parts.append(f"{which} of {searched.of_partitions}")
    if searched.is_whole or searched.records:
        parts.append(
            counted(searched.records, "record")
            + ("" if searched.oldest is None else f" since {local_time(searched.oldest)}")
        )
    if searched.note:
        parts.append(searched.note if searched.is_whole else f"INCOMPLETE: {searched.note}")
    return ", ".join(parts)
