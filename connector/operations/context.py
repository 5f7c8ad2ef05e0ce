"""What the API and the pages of the operations listener work with."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from connector.errors import Unavailable
from connector.intake.reprocessing import DeadLetters
from connector.kafka.reader import Readers
from connector.message.routes import Route
from connector.operations.history import History
from connector.operations.kafka_reader import KafkaReader
from connector.telemetry.health import Health
from connector.telemetry.recent import Recent

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Running:
    """What exists only once the connector is up.

    Attributes:
        dead_letters: Lists and reprocesses them.
        reader: Reads the topics.
        schema_ids: Topic → the id that a registry has given its schema; empty without a registry.
    """

    dead_letters: DeadLetters
    reader: KafkaReader
    schema_ids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one connector that the listener shows; it is there before the connector is up.

    Attributes:
        version: The connector's.
        settings: Gives the effective settings, secrets redacted.
        health: The connector's state.
        history: How its counters grew.
        recent: The latest requests.
        routes: The streams and their topics.
        is_loopback: Only this machine reaches the listener.
        is_embedded: The broker is in memory.
        running: Gives the rest; None while the connector starts.
    """

    version: str
    settings: Callable[[], dict[str, Any]]
    health: Health
    history: History
    recent: Recent
    routes: tuple[Route, ...]
    is_loopback: bool
    is_embedded: bool
    running: Callable[[], Running | None]
    _readers: Readers = field(default_factory=Readers, repr=False)

    @property
    def letters(self) -> DeadLetters:
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

    async def read(self, what: Callable[[KafkaReader], _T]) -> _T:
        """Read from Kafka, in a thread; the number of concurrent readers is bounded.

        Raises:
            Unavailable: The connector is not up yet, or the other readers take too long.
            OutsideUnreachable, ConfigurationError: Kafka cannot be read.
        """
        reader = self._up().reader
        async with self._readers.place():
            return await asyncio.to_thread(what, reader)

    def _up(self) -> Running:
        running = self.running()
        if running is None:
            raise Unavailable("the connector is starting: ask again", retry_after=1)
        return running
