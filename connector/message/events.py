"""Converts a message into the event that it reports, and encodes the event's records. Pure.

Fields keep WeDa's names. Every value that a source sends is either typed in a field or kept as JSON text in
``extras``; a value that fits neither raises :class:`~connector.errors.Unconvertible`; nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final

from connector.errors import Unconvertible, Unreadable
from connector.message import weda
from connector.message.encoding import read
from connector.message.flat import flat_type
from connector.message.parsing import Message, is_overflow, lone_surrogate
from connector.message.records import encode_fields, record_type
from connector.message.schemas import FLAT_EVENT, WORKFLOW_EVENT, Schema, codes, kinds, load
from connector.message.weda import INSTANCE_ID, MESSAGE_ID, MESSAGE_TYPE
from connector.values import IngestId, InstanceId, Request

MAX_IDENTIFIER_CHARS: Final = 1024
"""The limit on ``instanceId`` and each of `IDENTIFIERS`, which keys, headers and the log hold in full."""

IDENTIFIERS: Final = (MESSAGE_ID, "processKey", "envType")

DICTIONARIES: Final = {
    name: frozenset({None, *(code.value for code in codes(load(WORKFLOW_EVENT), name))})
    for name in ("action", "instanceStatus")
}
"""Field → the codes that WeDa documents, which label metrics; other codes are accepted and published too."""

_ACTIONS: Final = DICTIONARIES["action"]
_STATUSES: Final = DICTIONARIES["instanceStatus"]
_KNOWN_FIELDS: Final = frozenset(kinds(load(WORKFLOW_EVENT)))
_UNCHANGED_HINT: Final = f"pass the whole {weda.ENVELOPE} on, unchanged"


class Event:
    """The fact that a message reports.

    Attributes:
        message: The message, from which a record takes the JSON text of fields that its schema lacks.
        instance_id: The key of its records.
        message_type: ``Instance`` or ``Task``.
        message_id: WeDa's ``msgId`` as sent, which may be empty.
        process_key: WeDa's ``processKey``.
        environment: WeDa's ``envType``.
        action: The code of what was done.
        fingerprint: The fingerprint of the message. See `Message.fingerprint`.
        is_deletion: Whether the message says that its instance is deleted.
        unknown_fields: Names that the schema lacks, in the order of the message.
        unknown_codes: Fields whose code is not in the dictionary.
    """

    __slots__ = (
        "_pieces",
        "action",
        "environment",
        "fingerprint",
        "instance_id",
        "is_deletion",
        "message",
        "message_id",
        "message_type",
        "process_key",
        "unknown_codes",
        "unknown_fields",
    )

    def __init__(self, message: Message, instance_id: InstanceId, message_type: str, zone: tzinfo) -> None:
        self.message = message
        self.instance_id = instance_id
        self.message_type = message_type
        self._pieces, named = encode_fields(message, instance_id, message_type, zone)
        self.message_id, self.process_key, self.environment, self.action, status = named
        self.fingerprint = message.fingerprint
        self.is_deletion = message_type == weda.INSTANCE and weda.is_deleted(self.action, status)
        self.unknown_fields: Sequence[str] = ()
        # One cheap check for names and one for codes; lists are built only for messages that need them.
        if not _KNOWN_FIELDS.issuperset(message.fields):
            self.unknown_fields = [name for name in message.fields if name not in _KNOWN_FIELDS]
        self.unknown_codes: Sequence[str] = ()
        if self.action not in _ACTIONS or status not in _STATUSES:
            values = {"action": self.action, "instanceStatus": status}
            self.unknown_codes = [name for name, code in values.items() if code not in DICTIONARIES[name]]

    @property
    def fields(self) -> Mapping[str, Any]:
        """Every field of ``WorkflowEvent`` that WeDa sends, typed; decoded from a record, so not for the hot path."""
        schema = load(WORKFLOW_EVENT)
        record = self.encode(schema, b"", Request("", b"", "", 0), IngestId(""))
        value = read(schema, record)
        return {name: value[name] for name in kinds(schema)}

    def encode(self, schema: Schema, header: bytes, request: Request, ingest_id: IngestId) -> bytes:
        """Encode one of its records: the header, then Avro's binary encoding.

        Raises:
            Unconvertible: A field that the record does not have cannot be encoded in UTF-8.
        """
        message = self.message
        if schema.name == FLAT_EVENT:
            return flat_type().join(
                header,
                self._pieces,
                message=message,
                fingerprint=self.fingerprint,
                unknown=self.unknown_fields,
                request=request,
                ingest_id=ingest_id,
            )
        record = record_type(schema.name)
        without_field = [name for name in record.lacking if message.fields.get(name) is not None]
        extras = {name: message.raw_json(name) for name in (*without_field, *self.unknown_fields)}
        return record.join(header, self._pieces, request, ingest_id, extras)


def check_record_type(schema: Schema) -> None:
    """Check that `Event.encode` can make records of a schema.

    Raises:
        ConfigurationError: The schema has other fields than the connector encodes.
    """
    if schema.name == FLAT_EVENT:
        flat_type()
    else:
        record_type(schema.name)


def convert(message: Message, zone: tzinfo) -> Event:
    """Convert a parsed message into an event.

    Args:
        message: The parsed message.
        zone: The zone of dates without one.

    Raises:
        Unconvertible: ``instanceId`` is missing, ``msgType`` is unknown, a value has the wrong type, a text cannot be
            encoded in UTF-8, or an identifier is too long.
        Unreadable: A known field holds a number past double range.
    """
    try:
        message_type = _message_type(message)
        event = Event(message, _instance_id(message), message_type, zone)
        for name, text in zip(IDENTIFIERS, (event.message_id, event.process_key, event.environment), strict=True):
            _check_length(text, name)
        if event.unknown_fields:
            # Reading one raw field decodes the document, and so shows whether the others can be read later.
            message.raw_json(event.unknown_fields[0])
    except UnicodeEncodeError as error:
        raise lone_surrogate() from error
    except (Unconvertible, Unreadable):
        # Text without a UTF-8 form is reported before anything else, so that the code does not depend on the order
        # in which fields are converted.
        message.check_text()
        raise
    return event


def readable_instance_id(message: Message) -> InstanceId | None:
    """Return the ``instanceId`` of a message that could not be converted, which keys its dead letter, or None."""
    try:
        instance_id = _instance_id(message)
        instance_id.encode()
    except (Unconvertible, Unreadable, UnicodeEncodeError):
        return None
    return instance_id


def _message_type(message: Message) -> str:
    value = message.fields.get(MESSAGE_TYPE)
    message_type = weda.MESSAGE_TYPES.get(value.lower()) if isinstance(value, str) else None
    if message_type is None:
        raise Unconvertible(f"msgType is missing or neither Instance nor Task: {_UNCHANGED_HINT}", code=42202)
    return message_type


def _instance_id(message: Message) -> InstanceId:
    value = message.fields.get(INSTANCE_ID)
    if isinstance(value, str):
        text = value
    elif is_overflow(value):
        raise Unreadable("instanceId holds a number past double range: send it as text", code=40006)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        text = message.raw_json(INSTANCE_ID)
    else:
        text = ""
    if not text or text.isspace():
        raise Unconvertible(
            f"instanceId is missing, empty, or neither text nor a number: {_UNCHANGED_HINT}", code=42203
        )
    _check_length(text, INSTANCE_ID)
    return InstanceId(text)


def _check_length(identifier: str | None, name: str) -> None:
    if identifier is not None and len(identifier) > MAX_IDENTIFIER_CHARS:
        raise Unconvertible(
            f"{name} has more than {MAX_IDENTIFIER_CHARS} characters: send it as WeDa made it", code=42207
        )
