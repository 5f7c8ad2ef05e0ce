"""A fast path for common messages: JSON in which every field has its documented type, read and typed in one pass.

`read` gives what `connector.message.parsing.parse` and `connector.message.conversion.convert` give (a property test
compares them). Whatever is unusual (an unknown field, a number as text, a form, a mistake) is left to them. Pure.
"""

from datetime import tzinfo
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from connector.errors import Unconvertible
from connector.message import weda
from connector.message.avro import members_writer
from connector.message.conversion import (
    COMPACT_MINUTES_UNTIL,
    COMPACT_SECONDS_FROM,
    IDENTIFIERS,
    INT_MAX,
    INT_MIN,
    MAX_IDENTIFIER,
    Event,
    date,
)
from connector.message.parsing import MAX_TEXT, Message, may_hold_too_many
from connector.message.schemas import INSTANCE_EVENT, TASK_EVENT, WORKFLOW_EVENT, Schema, kinds, load
from connector.values import IngestId, Request

_TYPES: Final[dict[str, Any]] = {
    "string": str,
    "int": Annotated[int, Meta(ge=INT_MIN, le=INT_MAX)],
    "boolean": bool,
    # milliseconds of the years 1976 to 2594, which cannot be the digits of a date
    "date": Annotated[int, Meta(gt=COMPACT_MINUTES_UNTIL, lt=COMPACT_SECONDS_FROM)] | str,
    "maps": list[dict[str, str]] | dict[str, str],
}
_IDENTIFIER: Final[Any] = Annotated[str, Meta(max_length=MAX_IDENTIFIER)]
_KINDS: Final = kinds(load(WORKFLOW_EVENT))
_DATES: Final = tuple(name for name, kind in _KINDS.items() if kind == "date")
_MAPS: Final = tuple(name for name, kind in _KINDS.items() if kind == "maps")


def _members() -> list[Any]:
    """Name, type and default of every field, in the order of their names: that of the canonical JSON."""
    needed = {
        "msgType": Literal[weda.INSTANCE, weda.TASK],
        "instanceId": Annotated[str, Meta(min_length=1, max_length=MAX_IDENTIFIER)],
    }
    types = {name: _IDENTIFIER if name in IDENTIFIERS else _TYPES[kind] for name, kind in _KINDS.items()}
    return [
        (name, needed[name]) if name in needed else (name, types[name] | None | UnsetType, UNSET)
        for name in sorted(_KINDS)
    ]


_Fields: Any = msgspec.defstruct("_Fields", _members(), kw_only=True, forbid_unknown_fields=True, gc=False)


class _Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    msgContext: str | _Fields  # noqa: N815 - WeDa's own name


_WRITERS: Final = {
    name: (
        members_writer(load(name), _KINDS, absent=UNSET),
        tuple(other for other in sorted(_KINDS) if other not in load(name).fields),
    )
    for name in (WORKFLOW_EVENT, INSTANCE_EVENT, TASK_EVENT)
}
"""Record type → its writer, and the fields of the message that it does not have."""
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_FIELDS: Final = msgspec.json.Decoder(_Fields)
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")
_UNUSUAL: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


def read(body: bytes, zone: tzinfo) -> Event | None:
    """The event in a JSON body, or None where the body has to be parsed and converted step by step.

    Args:
        body: The bytes of a request whose media type is JSON.
        zone: The zone of dates that name none.
    """
    if len(body) > MAX_TEXT:
        return None
    try:
        inner = _ENVELOPE.decode(body).msgContext
        if inner.__class__ is not str:
            return None if may_hold_too_many(body) else _event(inner, body, zone, enveloped=True)
        return None if may_hold_too_many(inner) else _event(_FIELDS.decode(inner), inner, zone, enveloped=False)
    except _UNUSUAL:
        return _read_bare(body, zone)


def _read_bare(body: bytes, zone: tzinfo) -> Event | None:
    try:
        typed = _FIELDS.decode(body)
        return None if may_hold_too_many(body) else _event(typed, body, zone, enveloped=False)
    except _UNUSUAL:
        return None


class _TypedMessage(Message):
    """A message whose fields are typed already; the fields as sent are computed when they are asked for."""

    __slots__ = ("_typed",)

    def __init__(self, typed: Any, text: str | bytes, *, enveloped: bool) -> None:
        self._typed = typed
        self._text = text
        self._enveloped = enveloped
        self._tokens = None
        self.fingerprint = sha256(_CANONICAL.encode(typed)).digest()[:16]
        self.lone_surrogate = False

    @property
    def fields(self) -> dict[str, Any]:  # type: ignore[override]  # computed on demand
        """What was sent, typed."""
        return {name: value for name, value in msgspec.structs.asdict(self._typed).items() if value is not UNSET}


class _TypedEvent(Event):
    """An event whose record is written from the typed fields directly."""

    __slots__ = ("_typed",)

    def __init__(self, message: Message, typed: Any) -> None:
        self.message = message
        self.instance_id = typed.instanceId
        self.message_type = typed.msgType
        self.unknown_fields = ()
        self._typed = typed

    @property
    def fields(self) -> dict[str, Any]:  # type: ignore[override]  # computed on demand
        """Every field of ``WorkflowEvent`` but those that the connector adds."""
        held = msgspec.structs.asdict(self._typed)
        return {name: None if value is UNSET else value for name, value in held.items()}

    def field(self, name: str) -> Any:
        value = getattr(self._typed, name)
        return None if value is UNSET else value

    def encoded(self, schema: Schema, header: bytes, request: Request, ingest_id: IngestId) -> bytes:
        write, others = _WRITERS[schema.name]
        extras = {name: self.message.token(name) for name in others if self.field(name) is not None}
        return write(header, self._typed, request.source, request.received_at, ingest_id, extras)


def _event(typed: Any, text: str | bytes, zone: tzinfo, *, enveloped: bool) -> Event | None:
    if typed.instanceId.isspace():
        return None
    message = _TypedMessage(typed, text, enveloped=enveloped)
    for name in _MAPS:
        if getattr(typed, name).__class__ is dict:
            bare = getattr(typed, name)
            setattr(typed, name, [bare] if bare else [])
    for name in _DATES:
        if getattr(typed, name).__class__ is str:
            number = _date(getattr(typed, name), name, zone)
            if number is None:
                return None
            setattr(typed, name, number)
    return _TypedEvent(message, typed)


def _date(text: str, name: str, zone: tzinfo) -> int | None:
    """Milliseconds, or None for an unusual text or one that says that there is no date."""
    try:
        return date(text, name, zone)
    except Unconvertible:
        return None
