"""The oracle's own messages: what is sent, and beside it what a consumer must read.

Both are drawn together: first the value that the record must hold, then one of the ways in which a source may write
it. So nothing here repeats the connector's conversion, and nothing has to.
"""

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

STREAM_OF = {"Instance": "instances", "Task": "tasks"}
SHANGHAI = timezone(timedelta(hours=8))
SCHEMAS = Path(__file__).parents[2] / "avro"

RECORDS = {"Instance": "InstanceEvent", "Task": "TaskEvent"}
DRAWN_BY_HAND = {"msgId", "msgType", "instanceId", "requestId"}
"""What identifies a message; `draw` makes it."""
TYPES = {
    '"string"': "string",
    '"int"': "int",
    '"boolean"': "boolean",
    '{"type": "long", "logicalType": "timestamp-millis"}': "date",
    '{"type": "array", "items": {"type": "map", "values": "string"}}': "map",
}
"""Avro type as JSON → how a value of it is drawn."""
WORDS = (
    "请假审批",
    "同意,注意交接",
    "Ünïcødé ✓",
    'a "quoted" word',
    "line\nbreak",
    "主管审批",
    "back\\slash",
    "x" * 200,
)
LARGE_BYTES = 24_000
"""Of the title of a large message, which no compression makes smaller."""
OURS = ("source", "receivedAt", "ingestId", "extras")
"""Names of fields that the connector adds: a message's fields that are called so belong in ``extras``."""

Drawn = tuple[Any, Any]
"""What the record must hold, and what the source writes."""


@dataclass(frozen=True)
class Message:
    """One message: its place in its instance, what is sent and what must be read."""

    instance: str
    index: int
    kind: str
    """``Instance`` or ``Task``."""
    wire: dict[str, Any]
    known: dict[str, Any]
    """Field → value in a record whose schema has the field; fields that are absent must be null."""
    body: bytes
    content_type: str
    is_large: bool = False
    """Longer than `LARGE_BYTES`; others are shorter than half of that."""

    @property
    def identity(self) -> str:
        """Unique in the run; the message says it in its ``requestId``."""
        return str(self.wire["requestId"])

    @property
    def message_id(self) -> str | None:
        """The ``msgId`` that a source would use; not always there, not always unique."""
        return self.wire.get("msgId")

    @property
    def streams(self) -> tuple[str, str]:
        """The streams that the message belongs to."""
        return ("events", STREAM_OF[self.kind])


def write_json(value: Any) -> str:
    """JSON text with no blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def messages(run: str, instance: str, chance: random.Random, *, large: float = 0) -> Iterator[Message]:
    """The messages of one instance, without end; ``large`` is the share of large ones."""
    previous: str | None = None
    index = 0
    while True:
        is_large = large > 0 and chance.random() < large
        message = draw(run, instance, index, previous, chance, is_large=is_large)
        previous = message.message_id
        index += 1
        yield message


def draw(
    run: str, instance: str, index: int, previous_id: str | None, chance: random.Random, *, is_large: bool = False
) -> Message:
    """Draw one message; now and then it has the ``msgId`` of the one before, or none."""
    kind = chance.choice((*STREAM_OF,))
    drawn = dict(_fields(kind, chance))
    drawn["requestId"] = _same(f"{run}/{instance}/{index}")
    drawn["msgType"] = (kind, chance.choice((kind, kind, kind, kind.lower(), kind.upper())))
    drawn["instanceId"] = (instance, int(instance) if instance.isdigit() and chance.random() < 0.5 else instance)
    if is_large:
        drawn["flowTitle"] = _same(base64.b64encode(chance.randbytes(LARGE_BYTES * 3 // 4)).decode())
    identifier = _message_id(run, instance, index, previous_id, chance)
    if identifier is not None:
        drawn["msgId"] = _same(identifier)
    wire = {name: written for name, (_, written) in drawn.items()} | dict(_unknown_fields(chance))
    shuffled = dict(chance.sample(sorted(wire.items()), len(wire)))
    body, content_type = _body(shuffled, chance)
    known = {name: read for name, (read, _) in drawn.items() if read is not None}
    return Message(instance, index, kind, shuffled, known, body, content_type, is_large)


def _message_id(run: str, instance: str, index: int, previous_id: str | None, chance: random.Random) -> str | None:
    luck = chance.random()
    if luck < 0.02:
        return None
    return previous_id if luck < 0.04 and previous_id else f"msg-{run}-{instance}-{index}"


def _fields(kind: str, chance: random.Random) -> Iterator[tuple[str, Drawn]]:
    yield from ((name, DRAW[drawn](chance)) for name, drawn in fields_of(kind).items() if chance.random() < 0.6)
    if kind == "Instance" and chance.random() < 0.05:
        yield "comment", _same("a task's field on an Instance message")


@cache
def fields_of(kind: str) -> dict[str, str]:
    """The fields of a message, and how each is drawn: read from the schema's file, not by the connector's code."""
    schema = json.loads((SCHEMAS / f"io.weda.workflow.{RECORDS[kind]}.avsc").read_text(encoding="utf-8"))
    names = [field["name"] for field in schema["fields"]]
    drawn = [field for field in schema["fields"][: names.index(OURS[0])] if field["name"] not in DRAWN_BY_HAND]
    return {field["name"]: TYPES[json.dumps(_non_null(field["type"]))] for field in drawn}


def _non_null(union: Any) -> Any:
    """The type of a field that may be absent."""
    return next(one for one in union if one != "null") if isinstance(union, list) else union


def _same(value: Any) -> Drawn:
    return value, value


def _nothing(chance: random.Random, *ways: Any) -> Drawn:
    return None, chance.choice(ways)


def _string(chance: random.Random) -> Drawn:
    luck = chance.random()
    if luck < 0.03:
        return _nothing(chance, None)
    if luck < 0.06:
        return "", ""
    if luck < 0.09:
        number = chance.randrange(10**18)
        return str(number), number
    if luck < 0.11:
        return "true", True
    return _same(f"{chance.choice(WORDS)} {chance.randrange(1000)}")


def _int(chance: random.Random) -> Drawn:
    if chance.random() < 0.1:
        return _nothing(chance, None, "")
    number = chance.choice((0, 1, 2, 3, 13, 23, 999, 2**31 - 1, -(2**31)))
    return number, chance.choice((number, number, str(number), float(number)))


def _boolean(chance: random.Random) -> Drawn:
    if chance.random() < 0.1:
        return _nothing(chance, None, "")
    truth = chance.random() < 0.5
    return truth, chance.choice((truth, str(truth).lower(), str(truth).upper(), int(truth)))


def _date(chance: random.Random) -> Drawn:
    if chance.random() < 0.1:
        return _nothing(chance, None, "", 0)
    seconds = chance.randrange(1_500_000_000, 1_900_000_000)
    at = datetime.fromtimestamp(seconds, SHANGHAI)
    ways = (
        *(seconds * 1000, seconds, at.strftime("%Y-%m-%d %H:%M:%S"), at.strftime("%Y-%m-%dT%H:%M:%S")),
        *(at.isoformat(), at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
    )
    return seconds * 1000, chance.choice(ways)


def _map(chance: random.Random) -> Drawn:
    if chance.random() < 0.1:
        return chance.choice(((None, None), ([], []), ([], {})))
    read, written = zip(*(_entry(chance) for _ in range(chance.randint(1, 3))), strict=True)
    ways = [[*written], [None, *written], write_json([*written])]
    if len(written) == 1:
        ways += [written[0], write_json(written[0])]
    return [*read], chance.choice(ways)


def _entry(chance: random.Random) -> tuple[dict[str, str], dict[str, Any]]:
    name = str(chance.randrange(1800, 1900))
    read, written = chance.choice((_same("张三"), _same("李四"), _same(""), ("5", 5), ("true", True), ("null", None)))
    return {name: read}, {name: written}


DRAW: dict[str, Callable[[random.Random], Drawn]] = {
    "string": _string,
    "int": _int,
    "date": _date,
    "map": _map,
    "boolean": _boolean,
}


def _unknown_fields(chance: random.Random) -> Iterator[tuple[str, Any]]:
    while chance.random() < 0.3:
        name = chance.choice((f"new{chance.randrange(50)}", "未知字段", *OURS))
        yield name, chance.choice((*WORDS, 7, 0.125, 10**30 + 1, True, None, [], {"深": [1, {"a": None}]}))


def _body(wire: dict[str, Any], chance: random.Random) -> tuple[bytes, str]:
    text = write_json(wire)
    shape = chance.choice(("text", "text", "object", "bare", "form"))
    if shape == "text":
        return write_json({"msgContext": text}).encode(), "application/json"
    if shape == "object":
        return f'{{"msgContext":{text}}}'.encode(), "application/json"
    if shape == "bare":
        return text.encode(), "application/json; charset=utf-8"
    return urlencode({"msgContext": text}).encode(), "application/x-www-form-urlencoded"
