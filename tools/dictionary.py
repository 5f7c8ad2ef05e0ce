"""Renders `avro/README.md`, the data dictionary.

Everything in it comes from the schemas and from running the connector's own steps over the sample messages, so it
cannot say anything else than the connector does.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

from connector.message import parsing, weda
from connector.message.events import Event, convert
from connector.message.headers import REQUEST_ID, headers
from connector.message.schemas import (
    ALL,
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    INSTANCE_EVENT,
    TASK_EVENT,
    WORKFLOW_EVENT,
    codes,
    examples,
    load,
    released,
)
from connector.testing import record_value
from connector.values import IngestId, Request

INSTANCE_MESSAGE: Final[Mapping[str, Any]] = {
    "msgId": "msg-20260302-000042",
    "msgType": "Instance",
    "action": 1,
    "actionName": "提交",
    "processName": "请假审批",
    "processKey": "leave_approval",
    "flowTitle": "张三的请假申请",
    "flowCode": "leave_approval_v3",
    "startTime": "2026-03-02 09:30:00",
    "endTime": None,
    "instanceId": "bpm_1912233445566778899",
    "envType": "prod",
    "sourceType": "PC",
    "requestId": "6f1c8e0a-4b57-4a7e-9d51-0d7f1f6c2a11",
    "approverMap": [{"1801": "李四"}],
    "startUserMap": [{"1800": "张三"}],
    "elementMap": [{"Activity_0mgr": "主管审批"}],
    "instanceStatus": 0,
    "instanceStatusName": "审批中",
}
"""A sample of what WeDa sends when a run starts, with lists of maps and a date without a zone.

A field that is added later needs no line here or below: `sample_message` takes its example from the schema.
"""

TASK_MESSAGE: Final[Mapping[str, Any]] = {
    "msgId": "msg-20260302-000043",
    "msgType": "Task",
    "action": 2,
    "actionName": "同意",
    "processName": "请假审批",
    "processKey": "leave_approval",
    "flowTitle": "张三的请假申请",
    "flowCode": "leave_approval_v3",
    "startTime": 1772415000000,
    "endTime": None,
    "instanceId": "bpm_1912233445566778899",
    "envType": "prod",
    "sourceType": "PC",
    "requestId": "0b9f7a3d-52c4-4e0f-8a66-3c1d2e4f5a77",
    "approverMap": {"1802": "王五"},
    "startUserMap": {"1800": "张三"},
    "taskStatus": 2,
    "taskStatusName": "已完成",
    "elementId": "Activity_0mgr",
    "elementName": "主管审批",
    "elementType": "userTask",
    "elementTypeName": "审批节点",
    "comment": "同意,注意交接",
    "turnToUserMap": {},
    "addAssigneeMap": None,
    "ccUserMap": {"1803": "赵六", "1804": "钱七"},
    "taskMap": {"task_77001": "王五"},
    "pageUrlMap": {"pc": "https://example.com/task/77001"},
    "taskStartTime": 1772415000000,
    "taskEndTime": "2026-03-02T10:30:00+08:00",
    "rollbackElementId": "",
    "rollbackElementName": "",
    "revokeElementId": None,
    "revokeElementName": None,
    "isCcTask": False,
    "newField": 2,
}
"""A sample of what WeDa sends when a task is approved, with an unknown field, bare maps and two forms of dates."""

_ZONE: Final = ZoneInfo("Asia/Shanghai")
_RECEIVED_AT: Final = {INSTANCE_EVENT: 1772415000345, TASK_EVENT: 1772418600123}
_INGEST_ID: Final = {
    INSTANCE_EVENT: IngestId("019cac2a-9f19-7a41-8d07-51c2e9b3f6a4"),
    TASK_EVENT: IngestId("019cac61-8cbb-7c3e-9f20-4b8d6a1e5f02"),
}

_HEADERS: Final = {
    "ce_specversion": "CloudEvents, Kafka binary mode",
    "ce_id": "`msgId`; `ingestId` where there is none; `<msgId>~<8 hex of the fingerprint>` where that `msgId` came "
    "before with other content",
    "ce_type": "`io.weda.workflow.instance.v1` or `io.weda.workflow.task.v1`",
    "ce_source": "`/sources/<source>/<envType>`, without `envType`: `/sources/<source>`",
    "ce_subject": "`instanceId`, also the record's key",
    "ce_time": "`receivedAt`, also the record's timestamp",
    "content-type": "always the same, whatever the framing",
    "weda.fingerprint": "hash of the parsed message, in hex: equal for repeats, for consumers that remove them",
    REQUEST_ID: "`X-Request-Id` of the request, when it had one; the connector's log has it too",
    "traceparent": "W3C trace context of the request, when it had one",
}
_REQUEST: Final = "5f2c81d0-1a"
_TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

_INTRODUCTION: Final = """\
# Data dictionary

<!-- Rendered from the schemas beside it: change those, then run `make generate`. -->

What the connector publishes. Each record type is one file, `<full.name>.avsc`; the documentation below is also in the
schemas, so it reaches a registry and the tools behind it. What a source sends is read leniently and published in one
shape: the type that the table says.
"""

_RULES: Final = """\
## How the schemas change

- A change adds fields, nothing else: a new field is optional, a union with null first, default null, and comes before
  the connector's own.
- A field is never renamed, removed or given another type, and its default stays.
- A released version is frozen, in `released/<version>/` beside this file: the compatibility is `FULL_TRANSITIVE`, so
  every version reads what every other wrote.
- Codes are open: an `int` and its name, never an enum. A new code is a new line of documentation.
- What WeDa adds before a schema knows it is in `extras`, from the first message on.
"""

_FIELDS: Final = """\
I: on `InstanceEvent`, T: on `TaskEvent`; `WorkflowEvent` has all of them. Where the type says `null`, the field is null
when the message did not have it. On `InstanceEvent` and `TaskEvent`, a value of a field that only the other has is in
`extras`. Since: the first version of the connector that publishes the field; records of earlier ones read as null.
"""

_FLAT: Final = """\
The record for tables: every field above that is no map, in the same type, and these. A person is an entry of a map
whose name is text: `{"1801": "李四"}` and `{"userId": "1801", "userName": "李四"}` are the same person. What has no
column, the maps as they were sent too, is in `extrasJson`. The keys of codes are in the tables of codes below.
"""

_READINGS: Final = """\
## How values are read

A value that fits none of these makes the message a dead letter; nothing is guessed.

| type | what a source may send |
|---|---|
| string | text, kept as sent, the empty one too; a number becomes its digits, a boolean `true` or `false`, an object \
or a list its JSON text |
| int | `2`, `"2"`, `2.0`; the empty string is null |
| boolean | `true`, `false`, the same as text in any case, `1`, `0`; the empty string is null |
| timestamp-millis | epoch milliseconds (magnitude of 10¹¹ and more) or seconds, as a number or text; ISO 8601 with or \
without a zone; `yyyy-MM-dd HH:mm:ss`, with slashes or numbers of one digit too (`2026/03/02 09:30:00`, \
`2026-3-2 9:30`); digits that are a calendar date of 1970 to 2100 (`yyyyMMdd`, `yyyyMMddHHmm`, `yyyyMMddHHmmss`, \
`yyyyMMddHHmmssSSS`), as a number or text, are that date; a date alone is midnight; without a zone it is in the \
connector's, by default Asia/Shanghai; `0`, the empty string, `-`, `0000-00-00` with any time and 1970-01-01 00:00:00 \
without a zone are null |
| array of map of string | a list of maps; a map, which becomes a list of one; JSON text of either; `[]` and `{}` \
become the empty list; null entries of a list are left out; a value that is not text becomes its JSON text |
"""

_FRAMING: Final = """\
## The bytes

Without a registry: Avro's single-object encoding, that is `C3 01`, the schema's fingerprint (CRC-64-AVRO of the Parsing
Canonical Form, 8 bytes, little-endian), then the record. With a registry: Confluent's framing, subject `<topic>-value`.

| record | fingerprint, as in the bytes |
|---|---|
"""


def render() -> str:
    """The whole data dictionary, as Markdown."""
    return "\n".join(
        [
            _INTRODUCTION,
            *_records(),
            *_fields(),
            *_columns(),
            _READINGS,
            *_codes(),
            *_samples(),
            *_headers(),
            *_framing(),
            _RULES,
        ]
    )


def sample_message(record_type: str) -> Mapping[str, Any]:
    """Every field of the sample message that becomes a record of a type: of a task, except for `INSTANCE_EVENT`.

    A field that the message above does not have gets the example of its documentation.
    """
    known, message = (INSTANCE_EVENT, INSTANCE_MESSAGE) if record_type == INSTANCE_EVENT else (TASK_EVENT, TASK_MESSAGE)
    return {**message, **{name: value for name, value in examples(load(known)).items() if name not in message}}


def sample_record(record_type: str) -> dict[str, Any]:
    """What a consumer decodes of the record of a sample message: parsed, converted, encoded and decoded for real."""
    event, request = _converted(record_type)
    return record_value(event, load(record_type), request, _INGEST_ID[record_type])


def _converted(record_type: str) -> tuple[Event, Request]:
    body = json.dumps({weda.ENVELOPE: json.dumps(sample_message(record_type))}).encode()
    message = parsing.parse(body, parsing.BodyKind.JSON)
    request = Request("default", body, "application/json", _RECEIVED_AT[record_type], _TRACE, request_id=_REQUEST)
    return convert(message, _ZONE), request


def _records() -> Iterator[str]:
    yield "## Records\n"
    yield "| record | fields | what it is |\n|---|---|---|"
    for schema in map(load, ALL):
        name = schema.name.rpartition(".")[2]
        doc = json.loads(schema.text)["doc"]
        yield f"| [`{name}`]({schema.name}.avsc) | {len(schema.fields)} | {_cell(doc)} |"
    yield "\nEvery record's key is `instanceId` in UTF-8: the records of one instance are in one partition, in order.\n"


def _fields() -> Iterator[str]:
    yield "## Fields\n"
    yield _FIELDS
    yield "| field | Avro type | on | since | meaning | sample |\n|---|---|---|---|---|---|"
    instance, task = load(INSTANCE_EVENT), load(TASK_EVENT)
    for field in json.loads(load(WORKFLOW_EVENT).text)["fields"]:
        on = " ".join(mark for mark, schema in (("I", instance), ("T", task)) if field["name"] in schema.fields)
        meaning, _, sample = _meaning(field).partition(" Example: ")
        name, since = field["name"], _since(field["name"])
        yield f"| `{name}` | {_type(field['type'])} | {on} | {since} | {_cell(meaning)} | `{_cell(sample)}` |"
    ours = ", ".join(f"`{name}`" for name in CONNECTOR_FIELDS)
    yield f"\n{ours} are the connector's own. A message's field of such a name goes to `extras`.\n"


def _columns() -> Iterator[str]:
    """The columns of `FLAT_EVENT` that the other records do not have."""
    yield "## Columns of `FlatEvent`\n"
    yield _FLAT
    yield "| column | Avro type | meaning | sample |\n|---|---|---|---|"
    for field in json.loads(load(FLAT_EVENT).text)["fields"]:
        if field["name"] not in load(WORKFLOW_EVENT).fields:
            meaning, _, sample = field["doc"].partition(" Example: ")
            yield f"| `{field['name']}` | {_type(field['type'])} | {_cell(meaning)} | `{_cell(sample)}` |"
    yield ""


def _since(name: str) -> str:
    """The first released version that has the field; a field that none has comes with the next."""
    having = (version for version, known in released().items() if name in known[WORKFLOW_EVENT].fields)
    return next(having, "the next version")


def _meaning(field: Mapping[str, Any]) -> str:
    """The field's documentation, its codes left to their own table."""
    doc: str = field["doc"]
    start, found, rest = doc.partition("Codes: ")
    return f"{start}Codes below. {rest.partition('. ')[2]}" if found else doc


def _codes() -> Iterator[str]:
    schema = load(WORKFLOW_EVENT)
    for name in schema.fields:
        entries = codes(schema, name)
        if not entries:
            continue
        yield f"## Codes of `{name}`\n"
        yield "Those that WeDa documents today. Others are published as they come, and counted."
        yield from _gaps([entry.value for entry in entries])
        yield "\n| code | name | meaning | key |\n|---|---|---|---|"
        yield from (f"| {entry.value} | {entry.name} | {entry.meaning} | `{entry.key}` |" for entry in entries)
        yield ""


def _gaps(values: list[int]) -> Iterator[str]:
    missing = [str(gap) for before, after in pairwise(values) for gap in range(before + 1, after)]
    if missing:
        yield f"Unassigned today: {', '.join(missing)}."


def _samples() -> Iterator[str]:
    yield "## Samples\n"
    for record_type in (INSTANCE_EVENT, TASK_EVENT):
        name = record_type.rpartition(".")[2]
        yield f"### `{name}`\n"
        yield "The message, as WeDa sends it:\n"
        yield _block(sample_message(record_type))
        yield f"Its record, decoded (the `{WORKFLOW_EVENT.rpartition('.')[2]}` has the same values):\n"
        yield _block(sample_record(record_type))


def _headers() -> Iterator[str]:
    event, request = _converted(TASK_EVENT)
    pairs = headers(event, request, _INGEST_ID[TASK_EVENT])
    yield "## Kafka headers\n"
    yield "| header | what it holds | sample |\n|---|---|---|"
    yield from (f"| `{name}` | {_HEADERS[name]} | `{text.decode()}` |" for name, text in pairs)
    yield ""


def _framing() -> Iterator[str]:
    rows = (f"| `{schema.name}` | `{schema.fingerprint.hex()}` |\n" for schema in map(load, ALL))
    yield _FRAMING + "".join(rows)


def _type(declared: Any) -> str:
    """An Avro type in words: ``null, array of map of string``."""
    if isinstance(declared, str):
        return declared
    if isinstance(declared, list):
        return ", ".join(map(_type, declared))
    if "logicalType" in declared:
        return f"{declared['type']}, {declared['logicalType']}"
    return f"{declared['type']} of {_type(declared.get('items') or declared['values'])}"


def _block(fields: Mapping[str, Any]) -> str:
    """The fields as a block of JSON, one a line."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    return "```json\n{\n" + ",\n".join(lines) + "\n}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
