"""The value of a field that is not written as its type has it: a function for each kind of field. Pure.

Read leniently are numbers as text, both shapes of maps, and every form of a date (``avro/README.md`` has the list).
A value that means nothing of its kind is an :class:`~connector.errors.Unconvertible`, never a guess.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

import msgspec

from connector.errors import Unconvertible, Unreadable
from connector.message.parsing import Message, is_overflow, load
from connector.message.persons import Persons, named_in

_AS_SENT: Final = "pass this field on as WeDa sends it"

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
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


def string(value: Any, name: str, message: Message) -> str:
    """A text as it is, anything else as its JSON text."""
    _check_range(value, name)
    return value if isinstance(value, str) else message.raw_json(name)


def integer(value: Any, name: str) -> int | None:
    """A whole number of 32 bits, also in text; None for the empty text."""
    if value == "":
        return None
    _check_range(value, name)
    number = _whole_number(value)
    if number is None or not INT_MIN <= number <= INT_MAX:
        raise _wrong_type(name, "a whole number of 32 bits")
    return number


def boolean(value: Any, name: str) -> bool | None:
    """Whether it is so, also as text, 1 or 0; None for the empty text."""
    if value == "":
        return None
    _check_range(value, name)
    known = value.strip().lower() if isinstance(value, str) else value
    if isinstance(known, str | int | float) and known in _BOOLEANS:
        return _BOOLEANS[known]
    raise _wrong_type(name, "true, false, 1 or 0")


def _whole_number(value: Any) -> int | None:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def date(value: Any, name: str, zone: tzinfo) -> int | None:
    """Epoch milliseconds of a date in any of its forms; None for a value that says that there is no date.

    Digits that are a calendar date are that date, never a number: `20260302` is no second of 1970.

    Args:
        value: As parsed.
        name: The field, for an error's message.
        zone: The zone of dates that name none.
    """
    text = value.strip() if isinstance(value, str) else value
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
    elif number is None and isinstance(text, str) and _NO_DATE.fullmatch(text):
        return None
    else:
        _check_range(value, name)
        milliseconds = None if number is None else _scaled(number)
    if milliseconds is None:
        raise _wrong_type(name, "epoch milliseconds or seconds, ISO 8601, yyyy-MM-dd HH:mm:ss or yyyyMMddHHmmss")
    if not 0 <= milliseconds <= LATEST:
        raise Unconvertible(f"{name} is outside the years 1970 to 9999: {_AS_SENT}", code=42206)
    return milliseconds


def _is_iso(value: Any) -> bool:
    """Whether a date is written with a hyphen after its year, as most are: no need to ask whether it is a number."""
    return isinstance(value, str) and value[4:5] == "-"


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
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        loose = _LOOSE_DATE.fullmatch(value)
    try:
        return None if loose is None else datetime.fromisoformat(_iso(loose))
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


def maps(value: Any, name: str, message: Message) -> Maps | None:
    """One shape for both of WeDa's: a list of maps of text; a bare map becomes a list of one."""
    if not isinstance(value, str):
        _check_range(value, name)
        return _map_list(value, lambda: message.raw_json(name), name)
    if not value.strip():
        return None
    return _map_list(_opened(value, name), lambda: value, name)


def persons(value: Any, name: str) -> Persons:
    """Who is named in maps of either shape, as parsed. See `connector.message.persons.named_in`.

    Args:
        value: What `maps` has read.
        name: The field, for an error's message.
    """
    if isinstance(value, str):
        value = _opened(value, name) if value.strip() else None
    return named_in(_listed(value) or ())


def _opened(text: str, name: str) -> Any:
    try:
        value = load(text)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate, escaped inside the text, has no UTF-8 form
    except (Unreadable, UnicodeEncodeError) as error:
        raise _wrong_type(name, "a map, a list of maps, or JSON text of one") from error
    _check_range(value, name)
    return value


def _map_list(value: Any, raw_json: Callable[[], str], name: str) -> Maps | None:
    if value is None:
        return None
    maps = _listed(value)
    if maps is None or not all(isinstance(one, dict) for one in maps):
        raise _wrong_type(name, "a map, a list of maps, or JSON text of one")
    if all(isinstance(text, str) for one in maps for text in one.values()):
        return maps
    return _raw_json_maps(maps, raw_json(), bare=isinstance(value, dict))


def _listed(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return [value] if value else []
    return [one for one in value if one is not None] if isinstance(value, list) else None


def _raw_json_maps(maps: list[dict[str, Any]], text: str, *, bare: bool) -> Maps:
    """The same maps, with every value that is no text as the JSON text that was sent."""
    raw = [_ONE_MAP.decode(text)] if bare else [one for one in _MANY_MAPS.decode(text) if one is not None]
    return [
        {key: value if isinstance(value, str) else str(memoryview(texts[key]), "utf-8") for key, value in one.items()}
        for one, texts in zip(maps, raw, strict=True)
    ]


def _check_range(value: Any, name: str) -> None:
    if not isinstance(value, str) and is_overflow(value):
        raise Unreadable(f"{name} holds a number past double range: send it as text", code=40006)


def _wrong_type(name: str, expected: str) -> Unconvertible:
    return Unconvertible(f"{name} is not {expected}: {_AS_SENT}", code=42204)


_BOOLEANS: Final[Mapping[Any, bool]] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
