"""The two framings of a record, which differ only in the header before Avro's binary encoding, and decoding.

- Single-object encoding: ``C3 01`` and the schema's fingerprint (8 bytes, little-endian); needs no registry.
- Confluent framing: ``00`` and the schema's id in the registry (4 bytes, big-endian).
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from struct import error as StructError  # noqa: N812 - an exception is named as one
from typing import Any, Final, Protocol

from fastavro import schemaless_reader

from connector.errors import Unreadable
from connector.message import schemas
from connector.message.schemas import Schema

CONTENT_TYPE: Final = "application/avro"
"""The media type of every encoded record, whatever its framing."""

MAGIC: Final = b"\xc3\x01"
REGISTRY_MAGIC: Final = b"\x00"
_REGISTRY_HEADER_BYTES: Final = len(REGISTRY_MAGIC) + 4
_HEADER_BYTES: Final = len(MAGIC) + 8


class Framing(Protocol):
    """The header before a record's bytes in a topic."""

    def header(self, topic: str, schema: Schema) -> bytes:
        """Return the bytes by which a reader finds the schema."""


class SingleObjectFraming:
    """The framing that needs no registry: a reader finds the schema by its fingerprint."""

    def header(self, topic: str, schema: Schema) -> bytes:  # noqa: ARG002 - the same for every topic
        """Return the magic bytes and the fingerprint. See `Framing.header`."""
        return MAGIC + schema.fingerprint


class RegistryFraming:
    """Confluent framing, whose readers ask a schema registry: a zero byte and the schema's id.

    Args:
        ids: Topic → the registry's id of the schema of its records.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._headers = {topic: registry_header(schema_id) for topic, schema_id in ids.items()}

    def header(self, topic: str, schema: Schema) -> bytes:  # noqa: ARG002 - the topic determines it
        """Return the zero byte and the id. See `Framing.header`."""
        return self._headers[topic]


def registry_header(schema_id: int) -> bytes:
    """Return the header of a record in Confluent framing: a zero byte and the id, 4 bytes big-endian."""
    return REGISTRY_MAGIC + schema_id.to_bytes(4, "big")


def decode(data: bytes, by_id: Callable[[int], Schema] | None = None) -> dict[str, Any]:
    """Decode a record in either framing, times as epoch milliseconds.

    Args:
        data: The bytes of exactly one record.
        by_id: Returns the registry's schema with an id; None without a registry.

    Raises:
        Unreadable: The record is in neither framing, its schema is unknown, or the bytes are not exactly one record.
    """
    schema, start = schema_of(data, by_id)
    return read(schema, data, start)


def schema_of(data: bytes, by_id: Callable[[int], Schema] | None = None) -> tuple[Schema, int]:
    """Return the schema that a record's header names, and the index of the first byte after it; see `decode`."""
    if data.startswith(MAGIC) and len(data) >= _HEADER_BYTES:
        fingerprint = data[len(MAGIC) : _HEADER_BYTES]
        schemas_by_fingerprint = schemas.by_fingerprint()
        if fingerprint not in schemas_by_fingerprint:
            raise Unreadable(
                f"the record's schema {fingerprint.hex()} is not known: it comes from another version of the connector"
            )
        return schemas_by_fingerprint[fingerprint], _HEADER_BYTES
    if data.startswith(REGISTRY_MAGIC) and len(data) >= _REGISTRY_HEADER_BYTES:
        if by_id is None:
            raise Unreadable("the record was published with a schema registry: give WEDA_REGISTRY__URL")
        return by_id(int.from_bytes(data[1:_REGISTRY_HEADER_BYTES], "big")), _REGISTRY_HEADER_BYTES
    raise Unreadable("the record is neither in Avro's single-object encoding nor in a registry's framing")


def read(schema: Schema, data: bytes, start: int = 0) -> dict[str, Any]:
    """Decode a record in Avro's binary encoding, from the byte ``start`` to the end.

    Raises:
        Unreadable: The bytes are not exactly one record of the schema.
    """
    body = BytesIO(data)
    body.seek(start)
    # No reader's schema: a record is shown with the fields that it was written with, whatever its version.
    try:
        value = schemaless_reader(body, schema.parsed, None)
    except (EOFError, ValueError, TypeError, IndexError, OverflowError, MemoryError, StructError) as error:
        raise Unreadable(f"the bytes are not a record of the schema {schema.name}") from error
    if not isinstance(value, dict) or body.read(1):
        raise Unreadable(f"the bytes go on after a record of the schema {schema.name}")
    return value
