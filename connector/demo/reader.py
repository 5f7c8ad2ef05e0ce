"""Reads the events topic in a thread of its own, and hands what it finds to the event loop, batch by batch."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from connector.errors import OutsideUnreachable, Unreadable
from connector.kafka.reader import end_offset, passes
from connector.kafka.topics import LOG_NOTHING, translated
from connector.message.encoding import decode

REACH_SECONDS: Final = 5.0
"""How long a broker may take to say what the topic looks like."""

_BATCH: Final = 500
_POLL_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 0.25
_FETCH_MS: Final = 50  # on its connection, every other question waits behind a fetch that waits for records
_MISSING: Final = "UNKNOWN_TOPIC_OR_PART"
_END: Final = "_PARTITION_EOF"
_ATTEMPT: Final = "read the events topic"
_ACL: Final = "Describe and Read on Topic"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the events topic: where it lies, and its fields."""

    partition: int
    offset: int
    value: Mapping[str, Any]


class Reader:
    """A consumer of one topic, without a group. It takes a batch only when the one before was taken.

    Partitions that are added meanwhile are not read.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties as the settings have checked them; those of producers do no harm.
        topic: The events topic; it may come to exist later, and is then read from its beginning.
    """

    def __init__(self, bootstrap_servers: str, properties: Mapping[str, Any], topic: str) -> None:
        self._topic = topic
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-reader")
        self._next: dict[int, int] = {}
        self._is_ending = False
        own: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "weda-connector-demo",  # the client wants one; without commits it never comes to exist
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # where retention has overtaken the reader
            "isolation.level": "read_committed",
        }
        self._consumer = Consumer({"log_level": LOG_NOTHING, "fetch.wait.max.ms": _FETCH_MS, **properties, **own})

    async def __aenter__(self) -> Self:
        """Settle from where on to read: from the end of a topic that exists.

        Raises:
            OutsideUnreachable: No broker answers.
            ConfigurationError: Kafka refuses the credentials, or for want of an ACL.
        """
        try:
            await self._in_thread(partial(self._assign, from_beginning=False))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up the consumer and the thread."""
        await self._in_thread(self._consumer.close)
        self._thread.shutdown()

    async def follow(self, take: Callable[[list[Event]], None]) -> None:
        """Hand over events as they come, until `end` was called and everything up to then has been read.

        Raises:
            ConfigurationError: Kafka refuses to let the topic be read.
            OutsideUnreachable: No broker says where the topic ends. Before that, brokers are waited for.
        """
        while not self._next and not self._is_ending:
            await asyncio.sleep(_AGAIN_SECONDS)
            with suppress(OutsideUnreachable):
                await self._in_thread(partial(self._assign, from_beginning=True))
        while not self._is_ending:
            take(await self._in_thread(self._batch))
        ends = await self._in_thread(self._ends)
        while any(self._next[partition] < end for partition, end in ends.items()):
            take(await self._in_thread(self._batch))

    def end(self) -> None:
        """Let `follow` return once it has read what is in the topic now."""
        self._is_ending = True

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    # --- in the thread ---

    def _assign(self, *, from_beginning: bool) -> None:
        """Read every partition from its first record or from where it ends now; none where there is no topic."""
        with translated(_ATTEMPT, acl=_ACL):
            found = self._consumer.list_topics(self._topic, timeout=REACH_SECONDS).topics[self._topic]
            if found.error is not None and found.error.name() != _MISSING:
                raise KafkaException(found.error)
            self._next = {number: 0 if from_beginning else self._end(number) for number in found.partitions}
            self._consumer.assign(
                [
                    TopicPartition(self._topic, number, OFFSET_BEGINNING if from_beginning else offset)
                    for number, offset in self._next.items()
                ]
            )

    def _ends(self) -> dict[int, int]:
        with translated(_ATTEMPT, acl=_ACL):
            return {number: self._end(number) for number in self._next}

    def _end(self, partition: int) -> int:
        return end_offset(self._consumer, TopicPartition(self._topic, partition), within=REACH_SECONDS)

    def _batch(self) -> list[Event]:
        """What came within a moment; an event that no schema of ours reads is another sender's."""
        with translated(_ATTEMPT, acl=_ACL):
            return [event for message in self._consumer.consume(_BATCH, _POLL_SECONDS) for event in self._read(message)]

    def _read(self, message: Message) -> Iterator[Event]:
        error = message.error()
        if error is not None and error.name() != _END:
            if passes(error):
                return
            raise KafkaException(error)
        partition, offset = message.partition() or 0, message.offset() or 0
        self._next[partition] = offset if error is not None else offset + 1
        if error is None:
            with suppress(Unreadable):
                yield Event(partition, offset, decode(message.value() or b""))
