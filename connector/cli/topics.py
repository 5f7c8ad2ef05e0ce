"""``topics``: list and describe the topics, compare them with the settings, create and change them."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from connector.cli.columns import table
from connector.cli.commands import Command, group
from connector.cli.exits import failed_if
from connector.cli.options import SERVERS, File, Json, Servers, servers_of
from connector.cli.output import print_json
from connector.errors import ConnectorError, OutsideUnreachable
from connector.kafka.topics import (
    Difference,
    TopicAdmin,
    TopicOffsets,
    TopicSpec,
    TopicState,
    as_dict,
    desired_topics,
    plan,
)
from connector.settings import Settings

TIMEOUT_SECONDS: Final = 10.0
_DIFFERENCE_COLUMNS: Final = ("topic", "what", "wanted", "actual", "action")
_SHOWN_CONFIG: Final = (
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "min.insync.replicas",
    "unclean.leader.election.enable",
    "max.message.bytes",
    "message.timestamp.type",
    "compression.type",
)
"""The values of a topic's configuration that `describe` shows, of about forty that Kafka has."""

topics = group("List and describe the topics; compare them with the settings, create or change them.")

Groups = Annotated[
    list[str] | None, typer.Option("--group", metavar="NAME", help="Show its lag: a consumer group; may be repeated.")
]


@topics.command("list", cls=Command)
def list_command(
    *, groups: Groups = None, file: File = None, bootstrap_servers: Servers = None, as_json: Json = False
) -> None:
    """List the topics of the settings as they are: records, partitions, replicas, and the lag of consumer groups.

    \b
    Examples:
      weda-connector topics list
      weda-connector topics list --group reports --group weda-clickhouse
      weda-connector topics list --json

    Exit codes: 0 every topic exists, 1 one is missing, 2 bad usage or configuration, 3 Kafka is not reachable.
    """
    settings = Settings.load(file=file, flags={SERVERS: bootstrap_servers})
    reports = list(_reports(_admin(settings), [spec.name for spec in desired_topics(settings)], groups or ()))
    if as_json:
        print_json({"topics": reports})
    else:
        heads = ("TOPIC", "STATE", "RECORDS", "PARTITIONS", "IN SYNC", *(f"LAG OF {name}" for name in groups or ()))
        print("\n".join(table([heads, *(_line(report, groups or ()) for report in reports)])))
    raise typer.Exit(failed_if(not all(report["exists"] for report in reports)))


@topics.command("describe", cls=Command)
def describe_command(
    *,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Its name, as listed.", show_default=False)],
    groups: Groups = None,
    file: File = None,
    bootstrap_servers: Servers = None,
    as_json: Json = False,
) -> None:
    """Describe one topic: its partitions with leader, replicas, offsets and the lag of consumer groups.

    Of its configuration what decides how safe records are and how long they stay; --json has all of it.

    \b
    Examples:
      weda-connector topics describe weda.workflow.events
      weda-connector topics describe weda.workflow.events --group reports --json

    Exit codes: 0 described, 1 there is no such topic, 2 bad usage or configuration, 3 Kafka is not reachable.
    """
    admin = _admin(Settings.load(file=file, flags={SERVERS: bootstrap_servers}))
    (report,) = _reports(admin, [topic], groups or (), with_details=True)
    if not report["exists"]:
        raise ConnectorError(f"there is no topic {topic}; `weda-connector topics list` lists those of the settings")
    if as_json:
        print_json(report)
        return
    for name in _SHOWN_CONFIG:
        if name in report["config"]:
            print(f"{name}: {report['config'][name]}")
    heads = ("PARTITION", "LEADER", "IN SYNC", "FIRST", "END", *(f"LAG OF {name}" for name in groups or ()))
    print(
        "\n"
        + "\n".join(table([heads, *(_partition_line(partition, groups or ()) for partition in report["by_partition"])]))
    )


@topics.command("plan", cls=Command)
def plan_command(*, file: File = None, bootstrap_servers: Servers = None, as_json: Json = False) -> None:
    """Show how the topics differ from the settings; nothing is changed.

    \b
    Examples:
      weda-connector topics plan
      weda-connector topics plan --config connector.yaml --json

    Exit codes: 0 nothing differs, 1 something does, 2 bad usage or configuration, 3 Kafka is not reachable.
    """
    settings = Settings.load(file=file, flags={SERVERS: bootstrap_servers})
    differences = _compared(_admin(settings), desired_topics(settings))
    if as_json:
        _print_json(differences=differences)
    else:
        _print_table(differences, none="every topic is as it should be")
    raise typer.Exit(failed_if(differences))


@topics.command("apply", cls=Command)
def apply_command(
    *,
    file: File = None,
    bootstrap_servers: Servers = None,
    as_json: Json = False,
    allow_reordering: Annotated[
        bool,
        typer.Option("--allow-reordering", help="Add partitions too, which breaks the order of existing instances."),
    ] = False,
) -> None:
    """Create missing topics and change those that differ.

    \b
    Examples:
      weda-connector topics apply
      weda-connector topics apply --allow-reordering   # adds partitions, which breaks the order of existing instances

    Exit codes: 0 every topic is as it should be, 1 a difference is left, 2 bad usage or configuration, 3 Kafka is not
    reachable.
    """
    settings = Settings.load(file=file, flags={SERVERS: bootstrap_servers})
    admin, specs = _admin(settings), desired_topics(settings)
    differences = _compared(admin, specs)
    done = [difference for difference in differences if _is_allowed(difference, allow_reordering=allow_reordering)]
    left = [difference for difference in differences if difference not in done]
    _apply(admin, specs, done)
    if as_json:
        _print_json(done=done, left=left)
    else:
        _print_table(done, none="nothing to do" if not left else "nothing done")
        _print_left(left)
    raise typer.Exit(failed_if(left))


def _admin(settings: Settings) -> TopicAdmin:
    servers = servers_of(settings, embedded="the embedded broker creates its topics automatically; name real brokers")
    return TopicAdmin(servers, settings.kafka.properties)


def _reports(
    admin: TopicAdmin, names: Sequence[str], groups: Collection[str], *, with_details: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield each topic as JSON values; ``with_details`` adds configuration and partitions."""
    silent = {broker.node_id for broker in admin.each_broker(TIMEOUT_SECONDS) if not broker.answers}
    states = admin.describe(names, TIMEOUT_SECONDS)
    topic_offsets = _topic_offsets(admin, states)
    committed = {name: admin.committed(name, TIMEOUT_SECONDS) for name in groups}
    for name in names:
        report, state, own = as_dict(name, states.get(name), silent), states.get(name), topic_offsets.get(name)
        if state is not None:
            report["state"] = state.condition(silent)
            report["records"] = own and own.records
            report["lag"] = {group: own and own.lag(name, offsets) for group, offsets in committed.items()}
        if state is not None and with_details:
            report["config"] = dict(sorted(state.config.items()))
            report["by_partition"] = [_partition(number, state, own, committed) for number in range(state.partitions)]
        yield report


def _topic_offsets(admin: TopicAdmin, states: Mapping[str, TopicState]) -> Mapping[str, TopicOffsets]:
    """Read the offsets of the topics; empty if that fails, such as while a partition has no leader."""
    try:
        return admin.offsets({name: state.partitions for name, state in states.items()}, TIMEOUT_SECONDS)
    except OutsideUnreachable:
        return {}


def _partition(
    number: int, state: TopicState, own: TopicOffsets | None, committed: Mapping[str, Mapping[tuple[str, int], int]]
) -> dict[str, Any]:
    return {
        "partition": number,
        "leader": state.leaders[number],
        "in_sync": sorted(state.in_sync[number]),
        "first": own and own.beginnings[number],
        "end": own and own.ends[number],
        "committed": {group: offsets.get((state.name, number)) for group, offsets in committed.items()},
        "lag": {group: own and own.lags(state.name, offsets).get(number) for group, offsets in committed.items()},
    }


def _line(topic: Mapping[str, Any], groups: Collection[str]) -> tuple[Any, ...]:
    if not topic["exists"]:
        return (topic["topic"], "MISSING", *[None] * (3 + len(groups)))
    in_sync = f"{topic['in_sync']} of {topic['replicas']}, at least {topic['min_insync_replicas']}"
    lags = (topic["lag"][name] for name in groups)
    return (topic["topic"], topic["state"], topic["records"], topic["partitions"], in_sync, *lags)


def _partition_line(partition: Mapping[str, Any], groups: Collection[str]) -> tuple[Any, ...]:
    in_sync = ",".join(map(str, partition["in_sync"]))
    lags = (partition["lag"][name] for name in groups)
    return (partition["partition"], partition["leader"], in_sync, partition["first"], partition["end"], *lags)


def _compared(admin: TopicAdmin, specs: Sequence[TopicSpec]) -> tuple[Difference, ...]:
    return plan(specs, admin.describe((spec.name for spec in specs), TIMEOUT_SECONDS))


def _is_allowed(difference: Difference, *, allow_reordering: bool) -> bool:
    if difference.action == "add-partitions":
        return allow_reordering  # with more partitions, the key of an instance leads to another one
    return difference.action != "forbidden"


def _apply(admin: TopicAdmin, specs: Sequence[TopicSpec], differences: Sequence[Difference]) -> None:
    missing = {difference.topic for difference in differences if difference.action == "create"}
    admin.create((spec for spec in specs if spec.name in missing), TIMEOUT_SECONDS)
    for difference in differences:
        if difference.action == "alter":
            admin.alter(difference.topic, TIMEOUT_SECONDS, config={difference.what: difference.wanted})
        elif difference.action == "add-partitions":
            admin.alter(difference.topic, TIMEOUT_SECONDS, partitions=int(difference.wanted))


def _print_json(**groups: Sequence[Difference]) -> None:
    print_json({name: [asdict(difference) for difference in group] for name, group in groups.items()})


def _print_table(differences: Sequence[Difference], *, none: str) -> None:
    if not differences:
        print(none)
    elif sys.stdout.isatty():
        _print_rich(differences)
    else:
        _print_plain(differences)


def _print_rich(differences: Sequence[Difference]) -> None:
    table = Table(*_DIFFERENCE_COLUMNS)
    for difference in differences:
        table.add_row(*_row(difference))
    Console().print(table)


def _print_plain(differences: Sequence[Difference]) -> None:
    for difference in differences:
        print(f"{_contrast(difference)}: {difference.action}")


def _row(difference: Difference) -> tuple[str, ...]:
    return tuple(str(getattr(difference, column)) for column in _DIFFERENCE_COLUMNS)


def _print_left(differences: Sequence[Difference]) -> None:
    for difference in differences:
        print(f"left as it is: {_contrast(difference)}: {_way_out(difference)}")


def _contrast(difference: Difference) -> str:
    return f"{difference.topic}: {difference.what} is {difference.actual}, wanted {difference.wanted}"


def _way_out(difference: Difference) -> str:
    if difference.action == "add-partitions":
        return "--allow-reordering adds them; let consumers read to the end first"
    if difference.what == "partitions":
        return "Kafka removes no partitions; set WEDA_TOPICS__PARTITIONS to what there is"
    return "move the replicas with Kafka's own tools, or set WEDA_TOPICS__REPLICATION_FACTOR to what there is"
