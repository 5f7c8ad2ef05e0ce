"""Record → bytes and back: Avro's single-object encoding.

The bytes are ``C3 01``, the schema's fingerprint (8 bytes, little-endian), then the record in Avro's binary encoding.
Framings differ only in what stands before the record, so a registry's framing is another `Encoder` over `write`.
"""

from collections.abc import Mapping
from io import BytesIO
from struct import error as StructError  # noqa: N812 - an exception is named as one
from typing import Any, Final, Protocol

from fastavro import schemaless_reader, schemaless_writer

from connector import schemas
from connector.errors import Defect, Unreadable
from connector.schemas import Schema

CONTENT_TYPE: Final = "application/avro"
"""The media type of every encoded record, whatever its framing."""

MAGIC: Final = b"\xc3\x01"
_HEADER_BYTES: Final = len(MAGIC) + 8
_UNWRITABLE: Final = (ValueError, TypeError, AttributeError, OverflowError)  # what fastavro raises on a misfit


class Encoder(Protocol):
    """Turns the value of a record into the bytes that a topic gets."""

    @property
    def content_type(self) -> str:
        """The media type of the bytes, for the Kafka header ``content-type``."""

    def encode(self, record_type: str, value: Mapping[str, Any]) -> bytes:
        """The framed bytes of one record.

        Args:
            record_type: The schema's full name.
            value: Every field of the schema, null ones as None, times as epoch milliseconds; not one field more.

        Raises:
            Defect: The value does not fit the schema.
        """


class SingleObjectEncoder:
    """The encoder that needs no registry: a reader finds the schema by its fingerprint."""

    content_type = CONTENT_TYPE

    def encode(self, record_type: str, value: Mapping[str, Any]) -> bytes:
        """The record in the single-object encoding; see `Encoder.encode`."""
        return encode(schemas.load(record_type), value)


def encode(schema: Schema, value: Mapping[str, Any]) -> bytes:
    """The record in the single-object encoding.

    Raises:
        Defect: The value does not fit the schema.
    """
    return write(schema, value, header=MAGIC + schema.fingerprint)


def write(schema: Schema, value: Mapping[str, Any], *, header: bytes) -> bytes:
    """The header, then the record in Avro's binary encoding.

    Raises:
        Defect: The value does not fit the schema: a field missing, unknown, or of another type. The message names the
            fields and nothing of what they hold.
    """
    out = BytesIO()
    out.write(header)
    try:
        schemaless_writer(out, schema.parsed, value, strict=True, disable_tuple_notation=True)
    except _UNWRITABLE:
        # not chained: fastavro's message quotes the value, and a log would show it
        raise Defect(f"a record does not fit the schema {schema.name}: {_misfits(schema, value)}") from None
    return out.getvalue()


def decode(data: bytes, known: Mapping[bytes, Schema]) -> dict[str, Any]:
    """The value of a record in the single-object encoding, times as epoch milliseconds.

    Args:
        data: The record's bytes, nothing before or after them.
        known: Fingerprint → schema, as `connector.schemas.by_fingerprint` has it.

    Raises:
        Unreadable: Not single-object bytes, or of a schema that is not known, or cut short, or too long.
    """
    schema = schema_of(data, known)
    body = BytesIO(data)
    body.seek(_HEADER_BYTES)
    return read(schema, body)


def schema_of(data: bytes, known: Mapping[bytes, Schema]) -> Schema:
    """The schema that single-object bytes name in their header.

    Raises:
        Unreadable: Not single-object bytes, or of a schema that is not known.
    """
    if not data.startswith(MAGIC) or len(data) < _HEADER_BYTES:
        raise Unreadable("the record is not in Avro's single-object encoding: was it published with a registry?")
    mark = data[len(MAGIC) : _HEADER_BYTES]
    if mark not in known:
        raise Unreadable(
            f"the record's schema {mark.hex()} is not known: it comes from another version of the connector"
        )
    return known[mark]


def read(schema: Schema, body: BytesIO) -> dict[str, Any]:
    """The value of a record in Avro's binary encoding, from where the body stands to its end.

    Raises:
        Unreadable: The bytes are not one whole record of that schema.
    """
    try:
        value = schemaless_reader(body, schema.parsed, None)
    except (EOFError, ValueError, TypeError, IndexError, OverflowError, MemoryError, StructError) as error:
        raise Unreadable(f"the bytes are not a record of the schema {schema.name}") from error
    if not isinstance(value, dict) or body.read(1):
        raise Unreadable(f"the bytes go on after a record of the schema {schema.name}")
    return value


def _misfits(schema: Schema, value: Mapping[str, Any]) -> str:
    """The names of the fields that do not fit and how, for an error's message."""
    types = {each["name"]: each["type"] for each in schema.parsed["fields"]}
    missing = [name for name in types if name not in value]
    unfit = [name for name in types if name in value and not _fits(value[name], types[name])]
    return f"missing {missing}, not of their type {unfit}, unknown to the schema {len(set(value) - set(types))}"


def _fits(value: Any, avro_type: Any) -> bool:
    try:
        schemaless_writer(BytesIO(), avro_type, value, strict=True, disable_tuple_notation=True)
    except _UNWRITABLE:
        return False
    return True
