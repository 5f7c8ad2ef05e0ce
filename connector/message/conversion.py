"""Converts a value that does not have its field's type: one function for each kind of field. Pure.

Numbers as text, both shapes of maps, and many forms of dates are accepted (``avro/README.md`` has the list).
Any other value raises :class:`~connector.errors.Unconvertible`; nothing is guessed.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

import msgspec

from connector.errors import Unconvertible, Unreadable
from connector.message.parsing import Message, is_overflow, load_json
from connector.message.persons import Persons, named_in

_AS_SENT_HINT: Final = "pass this field on as WeDa sends it"

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.0+)?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]+)?")
# A smaller number is seconds: as milliseconds it would be a time before March 1973.
_MIN_MILLISECONDS: Final = 10**11
_MAX_MILLISECONDS: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
MIN_COMPACT_SECOND: Final = 19_700_101_000_000
"""The smallest number that may be the digits of a date and time to the second (yyyyMMddHHmmss)."""

MAX_COMPACT_MINUTE: Final = 210_012_312_359
"""The largest number that may be the digits of a date and time to the minute (yyyyMMddHHmm)."""

_COMPACT_RANGE: Final = (19_700_101, 10**17)
_COMPACT_YEARS: Final = (1970, 2100)
_COMPACT_LAYOUTS: Final = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}
# What forms and databases write for "no date": dashes, or a year, month and day of zeros.
_PLACEHOLDER = re.compile(r"-+|0000([-/])00?\1(?:00|0)(?:[T ][0-9:. ]*Z?)?")
_LOOSE_DATE = re.compile(
    r"(?P<year>[0-9]{4})(?P<separator>[-/])(?P<month>[0-9]{1,2})(?P=separator)(?P<day>[0-9]{1,2})"
    r"(?:(?:T| +)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?P<fraction>[.,][0-9]{1,9})?)?"
    r" ?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_FIRST_MIDNIGHT = datetime(1970, 1, 1)  # noqa: DTZ001 - in any zone: databases show "no date" like this
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_RAW_MAP_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_MAPS_DECODER = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None])

Maps = list[dict[str, str]]


def string(value: Any, name: str, message: Message) -> str:
    """Return a text unchanged, any other value as its JSON text."""
    _check_range(value, name)
    return value if isinstance(value, str) else message.raw_json(name)


def integer(value: Any, name: str) -> int | None:
    """Return a whole number of 32 bits, which may be written as text; None for the empty text."""
    if value == "":
        return None
    _check_range(value, name)
    number = _whole_number(value)
    if number is None or not INT_MIN <= number <= INT_MAX:
        raise _wrong_type(name, "a whole number of 32 bits")
    return number


def boolean(value: Any, name: str) -> bool | None:
    """Return a boolean, which may be written as text or as 1 or 0; None for the empty text."""
    if value == "":
        return None
    _check_range(value, name)
    key = value.strip().lower() if isinstance(value, str) else value
    # The check of the type comes first: a dict or list has no hash.
    if isinstance(key, str | int | float) and key in _BOOLEANS:
        return _BOOLEANS[key]
    raise _wrong_type(name, "true, false, 1 or 0")


def _whole_number(value: Any) -> int | None:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def date(value: Any, name: str, zone: tzinfo) -> int | None:
    """Return the epoch milliseconds of a date in any of its forms; None for a value that means "no date".

    Digits that form a calendar date are that date: `20260302` is 2 March 2026, not a second of 1970.

    Args:
        value: The value as parsed.
        name: The field's name, for error messages.
        zone: The zone of dates without one.
    """
    text = value.strip() if isinstance(value, str) else value
    # False equals 0, but is no date: it must not pass for "no date".
    if text == "" or (text == 0 and not isinstance(text, bool)):
        return None
    number = None if _is_iso(text) else _date_number(text)
    if number == 0:
        return None
    calendar = _calendar(text) if number is None else _compact(number)
    if calendar is not None:
        if calendar == _FIRST_MIDNIGHT:
            return None
        milliseconds = _milliseconds(calendar, zone)
    elif number is None and isinstance(text, str) and _PLACEHOLDER.fullmatch(text):
        return None
    else:
        _check_range(value, name)
        milliseconds = None if number is None else _scaled(number)
    if milliseconds is None:
        raise _wrong_type(name, "epoch milliseconds or seconds, ISO 8601, yyyy-MM-dd HH:mm:ss or yyyyMMddHHmmss")
    if not 0 <= milliseconds <= _MAX_MILLISECONDS:
        raise Unconvertible(f"{name} is outside the years 1970 to 9999: {_AS_SENT_HINT}", code=42206)
    return milliseconds


def _is_iso(value: Any) -> bool:
    """Whether a value looks like an ISO date, as most texts do; then it cannot be a number."""
    return isinstance(value, str) and value[4:5] == "-"


def _date_number(value: Any) -> float | None:
    """Return the number that a date is written as, or None."""
    if not isinstance(value, str):
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if not _NUMBER.fullmatch(value):
        return None
    return float(value) if "." in value else int(value)


def _compact(number: float) -> datetime | None:
    """Return the calendar date of 1970 to 2100 that a number's digits form, or None.

    The digits end with the day, minute, second or millisecond. Those that could end with the hour (yyyyMMddHH) are
    read as epoch seconds, of the years 2032 to 2036.
    """
    if not _COMPACT_RANGE[0] <= number < _COMPACT_RANGE[1] or number != int(number):
        return None
    digits = str(int(number))
    layout = _COMPACT_LAYOUTS.get(len(digits))
    if layout is None:
        return None
    try:
        moment = datetime.strptime(digits, layout)  # noqa: DTZ007 - the zone comes later
    except ValueError:
        return None
    return moment if _COMPACT_YEARS[0] <= moment.year <= _COMPACT_YEARS[1] else None


def _scaled(number: float) -> int:
    return round(number) if abs(number) >= _MIN_MILLISECONDS else round(number * 1000)


def _calendar(value: Any) -> datetime | None:
    """Parse a date as people and databases write it; the result is naive if the text names no zone."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        loose = _LOOSE_DATE.fullmatch(value)
    try:
        return None if loose is None else datetime.fromisoformat(_iso(loose))
    except ValueError:
        return None


def _iso(loose: re.Match[str]) -> str:
    """Rewrite a date with slashes or one-digit numbers in ISO 8601."""
    day = f"{loose['year']}-{int(loose['month']):02}-{int(loose['day']):02}"
    if loose["hour"] is None:
        return day
    seconds = f":{int(loose['second']):02}{loose['fraction'] or ''}" if loose["second"] else ""
    return f"{day}T{int(loose['hour']):02}:{int(loose['minute']):02}{seconds}{loose['zone'] or ''}"


def _milliseconds(moment: datetime, zone: tzinfo) -> int | None:
    try:
        return ((moment if moment.tzinfo else moment.replace(tzinfo=zone)) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None


def maps(value: Any, name: str, message: Message) -> Maps | None:
    """Return both of WeDa's shapes of maps as a list of maps of text; a bare map becomes a list of one."""
    if not isinstance(value, str):
        _check_range(value, name)
        return _map_list(value, lambda: message.raw_json(name), name)
    if not value.strip():
        return None
    return _map_list(_parse_text(value, name), lambda: value, name)


def persons(value: Any, name: str) -> Persons:
    """Return the persons that maps of either shape name. See `connector.message.persons.named_in`.

    Args:
        value: A value that `maps` accepted.
        name: The field's name, for error messages.
    """
    if isinstance(value, str):
        value = _parse_text(value, name) if value.strip() else None
    return named_in(_as_list(value) or ())


def _parse_text(text: str, name: str) -> Any:
    try:
        value = load_json(text)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate, escaped inside the text, has no UTF-8 form
    except (Unreadable, UnicodeEncodeError) as error:
        raise _wrong_type(name, "a map, a list of maps, or JSON text of one") from error
    _check_range(value, name)
    return value


def _map_list(value: Any, raw_json: Callable[[], str], name: str) -> Maps | None:
    if value is None:
        return None
    maps = _as_list(value)
    if maps is None or not all(isinstance(entry, dict) for entry in maps):
        raise _wrong_type(name, "a map, a list of maps, or JSON text of one")
    if all(isinstance(text, str) for entry in maps for text in entry.values()):
        return maps
    return _raw_json_maps(maps, raw_json(), bare=isinstance(value, dict))


def _as_list(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return [value] if value else []
    return [entry for entry in value if entry is not None] if isinstance(value, list) else None


def _raw_json_maps(maps: list[dict[str, Any]], text: str, *, bare: bool) -> Maps:
    """Replace every value that is not a text by its JSON text as it was sent."""
    raw = (
        [_RAW_MAP_DECODER.decode(text)]
        if bare
        else [entry for entry in _RAW_MAPS_DECODER.decode(text) if entry is not None]
    )
    return [
        {key: value if isinstance(value, str) else str(memoryview(texts[key]), "utf-8") for key, value in entry.items()}
        for entry, texts in zip(maps, raw, strict=True)
    ]


def _check_range(value: Any, name: str) -> None:
    if not isinstance(value, str) and is_overflow(value):
        raise Unreadable(f"{name} holds a number past double range: send it as text", code=40006)


def _wrong_type(name: str, expected: str) -> Unconvertible:
    return Unconvertible(f"{name} is not {expected}: {_AS_SENT_HINT}", code=42204)


_BOOLEANS: Final[Mapping[Any, bool]] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
