"""Converts and encodes each field of a message once; a record is the join of its encoded fields.

`encode_fields` is compiled at import from the schema of `WorkflowEvent`, which has every field of the other records.
For each field it has a statement that converts a value of another type (`connector.message.conversion`), and one that
encodes it (`connector.message.avro`). Tests compare its bytes with those of fastavro.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import cache
from operator import itemgetter
from typing import Any, Final, Protocol

from connector.errors import ConfigurationError
from connector.message import avro, conversion
from connector.message.parsing import Message
from connector.message.schemas import CONNECTOR_FIELDS, WORKFLOW_EVENT, Kind, Schema, binary_type, kinds, load
from connector.message.weda import INSTANCE_ID, MESSAGE_ID, MESSAGE_TYPE
from connector.values import IngestId, Request

NAMED: Final = (MESSAGE_ID, "processKey", "envType", "action", "instanceStatus")
"""The fields whose values `encode_fields` returns besides the encoded fields; metrics, headers and routes need them."""

_REQUIRED: Final = (INSTANCE_ID, MESSAGE_TYPE)
"""The fields that the caller of `encode_fields` converts, because there is no event without them."""

# The generated code compares classes instead of calling isinstance, to which a bool is an int. In "date", an int
# between the largest yyyyMMddHHmm and the smallest yyyyMMddHHmmss can only be epoch milliseconds (1976 to 2594).
_STATEMENTS: Final[Mapping[Kind, str]] = {
    "string": """
        if {x}.__class__ is not str:
            {x} = string({x}, {name!r}, message)
        {keep}encoded = {x}.encode()
        {x} = NULLABLE_NUMBER[len(encoded)] + encoded
""",
    "int": """
        if {x}.__class__ is not int or not INT_MIN <= {x} <= INT_MAX:
            {x} = integer({x}, {name!r})
        {keep}{x} = NULL if {x} is None else NULLABLE_NUMBER[{x}]
""",
    "boolean": """
        if {x}.__class__ is not bool:
            {x} = boolean({x}, {name!r})
        {keep}{x} = NULL if {x} is None else NULLABLE_BOOLEAN[{x}]
""",
    "date": """
        if {x}.__class__ is not int or not MAX_COMPACT_MINUTE < {x} < MIN_COMPACT_SECOND:
            {x} = date({x}, {name!r}, zone)
        {keep}{x} = NULL if {x} is None else NULLABLE_NUMBER[{x}]
""",
    "maps": """
        {keep}{x} = maps({x}, {name!r}, message)
""",
}
"""Kind → the statements that turn ``x``, a field's value as parsed, into bytes.

``{keep}`` is where a field of `NAMED` stores its value before ``x`` becomes bytes; for other fields it is empty.
"""


class EncodeFields(Protocol):
    """The signature of `encode_fields`."""

    def __call__(
        self, message: Message, instance_id: str, message_type: str, zone: tzinfo, /
    ) -> tuple[tuple[bytes, ...], tuple[Any, ...]]:
        """Convert and encode every field that WeDa sends.

        Args:
            message: The message; of its fields, the next two arguments replace ``instanceId`` and ``msgType``.
            instance_id: ``instanceId`` as published.
            message_type: ``msgType`` as published.
            zone: The zone of dates without one.

        Returns:
            The encoded fields in the order of `WorkflowEvent`, and the values of `NAMED`.

        Raises:
            Unconvertible: A value does not fit its field.
            Unreadable: A value holds a number past double range.
            UnicodeEncodeError: A text holds half of a surrogate pair.
        """


class RecordType:
    """Joins a type of record from the encoded fields of a message.

    Args:
        schema: The schema of the record.

    Attributes:
        lacking: The fields that WeDa sends and the record does not have.

    Raises:
        ConfigurationError: The schema does not consist of some of `WorkflowEvent`'s fields, with their types, and
            `CONNECTOR_FIELDS`.
    """

    def __init__(self, schema: Schema) -> None:
        own_kinds = kinds(schema)
        if any(_KINDS.get(name) != kind for name, kind in own_kinds.items()) or schema.fields != (
            *own_kinds,
            *CONNECTOR_FIELDS,
        ):
            raise ConfigurationError(
                f"schema {schema.name}: its fields are not some of {WORKFLOW_EVENT}'s, and {CONNECTOR_FIELDS}"
            )
        self._pick: Callable[[Sequence[bytes]], tuple[bytes, ...]] = itemgetter(*map(list(_KINDS).index, own_kinds))
        self.lacking = tuple(name for name in _KINDS if name not in own_kinds)

    def join(
        self, header: bytes, pieces: Sequence[bytes], request: Request, ingest_id: IngestId, extras: Mapping[str, str]
    ) -> bytes:
        """Return one record.

        Args:
            header: The header before Avro's bytes.
            pieces: The encoded fields, in the order of `WorkflowEvent`.
            request: The request that the message came with: its source and time.
            ingest_id: The record's ``ingestId``.
            extras: Field that the record does not have → its JSON text.
        """
        return b"".join(
            (
                header,
                *self._pick(pieces),
                avro.encode_text(request.source),
                avro.NUMBER[request.received_at],
                avro.encode_text(ingest_id),
                avro.encode_map(extras),
            )
        )


@cache
def record_type(name: str) -> RecordType:
    """Return the type of the records with a full name, built on the first call.

    Raises:
        ConfigurationError: See `RecordType`.
    """
    return RecordType(load(name))


def _encode_maps(value: Any, name: str, message: Message) -> bytes:
    """Encode one map or a list of maps; maps with other values than texts are converted first."""
    maps = value
    if value.__class__ is dict:
        maps = (value,) if value else ()
    # Most maps hold only texts, and are encoded without a look at each value first. The same call fails for others.
    if maps.__class__ is not str:
        try:
            return avro.encode_nullable_maps(maps)
        except (AttributeError, TypeError):
            pass
    converted = conversion.maps(value, name, message)
    return avro.NULL if converted is None else avro.encode_nullable_maps(converted)


def _compile_encoder() -> EncodeFields:
    # Local variables instead of a dict of fields: the interpreter reads them by index.
    variables = {name: f"x{number}" for number, name in enumerate(_KINDS)}
    lines = [
        "def encode_fields(message, instance_id, message_type, zone):",
        f"    {', '.join(variables.values())} = map(message.fields.get, FIELDS)",
        f"    {' = '.join(NAMED)} = None",
    ]
    for name, kind in _KINDS.items():
        if name not in _REQUIRED:
            x, keep = variables[name], f"{name} = {variables[name]}\n        " if name in NAMED else ""
            text = _STATEMENTS[kind].format(name=name, x=x, keep=keep)
            lines += [f"    if {x} is None:", f"        {x} = NULL", "    else:", text.strip("\n")]
    lines += [
        f"    {variables[INSTANCE_ID]} = text(instance_id)",
        f"    {variables[MESSAGE_TYPE]} = text(message_type)",
        f"    return ({', '.join(variables.values())}), ({', '.join(NAMED)})",
    ]
    names = {
        **{name: getattr(conversion, name) for name in ("string", "integer", "boolean", "date")},
        **{name: getattr(conversion, name) for name in _BOUNDS},
        **{name: getattr(avro, name) for name in ("NULL", "NULLABLE_NUMBER", "NULLABLE_BOOLEAN")},
        "FIELDS": tuple(_KINDS),
        "maps": _encode_maps,
        "text": avro.encode_text,
    }
    exec(compile("\n".join(lines), "<encode_fields>", "exec"), names)  # noqa: S102 - generated from the package's own schema
    compiled: EncodeFields = names["encode_fields"]
    return compiled


def _check_types(schema: Schema) -> None:
    own_kinds = kinds(schema)
    for field in schema.parsed["fields"]:
        kind = own_kinds.get(field["name"])
        if kind is None:
            continue
        expected = binary_type(kind) if field["name"] in _REQUIRED else ["null", binary_type(kind)]
        if field["type"] != expected:
            raise ConfigurationError(f"schema {schema.name}: no encoding for {json.dumps(field)}")


_BOUNDS: Final = ("INT_MIN", "INT_MAX", "MAX_COMPACT_MINUTE", "MIN_COMPACT_SECOND")
_KINDS: Final = kinds(load(WORKFLOW_EVENT))
# At import, so that a schema without an encoding stops the start and not a message.
_check_types(load(WORKFLOW_EVENT))
encode_fields: Final = _compile_encoder()
