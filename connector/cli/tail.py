"""``tail``: print decoded records of a stream's topic, one a line."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Final

import typer

from connector.cli.columns import aligned, local_time, zone
from connector.cli.options import SERVERS, File, Servers, Since, TopicEnvType, TopicSource, servers_of
from connector.cli.output import print_json
from connector.kafka.reader import ConsumerRecord, read_records
from connector.kafka.registry import schemas_by_id
from connector.lookup import timeline
from connector.message.headers import error_of
from connector.message.routes import DEAD_LETTERS, STREAMS, Routes
from connector.settings import DEFAULT_SOURCE, Settings

_TIME_CELLS: Final = 25  # with its offset
_TERMINAL_TIME_CELLS: Final = 19  # the zone is in the head
_EVENT_CELLS: Final[Mapping[str, int]] = {
    "WHO": 10,
    "ACTION": 14,
    "NODE": 16,
    "STATUS": 10,
    "TITLE": 28,
    "PROCESS": 12,
}
_DEAD_LETTER_CELLS: Final[Mapping[str, int]] = {"CODE": 5, "STAGE": 8, "REASON": 60, "INSTANCE": 32}


class TailStream(StrEnum):
    """The streams that the command can read."""

    EVENTS = "events"
    INSTANCES = "instances"
    TASKS = "tasks"
    STATE = "state"
    FLAT = "flat"
    FLAT_STATE = "flat-state"
    DEAD_LETTERS = "dead-letters"


def tail(
    *,
    instance: Annotated[str | None, typer.Option(help="Only records of this instanceId.")] = None,
    process: Annotated[str | None, typer.Option(help="Only this process: a part of its name, or its key.")] = None,
    person: Annotated[
        str | None,
        typer.Option(help="Only events of this person: a part of the name of who acted, or to whom it went."),
    ] = None,
    since: Since = None,
    stream: Annotated[TailStream, typer.Option(help="Whose topic is read.")] = TailStream.EVENTS,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest record.")] = False,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop where the topic ends now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole records as JSON, one a line.")] = False,
    limit: Annotated[int | None, typer.Option("--max", "-n", min=1, help="Stop after this many records.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Stop after this long without a record; else never."),
    ] = None,
    source: TopicSource = DEFAULT_SOURCE,
    env_type: TopicEnvType = "prod",
    file: File = None,
    bootstrap_servers: Servers = None,
) -> None:
    """Print records as they come, until Ctrl-C. Nothing is committed, no consumer group is made.

    Columns: time in your zone (TZ), who, action, node, status, title, process, instanceId. Of dead letters: time, code,
    stage, reason, instanceId, the request. Records of one instance are in order; partitions are read side by side.

    \b
    Examples:
      weda-connector tail
      weda-connector tail --since 2h --process 请假 --person 张三
      weda-connector tail --from-beginning --until-end --json | jq .value.actionName
      weda-connector tail --instance 1f0c7a --from-beginning
      weda-connector tail --stream dead-letters --bootstrap-servers kafka:9092

    Exit codes: 0 ended, 2 bad usage or configuration, 3 Kafka is not reachable.
    """
    if stream is TailStream.DEAD_LETTERS and (process or person):
        raise typer.BadParameter("--process and --person: a dead letter has no fields that can be searched")
    settings = Settings.load(file=file, flags={SERVERS: bootstrap_servers})
    with schemas_by_id(settings.registry) as by_id:
        records = read_records(
            servers_of(settings),
            settings.kafka.properties,
            stream=stream,
            topic=Routes(STREAMS, settings.topics.prefix).topic(stream, source, env_type),
            by_id=by_id,
            from_beginning=from_beginning,
            since=since,
            until_end=until_end,
            key=instance,
            idle_seconds=timeout,
            on_missing=_print_missing,
        )
        wanted = (record for record in records if _is_wanted(record, process, person))
        _print(islice(wanted, limit), stream, as_json=as_json)


def record_as_dict(record: ConsumerRecord) -> dict[str, Any]:
    """Return a record with its metadata as JSON values."""
    return {name: getattr(record, name) for name in ConsumerRecord.__slots__} | {"value": _as_text(record.value)}


def _is_wanted(record: ConsumerRecord, process: str | None, person: str | None) -> bool:
    if process is None and person is None:
        return True
    value = record.value
    if not isinstance(value, dict):
        return False
    if process is not None and process not in (value.get("processName") or "") and process != value.get("processKey"):
        return False
    if person is None:
        return True
    # As the columns show it: actor and addressee are spread over many fields of an event.
    (step,) = timeline.read([record]).steps
    return person in step.who or person in step.to


def _print(records: Iterator[ConsumerRecord], stream: str, *, as_json: bool) -> None:
    is_terminal = sys.stdout.isatty()
    columns = _DEAD_LETTER_CELLS if stream == DEAD_LETTERS else _EVENT_CELLS
    last = "REQUEST" if stream == DEAD_LETTERS else "INSTANCE"
    widths = (_TERMINAL_TIME_CELLS if is_terminal else _TIME_CELLS, *columns.values())
    with suppress(KeyboardInterrupt):
        if is_terminal and not as_json:
            print(aligned((f"TIME ({zone()})", *columns, last), widths))
        for record in records:
            if as_json:
                print_json(record_as_dict(record))
            else:
                # Flushed: behind a pipe, Python would hold rare records back.
                print(aligned(_columns(record, stream), widths), flush=True)


def _print_missing(topic: str) -> None:
    print(f"waiting for the topic {topic}, which does not exist yet", file=sys.stderr)


def _columns(record: ConsumerRecord, stream: str) -> tuple[Any, ...]:
    at = local_time(record.timestamp)
    if stream == DEAD_LETTERS or isinstance(record.value, bytes):
        return at, *_dead_letter_columns(record, is_dead_letter=stream == DEAD_LETTERS)
    if record.value is None:  # a tombstone of a compacted topic
        return at, None, "deleted", None, None, None, None, record.key
    return at, *_event_columns(record, record.value)


def _event_columns(record: ConsumerRecord, value: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the columns of a record of any stream; each stream has only some of the fields."""
    (step,) = timeline.read([record]).steps
    return step.who, step.what, step.node, step.status, value.get("flowTitle"), value.get("processName"), record.key


def _dead_letter_columns(record: ConsumerRecord, *, is_dead_letter: bool) -> tuple[Any, ...]:
    """Return the columns of a dead letter, or of a record that no schema reads."""
    error, body = error_of(record.headers), _as_text(record.value)
    if not is_dead_letter:
        return None, "not readable as a record", None, None, body, None, record.key
    return error.code or None, error.stage, error.message, record.key, body


def _as_text(value: dict[str, Any] | bytes | None) -> dict[str, Any] | str | None:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
