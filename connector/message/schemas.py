"""The Avro schemas of the records: each ``avro/<full.name>.avsc``, read once.

The files are the only definition of every field. Whatever other modules need to know about a field (its kind, the codes
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
"""The schemas whose fields are WeDa's, in its names and shapes, and `CONNECTOR_FIELDS`."""

ALL: Final = (*WEDA_SCHEMAS, FLAT_EVENT)

CONNECTOR_FIELDS: Final = ("source", "receivedAt", "ingestId", "extras")
"""The fields that the connector adds to WeDa's; the last ones of each of `WEDA_SCHEMAS`."""

Kind = Literal["string", "int", "boolean", "date", "maps"]

AVRO_TYPES: Final[Mapping[Kind, Any]] = {
    "string": "string",
    "int": "int",
    "boolean": "boolean",
    "date": {"type": "long", "logicalType": "timestamp-millis"},
    "maps": {"type": "array", "items": {"type": "map", "values": "string"}},
}
"""Kind → its type in the schemas, without the null beside it."""

_KINDS: Final[Mapping[str, Kind]] = {json.dumps(declared): kind for kind, declared in AVRO_TYPES.items()}
_CODES: Final = re.compile(r"Codes: (?P<codes>.+?)\. ")
_NO_LETTERS: Final = re.compile(r"[^a-z0-9]+")
_NOT_BINARY: Final = frozenset({"doc", "default", "logicalType"})


class Code(NamedTuple):
    """An entry of an open dictionary: the number, WeDa's name for it, and what it means in English."""

    value: int
    name: str
    meaning: str

    @property
    def key(self) -> str:
        """The meaning as a name for code: ``approved_automatically``."""
        return _NO_LETTERS.sub("_", self.meaning).strip("_")


@dataclass(frozen=True, slots=True)
class Schema:
    """An Avro record schema, equal to another of the same name and text.

    Attributes:
        name: The full name, as in ``io.weda.workflow.TaskEvent``.
        text: The schema as JSON on one line, documentation included: what a registry is given.
        parsed: The schema for fastavro. It has no logical types, so that a time is an int of epoch milliseconds in
            both directions; the bytes are the same.
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
    """The schema of one record type, read on the first call.

    Raises:
        ConfigurationError: Its file is missing or is not the Avro schema of a record of that name.
    """
    return read(_folder() / f"{full_name}.avsc")


def read(path: Path) -> Schema:
    """The schema in the file ``<full.name>.avsc``, not cached: for released versions, which are elsewhere.

    Raises:
        ConfigurationError: The file is missing or is not the Avro schema of a record that is named as the file is.
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
    """The schema in a text that came from outside, such as a registry.

    Raises:
        Unreadable: It is not the Avro schema of a record.
    """
    try:
        definition = json.loads(text)
        namespace, name = definition.get("namespace", ""), definition["name"]
        return _schema(definition, full_name=name if "." in name or not namespace else f"{namespace}.{name}")
    except (SchemaParseException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unreadable(f"not the Avro schema of a record: {error}") from error


@cache
def released() -> Mapping[str, Mapping[str, Schema]]:
    """Version of the connector → full name → the schema that it was released with, oldest first; never changed again.

    Raises:
        ConfigurationError: A file among them is not the Avro schema of a record.
    """
    folders = sorted((_folder() / "released").iterdir(), key=lambda each: [int(part) for part in each.name.split(".")])
    return MappingProxyType(
        {folder.name: {path.stem: read(path) for path in sorted(folder.glob("*.avsc"))} for folder in folders}
    )


@cache
def by_fingerprint() -> Mapping[bytes, Schema]:
    """The schemas of all versions by the fingerprints that single-object bytes begin with."""
    older = [schema for version in released().values() for schema in version.values()]
    return MappingProxyType({schema.fingerprint: schema for schema in (*older, *map(load, ALL))})


@cache
def kinds(schema: Schema) -> Mapping[str, Kind]:
    """Field → kind, over the fields that WeDa sends, in the schema's order: all but `CONNECTOR_FIELDS`.

    For `WEDA_SCHEMAS`. A ``date`` is an int of epoch milliseconds, ``maps`` a list of maps of strings.

    Raises:
        ConfigurationError: A field has a type that the connector has no conversion for.
    """
    definitions = json.loads(schema.text)["fields"]
    return MappingProxyType({each["name"]: _kind(each) for each in definitions if each["name"] not in CONNECTOR_FIELDS})


@cache
def codes(schema: Schema, name: str) -> tuple[Code, ...]:
    """The codes that WeDa documents for a field today; empty for a field that has no dictionary.

    Raises:
        KeyError: The schema has no such field.
    """
    docs = {each["name"]: each["doc"] for each in json.loads(schema.text)["fields"]}
    match = _CODES.search(docs[name])
    if match is None:
        return ()
    entries = (entry.split(" ", 2) for entry in match["codes"].split("; "))
    return tuple(Code(int(value), chinese, meaning) for value, chinese, meaning in entries)


@cache
def examples(schema: Schema) -> Mapping[str, Any]:
    """Field → the example in its documentation, over the fields that WeDa sends; for `WEDA_SCHEMAS`.

    Raises:
        ValueError: An example is none of its field's type.
    """
    docs = {each["name"]: each["doc"].rpartition(" Example: ")[2] for each in json.loads(schema.text)["fields"]}
    return MappingProxyType(
        {name: docs[name] if kind == "string" else json.loads(docs[name]) for name, kind in kinds(schema).items()}
    )


def binary_type(kind: Kind) -> Any:
    """The type of a kind as `Schema.parsed` has it: without the logical type."""
    return _binary(AVRO_TYPES[kind])


def _folder() -> Path:
    """The files' folder: inside the package if it was installed from a wheel, beside it in a checkout."""
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
        fields=tuple(each["name"] for each in definition["fields"]),
    )


def _binary(definition: Any) -> Any:
    """The definition reduced to what determines the bytes: fastavro is faster with it, and leaves times as ints."""
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
