"""``journal``: what waits on disk and how long it will take; read it out; publish what a lost connector has left."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from connector.admin import backlog
from connector.admin.backlog import Drained, End
from connector.admin.client import status_if_running
from connector.cli.output import print_json
from connector.cli.progress import Progress
from connector.cli.topics import File, Json, Servers, servers_of
from connector.errors import ConfigurationError, OutsideUnreachable
from connector.settings import Settings
from connector.telemetry import logs

EXIT_CHECK_FAILED: Final = 1
EXIT_UNREACHABLE: Final = 3
_PATH: Final = "journal.path"

journal = typer.Typer(no_args_is_help=True, help="What waits on disk; read it out; publish what a lost node has left.")

PathOption = Annotated[
    Path | None, typer.Option("--journal", help="File of the journal; WEDA_JOURNAL__PATH if not given.")
]


@journal.command("status")
def status(
    *,
    path: PathOption = None,
    operations_url: Annotated[
        str | None, typer.Option(help="Ask the connector at this address; WEDA_OPERATIONS__URL if not given.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="Token of the operations listener.")] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Show what waits on disk and how long it will take; nothing is changed.

    A running connector is asked; where none answers, or with --journal, the file itself is read.

    \b
    Examples:
      weda-connector journal status
      weda-connector journal status --operations-url http://10.0.0.7:9464 --json
      weda-connector journal status --journal rescued/journal.db

    Exit codes: 0 shown, 1 the journal is damaged, 2 bad usage or configuration, no journal, 3 the connector does not
    answer, or another process holds the journal.
    """
    flags = {_PATH: path, "operations.url": operations_url, "operations.token": token}
    status = _status(
        Settings.load(file=file, flags=flags), has_path=path is not None, has_url=operations_url is not None
    )
    if as_json:
        print_json(status)
    else:
        _print_status(status)
    raise typer.Exit(EXIT_CHECK_FAILED if status.get("damaged") else 0)


@journal.command("export")
def export(
    *,
    path: PathOption = None,
    to: Annotated[Path, typer.Option("--to", help="File to write: JSON Lines, one message a line.")],
    file: File = None,
    as_json: Json = False,
) -> None:
    """Write every message that waits to a file, in the order of acceptance; the journal stays as it is.

    A line has: sequence, instanceId, source, receivedAt, receivedAtMs, contentType, body (Base64 where bodyIsBase64),
    openStreams, deadLetter (null, or why it is one). The file is readable by its owner only. Until it is whole it is
    called FILE.part; run again, the command goes on where that ends.

    \b
    Examples:
      weda-connector journal export --to waiting.jsonl
      weda-connector journal export --journal rescued/journal.db --to waiting.jsonl

    Exit codes: 0 written, 1 the journal is damaged, 2 bad usage or configuration, no journal, the file exists,
    3 another process holds the journal.
    """
    settings = _of_file(Settings.load(file=file, flags={_PATH: path}), has_path=path is not None)
    with Progress() as shown:
        count = backlog.export(settings.journal.path, to, on_progress=lambda one: _show(shown, one, "written"))
    if as_json:
        print_json({"exported": count, "to": str(to)})
    else:
        print(f"{count} messages written to {to}")


@journal.command("drain")
def drain(
    *,
    path: PathOption = None,
    file: File = None,
    bootstrap_servers: Servers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at journal, brokers and topics; publish nothing.")
    ] = False,
    give_up_seconds: Annotated[
        float, typer.Option(min=1, help="End when nothing has left the journal for so many seconds.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Publish the backlog of a journal whose connector is gone, in order, and take it out of the journal.

    Ctrl-C and SIGTERM end it in good order. However it ended, it can be run again: what is left is still in the
    journal. With --json the last line is {"published":…,"left":…,"seconds":…}.

    \b
    Examples:
      weda-connector journal drain --journal rescued/journal.db --bootstrap-servers kafka:9092 --dry-run
      weda-connector journal drain --journal rescued/journal.db --bootstrap-servers kafka:9092
      weda-connector journal drain --config connector.yaml --json

    Exit codes: 0 the journal is empty, 1 stopped before that, or a topic is missing, 2 bad usage or configuration, no
    journal, 3 Kafka is not reachable or takes nothing, or another process holds the journal.
    """
    settings = Settings.load(file=file, flags={_PATH: path, "kafka.bootstrap_servers": bootstrap_servers})
    settings = _of_file(settings, has_path=path is not None)
    servers = servers_of(settings, embedded="a backlog is published to real brokers; name them")
    if dry_run:
        _dry_run(settings, servers, as_json=as_json)
        return
    with Progress() as shown, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        logs.configure(settings.log.level, settings.log.format)  # above the bar, where there is one
        drained = runner.run(_until_interrupted(settings, servers, give_up_seconds, shown))
    _print_drained(drained, give_up_seconds, as_json=as_json)
    raise typer.Exit(_exit_code(drained))


@journal.command("migrate")
def migrate(*, file: File = None, as_json: Json = False) -> None:
    """Make the tables of a shared journal in the database at WEDA_JOURNAL__URL, or bring them to this version.

    The role in the address has to own the tables, or be allowed to create them; the one that `serve` uses needs less:
    see docs/scaling.md. What is there stays. Run it before the replicas of a new version start; it may run while those
    of the version before are running. No other setting matters: those of `serve` need not be complete here.

    \b
    Examples:
      WEDA_JOURNAL__URL_FILE=/run/secrets/owner-url weda-connector journal migrate

    Exit codes: 0 the database fits, 2 bad usage or configuration, 3 the database is not reachable, or refuses.
    """
    url = Settings.load(file=file, flags={}, only=("journal.url",)).journal.url
    if url is None:
        raise ConfigurationError("WEDA_JOURNAL__URL is not set: a journal in a file of its own needs no migration")
    try:
        from connector.replicas.migrate import migrate as applied  # noqa: PLC0415 - its tools are installed on demand
    except ImportError as error:
        raise ConfigurationError(
            "WEDA_JOURNAL__URL: the client of PostgreSQL is not installed: add the extra postgresql "
            "(pip install '.[postgresql]' in the checkout)"
        ) from error
    names = applied(url.get_secret_value())
    if as_json:
        print_json({"applied": names})
    else:
        print(f"applied: {', '.join(names)}" if names else "nothing to apply")


# --- status ---


def _status(settings: Settings, *, has_path: bool, has_url: bool) -> dict[str, Any]:
    """The connector's own view unless a file was named; an address that was named has to answer."""
    url = settings.operations.url
    if has_url or not has_path:
        status = asyncio.run(status_if_running(settings.operations))
        if status is not None:
            return {"connector": url, **status}
        if has_url and not has_path:
            raise OutsideUnreachable(f"no connector answers at {url}: is its operations listener there?")
    return backlog.status_of_file(_of_file(settings, has_path=has_path).journal.path)


def _of_file(settings: Settings, *, has_path: bool) -> Settings:
    """The settings, unless they say that the journal is not in a file."""
    if settings.journal.url is not None and not has_path:
        raise ConfigurationError(
            "WEDA_JOURNAL__URL is set: what waits there is published by any replica that runs; "
            "give --journal to work on a file"
        )
    return settings


def _print_status(status: dict[str, Any]) -> None:
    rows = list(_rows(status))
    if not sys.stdout.isatty():
        print("\n".join(f"{name}: {text}" for name, text in rows))
        return
    table = Table(show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _rows(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known, in words; keys that a connector of another version does not tell are left out."""
    for name in ("connector", "journal", "kafka"):
        if name in status:
            yield name, str(status[name])
    if status.get("damaged"):
        yield "damaged", f"{status['damaged']}; `weda-connector journal drain` saves what can be read of it"
        return
    yield "messages", str(status["journal_messages"])
    for kind in ("source", "stream"):
        counts = status.get(f"journal_messages_by_{kind}")
        if counts:
            yield f"by {kind}", ", ".join(f"{name} {count}" for name, count in counts.items())
    if "lanes" in status:
        yield "lanes", str(status["lanes"])
    yield from _sizes(status)
    yield "time to empty", _catch_up(status)
    for source, account in status.get("accounts", {}).items():
        yield f"ledger of {source}", ", ".join(f"{name} {count}" for name, count in account.items())
    for about, problem in status.get("problems", {}).items():
        yield f"problem: {about}", problem


def _sizes(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if status.get("journal_bytes") is not None:
        limit = f" of {status['journal_limit_bytes']}" if "journal_limit_bytes" in status else ""
        yield "bytes", f"{status['journal_bytes']}{limit}"
    if status["journal_messages"] and "oldest_waiting_seconds" in status:
        yield "oldest", f"{status['oldest_waiting_seconds']:.0f} s ago"


def _catch_up(status: dict[str, Any]) -> str:
    if not status["journal_messages"]:
        return "nothing waits"
    seconds = status.get("catch_up_seconds")
    if seconds is not None:
        return f"{seconds:.0f} s at {status.get('publish_rate', 0):.1f} messages a second"
    return "unknown: nothing leaves it now" if "connector" in status else "unknown: no connector publishes it"


# --- drain ---


async def _until_interrupted(settings: Settings, servers: str, give_up_seconds: float, shown: Progress) -> Drained:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await backlog.drain(
        settings,
        servers,
        give_up_seconds=give_up_seconds,
        stop=stop,
        on_progress=lambda one: _show(shown, one, "published"),
    )


def _dry_run(settings: Settings, servers: str, *, as_json: bool) -> None:
    waiting = backlog.dry_run(settings, servers)
    if as_json:
        print_json({"published": 0, "left": waiting.messages, "seconds": 0.0, "dry_run": True})
        return
    topics = ", ".join(sorted(topic for _, topic in waiting.topics))
    print(f"{waiting.messages} messages would be published{f' to {topics}' if topics else ''}; nothing was done")


def _print_drained(drained: Drained, give_up_seconds: float, *, as_json: bool) -> None:
    if drained.end is End.STUCK:
        print(
            f"weda-connector: nothing has left the journal for {give_up_seconds:g} s; {drained.left} are left: "
            "mend what the log names, then run it again",
            file=sys.stderr,
        )
    counts = {"published": drained.published, "left": drained.left, "seconds": round(drained.seconds, 3)}
    if as_json:
        print_json({**counts, "dead_lettered": drained.buried})
        return
    letters = f" ({drained.buried} of them as dead letters, which Kafka refused)" if drained.buried else ""
    print(f"{drained.published} published{letters}, {drained.left} left, {drained.seconds:.1f} s")


def _exit_code(drained: Drained) -> int:
    if drained.end is End.EMPTY:
        return 0
    return EXIT_UNREACHABLE if drained.end is End.STUCK else EXIT_CHECK_FAILED


def _show(shown: Progress, progress: backlog.Progress, done: str) -> None:
    total = progress.done + progress.left
    left = progress.seconds_left
    rest = "" if left is None else f", about {left:.0f} s left"
    text = f"{progress.done} of {total} {done}, {progress.rate:.0f} a second{rest}"
    shown.show(text, progress.done, total)
