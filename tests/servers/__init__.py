"""Real Apache Kafka, a schema registry and Prometheus for tests, as plain processes, no containers.

Kafka and the registry come from Maven's artifacts, Prometheus from Debian's packages.

From a shell::

    python -m tests.servers install            # once: fetches them into the cache folder
    python -m tests.servers up --nodes 3       # leaves three brokers running, prints KAFKA_BOOTSTRAP=...
    python -m tests.servers node 2 pause       # or kill, resume, start; "all" for every node
    python -m tests.servers down

From a test::

    with KafkaCluster.start(nodes=3) as cluster:
        cluster.create_topic("orders", partitions=3)
        cluster.kill(1)
"""

from tests.servers.errors import DidNotStart, NotInstalled, ServerError
from tests.servers.kafka import KafkaCluster
from tests.servers.producing import produce
from tests.servers.prometheus import Prometheus
from tests.servers.reading import end_offsets, read_topic
from tests.servers.registry import SchemaRegistry

__all__ = [
    "DidNotStart",
    "KafkaCluster",
    "NotInstalled",
    "Prometheus",
    "SchemaRegistry",
    "ServerError",
    "end_offsets",
    "produce",
    "read_topic",
]
