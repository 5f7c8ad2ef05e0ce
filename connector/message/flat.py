"""Makes the records of `FlatEvent`: scalars and lists of texts, for tables that take no maps.

Most columns are the bytes that `connector.message.records` has already encoded. The others are computed here, only if
a stream of this record is enabled: the time of the event, the keys of codes, the persons of the maps, the message's
fingerprint, and the JSON text of all fields without a column.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final

from connector.errors import ConfigurationError
from connector.message import avro, conversion
from connector.message.parsing import Message
from connector.message.persons import Persons
from connector.message.schemas import FLAT_EVENT, WORKFLOW_EVENT, Kind, Schema, binary_type, codes, kinds, load
from connector.message.weda import INSTANCE_ID, MESSAGE_TYPE, PERSON_FIELDS
from connector.values import IngestId, Request

MOMENTS: Final = ("taskEndTime", "endTime", "taskStartTime", "startTime")
"""The fields that ``eventTime`` is taken from: the first one that is not null."""

CODES: Final[Mapping[str, str]] = {"action": "actionKey", "instanceStatus": "instanceStatusKey"}
"""Field with a code → the column with the code's key."""

# PostgreSQL rejects U+0000 in a text; the text as it was sent is in ``extrasJson``.
_NUL: Final = "\x00"
_NUL_REPLACEMENT: Final = "\ufffd"
_NO_TEXTS: Final = avro.encode_texts(())


class FlatType:
    """Joins a record of `FlatEvent` from the encoded fields of a message and the columns computed from them.

    Args:
        schema: The schema of the record.

    Raises:
        ConfigurationError: The schema does not have exactly the columns that the connector makes.
    """

    def __init__(self, schema: Schema) -> None:
        field_kinds = kinds(load(WORKFLOW_EVENT))
        self._names = list(field_kinds)
        self._maps = [name for name, kind in field_kinds.items() if kind == "maps"]
        self._texts = [name for name, kind in field_kinds.items() if kind == "string"]
        self._moments = [self._names.index(name) for name in MOMENTS]
        self._codes = [(self._names.index(name), _KeysOf(name)) for name in CODES]
        columns = [name for name in self._names if name not in self._maps] + list(_computed_columns())
        types = {field["name"]: field["type"] for field in schema.parsed["fields"]}
        if set(types) != set(columns) or any(types[name] != _type(name, field_kinds) for name in columns):
            raise ConfigurationError(f"schema {schema.name}: its columns are not those that the connector makes")
        # A record's columns are joined in the order of its schema, whatever the order in which they are computed.
        order = [columns.index(name) for name in schema.fields]
        self._arrange: Callable[[Sequence[bytes]], tuple[bytes, ...]] = itemgetter(*order)
        self._scalars: Callable[[Sequence[bytes]], tuple[bytes, ...]] = itemgetter(
            *(index for index, name in enumerate(self._names) if name not in self._maps)
        )

    def join(
        self,
        header: bytes,
        pieces: Sequence[bytes],
        *,
        message: Message,
        fingerprint: bytes,
        unknown: Iterable[str],
        request: Request,
        ingest_id: IngestId,
    ) -> bytes:
        """Return one record.

        Args:
            header: The header before Avro's bytes.
            pieces: The encoded fields, in the order of `WorkflowEvent`.
            message: The message that the fields come from.
            fingerprint: The fingerprint of the message.
            unknown: The fields of the message that `WorkflowEvent` does not have.
            request: The request that the message came with: its source and time.
            ingest_id: The record's ``ingestId``.

        Raises:
            Unconvertible: A field without a column cannot be encoded in UTF-8.
        """
        fields = message.fields
        without_field = [name for name in self._maps if fields.get(name) is not None]
        people = {name: conversion.persons(fields[name], name) for name in without_field if name in PERSON_FIELDS}
        replaced: Sequence[str] = ()
        if message.may_hold_nul:
            pieces, replaced = self._without_nul(pieces, fields)
            people = {name: Persons(*map(_clean, persons)) for name, persons in people.items()}
        computed = (
            *(keys[pieces[index]] for index, keys in self._codes),
            *_names(people),
            next((pieces[index] for index in self._moments if pieces[index] != avro.NULL), avro.NULL),
            avro.encode_text(request.source),
            avro.NUMBER[request.received_at],
            avro.encode_text(ingest_id),
            avro.encode_text(fingerprint.hex()),
            _json(message, (*without_field, *replaced, *unknown)),
        )
        return header + b"".join(self._arrange((*self._scalars(pieces), *computed)))

    def _without_nul(self, pieces: Sequence[bytes], fields: Mapping[str, Any]) -> tuple[Sequence[bytes], Sequence[str]]:
        """Return the pieces with U+0000 replaced, and the names of the fields that held it."""
        affected = [name for name in self._texts if isinstance(fields.get(name), str) and _NUL in fields[name]]
        clean = list(pieces)
        for name in affected:
            text = fields[name].replace(_NUL, _NUL_REPLACEMENT)
            encode = avro.encode_text if name == INSTANCE_ID else avro.encode_nullable_text
            clean[self._names.index(name)] = encode(text)
        return clean, affected


@cache
def flat_type() -> FlatType:
    """Return the type of the records of `FlatEvent`, built on the first call.

    Raises:
        ConfigurationError: See `FlatType`.
    """
    return FlatType(load(FLAT_EVENT))


class _KeysOf(dict[bytes, bytes]):
    """Encoded code → encoded key; the key of a code that is in no dictionary is made each time."""

    def __init__(self, name: str) -> None:
        dictionary = codes(load(WORKFLOW_EVENT), name)
        super().__init__({avro.NULLABLE_NUMBER[code.value]: avro.encode_nullable_text(code.key) for code in dictionary})
        self[avro.NULL] = avro.NULL
        self._name = name

    def __missing__(self, piece: bytes) -> bytes:
        # Not cached: senders choose unknown codes, and there are 2³² of them.
        return avro.encode_nullable_text(f"{self._name}_{avro.read_varint(piece[1:])}")


def _computed_columns() -> Mapping[str, Any]:
    """Return the columns computed here with their types, in the order in which `FlatType.join` computes them."""
    texts = {"type": "array", "items": "string"}
    people = [f"{prefix}{part}" for prefix in PERSON_FIELDS.values() for part in ("Ids", "Names")]
    return {
        **{name: ["null", "string"] for name in CODES.values()},
        **dict.fromkeys((*people, "notPersonIds"), texts),
        "eventTime": ["null", "long"],
        "source": "string",
        "receivedAt": "long",
        "ingestId": "string",
        "fingerprint": "string",
        "extrasJson": ["null", "string"],
    }


def _type(name: str, field_kinds: Mapping[str, Kind]) -> Any:
    if name in {INSTANCE_ID, MESSAGE_TYPE}:
        return "string"
    return ["null", binary_type(field_kinds[name])] if name in field_kinds else _computed_columns()[name]


def _names(people: Mapping[str, Persons]) -> Iterator[bytes]:
    """Yield the columns of ids and names of every field of persons, then the column of ids that are not persons."""
    others: list[str] = []
    for name in PERSON_FIELDS:
        persons = people.get(name)
        if persons is None:
            yield _NO_TEXTS
            yield _NO_TEXTS
        else:
            yield avro.encode_texts(persons.ids)
            yield avro.encode_texts(persons.names)
            others += persons.others
    yield avro.encode_texts(others)


def _clean(texts: list[str]) -> list[str]:
    return [text.replace(_NUL, _NUL_REPLACEMENT) for text in texts]


def _quoted(name: str) -> str:
    return _QUOTED.get(name) or json.dumps(name, ensure_ascii=False)


def _json(message: Message, names: Sequence[str]) -> bytes:
    """Encode fields as the text of one JSON object, each value as it was sent; null without fields."""
    if not names:
        return avro.NULL
    members = ",".join(f"{_quoted(name)}:{message.raw_json(name)}" for name in names)
    return avro.encode_nullable_text(f"{{{members}}}")


_QUOTED: Final = {name: json.dumps(name) for name in kinds(load(WORKFLOW_EVENT))}
