"""The events of one stream or several, for a script and for a service."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeVar

from confluent_kafka import Message

from connector.consuming.arrow import frame_of, table_of
from connector.consuming.event import Event, Mark, event_of
from connector.consuming.stores import MemoryStore, Parked, Store, parked_now
from connector.errors import OutsideUnreachable
from connector.kafka.reader import ConsumerRecord, decode_record
from connector.kafka.registry import schemas_by_id
from connector.kafka.subscription import Subscription
from connector.message.routes import STREAMS, Routes
from connector.message.schemas import Schema
from connector.settings import Registry as RegistrySettings

PREFIX: Final = "weda.workflow"
REPEATS_KEPT: Final = 100_000
"""Marks that are remembered in memory to recognise a repeat by: some 15 MiB."""

_NO_PROPERTIES: Final[Mapping[str, Any]] = MappingProxyType({})
_Partition = tuple[str, int]
_T = TypeVar("_T")


class Events:
    """The events of one stream or several, for ``for`` and for ``async for``; a context manager.

    Without a group everything is read and Kafka remembers nothing. With one, reading goes on where the group has come
    to. An event counts as read once the next one is asked for, or, with ``auto_commit=False``, once `commit` is called:
    one whose handling fails comes again. A repeat (the same message from the same instance, sent again by WeDa or
    published again after a crash) is left out as long as the store knows its mark; a `SqliteStore` also knows, after a
    crash, what was handled and not yet committed to Kafka. A cancelled ``async for`` closes it: what was on its way
    then does not count as read. It belongs to one thread or task at a time; `stop` alone may be called from others.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        stream: ``events``, ``instances``, ``tasks``, ``state``, ``flat`` or ``flat-state``; several come in one order,
            per instance in that in which the connector received the messages. Their topics must have equally many
            partitions.
        prefix: What the topics' names start with; ``{source}`` and ``{envType}`` written out.
        group: Consumer group.
        member: This process's name in the group (Kafka's static membership): started again after a crash, it goes on at
            once; without a name it waits until Kafka has given up the dead member (``session.timeout.ms``, 45 s).
        since: Start with the first record from this time on, not with the oldest; of a group only where it has come to
            nowhere yet. Records received before and published later may follow.
        registry: The schema registry, where the connector has one: its address, or all that `settings.Registry` takes.
        properties: librdkafka properties (TLS, SASL …).
        until_end: End where every partition ended; without a group only.
        idle_seconds: End after this long without a record; None means never. For a member of a group the time runs from
            when it has partitions, so that it does not end while a dead member holds them.
        auto_commit: Whether an event counts as read once the next one is asked for; else `commit` says so.
        store: What was handled; None is a `MemoryStore` of ``repeats_kept``.
        repeats_kept: How many marks are remembered, in this process; 0 keeps every repeat. For the store in memory.

    Attributes:
        repeats: How many records were left out.

    Raises:
        OutsideUnreachable: No broker answers at the start, or no registry where a schema is looked up; or, with
            ``idle_seconds``, the group gave this member no partition before its time and a session's were over.
        ConfigurationError: Kafka or the registry rejects; or another process reads as this ``member``.
        Unreadable: While reading: a record in another encoding, or of a schema that is not known here.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        stream: str | Sequence[str] = "events",
        prefix: str = PREFIX,
        group: str | None = None,
        member: str | None = None,
        since: datetime | None = None,
        registry: str | RegistrySettings | None = None,
        properties: Mapping[str, Any] = _NO_PROPERTIES,
        until_end: bool = False,
        idle_seconds: float | None = None,
        auto_commit: bool = True,
        store: Store | None = None,
        repeats_kept: int = REPEATS_KEPT,
    ) -> None:
        if group is not None and until_end:
            raise ValueError("until_end goes without a group: a group's members cannot know where the others are")
        if member is not None and group is None:
            raise ValueError("member names one of a group: give the group too")
        if since is not None and since.tzinfo is None:
            raise ValueError("since needs a time zone, as in datetime.now(UTC)")
        self.repeats = 0
        self._ends = until_end or idle_seconds is not None
        self._streams = (stream,) if isinstance(stream, str) else tuple(stream)
        self._auto_commit = auto_commit
        self._has_group = group is not None
        self._store = MemoryStore(repeats_kept) if store is None else store
        self._open: dict[Mark, Event] = {}
        self._parked: dict[Mark, Parked] = {}
        self._positions: dict[_Partition, int] = {}
        self._stack = ExitStack()
        self._is_stopped = self._is_given = False
        known = RegistrySettings(url=registry) if isinstance(registry, str) else registry
        by_id = self._stack.enter_context(schemas_by_id(known))
        routes = Routes(STREAMS, prefix)
        topics = {routes.topic(each): each for each in self._streams}
        self._subscription = Subscription(
            bootstrap_servers,
            properties,
            tuple(topics),
            _decoder(topics, by_id),
            group=group,
            member=member,
            since=since,
            until_end=until_end,
            idle_seconds=idle_seconds,
            auto_commit=auto_commit,
            is_stopped=lambda: self._is_stopped,
        )
        self._stack.callback(self._subscription.close)

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
        self._stack.close()

    def stop(self) -> None:
        """Let the loop end after the event that it is at; from any thread, or from a signal's function."""
        self._is_stopped = True

    def __iter__(self) -> Iterator[Event]:
        return self._singles()

    def __aiter__(self) -> AsyncIterator[Event]:
        return Loop(self, self._singles).__aiter__()

    def batches(self, most: int = 500, *, seconds: float = 1.0, idle: float = float("inf")) -> "Loop[list[Event]]":
        """The events as lists of at most so many, for ``for`` and for ``async for``.

        A list is given when it is full, or so many seconds after its first event. It counts as read as a single event
        does. An empty one is given after ``idle`` seconds without an event, for who has something to do meanwhile; by
        default, never.
        """
        return Loop(self, lambda: self._batches(most, seconds, idle))

    def commit(self) -> None:
        """All events given so far, the latest included, are handled: the store remembers them, and Kafka the offsets.

        The store comes first. A crash between the two does nothing twice; one before it repeats what was given since
        the last `commit`.

        Raises:
            PartitionsLost: The group has given their partitions to others, for want of a sign of life within
                ``max.poll.interval.ms``. They are in the store; with one of its own, the other member gets them again.
            OutsideUnreachable: Kafka does not answer. They are in the store; the next `commit` makes up for it.
        """
        self._remember()
        positions, self._positions = self._positions, {}
        if not self._has_group:
            return
        try:
            self._subscription.commit(positions)
        except OutsideUnreachable:
            self._positions = positions | self._positions
            raise

    def park(self, event: Event, reason: str) -> None:
        """Set an event aside whose handling fails for good, and go on.

        It counts as handled, and is in `Store.parked` from when the event counts as read.
        """
        self._parked[event.mark] = parked_now(event, reason)

    def sleep(self, seconds: float) -> None:
        """Wait before another attempt, as a living member of the group: ``time.sleep`` would count as a dead one."""
        self._subscription.sleep(seconds)

    def lag(self) -> int:
        """How many records of its partitions were not given yet: 0 before the group has given it some.

        Raises:
            OutsideUnreachable: Kafka does not answer.
        """
        return self._subscription.lag()

    def to_arrow(self) -> Any:
        """All of them as a ``pyarrow.Table``, with the types of the schemas, times in UTC, and offsets.

        Raises:
            ConfigurationError: pyarrow is not installed (extra ``arrow``).
            ValueError: Reading has no end: give ``until_end`` or ``idle_seconds``.
        """
        return table_of(self._all(), self._streams)

    def to_polars(self) -> Any:
        """All of them as a ``polars.DataFrame``; see `to_arrow`.

        Raises:
            ConfigurationError: polars or pyarrow is not installed (extra ``arrow``).
            ValueError: Reading has no end: give ``until_end`` or ``idle_seconds``.
        """
        return frame_of(self._all(), self._streams)

    def _all(self) -> Iterator[Event]:
        if not self._ends:
            raise ValueError("a table needs an end: give until_end or idle_seconds")
        return iter(self)

    def _singles(self) -> Iterator[Event]:
        while not self._is_over():
            event = self._next()
            if event is not None:
                self._is_given = True
                yield event

    def _batches(self, most: int, seconds: float, idle: float) -> Iterator[list[Event]]:
        while not self._is_over():
            some = self._gathered(most, seconds, idle)
            if some or not self._subscription.is_over:
                self._is_given = bool(some)
                yield some

    def _gathered(self, most: int, seconds: float, idle: float) -> list[Event]:
        some: list[Event] = []
        until = time.monotonic() + idle
        while len(some) < most and time.monotonic() < until and not self._subscription.is_over:
            event = self._next()
            if event is not None:
                until = until if some else time.monotonic() + seconds
                some.append(event)
        return some

    def _is_over(self) -> bool:
        """Asked before each event or batch: the one before counts as read by that, if it is not for `commit` to say."""
        if self._is_given:
            self._is_given = False
            self._subscription.restart_idle_clock()  # its handling may have taken its time
        if self._auto_commit and (self._positions or self._parked):
            self._remember()
            if self._has_group:
                self._subscription.store(self._positions)
            self._positions = {}
        return self._subscription.is_over

    def _next(self) -> Event | None:
        """The next event; None for a repeat, or if none came for a moment."""
        record = self._subscription.poll()
        return None if record is None else self._taken(record)

    def _taken(self, record: ConsumerRecord) -> Event | None:
        """The event of a record; None for a repeat."""
        event, partition = event_of(record), (record.topic, record.partition)
        mark = event.mark
        before = self._open.get(mark)
        is_same = before is not None and (before.topic, before.partition, before.offset) == (*partition, event.offset)
        is_repeat = self._store.knows(mark) if before is None else not is_same
        self._positions[partition] = event.offset + 1
        if is_repeat:
            self.repeats += 1
            return None
        self._open[mark] = event
        return event

    def _remember(self) -> None:
        if self._open or self._parked:
            self._store.add(tuple(self._open), tuple(self._parked.values()))
        self._open.clear()
        self._parked.clear()


class Loop(Generic[_T]):
    """An iterator over what `Events` reads, for ``for`` and for ``async for``."""

    def __init__(self, events: Events, begin: Callable[[], Iterator[_T]]) -> None:
        self._events, self._begin = events, begin

    def __iter__(self) -> Iterator[_T]:
        return self._begin()

    async def __aiter__(self) -> AsyncIterator[_T]:
        loop, found = asyncio.get_running_loop(), self._begin()
        with ThreadPoolExecutor(1, "weda-events") as thread:
            try:
                while (one := await loop.run_in_executor(thread, next, found, None)) is not None:
                    yield one
            except asyncio.CancelledError:
                self._events.stop()  # or the thread would wait for a record that may never come
                await asyncio.to_thread(thread.shutdown)
                await asyncio.to_thread(self._events.close)  # so that the record on its way does not count as read
                raise


def by_instance(events: Iterable[Event]) -> dict[str, list[Event]]:
    """The events of each instance in their order, instances in the order in which they first appear.

    For what ends (``until_end``, ``idle_seconds``, a slice): all of it is kept in memory.
    """
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event.instance_id].append(event)
    return dict(found)


def _decoder(topics: Mapping[str, str], by_id: Callable[[int], Schema] | None) -> Callable[[Message], ConsumerRecord]:
    """Decodes what comes from any of the topics, each of which has its stream."""

    def decode(message: Message) -> ConsumerRecord:
        topic = str(message.topic())
        return decode_record(topics[topic], topic, message, by_id)

    return decode
