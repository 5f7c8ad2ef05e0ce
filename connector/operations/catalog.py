"""The index of instances behind the console's search and figures: read from Kafka while somebody looks.

It costs nothing while nobody does, has what replicas and earlier runs have published, and goes on where it ended. What
is in the journal is not in it yet. It belongs to the event loop; a thread reads for it.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from connector.errors import ConfigurationError, OutsideUnreachable, Unavailable
from connector.kafka.reader import Readers
from connector.lookup.instances import Fact, Index, Instance, facts_of
from connector.lookup.topics import ReadProgress
from connector.operations.kafka_reader import KafkaReader

_FRESH_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 3.0
_FACTS_AT_ONCE: Final = 250  # some two milliseconds of the event loop


@dataclass(frozen=True, slots=True)
class Known:
    """What the index has.

    Attributes:
        instances: Those that changed last first.
        since: Those that changed at this time or later are all there, in epoch milliseconds; None: all in Kafka are.
        is_reading: It is still being read.
        problem: Why it could not be read to the end, or nothing.
    """

    instances: list[Instance]
    since: int | None
    is_reading: bool
    problem: str


class Catalog:
    """The index of one connector."""

    def __init__(self) -> None:
        self._index = Index()
        self._read = ReadProgress()
        self._reading: asyncio.Task[None] | None = None
        self._read_at = float("-inf")
        self._problem = ""
        self._is_stopped = False

    async def known(self, reader: KafkaReader, readers: Readers) -> Known:
        """What it has, after it has read what is new, or for as long as people wait.

        Args:
            reader: Reads the topics.
            readers: Room for who reads them.
        """
        if self._reading is None and time.monotonic() - self._read_at >= _FRESH_SECONDS and not self._is_stopped:
            self._reading = asyncio.create_task(self._carry_on(reader, readers))
        reading = self._reading
        if reading is not None:
            await asyncio.wait({reading}, timeout=_PATIENCE_SECONDS)
            if reading.done():
                reading.result()
        times = [at for at in (self._read.since, self._index.forgotten_at) if at is not None]
        return Known(self._index.instances(), max(times, default=None), self._reading is not None, self._problem)

    async def stop(self) -> None:
        """End the reading, if it goes on."""
        self._is_stopped = True
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _carry_on(self, reader: KafkaReader, readers: Readers) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with readers.slot():
                await asyncio.to_thread(self._read_all, reader, loop)
            self._problem = ""
        except (Unavailable, OutsideUnreachable, ConfigurationError) as error:
            self._problem = error.message
        finally:
            self._reading = None
            self._read_at = time.monotonic()

    def _read_all(self, reader: KafkaReader, loop: asyncio.AbstractEventLoop) -> None:
        for batch in reader.read_on(self._read):
            facts = list(facts_of(batch))
            for first in range(0, len(facts), _FACTS_AT_ONCE):
                part: list[Fact] = facts[first : first + _FACTS_AT_ONCE]
                loop.call_soon_threadsafe(self._index.take, part)
            if self._is_stopped:
                return
