"""``topics``: the topics that should exist against those that do."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from connector.cli.output import print_json
from connector.errors import ConfigurationError
from connector.kafka.topics import Difference, TopicAdmin, TopicSpec, plan, wanted
from connector.settings import EMBEDDED, Settings

EXIT_DIFFERENT: Final = 1
SECONDS: Final = 10.0
_SERVERS: Final = "kafka.bootstrap_servers"
_COLUMNS: Final = ("topic", "what", "wanted", "actual", "action")

topics = typer.Typer(no_args_is_help=True, help="Topics that should exist against those that do; create or mend.")

File = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Servers = Annotated[str | None, typer.Option("--bootstrap-servers", help="Brokers as host:port, comma-separated.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@topics.command("plan")
def plan_command(*, file: File = None, bootstrap_servers: Servers = None, as_json: Json = False) -> None:
    """Show what differs; nothing is changed.

    \b
    Examples:
      weda-connector topics plan
      weda-connector topics plan --config connector.yaml --json

    Exit codes: 0 nothing differs, 1 something does, 2 bad usage or configuration, 3 Kafka is not reachable.
    """
    settings = Settings.load(file=file, flags={_SERVERS: bootstrap_servers})
    differences = _compared(_admin(settings), wanted(settings))
    if as_json:
        _print_json(differences=differences)
    else:
        _print_table(differences, none="every topic is as it should be")
    raise typer.Exit(EXIT_DIFFERENT if differences else 0)


@topics.command("apply")
def apply_command(
    *,
    file: File = None,
    bootstrap_servers: Servers = None,
    as_json: Json = False,
    allow_reordering: Annotated[
        bool,
        typer.Option("--allow-reordering", help="Add partitions too: the order of an instance does not cross that."),
    ] = False,
) -> None:
    """Create the topics that are missing and mend those that differ.

    \b
    Examples:
      weda-connector topics apply
      weda-connector topics apply --allow-reordering   # also adds partitions: order does not cross that

    Exit codes: 0 every topic is as it should be, 1 a difference stays, 2 bad usage or configuration, 3 Kafka is not
    reachable.
    """
    settings = Settings.load(file=file, flags={_SERVERS: bootstrap_servers})
    admin, specs = _admin(settings), wanted(settings)
    differences = _compared(admin, specs)
    done = [each for each in differences if _is_allowed(each, allow_reordering=allow_reordering)]
    left = [each for each in differences if each not in done]
    _apply(admin, specs, done)
    if as_json:
        _print_json(done=done, left=left)
    else:
        _print_table(done, none="nothing to do" if not left else "nothing done")
        _print_left(left)
    raise typer.Exit(EXIT_DIFFERENT if left else 0)


def servers_of(settings: Settings, *, embedded: str) -> str:
    """The brokers' addresses.

    Args:
        settings: The effective settings.
        embedded: What to say about the embedded broker, which has no address of its own to reach from here.

    Raises:
        ConfigurationError: None are set, or they are the embedded broker.
    """
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        raise ConfigurationError(
            "WEDA_KAFKA__BOOTSTRAP_SERVERS is not set: give the brokers as host:port,host:port, or --bootstrap-servers"
        )
    if servers == EMBEDDED:
        raise ConfigurationError(f"WEDA_KAFKA__BOOTSTRAP_SERVERS is {EMBEDDED}: {embedded}")
    return servers


def _admin(settings: Settings) -> TopicAdmin:
    servers = servers_of(settings, embedded="topics of the embedded broker make themselves; name real brokers")
    return TopicAdmin(servers, settings.kafka.properties)


def _compared(admin: TopicAdmin, specs: Sequence[TopicSpec]) -> tuple[Difference, ...]:
    return plan(specs, admin.describe((spec.name for spec in specs), SECONDS))


def _is_allowed(difference: Difference, *, allow_reordering: bool) -> bool:
    if difference.action == "add-partitions":
        return allow_reordering
    return difference.action != "forbidden"


def _apply(admin: TopicAdmin, specs: Sequence[TopicSpec], differences: Sequence[Difference]) -> None:
    missing = {each.topic for each in differences if each.action == "create"}
    admin.create((spec for spec in specs if spec.name in missing), SECONDS)
    for each in differences:
        if each.action == "alter":
            admin.alter(each.topic, SECONDS, config={each.what: each.wanted})
        elif each.action == "add-partitions":
            admin.alter(each.topic, SECONDS, partitions=int(each.wanted))


def _print_json(**groups: Sequence[Difference]) -> None:
    print_json({name: [asdict(each) for each in group] for name, group in groups.items()})


def _print_table(differences: Sequence[Difference], *, none: str) -> None:
    if not differences:
        print(none)
    elif sys.stdout.isatty():
        _print_rich(differences)
    else:
        _print_plain(differences)


def _print_rich(differences: Sequence[Difference]) -> None:
    table = Table(*_COLUMNS)
    for each in differences:
        table.add_row(*_row(each))
    Console().print(table)


def _print_plain(differences: Sequence[Difference]) -> None:
    for each in differences:
        print(f"{each.topic}: {each.what} is {each.actual}, wanted {each.wanted}: {each.action}")


def _row(difference: Difference) -> tuple[str, ...]:
    return tuple(str(getattr(difference, column)) for column in _COLUMNS)


def _print_left(differences: Sequence[Difference]) -> None:
    for each in differences:
        print(f"left as it is: {each.topic}: {each.what} is {each.actual}, wanted {each.wanted}: {_way_out(each)}")


def _way_out(difference: Difference) -> str:
    if difference.action == "add-partitions":
        return "--allow-reordering adds them; let consumers read to the end first"
    if difference.what == "partitions":
        return "Kafka removes no partitions; set WEDA_TOPICS__PARTITIONS to what there is"
    return "move the replicas with Kafka's own tools, or set WEDA_TOPICS__REPLICATION_FACTOR to what there is"
