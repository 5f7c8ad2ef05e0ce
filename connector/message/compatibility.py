"""Checks by Avro's own rules whether two versions of a schema can read each other's records."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse

Definition = Mapping[str, Any]


def incompatibilities(new: str, old: str) -> list[str]:
    """Explain why a reader with one schema cannot read records written with the other; empty if it can.

    Args:
        new: A record's schema as JSON.
        old: Another version of the schema.

    Returns:
        A sentence for each field and direction, such as ``field action: a reader with the old schema cannot …``.
    """
    newer, older = json.loads(new), json.loads(old)
    backward = _unreadable(newer, older, "a reader with the new schema cannot read old records")
    forward = _unreadable(older, newer, "a reader with the old schema cannot read new records")
    return [*backward, *forward]


def _unreadable(reader: Definition, writer: Definition, complaint: str) -> Iterator[str]:
    # Field by field: for a whole record the checker does not always say which reason belongs to which field.
    written = {field["name"]: field for field in writer["fields"]}
    if why := _reason(_with_only(reader, None), _with_only(writer, None)):
        yield f"the record {reader['name']}: {complaint}: {why}"
    for field in reader["fields"]:
        why = _reason(_with_only(reader, field), _with_only(reader, written.get(field["name"])))
        if why:
            yield f"field {field['name']}: {complaint}: {why}"


def _with_only(record: Definition, field: Definition | None) -> str:
    """Return the record's schema reduced to one field, or to no field."""
    return json.dumps({**record, "fields": [] if field is None else [field]})


def _reason(reader: str, writer: str) -> str:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(parse(reader), parse(writer))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return ""
    kinds = ", ".join(dict.fromkeys(kind.value.replace("_", " ") for kind in result.incompatibilities))
    return f"{kinds} ({', '.join(sorted(result.messages))})"
