"""Finds the partition of a key, as the connector's producer and Java clients choose it."""

from typing import Final

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic with this many partitions, as ``murmur2_random`` chooses it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(key: bytes) -> int:
    """Kafka's ``Utils.murmur2`` as an unsigned number."""
    state = (_SEED ^ len(key)) & _WORD
    tail = len(key) - len(key) % 4
    for at in range(0, tail, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _FACTOR & _WORD
        word = (word ^ word >> 24) * _FACTOR & _WORD
        state = (state * _FACTOR & _WORD) ^ word
    if key[tail:]:
        state = (state ^ int.from_bytes(key[tail:], "little")) * _FACTOR & _WORD
    state = (state ^ state >> 13) * _FACTOR & _WORD
    return state ^ state >> 15
