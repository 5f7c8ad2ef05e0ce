"""``journal``: show and export the backlog, publish the journal of a lost connector, migrate a shared journal."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from connector.admin import backlog
from connector.admin.backlog import DrainEnd, DrainResult
from connector.admin.client import status_if_running
from connector.app.signals import on_interrupt
from connector.cli.commands import Command, group
from connector.cli.exits import Exit, failed_if
from connector.cli.options import (
    OPERATIONS_TOKEN,
    OPERATIONS_URL,
    SERVERS,
    File,
    Json,
    OperationsToken,
    OperationsUrl,
    Servers,
    servers_of,
)
from connector.cli.output import print_json
from connector.cli.progress import ProgressDisplay
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable, missing_extra
from connector.settings import Settings
from connector.telemetry import logs
from connector.text import counted, duration, size

_PATH: Final = "journal.path"
_WATCH_SECONDS: Final = 2.0
_CLEAR_SCREEN: Final = "\x1b[H\x1b[2J"
_MESSAGE: Final = "message"

journal = group("Show, export or publish the messages that are not in Kafka yet.")

PathOption = Annotated[
    Path | None, typer.Option("--journal", help="File of the journal; WEDA_JOURNAL__PATH if not given.")
]


@journal.command("status", cls=Command)
def status(
    *,
    path: PathOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every 2 seconds, until Ctrl-C.")] = False,
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Show how many messages wait and how long they will take; nothing is changed.

    A running connector is asked; if none answers, or with --journal, the file itself is read.

    \b
    Examples:
      weda-connector journal status
      weda-connector journal status --watch
      weda-connector journal status --operations-url http://10.0.0.7:9464 --json
      weda-connector journal status --journal rescued/journal.db

    Exit codes: 0 shown, 1 the journal is damaged, 2 bad usage or configuration, no journal, 3 the connector does not
    answer, or another process holds the journal.
    """
    flags = {_PATH: path, OPERATIONS_URL: operations_url, OPERATIONS_TOKEN: token}
    settings = Settings.load(file=file, flags=flags)
    # Whether the user named one of them: both settings always have a value.
    where = {"has_path": path is not None, "has_url": operations_url is not None}
    if watch:
        _watch(settings, **where, as_json=as_json)
        return
    status = _status(settings, **where)
    _print_status(status, as_json=as_json)
    raise typer.Exit(failed_if(status.get("damaged")))


@journal.command("export", cls=Command)
def export(
    *,
    path: PathOption = None,
    to: Annotated[Path, typer.Option("--to", help="File to write: JSON Lines, one message a line.")],
    file: File = None,
    as_json: Json = False,
) -> None:
    """Write every waiting message to a file, in the order of acceptance; the journal is not changed.

    A line has: sequence, instanceId, source, receivedAt, receivedAtMs, contentType, body (Base64 where bodyIsBase64),
    openStreams, deadLetter (null, or why it is one). The file is readable by its owner only. It is written as FILE.part
    and renamed at the end; an interrupted export is continued.

    \b
    Examples:
      weda-connector journal export --to waiting.jsonl
      weda-connector journal export --journal rescued/journal.db --to waiting.jsonl

    Exit codes: 0 written, 1 the journal is damaged, 2 bad usage or configuration, no journal, the file exists,
    3 another process holds the journal.
    """
    settings = _of_file(Settings.load(file=file, flags={_PATH: path}), has_path=path is not None)
    with ProgressDisplay() as bar:
        count = backlog.export(settings.journal.path, to, on_progress=lambda state: _show(bar, state, "written"))
    if as_json:
        print_json({"exported": count, "to": str(to)})
    else:
        print(f"{counted(count, _MESSAGE)} written to {to}")


@journal.command("drain", cls=Command)
def drain(
    *,
    path: PathOption = None,
    file: File = None,
    bootstrap_servers: Servers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check journal, brokers and topics; publish nothing.")
    ] = False,
    give_up_seconds: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Give up when no message was published for this long.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Publish the backlog of a journal whose connector is gone, in order, and remove it from the journal.

    Ctrl-C and SIGTERM stop it cleanly. It can always be run again: what is left is still in the journal. With --json
    the last line is {"published":…,"left":…,"seconds":…}.

    \b
    Examples:
      weda-connector journal drain --journal rescued/journal.db --bootstrap-servers kafka:9092 --dry-run
      weda-connector journal drain --journal rescued/journal.db --bootstrap-servers kafka:9092
      weda-connector journal drain --config connector.yaml --json

    Exit codes: 0 the journal is empty, 1 stopped before that, or a topic is missing, 2 bad usage or configuration, no
    journal, 3 Kafka is not reachable or takes nothing, or another process holds the journal.
    """
    settings = Settings.load(file=file, flags={_PATH: path, SERVERS: bootstrap_servers})
    settings = _of_file(settings, has_path=path is not None)
    servers = servers_of(settings, embedded="a backlog is published to real brokers; name them")
    if dry_run:
        _dry_run(settings, servers, as_json=as_json)
        return
    with ProgressDisplay() as bar, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # After the bar has begun: it redirects standard error, and lines of the log then appear above it.
        logs.configure(settings.log.level, settings.log.format)
        drained = runner.run(_until_interrupted(settings, servers, give_up_seconds, bar))
    _print_drained(drained, give_up_seconds, as_json=as_json)
    raise typer.Exit(_exit_code(drained))


@journal.command("migrate", cls=Command)
def migrate(*, file: File = None, as_json: Json = False) -> None:
    """Create the tables of a shared journal in the database at WEDA_JOURNAL__URL, or update them to this version.

    The role in the address has to own the tables, or be allowed to create them; the one that `serve` uses needs less:
    see docs/scaling.md. Existing rows are kept. Run it before the replicas of a new version start; those of the
    version before may be running. No other setting matters: those of `serve` need not be complete here.

    \b
    Examples:
      WEDA_JOURNAL__URL_FILE=/run/secrets/owner-url weda-connector journal migrate

    Exit codes: 0 the schema is up to date, 2 bad usage or configuration, 3 the database is not reachable, or refuses.
    """
    # Only this setting: where a migration runs, the settings of `serve` may be incomplete.
    url = Settings.load(file=file, flags={}, only=("journal.url",)).journal.url
    if url is None:
        raise ConfigurationError("WEDA_JOURNAL__URL is not set: a journal in a file of its own needs no migration")
    try:
        from connector.replicas.migrate import migrate as apply_migrations  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise missing_extra("WEDA_JOURNAL__URL: the client of PostgreSQL", "postgresql") from error
    names = apply_migrations(url.get_secret_value())
    if as_json:
        print_json({"applied": names})
    else:
        print(f"applied: {', '.join(names)}" if names else "nothing to apply")


# --- status ---


def _status(settings: Settings, *, has_path: bool, has_url: bool) -> dict[str, Any]:
    """Return the connector's own view, or the file's if it was named or no connector answers at the default address."""
    url = settings.operations.url
    if has_url or not has_path:
        status = asyncio.run(status_if_running(settings.operations))
        if status is not None:
            return {"connector": url, **status}
        if has_url and not has_path:
            raise OutsideUnreachable(f"no connector answers at {url}: is its operations listener there?")
    return backlog.status_of_file(_of_file(settings, has_path=has_path).journal.path)


def _of_file(settings: Settings, *, has_path: bool) -> Settings:
    """Return the settings; rejects them if the journal is not in a file."""
    if settings.journal.url is not None and not has_path:
        raise ConfigurationError(
            "WEDA_JOURNAL__URL is set: what waits there is published by any replica that runs; "
            "give --journal to work on a file"
        )
    return settings


def _watch(settings: Settings, *, has_path: bool, has_url: bool, as_json: bool) -> None:
    """Show the status every two seconds; an error is printed and the next attempt may succeed."""
    with suppress(KeyboardInterrupt):
        while True:
            try:
                status = _status(settings, has_path=has_path, has_url=has_url)
            except ConfigurationError:
                raise  # the next attempt would fail alike
            except ConnectorError as error:
                print(f"weda-connector: {error.message}", file=sys.stderr)
            else:
                if sys.stdout.isatty() and not as_json:
                    print(_CLEAR_SCREEN, end="")
                _print_status(status, as_json=as_json)
            time.sleep(_WATCH_SECONDS)


def _print_status(status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    rows = list(_rows(status))
    if not sys.stdout.isatty():
        print("\n".join(f"{name}: {text}" for name, text in rows), flush=True)
        return
    table = Table(show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a status; keys that a connector of another version lacks are left out."""
    for name in ("connector", "journal", "kafka"):
        if name in status:
            yield name, str(status[name])
    if status.get("damaged"):
        # A damaged file has no counts that could be trusted.
        yield "damaged", f"{status['damaged']}; `weda-connector journal drain` saves what can be read of it"
        return
    yield "messages", str(status["journal_messages"])
    for kind in ("source", "stream"):
        counts = status.get(f"journal_messages_by_{kind}")
        if counts:
            yield f"by {kind}", ", ".join(f"{name} {count}" for name, count in counts.items())
    if "lanes" in status:
        yield "instances", str(status["lanes"])
    yield from _sizes(status)
    yield "time to empty", _catch_up(status)
    for source, account in status.get("accounts", {}).items():
        yield f"ledger of {source}", ", ".join(f"{name} {count}" for name, count in account.items())
    for about, problem in status.get("problems", {}).items():
        yield f"problem: {about}", problem


def _sizes(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if status.get("journal_bytes") is not None:
        limit = f" of {size(status['journal_limit_bytes'])}" if "journal_limit_bytes" in status else ""
        yield "size", f"{size(status['journal_bytes'])}{limit}"
    if status["journal_messages"] and "oldest_waiting_seconds" in status:
        yield "oldest", f"{duration(status['oldest_waiting_seconds'] * 1000)} ago"


def _catch_up(status: dict[str, Any]) -> str:
    if not status["journal_messages"]:
        return "nothing waits"
    seconds = status.get("catch_up_seconds")
    if seconds is not None:
        return f"{duration(seconds * 1000)} at {status.get('publish_rate', 0):.1f} messages a second"
    return "unknown: nothing leaves it now" if "connector" in status else "unknown: no connector publishes it"


# --- drain ---


async def _until_interrupted(
    settings: Settings, servers: str, give_up_seconds: float, bar: ProgressDisplay
) -> DrainResult:
    stop = asyncio.Event()
    on_interrupt(stop.set)
    return await backlog.drain(
        settings,
        servers,
        give_up_seconds=give_up_seconds,
        stop=stop,
        on_progress=lambda state: _show(bar, state, "published"),
    )


def _dry_run(settings: Settings, servers: str, *, as_json: bool) -> None:
    waiting = backlog.dry_run(settings, servers)
    if as_json:
        print_json({"published": 0, "left": waiting.messages, "seconds": 0.0, "dry_run": True})
        return
    topics = ", ".join(sorted(topic for _, topic in waiting.topics))
    print(
        f"{counted(waiting.messages, _MESSAGE)} would be published{f' to {topics}' if topics else ''}; nothing was done"
    )


def _print_drained(drained: DrainResult, give_up_seconds: float, *, as_json: bool) -> None:
    if drained.end is DrainEnd.STUCK:
        print(
            f"weda-connector: nothing has left the journal for {give_up_seconds:g} s; {drained.left} are left: "
            "fix the problem shown in the log, then run it again",
            file=sys.stderr,
        )
    counts = {"published": drained.published, "left": drained.left, "seconds": round(drained.seconds, 3)}
    if as_json:
        print_json({**counts, "dead_lettered": drained.dead_lettered})
        return
    letters = (
        f" ({drained.dead_lettered} of them as dead letters, which Kafka rejected)" if drained.dead_lettered else ""
    )
    print(f"{drained.published} published{letters}, {drained.left} left, {drained.seconds:.1f} s")


def _exit_code(drained: DrainResult) -> Exit:
    if drained.end is DrainEnd.EMPTY:
        return Exit.DONE
    return Exit.UNREACHABLE if drained.end is DrainEnd.STUCK else Exit.FAILED


def _show(bar: ProgressDisplay, progress: backlog.Progress, done: str) -> None:
    total = progress.done + progress.left
    seconds_left = progress.seconds_left
    estimate = "" if seconds_left is None else f", about {duration(seconds_left * 1000)} left"
    text = f"{progress.done} of {total} {done}, {progress.rate:.0f} a second{estimate}"
    bar.show(text, progress.done, total)
