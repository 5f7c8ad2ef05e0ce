"""What librdkafka can be brought to by force: fatal errors, and conclusions that are wrong."""

import ctypes
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaError

from connector.kafka.embedded import EmbeddedBroker
from connector.kafka.publisher import KafkaPublisher


def report_fatal_error(publisher: KafkaPublisher) -> None:
    """Hand the publisher the error that librdkafka hands its error callback, while its producer is at work.

    librdkafka's own hook is no help here: it aborts the process now and then when records are in flight.
    """
    error = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "for a test", fatal=True)
    publisher._client_error(error)


def bring_into_fatal_state(publisher: KafkaPublisher) -> None:
    """librdkafka's own test hook, for a producer at rest: from now on it refuses everything."""
    library = _library()
    library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = _handle(publisher._producer)
    assert library.rd_kafka_test_fatal_error(handle, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"for a test") == 0


def refuse_the_next_request(broker: EmbeddedBroker, *, milliseconds: int) -> None:
    """The broker answers so much later, and the next produce request with "not the leader", unpersisted."""
    library = _library()
    library.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
    library.rd_kafka_handle_mock_cluster.argtypes = [ctypes.c_void_p]
    cluster = ctypes.c_void_p(library.rd_kafka_handle_mock_cluster(_handle(broker._owner)))
    library.rd_kafka_mock_broker_set_rtt(cluster, ctypes.c_int32(1), ctypes.c_int(milliseconds))
    errors = (ctypes.c_int * 1)(KafkaError.NOT_LEADER_FOR_PARTITION)
    produce = ctypes.c_int16(0)
    library.rd_kafka_mock_push_request_errors_array(cluster, produce, ctypes.c_size_t(1), errors)


def _library() -> ctypes.CDLL:
    libraries = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    return ctypes.CDLL(str(next(libraries.glob("librdkafka*"))))


def _handle(client: object) -> int | None:
    """Where librdkafka's own object of a client is."""
    return ctypes.c_void_p.from_address(id(client) + object.__basicsize__).value
