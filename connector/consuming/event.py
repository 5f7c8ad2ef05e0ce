"""What a reader of the topics gets: an event, the persons that it names, and its mark."""

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
"""Sixteen bytes that an event has in common with its repeats, and with nothing else."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Event:
    """One record of a stream.

    Attributes:
        instance_id: The process instance; records of one are in one partition, in order.
        value: The fields by WeDa's names, as the data dictionary has them, times as epoch milliseconds. None in the
            streams ``state`` and ``flat-state`` for an instance that was deleted.
        received_at: When the connector took the message in, in UTC.
        fingerprint: The same for a message and whatever repeats it.
        topic: Where the record lies, with partition and offset.
        partition: The partition's number.
        offset: Its offset in the partition.
        stream: The stream's name.
        headers: Kafka headers as text.
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
        """The CloudEvents id: unique with ``ce_source``; None where no connector wrote the record."""
        return self.headers.get(EVENT_ID)

    @property
    def mark(self) -> Mark:
        """What a `Store` knows the event by: stream, instance and fingerprint; without one, its offset."""
        identity = self.fingerprint or f"{self.topic}/{self.partition}/{self.offset}"
        text = f"{self.stream}\0{self.instance_id}\0{identity}"
        return Mark(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_MARK_BYTES).digest())

    def persons(self, field: str = weda.APPROVERS) -> tuple[Person, ...]:
        """The persons of a field such as ``approverMap`` or ``startUserMap``, in every stream. See `persons`."""
        return persons(self.value or {}, field)


def event_of(record: ConsumerRecord) -> Event:
    """The event of a record.

    Raises:
        Unreadable: The record is in another encoding, or of a schema that is not known here.
    """
    if isinstance(record.value, bytes) or record.key is None:
        raise Unreadable(
            f"{record.topic} [{record.partition}] @ {record.offset} cannot be decoded: is a schema registry in use "
            "(registry=...), or does it come from a later version of the connector?"
        )
    return Event(
        instance_id=record.key,
        value=record.value,
        received_at=_EPOCH + timedelta(milliseconds=(record.value or {}).get("receivedAt", record.timestamp)),
        fingerprint=record.headers.get(FINGERPRINT, ""),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        stream=record.stream,
        headers=record.headers,
    )


def to_json(event: Event) -> str:
    """The event as JSON."""
    values = {name: getattr(event, name) for name in Event.__slots__}
    values |= {"received_at": event.received_at.isoformat(), "headers": dict(event.headers)}
    return json.dumps(values, ensure_ascii=False)


def from_json(text: str) -> Event:
    """The event that `to_json` was given."""
    values = json.loads(text)
    return Event(**values | {"received_at": datetime.fromisoformat(values["received_at"])})
