"""What the API and the pages of the operations listener share."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from connector.errors import Unavailable
from connector.intake.reprocessing import DeadLetterReprocessor
from connector.journal.model import Journal
from connector.kafka.reader import Readers
from connector.message.routes import Route
from connector.operations.catalog import Catalog, CatalogView
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
        dead_letters: Lists and reprocesses dead letters.
        journal: The messages that are not in Kafka yet.
        reader: Reads the topics.
        schema_ids: Topic → the id of its schema in the registry; empty without a registry.
    """

    dead_letters: DeadLetterReprocessor
    journal: Journal
    reader: KafkaReader
    schema_ids: Mapping[str, int]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Context:
    """The parts of one connector that the listener shows; available before start-up has finished.

    Attributes:
        version: The connector's version.
        settings: Returns the effective settings.
        health: The connector's state.
        history: Rates and latencies over time.
        recent: The latest requests.
        routes: The streams and their topics.
        is_loopback: Whether only this machine can reach the listener.
        is_embedded: Whether the broker is embedded, with records in memory only.
        running: Returns the other parts, or None while the connector starts.
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
        """Lists and reprocesses dead letters.

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
        """The messages that are not in Kafka yet.

        Raises:
            Unavailable: The connector is not up yet.
        """
        return self._up().journal

    async def read(self, call: Callable[[KafkaReader], _T]) -> _T:
        """Call a function with the reader, in a thread; the number of concurrent readers is bounded.

        Raises:
            Unavailable: The connector is not up yet, or the other readers take too long.
            OutsideUnreachable, ConfigurationError: Kafka cannot be read.
        """
        reader = self._up().reader
        async with self._readers.slot():
            return await asyncio.to_thread(call, reader)

    async def catalog_view(self) -> CatalogView:
        """Read new records into the index of instances, and return its contents.

        Raises:
            Unavailable: The connector is not up yet.
        """
        return await self.catalog.view(self._up().reader, self._readers)

    def _up(self) -> RunningParts:
        running = self.running()
        if running is None:
            raise Unavailable("the connector is starting: ask again", retry_after=1)
        return running
