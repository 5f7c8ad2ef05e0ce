"""The small frozen values that travel between modules, and the names of their parts."""

from ipaddress import IPv4Network, IPv6Network
from typing import Final, NewType

import msgspec

SourceName = NewType("SourceName", str)
"""A calling system, known by its credential."""

InstanceId = NewType("InstanceId", str)
"""One run of a process: the key of its records."""

IngestId = NewType("IngestId", str)
"""UUIDv7 text: never goes backwards in one connector."""

Network = IPv4Network | IPv6Network
"""A network whose addresses a source may send from, or whose proxies are trusted."""

FINGERPRINT: Final = "sha256:"
"""What comes before a certificate's fingerprint among its names; no other name may begin so."""

UNKNOWN_SOURCE: Final = SourceName("unknown")
"""Label of requests of no configured source."""

CANARY_SOURCE: Final = SourceName("canary")
"""Source of the messages that the connector sends itself."""

Headers = tuple[tuple[str, bytes], ...]
"""Kafka headers in the order in which they are produced."""


class ProducibleRecord(msgspec.Struct, frozen=True, array_like=True):
    """One encoded record, ready for librdkafka; written to the journal as it stands.

    Attributes:
        stream: The stream's name, a label of metrics.
        topic: Where it goes.
        key: The instance's id in UTF-8, or none (a dead letter whose instance is not readable).
        value: The encoded bytes; None says that what the key stood for is gone (a tombstone).
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
        """Bytes that count against ``max.message.bytes``, the framing estimated upwards."""
        size = len(self.key or b"") + len(self.value or b"") + RECORD_OVERHEAD
        for name, value in self.headers:
            size += len(name) + len(value) + HEADER_OVERHEAD
        return size


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One HTTP call, as far as it is kept: what a dead letter holds, byte for byte.

    Attributes:
        source: Who sent it.
        body: The bytes as received; of a GET, its query string.
        content_type: The media type as received, or the empty string.
        received_at: Epoch milliseconds.
        traceparent: The W3C trace context of the request, if it had one.
        attempt: How often it was tried, this time included: the second is a dead letter that is reprocessed.
        reprocessed_at: Epoch milliseconds of that attempt, from which on it waits; None in the first.
        request_id: The request's ``x-request-id``, if it had one; the connector's own ids are in no record. Last,
            because the journal stores the fields by position, and files of earlier versions end before it.
    """

    source: str
    body: bytes
    content_type: str
    received_at: int
    traceparent: str | None = None
    attempt: int = 1
    reprocessed_at: int | None = None
    request_id: str | None = None

    @property
    def waits_since(self) -> int:
        """Epoch milliseconds since when it is to be published: what was a dead letter did not wait."""
        return self.received_at if self.reprocessed_at is None else self.reprocessed_at


HEADER_OVERHEAD: Final = 10
"""Bytes around one Kafka header: two lengths of at most five bytes."""

RECORD_OVERHEAD: Final = 128
"""Bytes of batch and record framing around one record that is sent alone (61 + at most 36, rounded up)."""

OVERHEAD_AT_MOST: Final = 256 * 1024
"""More than `ProducibleRecord.size` ever adds to the bytes of a value: key, identifiers and headers are bounded."""
