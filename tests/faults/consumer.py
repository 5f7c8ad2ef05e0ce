"""The independent consumer: what is in the topics, as any other program would read it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import fastavro
from confluent_kafka import Message as KafkaMessage
from fastavro.schema import fingerprint, to_parsing_canonical_form

from tests.servers import read_topic

SCHEMAS = Path(__file__).parents[2] / "avro"
RECORD_TYPE_OF = {
    "events": "io.weda.workflow.WorkflowEvent",
    "instances": "io.weda.workflow.InstanceEvent",
    "tasks": "io.weda.workflow.TaskEvent",
}
SINGLE_OBJECT = b"\xc3\x01"
REGISTRY_MAGIC = b"\x00"
REGISTRY_HEADER_BYTES = 5
"""The mark, and the id of the schema, which `tests.integration.test_registry` checks."""
READ_SECONDS = 120


@dataclass(frozen=True)
class Record:
    """One record, decoded."""

    stream: str
    partition: int
    offset: int
    key: str
    timestamp: int
    """Epoch milliseconds."""
    headers: dict[str, str]
    value: dict[str, Any]
    digest: str = ""
    """Of everything that is in the topic: key, value, headers."""
    era: int = 0
    """How often the end of its partition had been lost before it was written: offsets begin again below it."""

    @property
    def place(self) -> tuple[int, int]:
        """Where in its partition's history it is."""
        return self.era, self.offset

    @property
    def where(self) -> str:
        """For people: which record this is."""
        return f"{self.stream}/{self.partition}@{self.offset}" + "'" * self.era

    @property
    def ingest_id(self) -> str:
        """The id that the connector gave the message."""
        return str(self.value["ingestId"])


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter as it stands in its topic."""

    partition: int
    offset: int
    headers: dict[str, str]
    body: bytes
    """What was received."""

    def __str__(self) -> str:
        return f"dead-letters/{self.partition}@{self.offset}: {self.headers}"


def read(bootstrap: str, prefix: str, properties: Mapping[str, str] | None = None) -> list[Record]:
    """Every committed record of the record streams: partitions in any order, each in its own order, unsorted.

    ``properties`` are the client's (credentials). ``ValueError`` when a value is not what its stream promises.
    """
    return [record for stream in RECORD_TYPE_OF for record in read_stream(bootstrap, prefix, stream, properties)]


def read_stream(bootstrap: str, prefix: str, stream: str, properties: Mapping[str, str] | None = None) -> list[Record]:
    """As `read`, of one stream."""
    found = read_topic(bootstrap, f"{prefix}.{stream}", timeout=READ_SECONDS, properties=properties)
    return [decode(stream, message) for message in found]


def read_dead_letters(bootstrap: str, prefix: str, properties: Mapping[str, str] | None = None) -> list[DeadLetter]:
    """Every dead letter."""
    found = read_topic(bootstrap, f"{prefix}.dead-letters", timeout=READ_SECONDS, properties=properties)
    return [
        DeadLetter(message.partition() or 0, message.offset() or 0, _headers(message), message.value() or b"")
        for message in found
    ]


def decode(stream: str, message: KafkaMessage) -> Record:
    """One record of a stream; ``ValueError`` when its framing or schema is another."""
    key, value = message.key(), message.value()
    place = f"{stream}/{message.partition()}@{message.offset()}"
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        raise ValueError(f"{place} has no key or no value")  # noqa: TRY004 - about the record, not a type of ours
    mark, schema = _schema(stream)
    if not value.startswith((mark, REGISTRY_MAGIC)):
        raise ValueError(f"{place} starts with {value[:10].hex()}, not with {mark.hex()}")
    body = BytesIO(value[len(mark) if value.startswith(mark) else REGISTRY_HEADER_BYTES :])
    decoded = fastavro.schemaless_reader(body, schema, None)
    if body.read(1) or not isinstance(decoded, dict):
        raise ValueError(f"{place} has bytes after its record")
    partition, offset = message.partition() or 0, message.offset() or 0
    headers = _headers(message)
    digest = hashlib.sha256(repr((key, value, sorted(headers.items()))).encode()).hexdigest()[:32]
    return Record(stream, partition, offset, key.decode(), message.timestamp()[1], headers, decoded, digest)


def field_names(stream: str) -> frozenset[str]:
    """The fields of the stream's schema."""
    return frozenset(field["name"] for field in _read_schema(stream)["fields"])


def _headers(message: KafkaMessage) -> dict[str, str]:
    headers = cast("list[tuple[str, bytes]]", message.headers() or [])
    return {name: value.decode() for name, value in headers}


@cache
def _schema(stream: str) -> tuple[bytes, Any]:
    """The bytes that stand before each value of the stream, and a schema to read it with, times as numbers."""
    schema = _read_schema(stream)
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    return SINGLE_OBJECT + mark, fastavro.parse_schema(_without_logical_types(schema))


@cache
def _read_schema(stream: str) -> Any:
    return json.loads((SCHEMAS / f"{RECORD_TYPE_OF[stream]}.avsc").read_text())


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return dict(_without_logical_type(schema))
    return [_without_logical_types(one) for one in schema] if isinstance(schema, list) else schema


def _without_logical_type(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, _without_logical_types(one)) for name, one in schema.items() if name != "logicalType")
