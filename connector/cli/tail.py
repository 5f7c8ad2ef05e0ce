"""``tail``: decoded records, one a line, from the topic of a stream."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Final

import typer

from connector.cli.output import print_json
from connector.cli.topics import File, Servers, servers_of
from connector.kafka.reader import Decoded, read_records
from connector.kafka.registry import Registry
from connector.message.conversion import timestamp_text
from connector.message.routes import STREAMS, Routes
from connector.settings import DEFAULT_SOURCE, Settings

_LONGEST: Final = 200
_NONE: Final = "-"
_GAP: Final = "  "


class TailStream(StrEnum):
    """The streams that can be read."""

    EVENTS = "events"
    INSTANCES = "instances"
    TASKS = "tasks"
    STATE = "state"
    DEAD_LETTERS = "dead-letters"


def tail(
    *,
    instance: Annotated[str | None, typer.Option(help="Only records of this instanceId.")] = None,
    stream: Annotated[TailStream, typer.Option(help="Whose topic is read.")] = TailStream.EVENTS,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest record.")] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="End where the topic ends now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole records as JSON.")] = False,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="End after so many records.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="End after so many seconds without a record; else never.")
    ] = None,
    source: Annotated[str, typer.Option(help="What {source} stands for in the topics' prefix.")] = DEFAULT_SOURCE,
    env_type: Annotated[str, typer.Option(help="What {envType} stands for in the topics' prefix.")] = "prod",
    file: File = None,
    bootstrap_servers: Servers = None,
) -> None:
    """Print records as they come, until Ctrl-C. Nothing is committed, no consumer group is made.

    A line has: time, instanceId, msgType, actionName, processName, node, status. Of dead letters: time, instanceId,
    code, stage, reason, the request.

    \b
    Examples:
      weda-connector tail --from-beginning --until-end --json | jq .value.actionName
      weda-connector tail --instance 1f0c7a --from-beginning
      weda-connector tail --stream dead-letters --bootstrap-servers kafka:9092

    Exit codes: 0 ended, 2 bad usage or configuration, 3 Kafka is not reachable.
    """
    settings = Settings.load(file=file, flags={"kafka.bootstrap_servers": bootstrap_servers})
    with ExitStack() as stack:
        records = read_records(
            servers_of(settings, embedded="give the address that its connector prints with --bootstrap-servers"),
            settings.kafka.properties,
            stream=stream,
            topic=Routes(STREAMS, settings.topics.prefix).topic(stream, source, env_type),
            by_id=stack.enter_context(Registry(settings.registry)).schema if settings.registry.url else None,
            from_beginning=from_beginning,
            until_end=until_end,
            key=instance,
            idle_seconds=timeout,
            on_missing=_say_missing,
        )
        _print(islice(records, maximum), _print_json if as_json else _print_line)


def whole(record: Decoded) -> dict[str, Any]:
    """The whole record as JSON values."""
    return {name: getattr(record, name) for name in Decoded.__slots__} | {"value": _shown(record.value)}


def line(record: Decoded) -> str:
    """The record for people: what matters, in one line."""
    if record.value is None:
        parts: tuple[Any, ...] = ("deleted",)
    else:
        parts = _said_of_letter(record) if isinstance(record.value, bytes) else _said_of_event(record.value)
    return _GAP.join(plain(part) for part in (timestamp_text(record.timestamp), record.key, *parts))


def _print(records: Iterator[Decoded], show: Callable[[Decoded], None]) -> None:
    with suppress(KeyboardInterrupt):
        for record in records:
            show(record)


def _print_json(record: Decoded) -> None:
    print_json(whole(record))


def _print_line(record: Decoded) -> None:
    print(line(record), flush=True)


def _say_missing(topic: str) -> None:
    print(f"waiting for the topic {topic}, which does not exist yet", file=sys.stderr)


def _said_of_event(value: dict[str, Any]) -> tuple[Any, ...]:
    """Of any of the three records: each has only some of the fields."""
    node = value.get("elementName") or "、".join(map(_node, value.get("elementMap") or ()))
    status = value.get("taskStatusName") or value.get("instanceStatusName")
    return value.get("msgType"), value.get("actionName"), value.get("processName"), node, status


def _node(element: Mapping[str, str]) -> str:
    """WeDa sends a current node with its id and name as fields, or as id → name."""
    return element.get("elementName") or "、".join(element.values())


def _said_of_letter(record: Decoded) -> tuple[Any, ...]:
    """Of a dead letter, or of a record that none of the schemas reads."""
    headers = record.headers
    reason = headers.get("weda.error.message", "not readable as a record")
    return headers.get("weda.error.code"), headers.get("weda.error.stage"), reason, _shown(record.value)


def _shown(value: dict[str, Any] | bytes | None) -> dict[str, Any] | str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def plain(part: Any) -> str:
    """Text that keeps to its line, a dash for none, and cannot steer a terminal: it comes from who sent the message."""
    text = _NONE if part is None or part == "" else str(part)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "".join(letter if letter.isprintable() else " " for letter in shown)
