"""The index of instances behind the console's search and figures.

It is read from Kafka while somebody uses these pages, and costs nothing otherwise. Each read continues where the last
one ended. It includes what other replicas and earlier runs published; messages in the journal are not in it yet. The
index belongs to the event loop; a thread reads the topics.
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

_REFRESH_SECONDS: Final = 2.0
_MAX_WAIT_SECONDS: Final = 3.0
_FACTS_PER_CALL: Final = 250  # they take about two milliseconds of the event loop


@dataclass(frozen=True, slots=True)
class CatalogView:
    """The contents of the index at one moment.

    Attributes:
        instances: Instances, the last changed first.
        since: Every instance that changed at this time or later is included, in epoch milliseconds; None if every
            instance in Kafka is.
        is_reading: Whether the topics are still being read.
        problem: Why the topics could not be read to the end, or empty.
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

    async def view(self, reader: KafkaReader, readers: Readers) -> CatalogView:
        """Read new records and return the contents; a long read continues in the background.

        Args:
            reader: Reads the topics.
            readers: Bounds how many read at the same time.
        """
        # All viewers share one read. Once stopped, none begins: nothing would wait for its thread.
        if self._reading is None and time.monotonic() - self._read_at >= _REFRESH_SECONDS and not self._is_stopped:
            self._reading = asyncio.create_task(self._carry_on(reader, readers))
        reading = self._reading
        if reading is not None:
            # Unlike wait_for, asyncio.wait leaves the task running after the timeout, or if this viewer goes away.
            await asyncio.wait({reading}, timeout=_MAX_WAIT_SECONDS)
            if reading.done():
                reading.result()  # raises what `_carry_on` does not expect
        times = [at for at in (self._read.since, self._index.forgotten_at) if at is not None]
        return CatalogView(self._index.instances(), max(times, default=None), self._reading is not None, self._problem)

    async def stop(self) -> None:
        """Stop reading, and wait until the thread has ended."""
        self._is_stopped = True
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _carry_on(self, reader: KafkaReader, readers: Readers) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with readers.slot():
                # The loop runs callbacks in order: when this returns, the index has taken every part.
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
            for first in range(0, len(facts), _FACTS_PER_CALL):
                part: list[Fact] = facts[first : first + _FACTS_PER_CALL]
                loop.call_soon_threadsafe(self._index.take, part)
            if self._is_stopped:
                return
