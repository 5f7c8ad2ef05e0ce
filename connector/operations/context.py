"""What the listener's API and pages work with; it fills up while the connector starts."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from connector.errors import Unavailable
from connector.intake.reprocessing import DeadLetters
from connector.kafka.reader import Decoded, Readers
from connector.kafka.topics import Broker, TopicSpec, TopicState
from connector.message.routes import Route
from connector.operations.history import History
from connector.telemetry.health import Health
from connector.telemetry.recent import Recent

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KafkaReader:
    """What is read from Kafka when someone asks; every call blocks.

    Attributes:
        letter: The dead letter at a topic, partition and offset.
        event: The record of the events there.
        instance: The last records of one instance, in their order.
        topics: The topics that should be, those of them that are, and the brokers, each asked itself.
    """

    letter: Callable[[str, int, int], Decoded | None]
    event: Callable[[str, int, int], Decoded | None]
    instance: Callable[[str], Iterator[Decoded]]
    topics: Callable[[], tuple[tuple[TopicSpec, ...], dict[str, TopicState], tuple[Broker, ...]]]


@dataclass
class Context:
    """The parts of one connector, as far as they are there.

    Attributes:
        version: The connector's.
        settings: Gives the effective settings, secrets redacted.
        health: The connector's state.
        history: How its counters grew.
        recent: What arrived last.
        routes: The streams and their topics.
        schema_ids: Topic → the id that a registry has given its schema.
        is_loopback: Only this machine reaches the listener.
        is_embedded: The broker is in memory.
        dead_letters: None until the connector is up.
        reader: None until then.
    """

    version: str
    settings: Callable[[], dict[str, Any]]
    health: Health
    history: History
    recent: Recent
    routes: tuple[Route, ...]
    is_loopback: bool
    is_embedded: bool
    schema_ids: dict[str, int] = field(default_factory=dict)
    dead_letters: DeadLetters | None = None
    reader: KafkaReader | None = None
    _room: Readers = field(default_factory=Readers, repr=False)

    @property
    def letters(self) -> DeadLetters:
        """The dead letters.

        Raises:
            Unavailable: The connector is not up yet.
        """
        if self.dead_letters is None:
            raise _starting()
        return self.dead_letters

    async def read(self, what: Callable[[KafkaReader], _T]) -> _T:
        """Read from Kafka, in a thread; who comes while others read waits for a moment.

        Raises:
            Unavailable: The connector is not up yet, or others read for too long.
            OutsideUnreachable, ConfigurationError: Kafka cannot be read.
        """
        if self.reader is None:
            raise _starting()
        async with self._room.place():
            return await asyncio.to_thread(what, self.reader)


def _starting() -> Unavailable:
    return Unavailable("the connector is starting: ask again", retry_after=1)
