"""What the console and the API read from Kafka when someone asks; every call blocks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from connector.errors import OutsideUnreachable
from connector.kafka.reader import Decoded, read_records, record_at
from connector.kafka.registry import Registry
from connector.kafka.topics import Broker, TopicAdmin, TopicSpec, TopicState, routes_of, wanted
from connector.message.routes import DEAD_LETTERS
from connector.message.schemas import Schema
from connector.operations.timeline import LOOK_BACK
from connector.settings import Settings
from connector.telemetry.health import Health

_EVENTS: Final = "events"
_ASK_SECONDS: Final = 3.0


class KafkaReader:
    """Reads the topics of one connector.

    Every method raises OutsideUnreachable at once while the connector does not reach Kafka, and ConfigurationError
    where Kafka refuses.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        settings: Gives the settings of now: credentials may change.
        health: Says whether Kafka is reachable.
    """

    def __init__(self, bootstrap_servers: str, settings: Callable[[], Settings], health: Health) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._settings = settings
        self._health = health
        self._routes = routes_of(settings())

    def dead_letters(self) -> Iterator[Decoded]:
        """Every dead letter that Kafka still has."""
        where = self._reached()
        for topic in self._routes.dead_letter_topics:
            yield from read_records(*where, stream=DEAD_LETTERS, topic=topic, from_beginning=True, until_end=True)

    def dead_letter(self, topic: str, partition: int, offset: int) -> Decoded | None:
        """The dead letter at a topic, partition and offset."""
        if topic not in self._routes.dead_letter_topics:
            return None
        where = self._reached()
        return record_at(*where, stream=DEAD_LETTERS, topic=topic, partition=partition, offset=offset)

    def event(self, topic: str, partition: int, offset: int) -> Decoded | None:
        """The record of the events at a topic, partition and offset."""
        if topic not in self._event_topics:
            return None
        where = self._reached()
        with self._schemas_by_id() as by_id:
            return record_at(*where, stream=_EVENTS, topic=topic, partition=partition, offset=offset, by_id=by_id)

    def instance(self, instance_id: str) -> Iterator[Decoded]:
        """The last events of one instance, in their order."""
        where = self._reached()
        with self._schemas_by_id() as by_id:
            for topic in self._event_topics:
                yield from read_records(
                    *where,
                    stream=_EVENTS,
                    topic=topic,
                    by_id=by_id,
                    back=LOOK_BACK,
                    until_end=True,
                    key=instance_id,
                )

    def topics(self) -> tuple[tuple[TopicSpec, ...], dict[str, TopicState], tuple[Broker, ...]]:
        """The topics that should exist, those that do, and the brokers, each asked itself."""
        admin = TopicAdmin(*self._reached())
        brokers = admin.each_broker(_ASK_SECONDS)
        return wanted(self._settings()), admin.describe(self._routes.topics, _ASK_SECONDS), brokers

    def _reached(self) -> tuple[str, Mapping[str, Any]]:
        """Addresses and properties for a reader.

        Raises:
            OutsideUnreachable: The connector does not reach Kafka now: no reader has to wait to find that out.
        """
        if self._health.kafka == "down":
            raise OutsideUnreachable(self._health.problems.get("brokers", "Kafka does not answer"))
        return self._bootstrap_servers, self._settings().kafka.properties

    @property
    def _event_topics(self) -> list[str]:
        return [route.topic for route in self._routes.all if route.stream.name == _EVENTS]

    @contextmanager
    def _schemas_by_id(self) -> Iterator[Callable[[int], Schema] | None]:
        """Gives the schema that the registry has under an id; None where there is no registry."""
        settings = self._settings()
        if settings.registry.url is None:
            yield None
            return
        with Registry(settings.registry) as registry:
            yield registry.schema
