"""The embedded broker: librdkafka's in-process mock cluster, with which the connector runs without a Kafka.

It keeps records in memory, listens on loopback, and ends with its owner. It shows how data flows, but is not durable.
"""

from confluent_kafka import Producer


class EmbeddedBroker:
    """A mock cluster with a client that owns it and produces nothing.

    Attributes:
        bootstrap_servers: The cluster's brokers as ``host:port``.
    """

    def __init__(self) -> None:
        # The mock cluster lives as long as the client that created it.
        self._owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 2})
        brokers = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
