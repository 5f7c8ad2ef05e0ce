"""The command line: one file a command, each thin."""

import contextlib
import os
import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from connector.cli import output
from connector.cli.config import config
from connector.cli.dead_letters import dead_letters
from connector.cli.demo import demo
from connector.cli.doctor import doctor
from connector.cli.init import init
from connector.cli.journal import journal
from connector.cli.schemas import schemas
from connector.cli.serve import serve
from connector.cli.simulate import simulate
from connector.cli.tail import tail
from connector.cli.topics import topics
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.telemetry import logs

app = typer.Typer(
    name="weda-connector",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Receives WeDa workflow messages and publishes them to Kafka as Avro records, in order per instance.",
)
for command in (serve, demo, simulate, tail, init, doctor, config):
    app.command()(command)
app.add_typer(topics, name="topics")
app.add_typer(journal, name="journal")
app.add_typer(schemas, name="schemas")
app.add_typer(dead_letters, name="dead-letters")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 -- typer calls it so
    if wanted:
        print(installed_version("weda-kafka-connector"))
        raise typer.Exit


@app.callback()
def _of_every_command(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; an error is one line on standard error and the contract's exit code."""
    _open_standard_streams()
    output.prepare()
    logs.configure("warning", "console")  # on standard error: standard output holds what was asked for, nothing else
    try:
        _run()
    except ConfigurationError as error:
        _end(error, 2)
    except OutsideUnreachable as error:
        _end(error, 3)
    except ConnectorError as error:
        _end(error, 1)
    except output.ReaderGone:
        raise SystemExit(0) from None


def _run() -> None:
    try:
        app()
    finally:
        sys.stdout.flush()  # here what cannot be written is one line


def _end(error: ConnectorError, code: int) -> None:
    with contextlib.suppress(OSError):  # nobody can read why; the code still says what
        print(f"weda-connector: {error.message}", file=sys.stderr)
    raise SystemExit(code)


def _open_standard_streams() -> None:
    """Give a process that was started with closed outputs some: else its first files and sockets become them.

    What a library in C writes to standard error would go into the journal.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - the process's own
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
