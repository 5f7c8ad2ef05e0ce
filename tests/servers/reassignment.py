"""Moves the replicas of partitions between brokers: one request in Kafka's own protocol, which no Python client speaks.

https://kafka.apache.org/protocol.html: AlterPartitionReassignments, version 0, over a plaintext connection.
"""

import socket
import struct
from collections.abc import Mapping, Sequence

from tests.servers.errors import ServerError
from tests.servers.kafka import ADMIN_SECONDS, KafkaCluster
from tests.waiting import wait_until

_API, _VERSION = 45, 0
_NO_TAGS = b"\x00"

Replicas = Mapping[int, Sequence[int]]
"""Partition → the nodes that are to have it, its preferred leader first."""


def reassign(cluster: KafkaCluster, topic: str, replicas: Replicas) -> None:
    """Move a topic's partitions and wait until the new replicas are in sync."""
    _ask(cluster.bootstrap_servers.split(",")[0], _request(topic, replicas))
    admin = cluster.admin()

    def have_moved() -> bool:
        found = admin.list_topics(topic, timeout=ADMIN_SECONDS).topics[topic].partitions
        return all(
            sorted(found[each].replicas) == sorted(found[each].isrs) == sorted(replicas[each]) for each in replicas
        )

    wait_until(have_moved)


def _request(topic: str, replicas: Replicas) -> bytes:
    header = struct.pack(">hhih", _API, _VERSION, 1, -1) + _NO_TAGS
    partitions = [
        struct.pack(">i", partition) + _array([struct.pack(">i", node) for node in nodes]) + _NO_TAGS
        for partition, nodes in replicas.items()
    ]
    name = topic.encode()
    topics = [_length(len(name)) + name + _array(partitions) + _NO_TAGS]
    return header + struct.pack(">i", ADMIN_SECONDS * 1000) + _array(topics) + _NO_TAGS


def _array(entries: Sequence[bytes]) -> bytes:
    return _length(len(entries)) + b"".join(entries)


def _length(count: int) -> bytes:
    """One more than the count, seven bits a byte, the lowest first."""
    left, written = count + 1, bytearray()
    while left > 0x7F:
        written.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*written, left])


def _ask(broker: str, request: bytes) -> None:
    """Any broker hands it on to the controller."""
    host, _, port = broker.rpartition(":")
    with socket.create_connection((host, int(port)), ADMIN_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            (size,) = struct.unpack(">i", answer.read(4))
            body = answer.read(size)
    (code,) = struct.unpack_from(">h", body, 4 + 1 + 4)  # after the correlation, its tags, and the throttle time
    if code:
        raise ServerError(f"Kafka rejected the reassignment with error code {code}")
