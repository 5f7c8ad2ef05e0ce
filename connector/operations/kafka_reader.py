"""Reads from Kafka for the console and the API, on request; every call blocks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from connector.errors import OutsideUnreachable
from connector.intake.dead_letters import DeadLetter
from connector.kafka.reader import ConsumerRecord, read_records, record_at
from connector.kafka.registry import schemas_by_id
from connector.kafka.topics import Broker, TopicAdmin, TopicOffsets, TopicSpec, TopicState, desired_topics, routes_of
from connector.lookup.model import Coverage, Match, SearchQuery
from connector.lookup.timeline import Timeline
from connector.lookup.timeline import read as read_timeline
from connector.lookup.topics import EVENTS, ReadProgress, TopicSearch
from connector.message.routes import DEAD_LETTERS
from connector.settings import Settings
from connector.telemetry.health import Health

_ADMIN_TIMEOUT_SECONDS: Final = 3.0
_REST: Final = 2.0  # seconds of sleep a second of work: two thirds of the time are left to the event loop

SEARCH_SECONDS: Final = 30.0
"""How long a search of the topics may take; then it returns what it has."""

MAX_RECORDS_BEHIND: Final = 10_000
"""How many of the last records of one partition the index of instances reads; older ones are skipped."""


class KafkaReader:
    """Reads the topics of one connector.

    Every method raises OutsideUnreachable at once while the connector does not reach Kafka, and ConfigurationError if
    Kafka rejects the credentials or the user lacks a right (ACL).

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        settings: Returns the current settings; credentials may change.
        health: The connector's state, which says whether Kafka is reachable.
    """

    def __init__(self, bootstrap_servers: str, settings: Callable[[], Settings], health: Health) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._settings = settings
        self._health = health
        self._routes = routes_of(settings())

    def dead_letters(self) -> Iterator[ConsumerRecord]:
        """Yield every dead letter that Kafka still has."""
        connection = self.connection_arguments()
        for topic in self._routes.dead_letter_topics:
            yield from read_records(*connection, stream=DEAD_LETTERS, topic=topic, from_beginning=True, until_end=True)

    def dead_letter(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """Return the dead letter at a topic, partition and offset, or None."""
        # The topic comes from a URL: no other topic may be read with the connector's credentials.
        if topic not in self._routes.dead_letter_topics:
            return None
        connection = self.connection_arguments()
        return record_at(*connection, stream=DEAD_LETTERS, topic=topic, partition=partition, offset=offset)

    def event(self, topic: str, partition: int, offset: int) -> ConsumerRecord | None:
        """Return the record at a topic of events, partition and offset, or None."""
        if topic not in self._event_topics:
            return None
        connection = self.connection_arguments()
        with schemas_by_id(self._settings().registry) as by_id:
            return record_at(*connection, stream=EVENTS, topic=topic, partition=partition, offset=offset, by_id=by_id)

    def timeline(
        self, instance_id: str, first: int, *, all_partitions: bool = False
    ) -> tuple[Timeline, list[Coverage]]:
        """Return a page of an instance's steps, and how far the topics were read.

        Args:
            instance_id: The instance.
            first: The number of the first step of the page.
            all_partitions: Read every partition, not only that of the key.
        """
        searched: list[Coverage] = []
        with self._searched() as topics:
            records = topics.history(instance_id, searched, all_partitions=all_partitions)
            return read_timeline(records, first), searched

    def messages(self, query: SearchQuery) -> tuple[list[Match], list[Coverage]]:
        """Return the published messages that match, and how far the topics were read."""
        with self._searched() as topics:
            return topics.records(query)

    def letters(self, query: SearchQuery) -> tuple[list[DeadLetter], list[Coverage]]:
        """Return the dead letters that match, and how far their topics were read."""
        with self._searched() as topics:
            return topics.dead_letters(query)

    def read_on(self, read: ReadProgress) -> Iterator[list[ConsumerRecord]]:
        """Yield records not read before, at most the last :data:`MAX_RECORDS_BEHIND` of each partition."""
        with self._searched() as topics:
            yield from topics.read_on(read, MAX_RECORDS_BEHIND)

    def topics(self) -> tuple[tuple[TopicSpec, ...], dict[str, TopicState], tuple[Broker, ...]]:
        """Return the topics that should exist, the state of those that do, and the brokers, each of which was asked."""
        admin = self._admin()
        brokers = admin.each_broker(_ADMIN_TIMEOUT_SECONDS)
        return desired_topics(self._settings()), admin.describe(self._routes.topics, _ADMIN_TIMEOUT_SECONDS), brokers

    def offsets(self, states: Mapping[str, TopicState]) -> dict[str, TopicOffsets]:
        """Return the offsets of topics that exist."""
        return self._admin().offsets({name: state.partitions for name, state in states.items()}, _ADMIN_TIMEOUT_SECONDS)

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return the committed offsets of a consumer group: topic and partition → offset."""
        return self._admin().committed(group, _ADMIN_TIMEOUT_SECONDS)

    def _admin(self) -> TopicAdmin:
        return TopicAdmin(*self.connection_arguments())

    @contextmanager
    def _searched(self) -> Iterator[TopicSearch]:
        """Open the topics for one search, which leaves most of the processor to the event loop."""
        connection = self.connection_arguments()
        with schemas_by_id(self._settings().registry) as by_id:
            yield TopicSearch(*connection, self._routes, by_id=by_id, timeout_seconds=SEARCH_SECONDS, rest=_REST)

    def connection_arguments(self) -> tuple[str, Mapping[str, Any]]:
        """Return the addresses and properties for a reader.

        Raises:
            OutsideUnreachable: The connector knows that it does not reach Kafka, so that no reader waits for a timeout.
        """
        if self._health.kafka == "down":
            raise OutsideUnreachable(self._health.problems.get("brokers", "Kafka does not answer"))
        return self._bootstrap_servers, self._settings().kafka.properties

    @property
    def _event_topics(self) -> list[str]:
        return [route.topic for route in self._routes.all if route.stream.name == EVENTS]
