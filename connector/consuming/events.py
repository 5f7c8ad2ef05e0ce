"""Reads the events of one or more streams, for scripts and for services."""

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
"""Marks that are remembered in memory to recognise duplicates: some 15 MiB."""

_NO_PROPERTIES: Final[Mapping[str, Any]] = MappingProxyType({})
_Partition = tuple[str, int]
_T = TypeVar("_T")


class Events:
    """The events of one or more streams, for ``for`` and ``async for``; also a context manager.

    Without a group, everything is read and Kafka stores no offsets. With a group, reading continues where the group
    has arrived. An event counts as read once the next one is requested or, with ``auto_commit=False``, once `commit` is
    called; an event whose handling fails comes again. A duplicate (the same message about the same instance, sent again
    by WeDa or published again after a crash) is skipped if the store knows its mark. A `SqliteStore` also knows, after
    a crash, what was handled and not yet committed to Kafka. After an error, of reading, of the store or of a handler,
    make a new reader: this one has fetched more than it returned, and raises the first two again. Cancelling an
    ``async for`` closes the reader: the event that was being fetched does not count as read. Use the reader from one
    thread or task at a time; only `stop` may be called from others.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        stream: ``events``, ``instances``, ``tasks``, ``state``, ``flat`` or ``flat-state``, or several of them; the
            events of an instance then come in the order in which the connector received the messages. The topics of
            several streams must have the same number of partitions.
        prefix: The prefix of the topics' names, with ``{source}`` and ``{envType}`` replaced by their values.
        group: Name of the consumer group.
        member: Name of this process in the group (Kafka's static membership). Restarted after a crash, a named member
            continues at once; one without a name waits until Kafka has removed the dead member
            (``session.timeout.ms``, 45 s).
        since: Start with the first record of this time or later, not with the oldest; in a group, only where the group
            has committed nothing. Records that were received before and published later may follow.
        registry: The schema registry, if the connector uses one: its address, or `settings.Registry` with credentials.
        properties: librdkafka properties (TLS, SASL …).
        until_end: Stop where each partition ended when reading began; only without a group.
        idle_seconds: Stop after this many seconds without a record; None means never. In a group the time starts when
            this member gets partitions, so that it does not stop while a dead member still holds them.
        auto_commit: Whether an event counts as read once the next one is requested; otherwise `commit` decides.
        store: Remembers what was handled; None means a `MemoryStore` of ``repeats_kept``.
        repeats_kept: Maximum marks that this process remembers without a store; 0 returns duplicates, too.

    Attributes:
        repeats: How many duplicates were skipped.

    Raises:
        OutsideUnreachable: No broker answers at the start, or the registry does not answer when a schema is looked up;
            or, with ``idle_seconds``, the group has given this member no partition before that time and the session's
            time were over.
        ConfigurationError: Kafka or the registry rejects the request; or another process reads as this ``member``.
        Unreadable: While reading: a record has another encoding, or a schema that is not known here.
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
        self._is_stopped = False
        self._given_at: float | None = None
        self._failure: Exception | None = None
        self._store_failure: Exception | None = None
        settings = RegistrySettings(url=registry) if isinstance(registry, str) else registry
        by_id = self._stack.enter_context(schemas_by_id(settings))
        routes = Routes(STREAMS, prefix)
        topics = {routes.topic(name): name for name in self._streams}
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
        """End the loop after the current event; may be called from any thread or from a signal handler."""
        self._is_stopped = True

    def __iter__(self) -> Iterator[Event]:
        return self._singles()

    def __aiter__(self) -> AsyncIterator[Event]:
        return Loop(self, self._singles).__aiter__()

    def batches(self, most: int = 500, *, seconds: float = 1.0, idle: float = float("inf")) -> "Loop[list[Event]]":
        """The events in lists, for ``for`` and ``async for``.

        A list counts as read when a single event would.

        Args:
            most: Maximum events in a list.
            seconds: Return a list that is not full this many seconds after its first event.
            idle: Return an empty list after this many seconds without an event, so that the caller can do other work;
                by default, never.
        """
        return Loop(self, lambda: self._batches(most, seconds, idle))

    def commit(self) -> None:
        """Mark all events returned so far, including the latest, as handled: in the store, then as offsets in Kafka.

        After a crash between the two no event comes again; after one before, those since the last `commit` do.

        Raises:
            PartitionsLost: The group has given the events' partitions to others, because this member did not poll
                within ``max.poll.interval.ms``. The store has the events; a member with another store gets them again.
            OutsideUnreachable: Kafka does not answer. The store has the events; the next `commit` commits the offsets.
        """
        # Not the other way round: a store's transaction may hold the effects too, which a crash in between would lose.
        self._remember()
        positions, self._positions = self._positions, {}
        if not self._has_group:
            return
        try:
            self._subscription.commit(positions)
        except OutsideUnreachable:
            self._positions = positions | self._positions  # for the next commit; later positions win
            raise

    def park(self, event: Event, reason: str) -> None:
        """Set aside an event whose handling fails permanently, and continue.

        It counts as handled, and `Store.parked` returns it from when it counts as read.
        """
        self._parked[event.mark] = parked_now(event, reason)

    def sleep(self, seconds: float) -> None:
        """Wait before another attempt and stay in the group: during a long ``time.sleep``, Kafka would remove us."""
        self._subscription.sleep(seconds)

    def lag(self) -> int:
        """How many records of this reader's partitions were not returned yet; 0 while it has no partitions.

        Raises:
            OutsideUnreachable: Kafka does not answer.
        """
        return self._subscription.lag()

    def to_arrow(self) -> Any:
        """All events as a ``pyarrow.Table``, with the schemas' types, times in UTC, and offsets.

        Raises:
            ConfigurationError: pyarrow is not installed (extra ``arrow``).
            ValueError: Reading has no end: give ``until_end`` or ``idle_seconds``.
        """
        return table_of(self._all(), self._streams)

    def to_polars(self) -> Any:
        """All events as a ``polars.DataFrame``; see `to_arrow`.

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
                self._given_at = time.monotonic()
                yield event

    def _batches(self, limit: int, seconds: float, idle: float) -> Iterator[list[Event]]:
        while not self._is_over():
            batch = self._gathered(limit, seconds, idle)
            if batch or not self._subscription.is_over:  # no empty batch at the end
                self._given_at = time.monotonic()
                yield batch

    def _gathered(self, limit: int, seconds: float, idle: float) -> list[Event]:
        batch: dict[tuple[str, int, int], Event] = {}
        until = time.monotonic() + idle
        while len(batch) < limit and time.monotonic() < until and not self._subscription.is_over:
            try:
                event = self._next()
            except Exception:
                if not batch:
                    raise
                break  # `_is_over` raises it again, once these events were returned
            if event is not None:
                until = until if batch else time.monotonic() + seconds
                # After a rebalance the records that are not committed come again.
                batch.setdefault((event.topic, event.partition, event.offset), event)
        return list(batch.values())

    def _is_over(self) -> bool:
        """Whether reading is over; called before each event or batch, which makes the previous one count as read.

        Raises the error with which reading has failed, as often as it is called.
        """
        if self._given_at is not None:
            self._subscription.exclude(time.monotonic() - self._given_at)
            self._given_at = None
        if self._auto_commit and (self._positions or self._parked):
            self._remember()
            if self._has_group:
                self._subscription.store(self._positions)
            self._positions = {}
        if self._failure is not None:  # the record that could not be read was fetched: going on would skip it
            raise self._failure
        return self._subscription.is_over

    def _next(self) -> Event | None:
        """The next event; None for a duplicate, or if none came for a moment. After an error reading is over."""
        try:
            record = self._subscription.poll()
            return None if record is None else self._taken(record)
        except Exception as error:
            self._failure = error
            raise

    def _taken(self, record: ConsumerRecord) -> Event | None:
        """The event of a record; None for a duplicate."""
        event, partition = event_of(record), (record.topic, record.partition)
        mark = event.mark
        before = self._open.get(mark)
        # After a rebalance the very record that is still open may come again, and must be handled: it is no duplicate.
        is_same = before is not None and (before.topic, before.partition, before.offset) == (*partition, event.offset)
        is_duplicate = self._store.knows(mark) if before is None else not is_same
        self._positions[partition] = event.offset + 1
        if is_duplicate:
            self.repeats += 1
            return None
        self._open[mark] = event
        return event

    def _remember(self) -> None:
        if self._store_failure is not None:  # the store has rolled back effects that another attempt would not repeat
            raise self._store_failure
        if self._open or self._parked:
            try:
                self._store.add(tuple(self._open), tuple(self._parked.values()))
            except Exception as error:
                self._store_failure = error
                raise
        self._open.clear()
        self._parked.clear()


class Loop(Generic[_T]):
    """Iterates over what `Events` reads, with ``for`` or ``async for``."""

    def __init__(self, events: Events, begin: Callable[[], Iterator[_T]]) -> None:
        self._events, self._begin = events, begin

    def __iter__(self) -> Iterator[_T]:
        return self._begin()

    async def __aiter__(self) -> AsyncIterator[_T]:
        loop, items = asyncio.get_running_loop(), self._begin()
        with ThreadPoolExecutor(1, "weda-events") as thread:  # waiting for a record would occupy a shared one
            try:
                while (item := await loop.run_in_executor(thread, next, items, None)) is not None:
                    yield item
            except asyncio.CancelledError:
                self._events.stop()  # else the thread would wait for a record that may never come
                await asyncio.to_thread(thread.shutdown)
                await asyncio.to_thread(self._events.close)  # so that the event being fetched does not count as read
                raise


def by_instance(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Group events by instance: instances in the order in which they first appear, each with its events in order.

    All events are kept in memory, so their number must be limited (``until_end``, ``idle_seconds``, a slice).
    """
    groups: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        groups[event.instance_id].append(event)
    return dict(groups)


def _decoder(topics: Mapping[str, str], by_id: Callable[[int], Schema] | None) -> Callable[[Message], ConsumerRecord]:
    """Return a function that decodes records of these topics.

    Args:
        topics: Topic → stream.
        by_id: Returns the registry's schema of an id; None without a registry.
    """

    def decode(message: Message) -> ConsumerRecord:
        topic = str(message.topic())
        return decode_record(topics[topic], topic, message, by_id)

    return decode
