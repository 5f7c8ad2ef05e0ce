"""Avro's binary encoding of the types that the connector's records use: numbers, texts, booleans, and maps of texts.

A text is its length in bytes, followed by the bytes. In a union with null, the index of the branch comes first: tables
whose names begin with ``NULLABLE_`` include it, and `NULL` alone encodes a null. Source: the Avro specification, 1.12,
"Binary encoding".
"""

from collections.abc import Mapping, Sequence
from typing import Final

# Codes, lengths of texts and counts of entries nearly always lie in this range.
_PRECOMPUTED: Final = range(-64, 4_096)
_SEVEN_BITS: Final = 0x7F
_CONTINUATION_BIT: Final = 0x80
_FOURTEEN_BITS: Final = 1 << 14
_MAX_CACHED_KEYS: Final = 1_024
_MAX_CACHED_KEY_BYTES: Final = 64


def varint(number: int) -> bytes:
    """Encode a whole number of 64 bits in Avro's variable-length zig-zag coding."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > _SEVEN_BITS:
        out.append(rest & _SEVEN_BITS | _CONTINUATION_BIT)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def read_varint(data: bytes) -> int:
    """Decode a whole number that `varint` wrote; nothing may follow it."""
    rest = sum((byte & _SEVEN_BITS) << 7 * number for number, byte in enumerate(data))
    return (rest >> 1) ^ -(rest & 1)


class _Numbers(dict[int, bytes]):
    """Whole number of 64 bits → a prefix and its encoding; small numbers are precomputed."""

    def __init__(self, prefix: bytes) -> None:
        super().__init__((number, prefix + varint(number)) for number in _PRECOMPUTED)
        self._prefix = prefix

    def __missing__(self, number: int) -> bytes:
        # Doubling is the whole zig-zag coding of a number that is not negative; a negative one fails the comparison.
        doubled = number << 1
        # Present-day times in milliseconds lie in this range: three look-ups of 14 bits replace the loop of `varint`.
        if 1 << 28 <= doubled < 1 << 42:
            low, middle = doubled & 0x3FFF, doubled >> 14 & 0x3FFF
            return self._prefix + _CONTINUED[low] + _CONTINUED[middle] + _LAST[doubled >> 28]
        return self._prefix + varint(number)


class _Keys(dict[str, bytes]):
    """Key of a map → its length and bytes, cached because senders use a handful of keys."""

    def __missing__(self, key: str) -> bytes:
        text = key.encode()
        encoded = NUMBER[len(text)] + text
        if len(encoded) <= _MAX_CACHED_KEY_BYTES:
            # The keys of a map of id → name are persons, and their number has no limit. Those in use come back.
            if len(self) >= _MAX_CACHED_KEYS:
                self.clear()
            self[key] = encoded
        return encoded


def encode_text(text: str) -> bytes:
    """Encode a text."""
    encoded = text.encode()
    return NUMBER[len(encoded)] + encoded


def encode_nullable_text(text: str) -> bytes:
    """Encode a text in a union with null."""
    encoded = text.encode()
    return NULLABLE_NUMBER[len(encoded)] + encoded


def encode_map(texts: Mapping[str, str]) -> bytes:
    """Encode a map of texts: one block, then the end of the blocks."""
    if not texts:
        return _END
    parts: list[bytes] = []
    _add_map(parts, texts)
    return b"".join(parts)


def encode_texts(texts: Sequence[str]) -> bytes:
    """Encode an array of texts: one block, then the end of the blocks."""
    if not texts:
        return _END
    return b"".join((NUMBER[len(texts)], *map(encode_text, texts), _END))


def encode_nullable_maps(maps: Sequence[Mapping[str, str]]) -> bytes:
    """Encode an array of maps of texts in a union with null: one block, then the end of the blocks.

    Raises:
        AttributeError: A value in a map is not a text, or an entry is not a map.
    """
    # A block of zero entries is the end of the blocks, so an empty array has no count.
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


# The tables come last because they are filled by the functions above.
_END: Final = b"\x00"
_NOT_NULL: Final = b"\x02"
# 14 bits → their two bytes in the middle of a number, and at its end, where one byte may do.
_CONTINUED: Final = tuple(
    bytes((bits & _SEVEN_BITS | _CONTINUATION_BIT, bits >> 7 | _CONTINUATION_BIT)) for bits in range(_FOURTEEN_BITS)
)
_LAST: Final = tuple(
    bytes((bits,)) if bits <= _SEVEN_BITS else bytes((bits & _SEVEN_BITS | _CONTINUATION_BIT, bits >> 7))
    for bits in range(_FOURTEEN_BITS)
)
_KEY: Final = _Keys()
NULL: Final = b"\x00"
NUMBER: Final = _Numbers(b"")
NULLABLE_NUMBER: Final = _Numbers(_NOT_NULL)
NULLABLE_BOOLEAN: Final = {True: b"\x02\x01", False: b"\x02\x00"}
