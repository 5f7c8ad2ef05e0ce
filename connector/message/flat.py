"""The records of `FlatEvent`: scalars and lists of texts, for tables that take no maps.

Most of its columns are the bytes that `connector.message.records` has encoded for every record. The others are made
here, only where the stream is enabled: when it happened, keys of codes, the persons of the maps, the message's
fingerprint, and as JSON text whatever has no column.
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
"""The fields of which the first that is not null is ``eventTime``."""

CODES: Final[Mapping[str, str]] = {"action": "actionKey", "instanceStatus": "instanceStatusKey"}
"""Field of codes → the column of their keys."""

_NUL: Final = "\x00"
_IN_PLACE_OF_NUL: Final = "\ufffd"
_NONE: Final = avro.encode_texts(())


class FlatType:
    """How a record of `FlatEvent` is joined from the bytes of a message's fields and what is made of them.

    Args:
        schema: Of the record.

    Raises:
        ConfigurationError: A column of the schema is none of the connector's, or one of the connector's is missing.
    """

    def __init__(self, schema: Schema) -> None:
        known = kinds(load(WORKFLOW_EVENT))
        self._names = list(known)
        self._maps = [name for name, kind in known.items() if kind == "maps"]
        self._texts = [name for name, kind in known.items() if kind == "string"]
        self._moments = [self._names.index(name) for name in MOMENTS]
        self._codes = [(self._names.index(name), _KeysOf(name)) for name in CODES]
        columns = [name for name in self._names if name not in self._maps] + list(_computed_columns())
        types = {each["name"]: each["type"] for each in schema.parsed["fields"]}
        if set(types) != set(columns) or any(types[name] != _type(name, known) for name in columns):
            raise ConfigurationError(f"schema {schema.name}: its columns are not those that the connector makes")
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
        """One record.

        Args:
            header: What comes before Avro's bytes.
            pieces: The bytes of each field of `WorkflowEvent`.
            message: The message that they are of.
            fingerprint: Its fingerprint.
            unknown: The fields of the message that `WorkflowEvent` does not have.
            request: When and from whom it came.
            ingest_id: Its ``ingestId``.

        Raises:
            Unconvertible: A field that has no column has no UTF-8 form.
        """
        fields = message.fields
        without_field = [name for name in self._maps if fields.get(name) is not None]
        people = {name: conversion.persons(fields[name], name) for name in without_field if name in PERSON_FIELDS}
        replaced: Sequence[str] = ()
        if message.may_hold_nul:
            pieces, replaced = self._without_nul(pieces, fields)
            people = {name: Persons(*map(_clean, each)) for name, each in people.items()}
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
        """The pieces with another character for U+0000, which databases refuse, and the fields that had it."""
        had = [name for name in self._texts if isinstance(fields.get(name), str) and _NUL in fields[name]]
        clean = list(pieces)
        for name in had:
            text = fields[name].replace(_NUL, _IN_PLACE_OF_NUL)
            encode = avro.encode_text if name == INSTANCE_ID else avro.encode_nullable_text
            clean[self._names.index(name)] = encode(text)
        return clean, had


@cache
def flat_type() -> FlatType:
    """The type of the records of `FlatEvent`.

    Raises:
        ConfigurationError: See `FlatType`.
    """
    return FlatType(load(FLAT_EVENT))


class _KeysOf(dict[bytes, bytes]):
    """The bytes of a code → those of its key; of codes that are in no dictionary the key is made each time."""

    def __init__(self, name: str) -> None:
        known = codes(load(WORKFLOW_EVENT), name)
        super().__init__({avro.NULLABLE_NUMBER[code.value]: avro.encode_nullable_text(code.key) for code in known})
        self[avro.NULL] = avro.NULL
        self._name = name

    def __missing__(self, piece: bytes) -> bytes:
        return avro.encode_nullable_text(f"{self._name}_{avro.read_varint(piece[1:])}")


def _computed_columns() -> Mapping[str, Any]:
    """Column that is computed here → its type, in the order in which `FlatType.join` computes them."""
    texts = {"type": "array", "items": "string"}
    people = [f"{begin}{part}" for begin in PERSON_FIELDS.values() for part in ("Ids", "Names")]
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


def _type(name: str, known: Mapping[str, Kind]) -> Any:
    if name in {INSTANCE_ID, MESSAGE_TYPE}:
        return "string"
    return ["null", binary_type(known[name])] if name in known else _computed_columns()[name]


def _names(people: Mapping[str, Persons]) -> Iterator[bytes]:
    """The columns of ids and names of every field of persons, and that of the ids that are no persons'."""
    others: list[str] = []
    for name in PERSON_FIELDS:
        each = people.get(name)
        if each is None:
            yield _NONE
            yield _NONE
        else:
            yield avro.encode_texts(each.ids)
            yield avro.encode_texts(each.names)
            others += each.others
    yield avro.encode_texts(others)


def _clean(texts: list[str]) -> list[str]:
    return [text.replace(_NUL, _IN_PLACE_OF_NUL) for text in texts]


def _quoted(name: str) -> str:
    return _QUOTED.get(name) or json.dumps(name, ensure_ascii=False)


def _json(message: Message, names: Sequence[str]) -> bytes:
    """Fields as one JSON object in text, each value as it was sent; null where there are none."""
    if not names:
        return avro.NULL
    members = ",".join(f"{_quoted(name)}:{message.raw_json(name)}" for name in names)
    return avro.encode_nullable_text(f"{{{members}}}")


_QUOTED: Final = {name: json.dumps(name) for name in kinds(load(WORKFLOW_EVENT))}
