"""From a message to the event that it reports, and from the event to its records. Pure.

Field names stay WeDa's own. Every value that a source sent is either typed in a field or kept as JSON text in
``extras``; a value that fits neither is an :class:`~connector.errors.Unconvertible`, never a guess. What is read
leniently (numbers as text, both map shapes, every form of a date) is in the data dictionary, ``avro/README.md``.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec

from connector.errors import Unconvertible, Unreadable
from connector.message import weda
from connector.message.encoding import CONTENT_TYPE, write
from connector.message.parsing import Message, is_overflow, load, lone_surrogate
from connector.message.schemas import WORKFLOW_EVENT, Schema, codes, kinds
from connector.message.schemas import load as load_schema
from connector.values import Headers, IngestId, InstanceId, Request

_WHOLE: Final = f"pass the whole {weda.ENVELOPE} on, unchanged"
_AS_SENT: Final = "pass this field on as WeDa sends it"

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
MAX_IDENTIFIER: Final = 1024
"""Most characters of an ``instanceId`` and of `IDENTIFIERS`: keys, headers and the log hold them whole."""

IDENTIFIERS: Final = ("msgId", "processKey", "envType")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.0+)?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]+)?")
MILLISECONDS_FROM: Final = 10**11
LATEST: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
COMPACT_SECONDS_FROM: Final = 19_700_101_000_000
"""From here on a number may be the digits of a date and time (yyyyMMddHHmmss)."""

COMPACT_MINUTES_UNTIL: Final = 210_012_312_359
"""Up to here a number may be the digits of a date, hour and minute (yyyyMMddHHmm)."""

_COMPACT_BETWEEN: Final = (19_700_101, 10**17)
_COMPACT_YEARS: Final = (1970, 2100)
_COMPACT: Final = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}
_NO_DATE = re.compile(r"-+|0000([-/])00?\1(?:00|0)(?:[T ][0-9:. ]*Z?)?")
_LOOSE_DATE = re.compile(
    r"(?P<year>[0-9]{4})(?P<by>[-/])(?P<month>[0-9]{1,2})(?P=by)(?P<day>[0-9]{1,2})"
    r"(?:(?:T| +)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?P<rest>[.,][0-9]{1,9})?)?"
    r" ?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_FIRST_MIDNIGHT = datetime(1970, 1, 1)  # noqa: DTZ001 - in any zone: databases show "no date" like this
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_ONE_MAP = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MANY_MAPS = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None])

Maps = list[dict[str, str]]


class EventSummary(msgspec.Struct, frozen=True, gc=False):
    """What log, metrics and lists say of an event; it outlives the event.

    Attributes:
        instance_id: The key.
        message_type: ``Instance`` or ``Task``.
        message_id: WeDa's ``msgId`` as it came.
        process_key: WeDa's ``processKey``.
        environment: WeDa's ``envType``.
        action: The code of what was done.
        unknown_fields: Names that the schema does not know, in the message's order.
        unknown_codes: Fields whose code is in no dictionary.
    """

    instance_id: InstanceId
    message_type: str
    message_id: str | None
    process_key: str | None
    environment: str | None
    action: int | None
    unknown_fields: Sequence[str]
    unknown_codes: Sequence[str]


class Event:
    """The fact that a message reports, typed.

    Attributes:
        message: Its source; fields without a place are taken from it as JSON text.
        instance_id: The key.
        message_type: ``Instance`` or ``Task``.
        fields: Every field of ``WorkflowEvent`` but those that the connector adds.
        unknown_fields: Names that the schema does not know, in the message's order.
    """

    __slots__ = ("fields", "instance_id", "message", "message_type", "unknown_fields")

    def __init__(
        self,
        message: Message,
        instance_id: InstanceId,
        message_type: str,
        fields: Mapping[str, Any],
        unknown_fields: Sequence[str],
    ) -> None:
        self.message = message
        self.instance_id = instance_id
        self.message_type = message_type
        self.fields = fields
        self.unknown_fields = unknown_fields

    def field(self, name: str) -> Any:
        """One of the fields."""
        return self.fields[name]

    @property
    def message_id(self) -> str | None:
        """WeDa's ``msgId``, or None where there is none."""
        return self.field("msgId") or None

    @property
    def summary(self) -> EventSummary:
        """What log, metrics and lists say of it."""
        field = self.field
        return EventSummary(
            self.instance_id,
            self.message_type,
            field("msgId"),
            field("processKey"),
            field("envType"),
            field("action"),
            self.unknown_fields,
            [name for name, known in DICTIONARIES.items() if field(name) not in known],
        )

    def encoded(self, schema: Schema, header: bytes, request: Request, ingest_id: IngestId) -> bytes:
        """One record of it: the header, then Avro's binary encoding.

        Raises:
            Defect: A value does not fit the schema.
        """
        return write(schema, record_value(self, schema, request, ingest_id), header=header)


def convert(message: Message, zone: tzinfo) -> Event:
    """Type a message's fields.

    Args:
        message: The parsed message.
        zone: The zone of dates that name none.

    Raises:
        Unconvertible: No ``instanceId``, an unknown ``msgType``, a value of the wrong type, text without a UTF-8 form,
            an identifier that is too long.
        Unreadable: A known field holds a number past double range.
    """
    if message.lone_surrogate:
        raise lone_surrogate()
    message_type = _message_type(message.fields.get("msgType"))
    instance_id = _instance_id(message)
    fields = {name: _read(message, name, kind, zone) for name, kind in _KINDS.items()}
    fields |= {"msgType": message_type, "instanceId": instance_id}
    for name in IDENTIFIERS:
        _check_length(fields[name], name)
    unknown = [name for name in message.fields if name not in fields]
    return Event(message, instance_id, message_type, fields, unknown)


def is_deletion(event: Event) -> bool:
    """Whether the message says that its instance is deleted."""
    return event.message_type == weda.INSTANCE and (
        event.field("action") == weda.DELETE_INSTANCE or event.field("instanceStatus") == weda.INSTANCE_DELETED
    )


def readable_instance_id(message: Message) -> InstanceId | None:
    """The ``instanceId`` of a message that could not be converted, where it has one: the key of its dead letter."""
    try:
        instance_id = _instance_id(message)
        instance_id.encode()
    except (Unconvertible, Unreadable, UnicodeEncodeError):
        return None
    return instance_id


def record_value(event: Event, schema: Schema, request: Request, ingest_id: IngestId) -> dict[str, Any]:
    """The fields of one record: those of its schema, the others as JSON text in ``extras``, then the connector's."""
    fields = event.fields
    own = {
        "source": request.source,
        "receivedAt": request.received_at,
        "ingestId": ingest_id,
        "extras": _extras(event, fields, schema),
    }
    if schema.name == WORKFLOW_EVENT:
        return {**fields, **own}
    return {name: fields[name] for name in kinds(schema)} | own


def _extras(event: Event, fields: Mapping[str, Any], schema: Schema) -> dict[str, str]:
    """The fields that the schema does not have, as JSON text; a null in a field of another schema is not kept."""
    if schema.name == WORKFLOW_EVENT:
        return {name: event.message.token(name) for name in event.unknown_fields}
    known = kinds(schema)
    return {
        name: event.message.token(name)
        for name, value in event.message.fields.items()
        if name not in known and not (value is None and name in fields)
    }


def headers(event: Event, request: Request, ingest_id: IngestId, *, conflict: bool = False) -> Headers:
    """CloudEvents headers (Kafka binary mode), the fingerprint, and the trace context where there is one.

    Args:
        event: The event.
        request: When and from whom it came.
        ingest_id: Its ``ingestId``.
        conflict: Its ``msgId`` came before with other content.
    """
    fingerprint = event.message.fingerprint.hex()
    version, kind, source, content_type = _fixed_headers(event.message_type, request.source, event.field("envType"))
    made = (
        version,
        ("ce_id", _event_id(event, ingest_id, fingerprint, conflict=conflict).encode()),
        kind,
        source,
        ("ce_subject", event.instance_id.encode()),
        ("ce_time", timestamp_text(request.received_at).encode()),
        content_type,
        ("weda.fingerprint", fingerprint.encode()),
    )
    return made if request.traceparent is None else (*made, ("traceparent", request.traceparent.encode()))


@lru_cache(maxsize=1_024)
def _fixed_headers(message_type: str, source: str, environment: str | None) -> Headers:
    """The headers that many records share."""
    place = f"/sources/{source}" + (f"/{quote(environment, safe='')}" if environment else "")
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"io.weda.workflow.{message_type.lower()}.v1".encode()),
        ("ce_source", place.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    )


def timestamp_text(milliseconds: int) -> str:
    """RFC 3339 text, in UTC, of epoch milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second_text(seconds)}.{rest:03}Z"


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")


def _event_id(event: Event, ingest_id: IngestId, fingerprint: str, *, conflict: bool) -> str:
    message_id = event.message_id
    if message_id is None:
        return ingest_id
    return f"{message_id}~{fingerprint[:8]}" if conflict else message_id


def _message_type(value: Any) -> str:
    message_type = weda.MESSAGE_TYPES.get(value.lower()) if isinstance(value, str) else None
    if message_type is None:
        raise Unconvertible(f"msgType is missing or neither Instance nor Task: {_WHOLE}", code=42202)
    return message_type


def _instance_id(message: Message) -> InstanceId:
    value = message.fields.get("instanceId")
    if is_overflow(value):
        raise Unreadable("instanceId holds a number past double range", code=40006)
    if isinstance(value, str):
        text = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        text = message.token("instanceId")
    else:
        text = ""
    if not text or text.isspace():
        raise Unconvertible(f"instanceId is missing, empty, or neither text nor a number: {_WHOLE}", code=42203)
    _check_length(text, "instanceId")
    return InstanceId(text)


def _check_length(identifier: str | None, name: str) -> None:
    if identifier is not None and len(identifier) > MAX_IDENTIFIER:
        raise Unconvertible(f"{name} has more than {MAX_IDENTIFIER} characters: send it as WeDa made it", code=42207)


def _read(message: Message, name: str, kind: str, zone: tzinfo) -> Any:
    value = message.fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) and is_overflow(value):
        raise Unreadable(f"{name} holds a number past double range", code=40006)
    return _READERS[kind](value, message, name, zone)


def _string(value: Any, message: Message, name: str, _zone: tzinfo) -> str:
    return value if isinstance(value, str) else message.token(name)


def _int(value: Any, _message: Message, name: str, _zone: tzinfo) -> int | None:
    if value == "":
        return None
    number = _whole_number(value)
    if number is None or not INT_MIN <= number <= INT_MAX:
        raise _wrong_type(name, "a whole number of 32 bits")
    return number


def _whole_number(value: Any) -> int | None:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _boolean(value: Any, _message: Message, name: str, _zone: tzinfo) -> bool | None:
    if value == "":
        return None
    known = value.strip().lower() if isinstance(value, str) else value
    if isinstance(known, str | int | float) and known in _BOOLEANS:
        return _BOOLEANS[known]
    raise _wrong_type(name, "true, false, 1 or 0")


def _date(value: Any, _message: Message, name: str, zone: tzinfo) -> int | None:
    return date(value, name, zone)


def date(value: Any, name: str, zone: tzinfo) -> int | None:
    """Epoch milliseconds of a date in any of its forms; None for a value that says that there is no date.

    Digits that are a calendar date are that date, never a number: `20260302` is no second of 1970.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and (not text or _NO_DATE.fullmatch(text)):
        return None
    number = _date_number(text)
    if number == 0:
        return None
    calendar = _calendar(text) if number is None else _compact(number)
    if calendar is not None:
        if calendar == _FIRST_MIDNIGHT:
            return None
        milliseconds = _milliseconds(calendar, zone)
    else:
        milliseconds = None if number is None else _scaled(number)
    if milliseconds is None:
        raise _wrong_type(name, "epoch milliseconds or seconds, ISO 8601, yyyy-MM-dd HH:mm:ss or yyyyMMddHHmmss")
    if not 0 <= milliseconds <= LATEST:
        raise Unconvertible(f"{name} is outside the years 1970 to 9999: {_AS_SENT}", code=42206)
    return milliseconds


def _date_number(value: Any) -> float | None:
    """The number in which a date is written; None for what is no number."""
    if not isinstance(value, str):
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if not _NUMBER.fullmatch(value):
        return None
    return float(value) if "." in value else int(value)


def _compact(number: float) -> datetime | None:
    """The calendar date of 1970 to 2100 whose digits a number has: a day, or a minute, second or millisecond of one.

    Hours without minutes (yyyyMMddHH) could be seconds of the years 2032 to 2036, and are read as those.
    """
    if not _COMPACT_BETWEEN[0] <= number < _COMPACT_BETWEEN[1] or number != int(number):
        return None
    digits = str(int(number))
    layout = _COMPACT.get(len(digits))
    if layout is None:
        return None
    try:
        found = datetime.strptime(digits, layout)  # noqa: DTZ007 - the zone comes later
    except ValueError:
        return None
    return found if _COMPACT_YEARS[0] <= found.year <= _COMPACT_YEARS[1] else None


def _scaled(number: float) -> int:
    return round(number) if abs(number) >= MILLISECONDS_FROM else round(number * 1000)


def _calendar(value: Any) -> datetime | None:
    """The date in a text, as people and databases write it; naive where it names no zone."""
    if not isinstance(value, str):
        return None
    loose = _LOOSE_DATE.fullmatch(value)
    try:
        return datetime.fromisoformat(value if loose is None else _iso(loose))
    except ValueError:
        return None


def _iso(loose: re.Match[str]) -> str:
    """ISO 8601 of a date with slashes, or with numbers of one digit."""
    day = f"{loose['year']}-{int(loose['month']):02}-{int(loose['day']):02}"
    if loose["hour"] is None:
        return day
    seconds = f":{int(loose['second']):02}{loose['rest'] or ''}" if loose["second"] else ""
    return f"{day}T{int(loose['hour']):02}:{int(loose['minute']):02}{seconds}{loose['zone'] or ''}"


def _milliseconds(moment: datetime, zone: tzinfo) -> int | None:
    try:
        return ((moment if moment.tzinfo else moment.replace(tzinfo=zone)) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None


def _maps(value: Any, message: Message, name: str, _zone: tzinfo) -> Maps | None:
    """One shape for both of WeDa's: a list of maps of text; a bare map becomes a list of one."""
    if not isinstance(value, str):
        return _map_list(value, lambda: message.token(name), name)
    if not value.strip():
        return None
    return _map_list(_opened(value, name), lambda: value, name)


def _opened(text: str, name: str) -> Any:
    try:
        value = load(text)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate, escaped inside the text, has no UTF-8 form
    except (Unreadable, UnicodeEncodeError) as error:
        raise _wrong_type(name, "a map, a list of maps, or JSON text of one") from error
    if is_overflow(value):
        raise Unreadable(f"{name} holds a number past double range", code=40006)
    return value


def _map_list(value: Any, token: Callable[[], str], name: str) -> Maps | None:
    if value is None:
        return None
    maps = _listed(value)
    if maps is None or not all(isinstance(one, dict) for one in maps):
        raise _wrong_type(name, "a map, a list of maps, or JSON text of one")
    if all(isinstance(text, str) for one in maps for text in one.values()):
        return maps
    return _token_maps(maps, token(), bare=isinstance(value, dict))


def _listed(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return [value] if value else []
    return [one for one in value if one is not None] if isinstance(value, list) else None


def _token_maps(maps: list[dict[str, Any]], text: str, *, bare: bool) -> Maps:
    """The same maps, with every value that is no text as the JSON text that was sent."""
    raw = [_ONE_MAP.decode(text)] if bare else [one for one in _MANY_MAPS.decode(text) if one is not None]
    return [
        {key: value if isinstance(value, str) else str(memoryview(tokens[key]), "utf-8") for key, value in one.items()}
        for one, tokens in zip(maps, raw, strict=True)
    ]


def _wrong_type(name: str, expected: str) -> Unconvertible:
    return Unconvertible(f"{name} is not {expected}: {_AS_SENT}", code=42204)


_BOOLEANS: Final[Mapping[Any, bool]] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
_READERS: Final[Mapping[str, Callable[[Any, Message, str, tzinfo], Any]]] = {
    "string": _string,
    "int": _int,
    "boolean": _boolean,
    "date": _date,
    "maps": _maps,
}
_KINDS: Final = {
    name: kind for name, kind in kinds(load_schema(WORKFLOW_EVENT)).items() if name not in {"msgType", "instanceId"}
}
DICTIONARIES: Final = {
    name: frozenset({None, *(code.value for code in codes(load_schema(WORKFLOW_EVENT), name))})
    for name in ("action", "instanceStatus")
}
"""The codes that WeDa documents; they label metrics, and never close an enum."""
