"""Derives from `WorkflowEvent` whatever repeats its fields: the first step of ``make generate``.

These are the schemas of the other records in `avro/` and the columns in `sinks/clickhouse.sql` and `sinks/flink.sql`.
Of a field's documentation, ``Task messages only.`` or ``Instance messages only.`` says which record has it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from connector.message import weda
from connector.message.flat import CODES
from connector.message.schemas import (
    AVRO_TYPES,
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    INSTANCE_EVENT,
    TASK_EVENT,
    WORKFLOW_EVENT,
    codes,
    kinds,
    load,
)
from tools.dictionary import INSTANCE_MESSAGE

ROOT: Final = Path(__file__).parents[1]
Field = dict[str, Any]

_ONLY: Final = re.compile(r"(?P<type>\w+) messages only\. ")
_DOC: Final = re.compile(r"(?P<meaning>.+?) \((?P<term>[^()]+)\)\. (?P<rest>.*)Example: (?P<example>.+)")
_NOBODY: Final = "Empty where the message names nobody."
_NO_NAME: Final = "The empty string where a person has no name."
_NAME: Final = "Name"
"""What a field of a code's name is called beside the code: ``actionName``."""

_TEXT: Final = ["null", "string"]
_TEXTS: Final = {"type": "array", "items": "string"}
_TIME: Final = AVRO_TYPES["date"]

_RECORDS: Final[Mapping[str, str]] = {
    INSTANCE_EVENT: "A change of a process instance in Tencent Cloud WeDa (微搭流程实例消息): started, withdrawn, "
    "terminated, finished, voided and so on. Fields that the message did not have are null. The streams `instances` "
    "and `state`.",
    TASK_EVENT: "A change of a task of a process instance in Tencent Cloud WeDa (微搭流程任务消息): submitted, "
    "approved, rejected, turned over, assignee added, sent back, withdrawn and so on. Fields that the message did not "
    "have are null. The stream `tasks`.",
    FLAT_EVENT: "The same message as in `WorkflowEvent`, of scalars and lists of texts alone, for tables that take no "
    "maps (微搭流程消息的扁平形式,供数据表使用). Persons are ids and names whatever the map's shape; U+0000 in a text "
    "is replaced by U+FFFD. The streams `flat` and `flat-state`.",
}
"""Derived record → its documentation."""

_BEFORE_OURS: Final[tuple[Field, ...]] = (
    {
        "name": "notPersonIds",
        "type": _TEXTS,
        "doc": "Ids in those maps that are no persons, because their value in the message is a number, a boolean, an "
        "object, a list or null (非人员 ID). Kept apart so that nothing is left out unseen. "
        'Example: ["active"]',
    },
    {
        "name": "eventTime",
        "type": ["null", _TIME],
        "default": None,
        "doc": "When it happened: the first of `taskEndTime`, `endTime`, `taskStartTime` and `startTime` that there is "
        "(事件时间). Milliseconds since 1970-01-01T00:00:00Z; null if the message has none of them. "
        "Example: 1772418600000",
    },
)
_BEHIND_OURS: Final[tuple[Field, ...]] = (
    {
        "name": "fingerprint",
        "type": "string",
        "doc": "Hash of the message, in hex, the same in all its repeats; also the Kafka header `weda.fingerprint` "
        "(消息指纹). With `source` and `instanceId` it identifies a message. Set by the connector. "
        "Example: 5f0c2d3b9a7e41c8a6b0d1e2f3948576",
    },
    {
        "name": "extrasJson",
        "type": _TEXT,
        "default": None,
        "doc": "Every field of the message that has no column of its own, the maps too, as one JSON object in text; "
        "null where there is none (扩展字段). Every digit is kept as it was sent; also a text in which U+0000 was "
        'replaced. Example: {"x-priority": 2}',
    },
)
"""The columns of `FlatEvent` that are made of no single field of `WorkflowEvent`."""

_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "clickhouse.sql": {
        '"string"': "String",
        '["null", "string"]': "Nullable(String)",
        '["null", "int"]': "Nullable(Int32)",
        '["null", "boolean"]': "Nullable(Bool)",
        json.dumps(_TIME): "DateTime64(3, 'UTC')",
        json.dumps(["null", _TIME]): "Nullable(DateTime64(3, 'UTC'))",
        json.dumps(_TEXTS): "Array(String)",
    },
    "flink.sql": {
        '"string"': "STRING",
        '["null", "string"]': "STRING",
        '["null", "int"]': "INT",
        '["null", "boolean"]': "BOOLEAN",
        json.dumps(_TIME): "TIMESTAMP(3)",
        json.dumps(["null", _TIME]): "TIMESTAMP(3)",
        json.dumps(_TEXTS): "ARRAY<STRING>",
    },
}
"""File of sinks/ whose table of the topic names columns → Avro type as JSON → that engine's."""

_KEYWORDS: Final = frozenset({"action", "comment", "source"})
"""Columns that Flink takes in backticks only."""


def derived() -> dict[Path, str]:
    """Path in the repository → the whole text of each derived file."""
    flat = list(_columns(_fields()))
    return {
        _path(INSTANCE_EVENT): _schema(INSTANCE_EVENT, map(_of_instance, _of(weda.INSTANCE))),
        _path(TASK_EVENT): _schema(TASK_EVENT, _of(weda.TASK)),
        _path(FLAT_EVENT): _schema(FLAT_EVENT, iter(flat)),
        **{Path("sinks", file): _columns_of(file, flat) for file in _COLUMNS},
    }


def _path(name: str) -> Path:
    return Path("avro", f"{name}.avsc")


def _fields() -> list[Field]:
    fields: list[Field] = json.loads(load(WORKFLOW_EVENT).text)["fields"]
    return fields


def _of(message_type: str) -> Iterator[Field]:
    """The fields of messages of one type, with their documentation there."""
    return (field for field in _fields() if only_type(field["doc"]) in {None, message_type})


def only_type(documentation: str) -> str | None:
    """The one type of messages that has a field, as its documentation says; None where both have it.

    Raises:
        ValueError: It names a type that there is not, or does not say it in the usual words.
    """
    only = _ONLY.search(documentation)
    if only is None and "only" in documentation.partition("Example:")[0].lower().split():
        raise ValueError(f"say it as 'Task messages only. ': {documentation}")
    if only is not None and only["type"] not in weda.MESSAGE_TYPES.values():
        raise ValueError(f"no type of messages is {only['type']}: {documentation}")
    return None if only is None else only["type"]


def _of_instance(field: Field) -> Field:
    """A field with the value of the sample message of an instance as its example."""
    sample, kind = INSTANCE_MESSAGE.get(field["name"]), kinds(load(WORKFLOW_EVENT)).get(field["name"])
    if sample is None or kind == "date":
        return field
    text = sample if kind == "string" else json.dumps(sample, ensure_ascii=False)
    return field | {"doc": f"{field['doc'].rpartition(' Example: ')[0]} Example: {text}"}


def _columns(fields: list[Field]) -> Iterator[Field]:
    """The fields of `FlatEvent`: maps of persons become two lists, other maps none, and a code gets its key."""
    known = kinds(load(WORKFLOW_EVENT))
    keys = {code + _NAME: code for code in CODES}
    docs = {field["name"]: field["doc"] for field in fields}
    for field in fields:
        name = field["name"]
        if name in weda.PERSON_FIELDS:
            yield from _persons(field)
        elif known.get(name) != "maps" and name not in CONNECTOR_FIELDS:
            yield field
        if name in keys:
            yield _key(keys[name], docs[keys[name]])
    yield from _BEFORE_OURS
    yield from (field for field in fields if field["name"] in CONNECTOR_FIELDS and field["name"] != "extras")
    yield from _BEHIND_OURS


def _persons(field: Field) -> Iterator[Field]:
    meaning, term, rest, example = _parts(field["doc"])
    people = json.loads(example)
    start, only = weda.PERSON_FIELDS[field["name"]], _only(rest)
    for part, what, zh, note, values in (
        ("Ids", f"the persons' ids in `{field['name']}`, whichever shape it has", " ID", _NOBODY, 0),
        ("Names", f"the names that belong to `{start}Ids`, place by place", "姓名", _NO_NAME, 1),
    ):
        found = json.dumps([pair[values] for one in people for pair in one.items()], ensure_ascii=False)
        doc = f"{meaning}: {what} ({term}{zh}). {only}{note} Example: {found}"
        yield {"name": start + part, "type": _TEXTS, "doc": doc}


def _key(code: str, documentation: str) -> Field:
    """The column of the stable key of a field of codes."""
    _, term, rest, example = _parts(documentation)
    keys = {entry.value: entry.key for entry in codes(load(WORKFLOW_EVENT), code)}
    doc = (
        f"Stable English key of `{code}`: its meaning in lower case with underscores; `{code}_<code>` for a code that "
        f"is not listed ({term}键). {_only(rest)}Example: {keys[int(example)]}"
    )
    return {"name": CODES[code], "type": _TEXT, "default": None, "doc": doc}


def _parts(documentation: str) -> tuple[str, str, str, str]:
    """Meaning, Chinese term, what comes behind them, and the example of a field."""
    match = _DOC.fullmatch(documentation)
    if match is None:
        raise ValueError(f"documentation without a term in brackets or an example: {documentation}")
    return match["meaning"], match["term"], match["rest"], match["example"]


def _only(text: str) -> str:
    only = _ONLY.search(text)
    return only[0] if only else ""


def _schema(name: str, fields: Iterator[Field]) -> str:
    """A schema as a file: one member of a field a line."""
    namespace, _, short = name.rpartition(".")
    head = {"type": "record", "name": short, "namespace": namespace, "doc": _RECORDS[name]}
    blocks = ("    {\n" + _members(field, "      ") + "\n    }" for field in fields)
    return "{\n" + _members(head, "  ") + ',\n  "fields": [\n' + ",\n".join(blocks) + "\n  ]\n}\n"


def _members(fields: Mapping[str, Any], indent: str) -> str:
    return ",\n".join(f'{indent}"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in fields.items())


def _columns_of(file: str, columns: list[Field]) -> str:
    """The file with the columns of the topic's table replaced; the rest, place columns too, is written by hand."""
    text = (ROOT / "sinks" / file).read_text(encoding="utf-8")
    keywords: frozenset[str] = _KEYWORDS if file == "flink.sql" else frozenset()
    names = [f"`{field['name']}`" if field["name"] in keywords else field["name"] for field in columns]
    types = [_COLUMNS[file][json.dumps(field["type"])] for field in columns]
    block = ",\n".join(f"  {name} {type_}" for name, type_ in zip(names, types, strict=True))
    columns_of_table = r"(?<=CREATE TABLE )(\S+ \(\n).*?(?=\n\)|,\n  kafkaPartition)"
    text, found = re.subn(columns_of_table, lambda head: head[1] + block, text, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"sinks/{file}: not one table whose columns are on lines of their own")
    return text


if __name__ == "__main__":
    for path, text in derived().items():
        (ROOT / path).write_text(text, encoding="utf-8")
