"""Parses the message in the bytes of a request.

A WeDa body template can render the same message in several shapes (a JSON envelope around JSON text or an object,
the bare object, a form, a query string). :func:`parse` recognises each and returns one :class:`Message`::

    {"msgContext": "<JSON text>"}                  _unwrap, _open, _open_value
    {"msgContext": {…}}                            _unwrap
    {…} with one of `_IDENTIFYING_FIELDS`          _unwrap, _bare
    "<JSON text>"                                  _unwrap, _open_value
    msgContext=<JSON text>, of a form or query     _form_field, _open, _open_value

Pure: no I/O, no clock. Source of the shapes: Tencent Cloud WeDa documentation, 流程消息订阅 and HTTP methods of custom
APIs.
"""

import itertools
import json
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs

import msgspec

from connector.errors import EmptyBody, Unconvertible, Unreadable
from connector.message.weda import (
    ENVELOPE,
    FORM,
    INSTANCE_ID,
    JSON_MEDIA_TYPES,
    MESSAGE_ID,
    MESSAGE_TYPE,
    TEMPLATE,
)

MAX_NESTING: Final = 64
"""The limit on the depth of nested objects and lists in a body."""

MAX_VALUES: Final = 50_000
"""The limit on the members and elements of all objects and lists together; an empty one counts as one.

A list of sixteen thousand persons, each with id and name, is below it. Reading and encoding this many takes a quarter
of a second, however many bytes a body may have.
"""

MAX_TEXT_CHARS: Final = 1024 * 1024
"""The limit on one text or name: Kafka's default for the bytes of a record."""

# Matches a whole string, closed or not, without backtracking, so that no character of a hostile body is read twice.
_STRING: Final = r'"(?:[^"\\]|\\.)*+"?'
_STRING_OR_BRACKET = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)
_STRING_OR_VALUE = re.compile(rf"{_STRING}|[\[{{,]", re.DOTALL)
_SHAPE_HINT = f'send {{"{ENVELOPE}": "<JSON text>"}}, the message object itself, or a form field {ENVELOPE}'
_JSON_HINT = f"make the body {TEMPLATE}, the placeholder without quotes around it"
_ONLY_WEDA_HINT: Final = "pass on what WeDa sends and nothing more"
_IDENTIFYING_FIELDS: Final = frozenset({MESSAGE_TYPE, INSTANCE_ID, MESSAGE_ID})
"""An object without an envelope is a message if it has at least one of these fields."""

_DEPTH_STEPS: Final = {"{": 1, "[": 1, "}": -1, "]": -1}

_RAW_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


class BodyKind(StrEnum):
    """How a request carries its message, by its media type or method."""

    JSON = "json"
    FORM = "form"
    QUERY = "query"

    @classmethod
    def of(cls, content_type: str) -> "BodyKind":
        """Return the kind of an accepted body, by its media type."""
        return BODY_KINDS.get(media_type(content_type), cls.JSON)


BODY_KINDS: Final = dict.fromkeys(("", *JSON_MEDIA_TYPES), BodyKind.JSON) | {FORM: BodyKind.FORM}
"""Media type → kind of body; a body without a media type is JSON."""


class Message:
    """One parsed message.

    Args:
        fields: The message object: WeDa's names, values as parsed.
        text: The JSON text that the fields were parsed from.
        enveloped: Whether the message object is the member `ENVELOPE` of the object in the text.

    Attributes:
        fields: The message object: WeDa's names, values as parsed.
    """

    __slots__ = ("_enveloped", "_raw_fields", "_text", "fields")

    def __init__(self, fields: Mapping[str, Any], text: str | bytes, *, enveloped: bool) -> None:
        self.fields = fields
        self._text = text
        self._enveloped = enveloped
        self._raw_fields: Mapping[str, bytes] | None = None

    @property
    def fingerprint(self) -> bytes:
        """First 16 bytes of SHA-256 over the canonical JSON (sorted keys, no spaces, UTF-8) of the fields."""
        return sha256(_canonical(self.fields)).digest()[:16]

    @property
    def may_hold_nul(self) -> bool:
        """Whether a text in the message may hold U+0000; if False, none does."""
        # Strict JSON has no raw control characters, so that only the escape can stand for one.
        return "\\u0000" in self._text if isinstance(self._text, str) else b"\\u0000" in self._text

    def check_text(self) -> None:
        """Check that the message can be encoded in UTF-8.

        Raises:
            Unconvertible: A text holds half of a surrogate pair.
        """
        try:
            _canonical(self.fields).decode()
        except UnicodeDecodeError as error:
            raise lone_surrogate() from error

    def with_fields(self, fields: Mapping[str, Any], raw_json: Mapping[str, str]) -> "Message":
        """Return this message with other fields; its fingerprint is theirs.

        Args:
            fields: All fields of the new message.
            raw_json: Field that differs from the one sent → its JSON text.

        Raises:
            Unconvertible: A text of the message as it was sent cannot be encoded in UTF-8.
        """
        changed = Message(fields, self._text, enveloped=self._enveloped)
        changed._raw_fields = {**self._read_raw_fields(), **{name: text.encode() for name, text in raw_json.items()}}
        return changed

    def raw_json(self, name: str) -> str:
        """Return the JSON text of a field as it was sent, with every digit and space.

        Raises:
            Unconvertible: A text of the message, or beside it in the envelope, holds half of a surrogate pair.
        """
        # On demand, and once for all fields: many messages have no field that is needed raw.
        if self._raw_fields is None:
            self._raw_fields = self._read_raw_fields()
        # msgspec.Raw is a buffer, not bytes: it has no `decode`.
        return str(memoryview(self._raw_fields[name]), "utf-8")

    def _read_raw_fields(self) -> Mapping[str, bytes]:
        try:
            outer = _RAW_DECODER.decode(self._text)
            return _RAW_DECODER.decode(outer[ENVELOPE]) if self._enveloped else outer
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise lone_surrogate() from error


def media_type(content_type: str) -> str:
    """Return the media type of a Content-Type, without its parameters and in lower case."""
    return content_type.partition(";")[0].strip().lower()


def parse(body: bytes, kind: BodyKind) -> Message:
    """Parse the message in the bytes of a request.

    Raises:
        EmptyBody: The body is empty or only white space.
        Unreadable: The bytes are not UTF-8, not strict JSON, or hold no message.
    """
    if kind is BodyKind.JSON:
        value = _decoded(body)
        if value is not _NOT_DECODED:
            return _unwrap(value, body)
    text = _utf8(body)
    if not text or text.isspace():
        raise EmptyBody(f"the body is empty: {_SHAPE_HINT}")
    return _unwrap(load_json(text), text) if kind is BodyKind.JSON else _open(_form_field(text))


def load_json(text: str) -> Any:
    """Parse strict JSON; of duplicate keys the last wins.

    Raises:
        Unreadable: Bad syntax, NaN or Infinity, a raw control character, an integer over 4,300 digits, nesting deeper
            than :data:`MAX_NESTING`, or more than :data:`MAX_VALUES` members and elements.
    """
    value = _decoded(text)
    return _load_plainly(text) if value is _NOT_DECODED else value


class _Fraction(float):
    """A number with a fraction or an exponent.

    The subclass makes msgspec's encoder call `_write_fraction`: canonical JSON has the standard library's text of it.
    """

    __slots__ = ()


def _write_fraction(number: float) -> msgspec.Raw:
    text = float.__repr__(number)
    return msgspec.Raw(_INFINITIES.get(text, text).encode())


_DECODER: Final = msgspec.json.Decoder(float_hook=_Fraction)
_CANONICAL: Final = msgspec.json.Encoder(order="sorted", enc_hook=_write_fraction)
_INFINITIES: Final = {"inf": "Infinity", "-inf": "-Infinity"}
_FALLBACK_CANONICAL: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_NOT_DECODED: Final = object()


def _decoded(text: str | bytes) -> Any:
    """Decode JSON by msgspec; `_NOT_DECODED` if the standard library has to decode it or to explain the mistake.

    Raises:
        Unreadable: The JSON is nested too deep or has too many members.
    """
    # Counting single characters is cheap, and rules out nearly every document before strings have to be skipped.
    brackets = text.count("{") + text.count("[") if isinstance(text, str) else text.count(b"{") + text.count(b"[")
    if brackets > MAX_NESTING:
        _check_nesting(_text(text))
    if len(text) > 2 * MAX_VALUES:  # a value takes at least two characters
        _check_count(_text(text))
    try:
        return _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _NOT_DECODED


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else _utf8(text)


def lone_surrogate() -> Unconvertible:
    """Return the error of a message that cannot be encoded in UTF-8."""
    return Unconvertible(
        "some text holds half of a surrogate pair, which has no UTF-8 form: send text as whole characters", code=42205
    )


def is_overflow(value: Any) -> bool:
    """Whether a parsed value holds a number past double range."""
    if isinstance(value, float | int):
        return abs(value) > sys.float_info.max
    if isinstance(value, dict):
        return any(is_overflow(inner) for inner in value.values())
    return isinstance(value, list) and any(is_overflow(inner) for inner in value)


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"the body is not UTF-8 (byte {error.start}): let the HTTP request send UTF-8", code=40002
        ) from error


def _form_field(text: str) -> str:
    try:
        # The limit bounds the list that parse_qs builds before anybody asks for one field of it.
        values = parse_qs(text.strip(), keep_blank_values=True, errors="strict", max_num_fields=1000).get(ENVELOPE)
    except UnicodeDecodeError as error:
        raise Unreadable(f"the form is not percent-encoded UTF-8: {_JSON_HINT}", code=40002) from error
    except ValueError as error:
        raise Unreadable(f"the form has more than 1000 fields: {_SHAPE_HINT}", code=40001) from error
    if values is None:
        raise _no_message(f"the form has no field {ENVELOPE}; a JSON body needs Content-Type: application/json")
    # The last one wins, as with duplicate keys in JSON.
    return values[-1]


def _unwrap(value: Any, text: str | bytes) -> Message:
    """The message in the JSON of a body: in the envelope, bare, or JSON text of JSON text."""
    if not isinstance(value, dict):
        return _open_value(value, text)
    if ENVELOPE not in value:
        return _bare(value, text)
    inner = value[ENVELOPE]
    if isinstance(inner, str):
        return _open(inner)
    if isinstance(inner, dict):
        return _message(inner, text, enveloped=True)
    raise _no_message(f"{ENVELOPE} is neither JSON text nor an object")


def _open(text: str) -> Message:
    """The message in the envelope's text."""
    if not text or text.isspace():
        raise _no_message(f"{ENVELOPE} is empty")
    # The text in an envelope can begin with a byte order mark of its own.
    text = text.removeprefix("\ufeff")
    return _open_value(load_json(text), text)


def _open_value(value: Any, text: str | bytes) -> Message:
    """The message that a value is, or is the JSON text of."""
    if isinstance(value, str):  # a template with quotes around the placeholder makes JSON text of JSON text
        text, value = value, load_json(value)
    if not isinstance(value, dict):
        raise _no_message("the JSON is not an object")
    return _message(value, text, enveloped=False)


def _bare(fields: dict[str, Any], text: str | bytes) -> Message:
    """The object itself, if it has a field of a message."""
    if not fields.keys() & _IDENTIFYING_FIELDS:
        raise _no_message(f"the object has no {ENVELOPE} and is no WeDa message")
    return _message(fields, text, enveloped=False)


def _no_message(problem: str) -> Unreadable:
    return Unreadable(f"{problem}: {_SHAPE_HINT}", code=40004)


def _check_nesting(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += _DEPTH_STEPS.get(match[0], 0)
        if depth > MAX_NESTING:
            raise Unreadable(f"the JSON is nested deeper than {MAX_NESTING} levels: {_ONLY_WEDA_HINT}", code=40005)


def _check_count(text: str) -> None:
    # An object or list of n members has an opening bracket and n - 1 commas. Those within strings count here, which can
    # only make the sum too high: then the exact count follows.
    if text.count(",") + text.count("{") + text.count("[") <= MAX_VALUES:
        return
    values = (match for match in _STRING_OR_VALUE.finditer(text) if text[match.start()] != '"')
    if next(itertools.islice(values, MAX_VALUES, None), None) is not None:
        raise Unreadable(f"the JSON has more than {MAX_VALUES} members and elements: {_ONLY_WEDA_HINT}", code=40007)


def _check_texts(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            raise Unreadable(
                f"the message has a text of more than {MAX_TEXT_CHARS} characters: {_ONLY_WEDA_HINT}", code=40007
            )
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(name)
            _check_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner)


def _load_plainly(text: str) -> Any:
    """Parse what msgspec rejected; lone surrogates and huge numbers are valid JSON, and are accepted."""
    try:
        return json.loads(text, parse_float=_Fraction, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"the text is not JSON (line {error.lineno}, column {error.colno}: {error.msg}): {_JSON_HINT}", code=40003
        ) from error
    except ValueError as error:
        raise Unreadable("the JSON has an integer of more than 4300 digits: send it as text", code=40006) from error


def _reject_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON: {_JSON_HINT}", code=40003)


def _message(fields: dict[str, Any], text: str | bytes, *, enveloped: bool) -> Message:
    """A message, once the length of its texts is checked."""
    # No text is longer than the document it is in, so that only large documents need a look at each text.
    if len(text) > MAX_TEXT_CHARS:
        _check_texts(fields)
    return Message(fields, text, enveloped=enveloped)


def _canonical(fields: Mapping[str, Any]) -> bytes:
    """Encode the canonical JSON; half of a surrogate pair becomes three bytes, which are not UTF-8."""
    try:
        return _CANONICAL.encode(fields)
    # What msgspec cannot write, such as half of a surrogate pair.
    except (UnicodeError, OverflowError, RecursionError, TypeError):
        return _FALLBACK_CANONICAL.encode(fields).encode(errors="surrogatepass")
