"""Reads the Avro schemas of the records, ``avro/<full.name>.avsc``, once each.

These files are the only definition of every field. What other modules need to know about a field (its kind, the codes
of its dictionary) is read from them here; `avro/README.md` is generated from them too.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from fastavro.schema import SchemaParseException, fingerprint, parse_schema, to_parsing_canonical_form

from connector.errors import ConfigurationError, Unreadable

WORKFLOW_EVENT: Final = "io.weda.workflow.WorkflowEvent"
INSTANCE_EVENT: Final = "io.weda.workflow.InstanceEvent"
TASK_EVENT: Final = "io.weda.workflow.TaskEvent"
FLAT_EVENT: Final = "io.weda.workflow.FlatEvent"
WEDA_SCHEMAS: Final = (WORKFLOW_EVENT, INSTANCE_EVENT, TASK_EVENT)
"""The schemas that consist of WeDa's fields, with its names and shapes, and of `CONNECTOR_FIELDS`."""

ALL: Final = (*WEDA_SCHEMAS, FLAT_EVENT)

CONNECTOR_FIELDS: Final = ("source", "receivedAt", "ingestId", "extras")
"""The fields that the connector adds after WeDa's in each of `WEDA_SCHEMAS`."""

Kind = Literal["string", "int", "boolean", "date", "maps"]

AVRO_TYPES: Final[Mapping[Kind, Any]] = {
    "string": "string",
    "int": "int",
    "boolean": "boolean",
    "date": {"type": "long", "logicalType": "timestamp-millis"},
    "maps": {"type": "array", "items": {"type": "map", "values": "string"}},
}
"""Kind → its Avro type in the schemas, without the union with null."""

_KINDS: Final[Mapping[str, Kind]] = {json.dumps(declared): kind for kind, declared in AVRO_TYPES.items()}
_CODES: Final = re.compile(r"Codes: (?P<codes>.+?)\. ")
_NOT_KEY_CHARS: Final = re.compile(r"[^a-z0-9]+")
_NOT_BINARY: Final = frozenset({"doc", "default", "logicalType"})


class Code(NamedTuple):
    """An entry of an open dictionary: the number, WeDa's name for it, and its meaning in English."""

    value: int
    name: str
    meaning: str

    @property
    def key(self) -> str:
        """The meaning as an identifier: ``approved_automatically``."""
        return _NOT_KEY_CHARS.sub("_", self.meaning).strip("_")


@dataclass(frozen=True, slots=True)
class Schema:
    """An Avro record schema, equal to another of the same name and text.

    Attributes:
        name: The full name, as in ``io.weda.workflow.TaskEvent``.
        text: The schema as JSON on one line, with documentation, as a registry gets it.
        parsed: The schema for fastavro, without logical types, so that a time is an int of epoch milliseconds in both
            directions; the bytes are the same.
        fingerprint: CRC-64-AVRO of the Parsing Canonical Form, 8 bytes little-endian, as in the single-object encoding.
        fields: The names of the fields in the order of the bytes.
    """

    name: str
    text: str
    parsed: dict[str, Any] = field(compare=False, repr=False)
    fingerprint: bytes
    fields: tuple[str, ...]


@cache
def load(full_name: str) -> Schema:
    """Return the schema of a record type, read on the first call.

    Raises:
        ConfigurationError: The file is missing or is not the Avro schema of a record of that name.
    """
    return read(_folder() / f"{full_name}.avsc")


def read(path: Path) -> Schema:
    """Read the schema in a file ``<full.name>.avsc``, which may be a released version in another folder; not cached.

    Raises:
        ConfigurationError: The file is missing or is not the Avro schema of a record with the file's name.
    """
    try:
        return _schema(json.loads(path.read_text(encoding="utf-8")), full_name=path.stem)
    except OSError as error:
        raise ConfigurationError(
            f"schema {path}: not readable ({error.strerror}); install the connector again"
        ) from error
    except (SchemaParseException, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"schema {path}: not the Avro schema of the record {path.stem}: {error}") from error


def parse(text: str) -> Schema:
    """Parse a schema that comes from outside, such as from a registry.

    Raises:
        Unreadable: The text is not the Avro schema of a record.
    """
    try:
        definition = json.loads(text)
        namespace, name = definition.get("namespace", ""), definition["name"]
        return _schema(definition, full_name=name if "." in name or not namespace else f"{namespace}.{name}")
    except (SchemaParseException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unreadable(f"not the Avro schema of a record: {error}") from error


@cache
def released() -> Mapping[str, Mapping[str, Schema]]:
    """Return version of the connector → full name → the schema released with it, oldest version first.

    Raises:
        ConfigurationError: One of the files is not the Avro schema of a record.
    """
    # As numbers: as text, 0.10.0 would come before 0.9.0.
    folders = sorted(
        (_folder() / "released").iterdir(), key=lambda folder: [int(part) for part in folder.name.split(".")]
    )
    return MappingProxyType(
        {folder.name: {path.stem: read(path) for path in sorted(folder.glob("*.avsc"))} for folder in folders}
    )


@cache
def by_fingerprint() -> Mapping[bytes, Schema]:
    """Return the schemas of all versions by the fingerprint in the header of the single-object encoding."""
    older = [schema for version in released().values() for schema in version.values()]
    return MappingProxyType({schema.fingerprint: schema for schema in (*older, *map(load, ALL))})


@cache
def kinds(schema: Schema) -> Mapping[str, Kind]:
    """Return field → kind for the fields that WeDa sends, which are all but `CONNECTOR_FIELDS`, in the schema's order.

    Only for `WEDA_SCHEMAS`. A ``date`` is an int of epoch milliseconds, ``maps`` a list of maps of strings.

    Raises:
        ConfigurationError: The connector has no conversion to the type of a field.
    """
    definitions = json.loads(schema.text)["fields"]
    return MappingProxyType(
        {field["name"]: _kind(field) for field in definitions if field["name"] not in CONNECTOR_FIELDS}
    )


@cache
def codes(schema: Schema, name: str) -> tuple[Code, ...]:
    """Return the codes that WeDa documents for a field; empty for a field without a dictionary.

    Raises:
        KeyError: The schema has no such field.
    """
    docs = {field["name"]: field["doc"] for field in json.loads(schema.text)["fields"]}
    match = _CODES.search(docs[name])
    if match is None:
        return ()
    entries = (entry.split(" ", 2) for entry in match["codes"].split("; "))
    return tuple(Code(int(value), chinese, meaning) for value, chinese, meaning in entries)


@cache
def examples(schema: Schema) -> Mapping[str, Any]:
    """Return field → the example in its documentation, for the fields that WeDa sends; only for `WEDA_SCHEMAS`.

    Raises:
        ValueError: An example is not JSON.
    """
    docs = {field["name"]: field["doc"].rpartition(" Example: ")[2] for field in json.loads(schema.text)["fields"]}
    return MappingProxyType(
        {name: docs[name] if kind == "string" else json.loads(docs[name]) for name, kind in kinds(schema).items()}
    )


def binary_type(kind: Kind) -> Any:
    """Return the Avro type of a kind as in `Schema.parsed`, without the logical type."""
    return _binary(AVRO_TYPES[kind])


def _folder() -> Path:
    """Return the folder of the schemas: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "avro"
    return installed if installed.is_dir() else package.parent / "avro"


def _schema(definition: Any, *, full_name: str) -> Schema:
    parsed = parse_schema(_binary(definition))
    if not isinstance(parsed, dict) or parsed.get("type") != "record" or parsed.get("name") != full_name:
        raise ValueError("one record of the file's name is expected")
    return Schema(
        name=full_name,
        text=json.dumps(definition, ensure_ascii=False, separators=(",", ":")),
        parsed=parsed,
        fingerprint=bytes.fromhex(fingerprint(to_parsing_canonical_form(definition), "CRC-64-AVRO")),
        fields=tuple(field["name"] for field in definition["fields"]),
    )


def _binary(definition: Any) -> Any:
    """Reduce a definition to what determines the bytes: fastavro is faster with it, and leaves times as ints."""
    if isinstance(definition, list):
        return [_binary(branch) for branch in definition]
    if not isinstance(definition, dict):
        return definition
    if set(definition) == {"type", "logicalType"}:
        return _binary(definition["type"])
    return {name: _binary(value) for name, value in definition.items() if name not in _NOT_BINARY}


def _kind(definition: Mapping[str, Any]) -> Kind:
    declared = definition["type"]
    branch = declared[1] if isinstance(declared, list) else declared
    kind = _KINDS.get(json.dumps(branch))
    if kind is None:
        raise ConfigurationError(f"schema field {definition['name']}: no conversion to the type {json.dumps(branch)}")
    return kind
