"""A fatal error of librdkafka, by its own test hook."""

import ctypes
from pathlib import Path
from typing import Final

import confluent_kafka

from connector.publisher import KafkaPublisher

OUT_OF_ORDER_SEQUENCE_NUMBER: Final = 45


def provoke_fatal_error(publisher: KafkaPublisher) -> None:
    """librdkafka's own test hook: the client is in the state that a lost idempotent sequence leaves it in."""
    libraries = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(libraries.glob("librdkafka*"))))
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(publisher._producer) + object.__basicsize__).value
    assert library.rd_kafka_test_fatal_error(handle, OUT_OF_ORDER_SEQUENCE_NUMBER, b"for a test") == 0
