"""The routing table: which kinds of record there are, which messages they take, and where they go."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from connector.schemas import INSTANCE_EVENT, TASK_EVENT, WORKFLOW_EVENT, Schema, load

DEAD_LETTERS: Final = "dead-letters"
"""The stream of what could not become a record; it has no schema: its value is the request's bytes."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of record and its topic.

    Attributes:
        name: As in ``WEDA_STREAMS`` and in the labels of metrics.
        record_type: Full name of the Avro record.
        message_types: The messages that become a record of it.
    """

    name: str
    record_type: str
    message_types: frozenset[str]


STREAMS: Final = {
    stream.name: stream
    for stream in (
        Stream("events", WORKFLOW_EVENT, frozenset({"Instance", "Task"})),
        Stream("instances", INSTANCE_EVENT, frozenset({"Instance"})),
        Stream("tasks", TASK_EVENT, frozenset({"Task"})),
    )
}


@dataclass(frozen=True, slots=True)
class Route:
    """A stream, the topic that it has here, and the schema of its records."""

    stream: Stream
    topic: str
    schema: Schema


class Routes:
    """The streams that are switched on, with their topics."""

    def __init__(self, names: Iterable[str], prefix: str) -> None:
        self.all = tuple(_route(STREAMS[name], prefix) for name in names)
        self.dead_letters = f"{prefix}.{DEAD_LETTERS}"
        self._by_type = {
            kind: tuple(route for route in self.all if kind in route.stream.message_types)
            for kind in ("Instance", "Task")
        }

    def of(self, message_type: str) -> tuple[Route, ...]:
        """Where the records of one message go, in the order in which they are produced."""
        return self._by_type[message_type]

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that the connector writes."""
        return (*(route.topic for route in self.all), self.dead_letters)


def _route(stream: Stream, prefix: str) -> Route:
    return Route(stream, f"{prefix}.{stream.name}", load(stream.record_type))
