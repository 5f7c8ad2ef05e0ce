"""The embedded broker: librdkafka's in-process mock cluster, so that the main job runs without anything else.

Memory only, loopback only, gone with its owner. It shows the way of the data; it proves nothing about durability.
"""

from confluent_kafka import Producer


class EmbeddedBroker:
    """A mock cluster, owned by a client of its own that produces nothing."""

    def __init__(self) -> None:
        # The mock cluster lives as long as the client that has created it.
        self._owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 2})
        brokers = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
