"""Follows the events topic in a thread, and passes its records to the event loop."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from connector.kafka.reader import TopicReader, decode_record
from connector.lookup.topics import EVENTS

_FETCH_MS: Final = 50  # other requests on the connection wait behind a fetch that waits for records
_QUIET_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Event:
    """A record of the events topic: its partition, offset and fields."""

    partition: int
    offset: int
    value: Mapping[str, Any]


class Reader:
    """Reads a topic from its present end, or from its beginning if the topic is created later.

    Args:
        bootstrap_servers: The brokers as ``host:port``, comma-separated.
        properties: The librdkafka properties, checked by the settings.
        topic: The events topic.
        take: The callback for each event, called on the event loop.
    """

    def __init__(
        self, bootstrap_servers: str, properties: Mapping[str, Any], topic: str, take: Callable[[Event], None]
    ) -> None:
        self._topic = topic
        self._take = take
        self._is_ending = False
        self._read_at = time.monotonic()
        properties = {"fetch.wait.max.ms": _FETCH_MS, **properties}
        self._reader = TopicReader(bootstrap_servers, properties, topic, is_stopped=self._is_over)

    async def follow(self, started: asyncio.Event) -> None:
        """Read until `end` was called and no record has come for half a second.

        Args:
            started: An event that is set once the position in the topic is fixed.

        Raises:
            OutsideUnreachable: No broker answers at the start.
            ConfigurationError: Kafka does not let the topic be read.
        """
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._follow, loop, started)

    def end(self) -> None:
        """Let `follow` return once it has read the records in the topic."""
        self._is_ending = True

    def _follow(self, loop: asyncio.AbstractEventLoop, started: asyncio.Event) -> None:
        with closing(self._reader):
            exists = bool(self._reader.partitions())
            if exists:
                self._reader.assign(from_beginning=False, back=0)
            # Only now may messages be sent: the reader would miss those before its position.
            loop.call_soon_threadsafe(started.set)
            if not exists:
                self._reader.await_topic()
                self._reader.assign(from_beginning=True, back=0)
            for message in self._reader.messages(until_end=False):
                self._read_at = time.monotonic()
                record = decode_record(EVENTS, self._topic, message)
                if isinstance(record.value, dict):  # otherwise another sender's, which no schema of ours decodes
                    loop.call_soon_threadsafe(self._take, Event(record.partition, record.offset, record.value))

    def _is_over(self) -> bool:
        return self._is_ending and time.monotonic() - self._read_at >= _QUIET_SECONDS
