"""Fatal errors of librdkafka."""

import ctypes
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaError

from connector.publisher import KafkaPublisher


def report_fatal_error(publisher: KafkaPublisher) -> None:
    """Hand the publisher the error that librdkafka hands its error callback, while its producer is at work.

    librdkafka's own hook is no help here: it aborts the process now and then when records are in flight.
    """
    error = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "for a test", fatal=True)
    publisher._client_error(error)


def bring_into_fatal_state(publisher: KafkaPublisher) -> None:
    """librdkafka's own test hook, for a producer at rest: from now on it refuses everything."""
    libraries = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(libraries.glob("librdkafka*"))))
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(publisher._producer) + object.__basicsize__).value
    assert library.rd_kafka_test_fatal_error(handle, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"for a test") == 0
