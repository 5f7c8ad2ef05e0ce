"""The command line: one module a command, which parses options and prints; `connector.admin` does the work.

- `connector.cli.commands`: the commands by name. They are `connector.cli.demo`, `connector.cli.init`,
  `connector.cli.doctor`, `connector.cli.config`, `connector.cli.serve`, `connector.cli.status`,
  `connector.cli.metrics`, `connector.cli.tail`, `connector.cli.instance`, `connector.cli.dead_letters`,
  `connector.cli.journal`, `connector.cli.topics`, `connector.cli.schemas`, `connector.cli.simulate` and
  `connector.cli.notify`.
- Shared by the commands: `connector.cli.options`, `connector.cli.output`, `connector.cli.columns`,
  `connector.cli.history`, `connector.cli.progress` and `connector.cli.exits`.
"""

import contextlib
import os
import sys
from typing import Annotated, Final

import typer

from connector.cli import output
from connector.cli.commands import Commands
from connector.cli.exits import Exit, exit_of
from connector.errors import ConnectorError

_EPILOG: Final = """
\b
Examples:
  weda-connector demo                              try it: everything in memory
  weda-connector init                              write connector.yaml for the brokers it finds
  weda-connector doctor --config connector.yaml    check it
  weda-connector serve --config connector.yaml     run it

Settings are WEDA_ variables, or the YAML file that --config or WEDA_CONFIG names; `weda-connector config` shows them
all. `weda-connector COMMAND --help` has options, examples and exit codes of a command. `weda-connector
--install-completion` sets up completion for bash, zsh, fish or PowerShell.

\b
Exit codes:
  0  done
  1  a check failed, something differs, was refused or was not found
  2  bad usage or configuration
  3  Kafka, the registry or the connector does not answer
"""

app = typer.Typer(
    name="weda-connector",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Receives WeDa workflow messages and publishes them to Kafka as Avro records, in order per instance.",
    epilog=_EPILOG,
)


def _show_version(is_given: bool) -> None:  # noqa: FBT001 -- Typer passes it by position
    if is_given:
        from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

        print(version("weda-kafka-connector"))
        raise typer.Exit


@app.callback()
def _global_options(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; an error becomes one line on standard error and an exit code."""
    # Before anything opens a file: it would get the descriptor of a closed stream.
    _open_standard_streams()
    output.prepare()
    try:
        _run()
    except ConnectorError as error:
        _end(error)
    except output.StdoutClosed:
        raise SystemExit(Exit.DONE) from None


def _run() -> None:
    try:
        app()
    finally:
        sys.stdout.flush()  # a write error at exit would be reported in Python's own words


def _end(error: ConnectorError) -> None:
    with contextlib.suppress(OSError):  # if standard error is closed, the exit code still says it
        print(f"weda-connector: {error.message}", file=sys.stderr)
    raise SystemExit(exit_of(error))


def _open_standard_streams() -> None:
    """Open /dev/null for closed standard streams.

    Otherwise the first files that the process opens get descriptors 0 to 2, and a C library that writes to standard
    error, such as librdkafka, writes into one of them.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open returns the lowest free descriptor: `number`
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the process ends
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
