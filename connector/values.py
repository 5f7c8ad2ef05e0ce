"""The values that modules hand to each other; all are immutable."""

from ipaddress import IPv4Network, IPv6Network
from typing import Final, NewType

import msgspec

SourceName = NewType("SourceName", str)
"""A calling system, known by its credential."""

InstanceId = NewType("InstanceId", str)
"""A process instance; the key of its records."""

IngestId = NewType("IngestId", str)
"""A UUIDv7 as text; in one connector it never decreases."""

Network = IPv4Network | IPv6Network
"""A network whose addresses a source may send from, or whose proxies are trusted."""

FINGERPRINT: Final = "sha256:"
"""The prefix of a certificate's fingerprint among its names; no other name may begin with it."""

DEFAULT_SOURCE: Final = SourceName("default")
"""The source of requests to the path without a name."""

UNKNOWN_SOURCE: Final = SourceName("unknown")
"""The source in the metrics of requests that have not proven one."""

CANARY_SOURCE: Final = SourceName("canary")
"""The source of the messages that the connector sends to itself."""

DedupKey = tuple[bytes, bytes]
"""How a duplicate is recognised: 16 bytes that hash its kind, source and id, and the fingerprint of the content."""

Headers = tuple[tuple[str, bytes], ...]
"""Kafka headers in the order in which they are produced."""


class ProducibleRecord(msgspec.Struct, frozen=True, array_like=True):
    """One encoded record, ready for librdkafka. The journal stores it as it is.

    Attributes:
        stream: The stream's name, a label of metrics.
        topic: Its topic.
        key: The instance's id in UTF-8; None for a dead letter whose instance is not readable.
        value: The encoded bytes; None for a tombstone.
        headers: Kafka headers.
        timestamp: Epoch milliseconds.
    """

    stream: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int

    @property
    def size(self) -> int:
        """Bytes that count against ``max.message.bytes``; the framing is an upper bound."""
        size = len(self.key or b"") + len(self.value or b"") + RECORD_OVERHEAD
        for name, value in self.headers:
            size += len(name) + len(value) + HEADER_OVERHEAD
        return size


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a request, as the journal stores it with its message.

    Attributes:
        source: Who sent it.
        body: The bytes as received; of a GET, the query string.
        content_type: The media type as received, or the empty string.
        received_at: Epoch milliseconds.
        traceparent: The W3C trace context of the request, if it had one.
        attempt: The number of this attempt; from the second on it is a dead letter that is reprocessed.
        reprocessed_at: Epoch milliseconds at which this attempt began; None in the first.
        request_id: The request's ``x-request-id``, if it had one; ids that the connector gave are in no record.
    """

    source: str
    body: bytes
    content_type: str
    received_at: int
    traceparent: str | None = None
    attempt: int = 1
    reprocessed_at: int | None = None
    # Last, because the journal stores fields by position, and files of earlier versions end before it.
    request_id: str | None = None

    @property
    def waits_since(self) -> int:
        """Epoch milliseconds since when it waits to be published; of a dead letter, since it is reprocessed."""
        return self.received_at if self.reprocessed_at is None else self.reprocessed_at


HEADER_OVERHEAD: Final = 10
"""Bytes around one Kafka header: two lengths of at most five bytes."""

RECORD_OVERHEAD: Final = 128
"""Bytes of batch and record framing around one record that is sent alone (61 + at most 36, rounded up)."""

MAX_OVERHEAD_BYTES: Final = 256 * 1024
"""More than `ProducibleRecord.size` ever adds to the bytes of a value: key, identifiers and headers are bounded."""
