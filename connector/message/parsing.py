"""From the bytes of a request to the message in them.

A WeDa body template can render the same message in several shapes (a JSON envelope around JSON text or an object,
the bare object, a form, a query string). :func:`parse` recognises each and gives one :class:`Message`. Pure: no I/O, no
clock. Source of the shapes: Tencent Cloud WeDa documentation, 流程消息订阅 and HTTP methods of custom APIs.
"""

import contextlib
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs

import msgspec

from connector.errors import EmptyBody, Unconvertible, Unreadable
from connector.message.weda import ENVELOPE, FORM, TEMPLATE

MAX_NESTING: Final = 64
"""Deepest nesting of objects and lists that a body may have."""

MAX_VALUES: Final = 50_000
"""Most members and elements of all objects and lists together; an empty one counts as one. A list of sixteen thousand
persons, each with id and name, has fewer. Reading and encoding them takes a quarter of a second, whatever bytes a body
may have."""

MAX_TEXT: Final = 1024 * 1024
"""Most characters of one text or name: Kafka's own default for the bytes of a record."""

# a string, closed or not, is matched whole, so that no text makes this look at a character twice
_STRING: Final = r'"(?:[^"\\]|\\.)*+"?'
_STRING_OR_BRACKET = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)
_STRING_OR_VALUE = re.compile(rf"{_STRING}|[\[{{,]", re.DOTALL)
_SHAPE_HINT = f'send {{"{ENVELOPE}": "<JSON text>"}}, the message object itself, or a form field {ENVELOPE}'
_JSON_HINT = f"make the body {TEMPLATE}, the placeholder without quotes around it"
_STEPS: Final = {"{": 1, "[": 1, "}": -1, "]": -1}

_DECODER = msgspec.json.Decoder()
_TOKENS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SORTED = msgspec.json.Encoder(order="sorted")
_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


class BodyKind(StrEnum):
    """How the bytes of a request are written, as its media type or method says."""

    JSON = "json"
    FORM = "form"
    QUERY = "query"

    @classmethod
    def of(cls, content_type: str) -> "BodyKind":
        """How an accepted body is written, by its media type."""
        return cls.FORM if content_type.partition(";")[0].strip().lower() == FORM else cls.JSON


class Message:
    """One parsed message.

    Attributes:
        fields: The message object: WeDa's names, values as parsed.
        fingerprint: First 16 bytes of SHA-256 over the canonical JSON (sorted keys, no spaces, UTF-8) of ``fields``.
        lone_surrogate: Some text holds half of a surrogate pair, so it has no UTF-8 form.
    """

    __slots__ = ("_enveloped", "_text", "_tokens", "fields", "fingerprint", "lone_surrogate")

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        text: str | bytes,
        enveloped: bool,
        fingerprint: bytes,
        lone_surrogate: bool = False,
    ) -> None:
        self.fields = fields
        self.fingerprint = fingerprint
        self.lone_surrogate = lone_surrogate
        self._text = text
        self._enveloped = enveloped
        self._tokens: Mapping[str, bytes] | None = None

    def replaced(self, fields: Mapping[str, Any], tokens: Mapping[str, str]) -> "Message":
        """This message with other fields, and the fingerprint of those.

        Args:
            fields: All that it has from now on.
            tokens: The JSON text of those that are not as they were sent.

        Raises:
            Unconvertible: Some text of the message as it was sent has no UTF-8 form.
        """
        changed = Message(fields, text=self._text, enveloped=self._enveloped, fingerprint=_fingerprint(fields)[0])
        changed._tokens = {**self._read_tokens(), **{name: text.encode() for name, text in tokens.items()}}
        return changed

    def token(self, name: str) -> str:
        """The JSON text of a field as it was sent, every digit and space kept.

        Raises:
            Unconvertible: Some text, of the message or beside it in its envelope, holds half of a surrogate pair.
        """
        if self._tokens is None:
            self._tokens = self._read_tokens()
        return str(memoryview(self._tokens[name]), "utf-8")

    def _read_tokens(self) -> Mapping[str, bytes]:
        try:
            outer = _TOKENS_DECODER.decode(self._text)
            return _TOKENS_DECODER.decode(outer[ENVELOPE]) if self._enveloped else outer
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise lone_surrogate() from error


def parse(body: bytes, kind: BodyKind) -> Message:
    """Read one message from the bytes of a request.

    Raises:
        EmptyBody: There are no bytes, or only white space.
        Unreadable: The bytes are not UTF-8, not strict JSON, or hold no message.
    """
    text = _decode(body)
    if not text or text.isspace():
        raise EmptyBody(f"the body is empty: {_SHAPE_HINT}")
    if kind is not BodyKind.JSON:
        return _open(_form_field(text))
    return _unwrap(text)


def load(text: str) -> Any:
    """Parse strict JSON; of duplicate keys the last wins.

    Raises:
        Unreadable: Bad syntax, NaN or Infinity, a raw control character, an integer over 4,300 digits, nesting deeper
            than :data:`MAX_NESTING`, or more than :data:`MAX_VALUES` members and elements.
    """
    _check_nesting(text)
    if may_hold_too_many(text):
        _check_count(text)
    try:
        return _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _load_plainly(text)


def may_hold_too_many(text: str | bytes) -> bool:
    """Whether JSON may hold more than :data:`MAX_VALUES` members and elements: cheap, and False only if it does not."""
    if len(text) <= 2 * MAX_VALUES:  # each takes two characters at least
        return False
    if isinstance(text, str):
        return text.count(",") + text.count("{") + text.count("[") > MAX_VALUES
    return text.count(b",") + text.count(b"{") + text.count(b"[") > MAX_VALUES


def lone_surrogate() -> Unconvertible:
    """The error of a message that has no UTF-8 form."""
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


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"the body is not UTF-8 (byte {error.start}): let the HTTP request send UTF-8", code=40002
        ) from error


def _form_field(text: str) -> str:
    try:
        values = parse_qs(text.strip(), keep_blank_values=True, errors="strict", max_num_fields=1000).get(ENVELOPE)
    except UnicodeDecodeError as error:
        raise Unreadable("the form is not percent-encoded UTF-8", code=40002) from error
    except ValueError as error:
        raise Unreadable("the form has more than 1000 fields", code=40001) from error
    if values is None:
        raise _no_message(f"the form has no field {ENVELOPE}; a JSON body needs Content-Type: application/json")
    return values[-1]


def _unwrap(text: str) -> Message:
    value = load(text)
    if not isinstance(value, dict):
        return _open_value(value, text)
    if ENVELOPE not in value:
        return _bare(value, text)
    inner = value[ENVELOPE]
    if isinstance(inner, dict):
        return _message(inner, text, enveloped=True)
    if isinstance(inner, str):
        return _open(inner)
    raise _no_message(f"{ENVELOPE} is neither JSON text nor an object")


def _open(text: str) -> Message:
    if not text or text.isspace():
        raise _no_message(f"{ENVELOPE} is empty")
    text = text.removeprefix("\ufeff")
    return _open_value(load(text), text)


def _open_value(value: Any, text: str) -> Message:
    if isinstance(value, str):  # a template that quotes what is already quoted: JSON text of JSON text
        text, value = value, load(value)
    if not isinstance(value, dict):
        raise _no_message("the JSON is not an object")
    return _message(value, text, enveloped=False)


def _bare(fields: dict[str, Any], text: str) -> Message:
    if not fields.keys() & {"msgType", "instanceId", "msgId"}:
        raise _no_message(f"the object has no {ENVELOPE} and is no WeDa message")
    return _message(fields, text, enveloped=False)


def _no_message(what: str) -> Unreadable:
    return Unreadable(f"{what}: {_SHAPE_HINT}", code=40004)


def _check_nesting(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_NESTING:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        depth += _STEPS.get(match[0], 0)
        if depth > MAX_NESTING:
            raise Unreadable(f"the JSON is nested deeper than {MAX_NESTING} levels", code=40005)


def _check_count(text: str) -> None:
    """An object or list of n has an opening bracket and n - 1 commas; those within strings do not count."""
    found = (match for match in _STRING_OR_VALUE.finditer(text) if text[match.start()] != '"')
    if next(itertools.islice(found, MAX_VALUES, None), None) is not None:
        raise Unreadable(f"the JSON has more than {MAX_VALUES} members and elements", code=40007)


def _check_texts(value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise Unreadable(f"the message has a text of more than {MAX_TEXT} characters", code=40007)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(name)
            _check_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner)


def _load_plainly(text: str) -> Any:
    """Parse what the fast decoder refused: lone surrogates and huge numbers are no bad JSON, and are kept."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"the text is not JSON (line {error.lineno}, column {error.colno}: {error.msg}): {_JSON_HINT}", code=40003
        ) from error
    except ValueError as error:
        raise Unreadable("the JSON has an integer of more than 4300 digits", code=40006) from error


def _refuse_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON: {_JSON_HINT}", code=40003)


def _message(fields: Mapping[str, Any], text: str, *, enveloped: bool) -> Message:
    if len(text) > MAX_TEXT:
        _check_texts(fields)
    fingerprint, is_text = _fingerprint(fields)
    return Message(fields, text=text, enveloped=enveloped, fingerprint=fingerprint, lone_surrogate=not is_text)


def _fingerprint(fields: Mapping[str, Any]) -> tuple[bytes, bool]:
    """The fingerprint of a message's fields, and whether all their text has a UTF-8 form."""
    canonical, is_text = _canonical(fields)
    return hashlib.sha256(canonical).digest()[:16], is_text


def _canonical(fields: Mapping[str, Any]) -> tuple[bytes, bool]:
    """The canonical JSON, and whether all its text has a UTF-8 form."""
    if not _has_float(fields):  # msgspec writes all but floats as the standard library does, and much faster
        with contextlib.suppress(UnicodeError, OverflowError, RecursionError, TypeError):
            return _SORTED.encode(fields), True
    text = _CANONICAL.encode(fields)
    try:
        return text.encode(), True
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass"), False


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_float(inner) for inner in value.values() if inner.__class__ is not str)
    if isinstance(value, list):
        return any(_has_float(inner) for inner in value if inner.__class__ is not str)
    return isinstance(value, float)
