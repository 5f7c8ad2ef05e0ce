"""What the API and the pages of the operations listener work with."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from connector.errors import Unavailable
from connector.intake.reprocessing import DeadLetterReprocessor
from connector.journal.model import Journal
from connector.kafka.reader import Readers
from connector.message.routes import Route
from connector.operations.catalog import Catalog, Known
from connector.operations.history import History
from connector.operations.kafka_reader import KafkaReader
from connector.settings import Settings
from connector.telemetry.health import Health
from connector.telemetry.recent import Recent

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RunningParts:
    """What exists only once the connector is up.

    Attributes:
        dead_letters: Lists and reprocesses them.
        journal: What waits for Kafka.
        reader: Reads the topics.
        schema_ids: Topic → the id that a registry has given its schema; empty without a registry.
    """

    dead_letters: DeadLetterReprocessor
    journal: Journal
    reader: KafkaReader
    schema_ids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one connector that the listener shows; available before start-up has finished.

    Attributes:
        version: The connector's.
        settings: Gives the effective settings.
        health: The connector's state.
        history: How its counters grew.
        recent: The latest requests.
        routes: The streams and their topics.
        is_loopback: Only this machine reaches the listener.
        is_embedded: The broker is in memory.
        running: Gives the rest; None while the connector starts.
        catalog: The index of instances.
    """

    version: str
    settings: Callable[[], Settings]
    health: Health
    history: History
    recent: Recent
    routes: tuple[Route, ...]
    is_loopback: bool
    is_embedded: bool
    running: Callable[[], RunningParts | None]
    catalog: Catalog = field(default_factory=Catalog, repr=False)
    _readers: Readers = field(default_factory=Readers, repr=False)

    @property
    def letters(self) -> DeadLetterReprocessor:
        """The dead letters.

        Raises:
            Unavailable: The connector is not up yet.
        """
        return self._up().dead_letters

    @property
    def schema_ids(self) -> Mapping[str, int]:
        """Topic → the id of its schema; empty while the connector starts."""
        running = self.running()
        return {} if running is None else running.schema_ids

    @property
    def journal(self) -> Journal:
        """What waits for Kafka.

        Raises:
            Unavailable: The connector is not up yet.
        """
        return self._up().journal

    async def read(self, what: Callable[[KafkaReader], _T]) -> _T:
        """Read from Kafka, in a thread; the number of concurrent readers is bounded.

        Raises:
            Unavailable: The connector is not up yet, or the other readers take too long.
            OutsideUnreachable, ConfigurationError: Kafka cannot be read.
        """
        reader = self._up().reader
        async with self._readers.slot():
            return await asyncio.to_thread(what, reader)

    async def known(self) -> Known:
        """What the index of instances has.

        Raises:
            Unavailable: The connector is not up yet.
        """
        return await self.catalog.known(self._up().reader, self._readers)

    def _up(self) -> RunningParts:
        running = self.running()
        if running is None:
            raise Unavailable("the connector is starting: ask again", retry_after=1)
        return running
