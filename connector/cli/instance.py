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
from connector.cli.progress import ProgressDisplay
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
    with ProgressDisplay(stays=False) as progress:
        report = search(
            settings,
            text,
            Bounds(since, all_partitions, timeout),
            lambda read, total: progress.show(f"{read:,} of {total:,} records read", read, total),
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
    # "It never came" may be said only after everything was searched.
    return Exit.FAILED if report.is_whole else Exit.UNREACHABLE


def _lines(report: SearchReport, events: Sequence[ConsumerRecord]) -> Iterator[str]:
    yield f"{one_line(report.text)}: {report.verdict}"
    if report.request is not None:
        request = report.request
        parts = (one_line(request.request_id), local_time(request.received_at), request.source, _answer(request.code))
        yield f"request {'  '.join(parts)}"
    # A history is drawn only of a single instance: a title or a msgId may match several.
    is_history = len(events) > 1 and len({record.key for record in events}) == 1
    if is_history:
        yield from history.lines(events)
    for match in report.found:
        if not (is_history and match.state == "published"):  # the history has shown it
            yield from _match_lines(match)
    for coverage in report.searched:
        yield f"searched: {_coverage(coverage)}"


def _match_lines(match: Match) -> Iterator[str]:
    parts = (match.instance_id, match.message_id, match.what, match.title)
    yield "  ".join(
        (local_time(match.received_at), match.state, match.source, _answer(match.code), *map(one_line, parts))
    )
    for place in match.places:
        yield f"{_INDENT}{place.topic} {place.partition}/{place.offset}"
    if match.reason:
        yield f"{_INDENT}attempt {match.attempt}, {one_line(match.stage)}: {one_line(match.reason)}"
    if match.fix:
        yield f"{_INDENT}do: {match.fix}"


def _answer(code: int) -> str:
    # The first three digits of a code are the HTTP status.
    return "answered 200" if code == 0 else f"answered {code // 100} (code {code})"


def _coverage(coverage: Coverage) -> str:
    parts = [coverage.place]
    if coverage.partitions is not None:
        which = (
            f"partition {coverage.partitions[0]}"
            if len(coverage.partitions) == 1
            else counted(len(coverage.partitions), "partition")
        )
        parts.append(f"{which} of {coverage.of_partitions}")
    if coverage.is_whole or coverage.records:
        parts.append(
            counted(coverage.records, "record")
            + ("" if coverage.oldest is None else f" since {local_time(coverage.oldest)}")
        )
    if coverage.note:
        parts.append(coverage.note if coverage.is_whole else f"INCOMPLETE: {coverage.note}")
    return ", ".join(parts)
