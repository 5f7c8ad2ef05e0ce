"""Whether two versions of a schema can read each other's records, by Avro's own rules, and which field breaks it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse

Definition = Mapping[str, Any]


def incompatibilities(new: str, old: str) -> list[str]:
    """Why a reader with one schema cannot read what was written with the other; empty where it can.

    Args:
        new: A record's schema as JSON.
        old: Another version of it.

    Returns:
        A sentence for each field and direction, such as ``field action: a reader with the old schema cannot …``.
    """
    newer, older = json.loads(new), json.loads(old)
    ahead = _unreadable(newer, older, "a reader with the new schema cannot read old records")
    back = _unreadable(older, newer, "a reader with the old schema cannot read new records")
    return [*ahead, *back]


def _unreadable(reader: Definition, writer: Definition, complaint: str) -> Iterator[str]:
    """Field by field: for a whole record the checker does not always say which reason belongs to which field."""
    theirs = {each["name"]: each for each in writer["fields"]}
    if why := _reason(_with_only(reader, None), _with_only(writer, None)):
        yield f"the record {reader['name']}: {complaint}: {why}"
    for field in reader["fields"]:
        why = _reason(_with_only(reader, field), _with_only(reader, theirs.get(field["name"])))
        if why:
            yield f"field {field['name']}: {complaint}: {why}"


def _with_only(record: Definition, field: Definition | None) -> str:
    """The record with this field and no other, or with none."""
    return json.dumps({**record, "fields": [] if field is None else [field]})


def _reason(reader: str, writer: str) -> str:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(parse(reader), parse(writer))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    kinds = ", ".join(dict.fromkeys(one.value.replace("_", " ") for one in result.incompatibilities))
    return f"{kinds} ({', '.join(sorted(result.messages))})"
