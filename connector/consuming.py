"""Read the topics from Python: typed events, decoded, without repeats, in the order of each instance.

::

    from connector.consuming import Events

    with Events("localhost:9092", group="reports") as events:
        for event in events:
            print(event.instance_id, event.value["actionName"])
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Self

from connector.errors import Unreadable
from connector.kafka.reader import Decoded, follow_records, read_records
from connector.kafka.registry import Registry
from connector.message.routes import STREAMS, Routes
from connector.settings import Registry as RegistrySettings

PREFIX: Final = "weda.workflow"
REPEATS_KEPT: Final = 100_000
"""Fingerprints that are remembered to recognise a repeat by: some 20 MiB."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_PROPERTIES: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Event:
    """One record of a stream.

    Attributes:
        instance_id: The process instance; records of one stand in one partition, in order.
        value: The fields by WeDa's names, as the data dictionary has them, times as epoch milliseconds. None in the
            stream ``state`` for an instance that was deleted.
        received_at: When the connector took the message in, in UTC.
        fingerprint: The same for a message and whatever repeats it.
        topic: Where the record lies, with partition and offset.
        partition: The partition's number.
        offset: Its place in the partition.
    """

    instance_id: str
    value: Mapping[str, Any] | None
    received_at: datetime
    fingerprint: str
    topic: str
    partition: int
    offset: int


class Events:
    """The events of one stream, for ``for`` and for ``async for``; a context manager that closes the connections.

    Without a group everything is read and nothing is left behind. With one, reading goes on where the group has come
    to: an event counts as read once the next one is asked for, so one whose handling fails comes again. A repeat (the
    same message from the same instance, sent again by WeDa or published again after a crash) is left out as long as its
    fingerprint is remembered. A cancelled ``async for`` closes it: what was on its way then does not count as read.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        stream: ``events``, ``instances``, ``tasks`` or ``state``.
        prefix: What the topics' names start with; ``{source}`` and ``{envType}`` written out.
        group: Consumer group.
        registry: The schema registry, where the connector has one: its address, or all that `settings.Registry` takes.
        properties: librdkafka properties (TLS, SASL …).
        until_end: End where every partition ended; without a group only.
        idle_seconds: End after so long without a record; None means never.
        repeats_kept: How many fingerprints are remembered, in this process; 0 keeps every repeat.

    Attributes:
        repeats: How many records were left out.

    Raises:
        OutsideUnreachable: No broker answers at the start, or no registry where a schema is looked up.
        ConfigurationError: Kafka or the registry refuses.
        Unreadable: While reading: a record in another encoding, or of a schema that is not known here.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        stream: str = "events",
        prefix: str = PREFIX,
        group: str | None = None,
        registry: str | RegistrySettings | None = None,
        properties: Mapping[str, Any] = _NO_PROPERTIES,
        until_end: bool = False,
        idle_seconds: float | None = None,
        repeats_kept: int = REPEATS_KEPT,
    ) -> None:
        if group is not None and until_end:
            raise ValueError("until_end goes without a group: a group's members cannot know where the others are")
        known = RegistrySettings(url=registry) if isinstance(registry, str) else registry
        self.repeats = 0
        self._seen = _Seen(repeats_kept)
        self._stack = ExitStack()
        self._is_stopped = False
        by_id = None if known is None else self._stack.enter_context(Registry(known)).schema
        where: dict[str, Any] = {"stream": stream, "topic": Routes(STREAMS, prefix).topic(stream), "by_id": by_id}
        ends: dict[str, Any] = {"idle_seconds": idle_seconds, "is_stopped": lambda: self._is_stopped}
        self._records: Iterator[Decoded] = (
            read_records(bootstrap_servers, properties, from_beginning=True, until_end=until_end, **where, **ends)
            if group is None
            else follow_records(bootstrap_servers, properties, group=group, **where, **ends)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Leave the group and close the connections."""
        self._records.close()  # type: ignore[attr-defined] # both are generators
        self._stack.close()

    def __iter__(self) -> Iterator[Event]:
        for record in self._records:
            event = _event(record)
            if self._seen.is_new(event):
                yield event
            else:
                self.repeats += 1

    async def __aiter__(self) -> AsyncIterator[Event]:
        loop, events = asyncio.get_running_loop(), iter(self)
        with ThreadPoolExecutor(1, "weda-events") as thread:
            try:
                while (event := await loop.run_in_executor(thread, next, events, None)) is not None:
                    yield event
            except asyncio.CancelledError:
                self._is_stopped = True  # or the thread would wait for a record that may never come
                await asyncio.to_thread(thread.shutdown)
                await asyncio.to_thread(self.close)  # so that the record on its way does not count as read
                raise


def by_instance(events: Iterable[Event]) -> dict[str, list[Event]]:
    """The events of each instance in their order, instances in the order in which they first appear.

    For what ends (``until_end``, ``idle_seconds``, a slice): all of it is kept in memory.
    """
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.instance_id].append(event)
    return dict(found)


class _Seen:
    """The last fingerprints, so many of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._marks: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def is_new(self, event: Event) -> bool:
        """Whether no other record of the instance has had the event's fingerprint; from now on this one has."""
        mark, place = (event.instance_id, event.fingerprint), (event.partition, event.offset)
        known = self._marks.setdefault(mark, place)
        self._marks.move_to_end(mark)
        if len(self._marks) > self._most:
            self._marks.popitem(last=False)
        return known == place  # a record that is read again after a rebalance repeats nobody


def _event(record: Decoded) -> Event:
    if isinstance(record.value, bytes) or record.key is None:
        raise Unreadable(
            f"{record.topic} [{record.partition}] @ {record.offset} cannot be decoded: is a schema registry in use "
            "(registry=...), or does it come from a later version of the connector?"
        )
    return Event(
        instance_id=record.key,
        value=record.value,
        received_at=_EPOCH + timedelta(milliseconds=(record.value or {}).get("receivedAt", record.timestamp)),
        fingerprint=record.headers.get("weda.fingerprint", ""),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
    )
