"""The routing table: the streams, the messages that become their records, and their topics.

A topic's name is the prefix, a dot and the stream's name. The prefix may hold ``{source}`` and ``{envType}``. Their
values come from the settings (the sources' names, and the environments that a source allows), so that every topic is
known at the start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from connector.errors import Unconvertible
from connector.message import weda
from connector.message.schemas import FLAT_EVENT, INSTANCE_EVENT, TASK_EVENT, WORKFLOW_EVENT, Schema, load
from connector.values import DEFAULT_SOURCE

DEAD_LETTERS: Final = "dead-letters"
"""The stream of requests that could not become records. It has no schema: a value is the bytes of a request."""

SOURCE: Final = "{source}"
ENVIRONMENT: Final = "{envType}"

ALL_ENVIRONMENTS: Final = "all"
"""The value of ``{envType}`` in topics of dead letters, many of which name no valid environment."""

_ONE_SOURCE: Final[Mapping[str, Sequence[str]]] = MappingProxyType({DEFAULT_SOURCE: ()})


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of record and its topic.

    Attributes:
        name: The name in ``WEDA_STREAMS`` and in the labels of metrics.
        record_type: The full name of the Avro record.
        message_types: The types of messages that become records of the stream.
        is_state: Whether only the last record of a key counts: the topic is compacted, and a deleted instance's value
            is null.
    """

    name: str
    record_type: str
    message_types: frozenset[str]
    is_state: bool = False


STREAMS: Final = {
    stream.name: stream
    for stream in (
        Stream("events", WORKFLOW_EVENT, frozenset({weda.INSTANCE, weda.TASK})),
        Stream("instances", INSTANCE_EVENT, frozenset({weda.INSTANCE})),
        Stream("tasks", TASK_EVENT, frozenset({weda.TASK})),
        Stream("state", INSTANCE_EVENT, frozenset({weda.INSTANCE}), is_state=True),
        Stream("flat", FLAT_EVENT, frozenset({weda.INSTANCE, weda.TASK})),
        Stream("flat-state", FLAT_EVENT, frozenset({weda.INSTANCE}), is_state=True),
    )
}

CANARY: Final = Stream("canary", WORKFLOW_EVENT, frozenset({weda.TASK}))
"""The stream of the connector's own messages; sources cannot use it."""

_BY_NAME: Final = {**STREAMS, CANARY.name: CANARY}


@dataclass(frozen=True, slots=True)
class Route:
    """A stream, one of its topics, and the schema of its records."""

    stream: Stream
    topic: str
    schema: Schema

    @property
    def subject(self) -> str:
        """The registry's name for the schema and its versions."""
        return f"{self.topic}-value"


class Routes:
    """The enabled streams with their topics.

    Args:
        names: The names of the streams.
        prefix: The prefix of the topics' names; may hold ``{source}`` and ``{envType}``.
        sources: Source → the environments that it allows; an empty list means any, or WeDa's environments if the prefix
            holds ``{envType}``.
    """

    def __init__(
        self,
        names: Iterable[str],
        prefix: str,
        sources: Mapping[str, Sequence[str]] = _ONE_SOURCE,
    ) -> None:
        streams = [_BY_NAME[name] for name in names]
        self._prefix = prefix
        self._sources = {name: allowed_environments(prefix, allowed) for name, allowed in sources.items()}
        scopes = [(name, environment) for name, allowed in self._sources.items() for environment in allowed or ("",)]
        # A dict, because scopes share a prefix that does not hold all placeholders.
        prefixes = dict.fromkeys(expand_prefix(prefix, *scope) for scope in scopes)
        self._by_prefix = {expanded: _by_message_type(streams, expanded) for expanded in prefixes}
        # A prefix without placeholders expands to itself, and `of` need not expand it for each message.
        self._is_fixed = prefix in self._by_prefix
        self.all = tuple(_route(stream, expanded) for expanded in prefixes for stream in streams)

    def of(self, message_type: str, source: str = DEFAULT_SOURCE, environment: str | None = None) -> tuple[Route, ...]:
        """Return the routes of a message's records, in the order in which the records are produced.

        Raises:
            Unconvertible: The source does not allow the environment (42201).
        """
        allowed = self._sources[source]
        if allowed and environment not in allowed:
            raise Unconvertible(
                f"envType is not one that the source {source} allows ({', '.join(allowed)}): "
                "add it to env_types of the source (WEDA_SOURCES), or send to the source of that environment",
                code=42201,
            )
        prefix = self._prefix if self._is_fixed else expand_prefix(self._prefix, source, environment or "")
        return self._by_prefix[prefix][message_type]

    def dead_letter_topic(self, source: str) -> str:
        """Return the topic of a source's dead letters."""
        return f"{expand_prefix(self._prefix, source, ALL_ENVIRONMENTS)}.{DEAD_LETTERS}"

    def topic(self, stream: str, source: str = DEFAULT_SOURCE, environment: str = "prod") -> str:
        """Return the topic of a stream, or of the dead letters, for one source and environment.

        Raises:
            KeyError: No stream has this name.
        """
        if stream == DEAD_LETTERS:
            return self.dead_letter_topic(source)
        return f"{expand_prefix(self._prefix, source, environment)}.{_BY_NAME[stream].name}"

    @property
    def dead_letter_topics(self) -> tuple[str, ...]:
        """Every topic of dead letters."""
        return tuple(dict.fromkeys(map(self.dead_letter_topic, self._sources)))

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that the connector writes."""
        return (*(route.topic for route in self.all), *self.dead_letter_topics)


def expand_prefix(prefix: str, source: str, environment: str) -> str:
    """Return the prefix with its placeholders replaced."""
    return prefix.replace(SOURCE, source).replace(ENVIRONMENT, environment)


def allowed_environments(prefix: str, named: Sequence[str]) -> Sequence[str]:
    """Return the environments that a source allows; empty means any.

    Args:
        prefix: The prefix of the topics' names.
        named: The environments in the source's settings.
    """
    # Topics are created at the start, so that a prefix with ``{envType}`` needs a closed list of environments.
    return named or (weda.ENVIRONMENTS if ENVIRONMENT in prefix else ())


def _by_message_type(streams: Iterable[Stream], prefix: str) -> dict[str, tuple[Route, ...]]:
    streams = tuple(streams)
    return {
        message_type: tuple(_route(stream, prefix) for stream in streams if message_type in stream.message_types)
        for message_type in weda.MESSAGE_TYPES.values()
    }


def _route(stream: Stream, prefix: str) -> Route:
    return Route(stream, f"{prefix}.{stream.name}", load(stream.record_type))
