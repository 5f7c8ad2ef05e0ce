"""The event that a reader of the topics gets, with the persons that it names and its mark."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NewType

from connector.errors import Unreadable
from connector.kafka.reader import ConsumerRecord
from connector.message import weda
from connector.message.headers import EVENT_ID, FINGERPRINT
from connector.message.persons import Person, persons

Mark = NewType("Mark", bytes)
"""Sixteen bytes that an event shares with its duplicates, and with no other event."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Event:
    """One record of a stream.

    Attributes:
        instance_id: The process instance; all records of an instance are in one partition, in order.
        value: The fields by WeDa's names, as in the data dictionary, with times as epoch milliseconds. None in the
            streams ``state`` and ``flat-state`` for an instance that was deleted.
        received_at: When the connector received the message, in UTC.
        fingerprint: The same text for a message and its duplicates.
        topic: The record's topic.
        partition: The number of the record's partition.
        offset: The record's offset in the partition.
        stream: The stream's name.
        headers: The Kafka headers as text.
    """

    instance_id: str
    value: Mapping[str, Any] | None
    received_at: datetime
    fingerprint: str
    topic: str
    partition: int
    offset: int
    stream: str = "events"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ce_id(self) -> str | None:
        """The CloudEvents id, unique together with ``ce_source``; None if another program wrote the record."""
        return self.headers.get(EVENT_ID)

    @property
    def mark(self) -> Mark:
        """The event's key in a `Store`: from stream, instance and fingerprint, or its offset without a fingerprint."""
        identity = self.fingerprint or f"{self.topic}/{self.partition}/{self.offset}"
        text = f"{self.stream}\0{self.instance_id}\0{identity}"
        return Mark(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_MARK_BYTES).digest())

    def persons(self, field: str = weda.APPROVERS) -> tuple[Person, ...]:
        """The persons in a field such as ``approverMap`` or ``startUserMap``, in any stream. See `persons`."""
        return persons(self.value or {}, field)


def event_of(record: ConsumerRecord) -> Event:
    """The event of a record.

    Raises:
        Unreadable: The record has another encoding, or a schema that is not known here.
    """
    # The reader leaves a value that it cannot decode as bytes; None, a tombstone, is an event.
    if isinstance(record.value, bytes) or record.key is None:
        raise Unreadable(
            f"{record.topic} [{record.partition}] @ {record.offset} cannot be decoded: is a schema registry in use "
            "(registry=...), or does it come from a later version of the connector?"
        )
    return Event(
        instance_id=record.key,
        value=record.value,
        # The deletion of an instance has no value, and so only the record's own time.
        received_at=_EPOCH + timedelta(milliseconds=(record.value or {}).get("receivedAt", record.timestamp)),
        fingerprint=record.headers.get(FINGERPRINT, ""),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stream=record.stream,
        headers=record.headers,
    )


def to_json(event: Event) -> str:
    """The event as JSON, for a store."""
    values = {name: getattr(event, name) for name in Event.__slots__}
    values |= {"received_at": event.received_at.isoformat(), "headers": dict(event.headers)}
    return json.dumps(values, ensure_ascii=False)


def from_json(text: str) -> Event:
    """The event in a text that `to_json` made."""
    values = json.loads(text)
    return Event(**values | {"received_at": datetime.fromisoformat(values["received_at"])})
