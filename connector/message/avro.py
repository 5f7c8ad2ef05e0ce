"""Avro's binary encoding of what the connector's records hold: numbers, texts, booleans, and maps of texts.

A text is the number of its bytes and the bytes. In a union with null the index of the branch comes first: the tables
whose name begins with ``NULLABLE_`` have it, and `NULL` is the whole of a null. Source: the Avro specification, 1.12,
"Binary encoding".
"""

from collections.abc import Mapping, Sequence
from typing import Final

_SMALL: Final = range(-64, 4_096)
_SEVEN_BITS: Final = 0x7F
_MORE: Final = 0x80
_FOURTEEN_BITS: Final = 1 << 14
_KEYS: Final = 1_024
_KEY_BYTES: Final = 64


def varint(number: int) -> bytes:
    """A whole number of 64 bits in Avro's variable-length zig-zag coding."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > _SEVEN_BITS:
        out.append(rest & _SEVEN_BITS | _MORE)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def read_varint(data: bytes) -> int:
    """The whole number that `varint` has written; nothing may follow it."""
    rest = sum((byte & _SEVEN_BITS) << 7 * number for number, byte in enumerate(data))
    return (rest >> 1) ^ -(rest & 1)


class _Numbers(dict[int, bytes]):
    """Whole number of 64 bits → its bytes after a prefix; those of small numbers are in the table from the start."""

    def __init__(self, prefix: bytes) -> None:
        super().__init__((number, prefix + varint(number)) for number in _SMALL)
        self._prefix = prefix

    def __missing__(self, number: int) -> bytes:
        twice = number << 1
        if 1 << 28 <= twice < 1 << 42:  # the times of today in milliseconds: three steps of 14 bits
            return self._prefix + _CONTINUED[twice & 0x3FFF] + _CONTINUED[twice >> 14 & 0x3FFF] + _LAST[twice >> 28]
        return self._prefix + varint(number)


class _Keys(dict[str, bytes]):
    """Key of a map → its length and bytes; the first short ones are cached, because senders use a handful of them."""

    def __missing__(self, key: str) -> bytes:
        text = key.encode()
        made = NUMBER[len(text)] + text
        if len(self) < _KEYS and len(made) <= _KEY_BYTES:
            self[key] = made
        return made


def encode_text(text: str) -> bytes:
    """A text."""
    encoded = text.encode()
    return NUMBER[len(encoded)] + encoded


def encode_nullable_text(text: str) -> bytes:
    """A text in a union with null."""
    encoded = text.encode()
    return NULLABLE_NUMBER[len(encoded)] + encoded


def encode_map(texts: Mapping[str, str]) -> bytes:
    """A map of texts: one block and its end."""
    if not texts:
        return _END
    parts: list[bytes] = []
    _add_map(parts, texts)
    return b"".join(parts)


def encode_texts(texts: Sequence[str]) -> bytes:
    """An array of texts: one block and its end."""
    if not texts:
        return _END
    return b"".join((NUMBER[len(texts)], *map(encode_text, texts), _END))


def encode_nullable_maps(maps: Sequence[Mapping[str, str]]) -> bytes:
    """An array of maps of texts in a union with null: one block and its end.

    Raises:
        AttributeError: A value in them is no text, or one of them is no map.
    """
    parts = [NULLABLE_NUMBER[len(maps)] if maps else _NOT_NULL]
    for texts in maps:
        _add_map(parts, texts)
    parts.append(_END)
    return b"".join(parts)


def _add_map(parts: list[bytes], texts: Mapping[str, str]) -> None:
    items = texts.items()
    if items:
        parts.append(NUMBER[len(items)])
        for key, text in items:
            encoded = text.encode()
            parts += (_KEY[key], NUMBER[len(encoded)], encoded)
    parts.append(_END)


_END: Final = b"\x00"
_NOT_NULL: Final = b"\x02"
_CONTINUED: Final = tuple(bytes((each & _SEVEN_BITS | _MORE, each >> 7 | _MORE)) for each in range(_FOURTEEN_BITS))
_LAST: Final = tuple(
    bytes((each,)) if each <= _SEVEN_BITS else bytes((each & _SEVEN_BITS | _MORE, each >> 7))
    for each in range(_FOURTEEN_BITS)
)
_KEY: Final = _Keys()
NULL: Final = b"\x00"
NUMBER: Final = _Numbers(b"")
NULLABLE_NUMBER: Final = _Numbers(_NOT_NULL)
NULLABLE_BOOLEAN: Final = {True: b"\x02\x01", False: b"\x02\x00"}
