"""What the console and the API read from Kafka when someone asks; every call blocks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from connector.errors import OutsideUnreachable
from connector.intake.dead_letters import DeadLetter
from connector.kafka.reader import ConsumerRecord, read_records, record_at
from connector.kafka.registry import schemas_by_id
from connector.kafka.topics import Broker, TopicAdmin, TopicOffsets, TopicSpec, TopicState, desired_topics, routes_of
from connector.lookup.model import Coverage, Match, SearchQuery
from connector.lookup.topics import EVENTS, ReadProgress, TopicSearch
from connector.message.routes import DEAD_LETTERS
from connector.settings import Settings
from connector.telemetry.health import Health

_ASK_SECONDS: Final = 3.0
_REST: Final = 2.0

SEARCH_SECONDS: Final = 30.0
"""How long a search of the topics may take; what was found by then is shown."""

MOST_BEHIND: Final = 10_000
"""Records of one partition that the index of instances reads at once; it goes on where it ended."""


class KafkaReader:
    """Reads the topics of one connector.

    Every method raises OutsideUnreachable at once while the connector does not reach Kafka, and ConfigurationError
    where Kafka rejects.

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

    def dead_letters(self) -> Iterator[ConsumerRecord]:
        """Every dead letter that Kafka still has."""
        where = self.connection_arguments()
        for topic in self._routes.dead_letter_topics:
            yield from read_records(*where, stream=DEAD_LETTERS, topic=topic, from_beginning=True, until_end=True)

    def dead_letter(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The dead letter at a topic, partition and offset."""
        if topic not in self._routes.dead_letter_topics:
            return None
        where = self.connection_arguments()
        return record_at(*where, stream=DEAD_LETTERS, topic=topic, partition=partition, offset=offset)

    def event(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """The record of the events at a topic, partition and offset."""
        if topic not in self._event_topics:
            return None
        where = self.connection_arguments()
        with schemas_by_id(self._settings().registry) as by_id:
            return record_at(*where, stream=EVENTS, topic=topic, partition=partition, offset=offset, by_id=by_id)

    def instance(self, instance_id: str, *, all_partitions: bool = False) -> Iterator[ConsumerRecord]:
        """The events of one instance, in their order; of the partition of its key, or of all."""
        with self._searched() as topics:
            yield from topics.history(instance_id, all_partitions=all_partitions)

    def messages(self, query: SearchQuery) -> tuple[list[Match], list[Coverage]]:
        """Published messages that are looked for, and how far the topics were read."""
        with self._searched() as topics:
            return topics.records(query)

    def letters(self, query: SearchQuery) -> tuple[list[DeadLetter], list[Coverage]]:
        """Dead letters that are looked for, and how far their topics were read."""
        with self._searched() as topics:
            return topics.dead_letters(query)

    def read_on(self, read: ReadProgress) -> Iterator[list[ConsumerRecord]]:
        """The records that were not read before, of each partition at most the last :data:`MOST_BEHIND`."""
        with self._searched() as topics:
            yield from topics.read_on(read, MOST_BEHIND)

    def topics(self) -> tuple[tuple[TopicSpec, ...], dict[str, TopicState], tuple[Broker, ...]]:
        """The topics that should exist, those that do, and the brokers, each asked itself."""
        admin = self._admin()
        brokers = admin.each_broker(_ASK_SECONDS)
        return desired_topics(self._settings()), admin.describe(self._routes.topics, _ASK_SECONDS), brokers

    def offsets(self, states: Mapping[str, TopicState]) -> dict[str, TopicOffsets]:
        """How much there is in topics that exist."""
        return self._admin().offsets({name: state.partitions for name, state in states.items()}, _ASK_SECONDS)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Topic and partition → the offset that a consumer group has committed."""
        return self._admin().committed(group, _ASK_SECONDS)

    def _admin(self) -> TopicAdmin:
        return TopicAdmin(*self.connection_arguments())

    @contextmanager
    def _searched(self) -> Iterator[TopicSearch]:
        """The topics for one search, which leaves the event loop most of the processor."""
        where = self.connection_arguments()
        with schemas_by_id(self._settings().registry) as by_id:
            yield TopicSearch(*where, self._routes, by_id=by_id, timeout_seconds=SEARCH_SECONDS, rest=_REST)

    def connection_arguments(self) -> tuple[str, Mapping[str, Any]]:
        """Addresses and properties for a reader.

        Raises:
            OutsideUnreachable: The connector does not reach Kafka now: no reader has to wait to find that out.
        """
        if self._health.kafka == "down":
            raise OutsideUnreachable(self._health.problems.get("brokers", "Kafka does not answer"))
        return self._bootstrap_servers, self._settings().kafka.properties

    @property
    def _event_topics(self) -> list[str]:
        return [route.topic for route in self._routes.all if route.stream.name == EVENTS]
