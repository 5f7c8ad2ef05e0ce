"""The commands by name; a command's module is imported only when it is called, so that help and completion are fast."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final, cast

import typer
from typer.core import TyperCommand, TyperGroup

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Run": {
        "serve": "Run the connector.",
        "demo": "Run a connector, a simulated WeDa and a consumer together, in memory.",
        "simulate": "Send simulated workflow messages to a connector.",
    },
    "Watch": {
        "status": "Show a running connector on one page.",
        "tail": "Print records as they come.",
        "instance": "Show the history of an instance, or where a message is.",
        "metrics": "Print the metrics of a running connector.",
        "notify": "Tell people on other platforms, by rules.",
    },
    "Set up and check": {
        "init": "Write a configuration file.",
        "config": "Show the effective settings and where they come from.",
        "doctor": "Check settings, brokers, topics, registry, disk and clock.",
        "topics": "List and describe the topics; compare them with the settings, create or change them.",
        "schemas": "List, show, check and register the schemas of the records.",
    },
    "Backlog and failures": {
        "journal": "Show, export or publish the messages that are not in Kafka yet.",
        "dead-letters": "List, show and replay the messages that could not become a record.",
    },
}
"""Section of the help → command → its summary; the module of a command has its name."""

SUMMARIES: Final[Mapping[str, str]] = {name: line for section in SECTIONS.values() for name, line in section.items()}

_MAX_SUMMARY_CHARS: Final = 1_000  # Click cuts at 45 by default
_PLAIN_TYPES: Final = (
    (re.compile(r"<(list\[)?int( range)?\]?>"), "N"),
    (re.compile(r"<(list\[)?float( range)?\]?>"), "NUMBER"),
    (re.compile(r"<(list\[)?(str|text)\]?>"), "TEXT"),
    (re.compile(r"<(path|file|directory)>"), "FILE"),
    (re.compile(r"<([A-Z]+)>"), r"\1"),
)
_PLAIN_RANGES: Final = (
    (re.compile(r"([\d.]+)<=x<=([\d.]+)"), r"\1 to \2"),
    (re.compile(r"x>=([\d.]+)"), r"at least \1"),
    (re.compile(r"x<=([\d.]+)"), r"at most \1"),
)


class Command(TyperCommand):
    """A command whose help describes values in words instead of Python types."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options in a section each."""
        records: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                # The name of an argument says what it is; the type that Typer puts behind it is dropped.
                is_argument = parameter.param_type_name == "argument"
                name = record[0].partition(" <")[0] if is_argument else _replaced(record[0], _PLAIN_TYPES)
                records["Arguments" if is_argument else "Options"].append((name, _replaced(record[1], _PLAIN_RANGES)))
        for title, rows in records.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """A group of commands whose help shows the whole first sentence of each."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Write the commands with their first sentences."""
        rows = [(name, command.get_short_help_str(_MAX_SUMMARY_CHARS)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class _Modules(Mapping[str, Any]):
    """Command name → command; a look-up imports the command's module."""

    def __getitem__(self, name: str) -> Any:
        if name not in SUMMARIES:
            raise KeyError(name)
        attribute = name.replace("-", "_")
        command = getattr(import_module(f"connector.cli.{attribute}"), attribute)
        if isinstance(command, typer.Typer):
            return typer.main.get_command(command)
        # An app of a single function becomes that command itself, without a subcommand.
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, cls=Command)(command)
        return typer.main.get_command(app)

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


class Commands(TyperGroup):
    """All commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("dict[str, Any]", _Modules())

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's signature
        """Return the names in the order of the help."""
        return list(SUMMARIES)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Write the commands in their sections."""
        for title, lines in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(lines.items()), col_max=max(map(len, SUMMARIES)))

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete the name of a command, from the table of summaries."""
        # With the real commands, each press of the tab key would import all of their modules.
        self.commands = {name: TyperCommand(name, help=line) for name, line in SUMMARIES.items()}
        return super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: Any) -> Any:
        """Call a command, with logs on standard error, so that standard output holds nothing but the result."""
        from connector.telemetry import logs  # noqa: PLC0415 - the root's help works without it

        logs.configure("warning", "console")
        return super().invoke(ctx)


def group(text: str) -> typer.Typer:
    """Create a group of commands with a help text."""
    return typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=text)


def _replaced(text: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in patterns:
        text = pattern.sub(replacement, text)
    return text
