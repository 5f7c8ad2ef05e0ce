"""The topics that the settings ask for, those that exist, and the differences between them.

`TopicAdmin` is the adapter to Kafka: its calls block, have a timeout, and raise the connector's own errors.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package exports them without a word to mypy
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    TopicDescription,
)

from connector.errors import ConnectorError, OutsideUnreachable
from connector.kafka.deadline import Deadline
from connector.kafka.errors import (
    LOG_NOTHING,
    REACH,
    UNKNOWN_TOPIC,
    Problems,
    is_credential_error,
    is_transient,
    translated,
)
from connector.message.routes import CANARY, Route, Routes
from connector.message.weda import ENVIRONMENTS
from connector.settings import Settings
from connector.values import CANARY_SOURCE

DEAD_LETTER_RETENTION_MS: Final = 90 * 24 * 3600 * 1000
"""Dead letters are kept for at least 90 days, because people have to look at them first."""

_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call] # the package has no types here
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call] # nor here
CANARY_RETENTION_MS: Final = 3600 * 1000
CANARY_ENVIRONMENT: Final = ENVIRONMENTS[-1]
"""The ``envType`` of the connector's own messages, for prefixes that contain it."""

FOR_EVER: Final = -1
NO_LIMIT: Final = 2**63 - 1
DURABLE_REPLICATION: Final = 3
DURABLE_IN_SYNC: Final = 2

_MIN_INSYNC: Final = "min.insync.replicas"
_DEFAULT_REPLICATION: Final = "default.replication.factor"
_BROKERS_DEFAULT: Final = -1
_RETRY_SECONDS: Final = 0.1
# librdkafka ends a request at its own timeout, with an error that says more than ours, so ours comes this much later.
_GRACE_SECONDS: Final = 2.0

Condition = Literal["too few replicas in sync", "replicas are missing", "durable", "one broker can lose it"]
Action = Literal["create", "alter", "add-partitions", "forbidden"]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as the settings ask for it.

    Attributes:
        name: The topic's name.
        partitions: The number of partitions.
        replication_factor: Replicas of each partition; None means the brokers' default.
        config: Kafka's configuration names and values; others stay as they are.
    """

    name: str
    partitions: int
    replication_factor: int | None
    config: Mapping[str, str]

    def at(self, replication_factor: int) -> "TopicSpec":
        """The same topic with this replication factor, and a ``min.insync.replicas`` that fits it.

        A topic that demands more in-sync replicas than it has replicas cannot be written.
        """
        config = {**self.config, _MIN_INSYNC: str(min(DURABLE_IN_SYNC, replication_factor))}
        return replace(self, replication_factor=replication_factor, config=config)


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker of the cluster.

    Attributes:
        node_id: The broker's id.
        address: ``host:port`` as the cluster names it.
        answers: Whether it has answered a request that was sent to it.
    """

    node_id: int
    address: str
    answers: bool


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it exists.

    Attributes:
        name: The topic's name.
        partitions: The number of partitions.
        replication_factor: Replicas of the partition that has the fewest.
        config: Every configuration value in effect, including the brokers' defaults.
        in_sync: For each partition, the ids of the brokers whose replica is in sync, according to the cluster.
        leaders: For each partition, the id of its leader, or None.
    """

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]
    in_sync: tuple[frozenset[int], ...] = ()
    leaders: tuple[int | None, ...] = ()

    def smallest_isr(self, silent: Collection[int] = ()) -> int:
        """In-sync replicas of the partition that has the fewest, without those on brokers that do not answer."""
        # The cluster lists a broker's replicas for some time after the broker has gone away.
        return min((len(ids.difference(silent)) for ids in self.in_sync), default=self.replication_factor)

    @property
    def max_message_bytes(self) -> int:
        """Bytes of the largest record batch that the topic takes."""
        return int(self.config["max.message.bytes"])

    @property
    def min_insync_replicas(self) -> int:
        """Replicas that must have a record before it is acknowledged."""
        return int(self.config[_MIN_INSYNC])

    @property
    def timestamp_before_ms(self) -> int:
        """Maximum milliseconds by which a record's timestamp may be before the brokers' time."""
        return self._timestamp_limit("before")

    @property
    def timestamp_after_ms(self) -> int:
        """Maximum milliseconds by which a record's timestamp may be after the brokers' time."""
        return self._timestamp_limit("after")

    def _timestamp_limit(self, side: str) -> int:
        if self.config.get("message.timestamp.type") == "LogAppendTime":
            return NO_LIMIT  # the broker replaces the timestamp
        both = self.config.get("message.timestamp.difference.max.ms", NO_LIMIT)  # of brokers before Kafka 3.6
        return int(self.config.get(f"message.timestamp.{side}.max.ms", both))

    @property
    def is_durable(self) -> bool:
        """Whether an acknowledged record survives the loss of any single broker, including the leader."""
        return (
            self.replication_factor >= DURABLE_REPLICATION
            and self.min_insync_replicas >= DURABLE_IN_SYNC
            and self.config["unclean.leader.election.enable"] == "false"
        )

    def condition(self, silent: Collection[int] = ()) -> Condition:
        """Whether the topic takes records now, and would keep them if a broker were lost; see `smallest_isr`."""
        in_sync = self.smallest_isr(silent)
        if in_sync < self.min_insync_replicas:
            return "too few replicas in sync"
        if in_sync < self.replication_factor:
            return "replicas are missing"
        return "durable" if self.is_durable else "one broker can lose it"


def as_dict(name: str, state: TopicState | None, silent: Collection[int]) -> dict[str, Any]:
    """A topic as JSON values, or just that it does not exist."""
    if state is None:
        return {"topic": name, "exists": False}
    return {
        "topic": name,
        "exists": True,
        "partitions": state.partitions,
        "replicas": state.replication_factor,
        "in_sync": state.smallest_isr(silent),
        "min_insync_replicas": state.min_insync_replicas,
        "durable": state.is_durable,
    }


@dataclass(frozen=True, slots=True)
class TopicOffsets:
    """How much is in a topic: the first existing offset of each partition, and the next one.

    Attributes:
        beginnings: Partition → its first existing offset.
        ends: Partition → the offset of its next record.
    """

    beginnings: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def records(self) -> int:
        """Number of existing offsets; with compaction or transactions there are fewer records."""
        return self.written - sum(self.beginnings.values())

    @property
    def written(self) -> int:
        """Number of offsets that were ever written."""
        return sum(self.ends.values())

    def lags(self, topic: str, committed: Mapping[tuple[str, int], int]) -> dict[int, int]:
        """Partition → how many offsets a group is behind the end; empty if it has committed nothing in this topic."""
        if not any((topic, number) in committed for number in self.ends):
            return {}
        return {
            number: max(end - committed.get((topic, number), self.beginnings[number]), 0)
            for number, end in self.ends.items()
        }

    def lag(self, topic: str, committed: Mapping[tuple[str, int], int]) -> int | None:
        """How many offsets a group is behind the ends, in total; None if it has committed nothing in this topic."""
        lags = self.lags(topic, committed)
        return sum(lags.values()) if lags else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between a topic and what the settings ask for.

    Attributes:
        topic: The topic's name.
        what: ``topic``, ``partitions``, ``replication.factor`` or the name of a configuration value.
        wanted: The value that the settings ask for.
        actual: The value that the topic has.
        action: What removes the difference; ``forbidden`` if Kafka cannot, or only by moving records.
    """

    topic: str
    what: str
    wanted: str
    actual: str
    action: Action


def desired_topics(settings: Settings) -> tuple[TopicSpec, ...]:
    """Every topic that the connector writes with these settings."""
    routes = routes_of(settings)
    retention = settings.topics.retention_ms
    specs = [_spec(settings, route.topic, retention, is_state=route.stream.is_state) for route in routes.all]
    canary = [replace(_spec(settings, route.topic, CANARY_RETENTION_MS), partitions=1) for route in canaries(settings)]
    letters = _longer(retention, DEAD_LETTER_RETENTION_MS)
    return (*specs, *canary, *(_spec(settings, topic, letters) for topic in routes.dead_letter_topics))


def routes_of(settings: Settings) -> Routes:
    """The routing table for these settings."""
    sources = {name: source.env_types for name, source in settings.sources.items()}
    return Routes(settings.streams, settings.topics.prefix, sources)


def canary_routes(settings: Settings) -> Routes:
    """The routing table of the connector's own messages."""
    return Routes((CANARY.name,), settings.topics.prefix, {CANARY_SOURCE: (CANARY_ENVIRONMENT,)})


def canaries(settings: Settings) -> tuple[Route, ...]:
    """The canary's routes; empty if it is disabled."""
    return canary_routes(settings).all if settings.canary.enabled else ()


def plan(specs: Iterable[TopicSpec], actual: Mapping[str, TopicState]) -> tuple[Difference, ...]:
    """The differences between the topics that should exist and those that do, in the order of the specs."""
    return tuple(difference for spec in specs for difference in _differences(spec, actual.get(spec.name)))


class TopicAdmin:
    """Describes, creates and alters topics. Blocking: from an event loop, call it in a thread.

    Every method raises OutsideUnreachable if no broker answers in time, and ConfigurationError if Kafka rejects the
    credentials or the request, or if an ACL is missing, which the message names.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties that `Settings.load` has checked; properties of producers do no harm.
    """

    def __init__(self, bootstrap_servers: str, properties: Mapping[str, Any]) -> None:
        self._problems = Problems(lambda: self._client.poll(0))
        self._bootstrap_servers = bootstrap_servers
        self.replace_properties(properties)

    def replace_properties(self, properties: Mapping[str, Any]) -> None:
        """Use these properties from now on, such as new credentials."""
        own: dict[str, Any] = {"bootstrap.servers": self._bootstrap_servers, "error_cb": self._problems.record}
        self._properties = {"log_level": LOG_NOTHING, **properties, **own}
        self._client = AdminClient(self._properties)

    def brokers(self, timeout: float) -> int:
        """The number of brokers, after a round trip to one of them; ``timeout`` in seconds."""
        return len(self._node_ids(_Deadline(timeout)))

    def each_broker(self, timeout: float) -> tuple[Broker, ...]:
        """Send a request to every broker that the cluster names; ``timeout`` in seconds.

        The list comes from one of them, which may still name brokers that are gone. An error from a broker counts as an
        answer.
        """
        deadline = _Deadline(timeout)
        with self._translated(REACH):
            nodes = self._client.list_topics(timeout=deadline.left).brokers
        # librdkafka sends a request for a broker's configuration to that broker.
        resources = {node_id: ConfigResource(ConfigResource.Type.BROKER, str(node_id)) for node_id in nodes}
        asked = {
            node_id: self._client.describe_configs([resource], request_timeout=deadline.left)[resource]
            for node_id, resource in resources.items()
        }
        return tuple(
            Broker(node_id, f"{nodes[node_id].host}:{nodes[node_id].port}", deadline.is_answered(answer))
            for node_id, answer in sorted(asked.items())
        )

    def describe(self, names: Iterable[str], timeout: float) -> dict[str, TopicState]:
        """Describe those of the topics that exist, by name; ``timeout`` in seconds."""
        deadline = _Deadline(timeout)
        descriptions = self._existing(list(names), deadline)
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in descriptions]
        if not resources:
            return {}
        with self._translated("read the topics' configuration", acl="DescribeConfigs on Topic"):
            asked = self._client.describe_configs(resources, request_timeout=deadline.left)
            configs = {resource.name: deadline.result(answer) for resource, answer in asked.items()}
        return {name: _state(description, configs[name]) for name, description in descriptions.items()}

    def offsets(self, topics: Mapping[str, int], timeout: float) -> dict[str, TopicOffsets]:
        """How much is in some topics.

        Args:
            topics: Name → number of partitions.
            timeout: Seconds.
        """
        deadline = _Deadline(timeout)
        partitions = [TopicPartition(name, number) for name, count in topics.items() for number in range(count)]
        beginnings, ends = (self._list_offsets(partitions, spec, deadline) for spec in (_EARLIEST, _LATEST))
        return {
            name: TopicOffsets(
                {number: beginnings[name, number] for number in range(count)},
                {number: ends[name, number] for number in range(count)},
            )
            for name, count in topics.items()
        }

    def committed(self, group: str, timeout: float) -> dict[tuple[str, int], int]:
        """Topic and partition → the offset that a consumer group has committed; ``timeout`` in seconds."""
        deadline = _Deadline(timeout)
        with self._translated(f"ask for the consumer group {group}", acl="Describe on Group"):
            asked = self._client.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=deadline.left
            )
            positions = deadline.result(asked[group]).topic_partitions or []
        # A negative offset means that the group has committed none.
        return {(position.topic, position.partition): position.offset for position in positions if position.offset >= 0}

    def _list_offsets(
        self, partitions: list[TopicPartition], spec: OffsetSpec, deadline: "_Deadline"
    ) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        with self._translated("ask how much is in the topics", acl="Describe on Topic"):
            asked = self._client.list_offsets(dict.fromkeys(partitions, spec), request_timeout=deadline.left)
            offsets = {partition: deadline.result(answer).offset for partition, answer in asked.items()}
        return {(partition.topic, partition.partition): offset for partition, offset in offsets.items()}

    def rights(self, names: Iterable[str], timeout: float) -> dict[str, frozenset[str] | None]:
        """The operations that our user may do on existing topics, such as ``WRITE``; None if Kafka does not say.

        ``timeout`` is in seconds.
        """
        deadline, names = _Deadline(timeout), list(names)
        if not names:
            return {}
        with self._translated("ask for rights on the topics", acl="Describe on Topic"):
            asked = self._client.describe_topics(
                TopicCollection(names), include_authorized_operations=True, request_timeout=deadline.left
            )
            descriptions = {name: deadline.result_unless(UNKNOWN_TOPIC, answer) for name, answer in asked.items()}
        return {name: _operations(topic) for name, topic in descriptions.items() if topic is not None}

    def create(self, specs: Iterable[TopicSpec], timeout: float) -> None:
        """Create topics and wait until every partition has a leader; existing topics stay as they are.

        Other brokers, and so `describe`, may learn of the topics a moment later.

        Args:
            specs: The topics; those without a replication factor get the brokers' default.
            timeout: Seconds.
        """
        deadline = _Deadline(timeout)
        resolved = self._resolved(list(specs), deadline)
        if not resolved:
            return
        asked = self._client.create_topics([_new_topic(spec) for spec in resolved], request_timeout=deadline.left)
        for name, answer in asked.items():
            with self._translated(f"create the topic {name}", acl="Create on Topic or on Cluster"):
                deadline.result_unless("TOPIC_ALREADY_EXISTS", answer)  # another connector was faster
        self._await_leaders([spec.name for spec in resolved], deadline)

    def alter(
        self, name: str, timeout: float, *, config: Mapping[str, str] | None = None, partitions: int | None = None
    ) -> None:
        """Change one topic; values that are not given stay.

        Args:
            name: The topic.
            timeout: Seconds.
            config: Configuration values to set.
            partitions: The new number of partitions, larger than the current one. From then on keys are in other
                partitions, and the order of their records does not hold across the change.
        """
        deadline = _Deadline(timeout)
        if config:
            self._configure(name, config, deadline)
        if partitions is not None:
            with self._translated(f"add partitions to the topic {name}", acl="Alter on Topic"):
                new = [NewPartitions(name, partitions)]
                deadline.result(self._client.create_partitions(new, request_timeout=deadline.left)[name])

    def _configure(self, name: str, config: Mapping[str, str], deadline: "_Deadline") -> None:
        change = AlterConfigOpType.SET
        entries = [ConfigEntry(key, text, incremental_operation=change) for key, text in config.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        with self._translated(f"configure the topic {name}", acl="AlterConfigs on Topic"):
            asked = self._client.incremental_alter_configs([resource], request_timeout=deadline.left)
            deadline.result(asked[resource])

    def _node_ids(self, deadline: "_Deadline") -> list[int]:
        with self._translated(REACH):
            return list(self._client.list_topics(timeout=deadline.left).brokers)

    def _existing(self, names: list[str], deadline: "_Deadline") -> dict[str, TopicDescription]:
        if not names:
            return {}
        with self._translated("describe the topics", acl="Describe on Topic"):
            asked = self._client.describe_topics(TopicCollection(names), request_timeout=deadline.left)
            descriptions = {name: deadline.result_unless(UNKNOWN_TOPIC, answer) for name, answer in asked.items()}
        return {name: description for name, description in descriptions.items() if description is not None}

    def _resolved(self, specs: list[TopicSpec], deadline: "_Deadline") -> list[TopicSpec]:
        """The specs with the brokers' default replication filled in, if our user may read it."""
        # `min.insync.replicas` depends on it, see `TopicSpec.at`.
        if all(spec.replication_factor is not None for spec in specs):
            return specs
        default = self._default_replication(deadline)
        if default is None:
            return specs
        return [spec if spec.replication_factor is not None else spec.at(default) for spec in specs]

    def _default_replication(self, deadline: "_Deadline") -> int | None:
        """The brokers' default; None if our user may not read it: the brokers then choose both replication values."""
        resource = ConfigResource(ConfigResource.Type.BROKER, str(self._node_ids(deadline)[0]))
        with self._translated("read the brokers' configuration"):
            asked = self._client.describe_configs([resource], request_timeout=deadline.left)
            config = deadline.result_unless("CLUSTER_AUTHORIZATION_FAILED", asked[resource])
        value = None if config is None else config[_DEFAULT_REPLICATION].value
        return None if value is None else int(value)

    def _await_leaders(self, names: list[str], deadline: "_Deadline") -> None:
        while not self._have_leaders(names, deadline):
            if deadline.is_over:
                raise OutsideUnreachable(f"Kafka created {', '.join(names)}, but partitions have no leader yet")
            time.sleep(_RETRY_SECONDS)

    def _have_leaders(self, names: list[str], deadline: "_Deadline") -> bool:
        descriptions = self._existing(names, deadline)
        # A partition without a leader has the node -1, which librdkafka returns as None.
        return len(descriptions) == len(names) and all(
            partition.leader is not None and partition.leader.id >= 0
            for description in descriptions.values()
            for partition in description.partitions
        )

    @contextmanager
    def _translated(self, attempt: str, *, acl: str | None = None) -> Iterator[None]:
        """Translate errors as `translated` does, with the connections' latest errors as the cause.

        A client that did not reach Kafka is replaced: it may have got metadata without any broker from one that was
        just fenced, and would never connect again (librdkafka#5301). A client whose credentials were rejected is
        replaced too: it would keep a token that the broker rejects until shortly before it expires.
        """
        self._problems.clear()
        try:
            with translated(attempt, acl=acl, problems=self._problems.recent, properties=self._properties):
                yield
        except ConnectorError as error:
            if isinstance(error, OutsideUnreachable) or any(map(is_credential_error, self._problems.recent())):
                self._client = AdminClient(self._properties)
            raise


class _Deadline(Deadline):
    """A deadline for futures."""

    def result(self, answer: "Future[_T]") -> _T:
        """The answer; raises TimeoutError if librdkafka, which has its own clock, overruns the deadline by far."""
        return answer.result(self.left + _GRACE_SECONDS)

    def is_answered(self, answer: "Future[Any]") -> bool:
        """Whether an answer came, even an error."""
        try:
            self.result(answer)
        except KafkaException as exception:
            return not is_transient(exception.args[0])
        except TimeoutError:
            return False
        return True

    def result_unless(self, name: str, answer: "Future[_T]") -> _T | None:
        """The answer, or None if it is the error of this name."""
        try:
            return self.result(answer)
        except KafkaException as exception:
            if exception.args[0].name() != name:
                raise
            return None


def _spec(settings: Settings, name: str, retention_ms: int, *, is_state: bool = False) -> TopicSpec:
    topics = settings.topics
    deleted = {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
    config = {"cleanup.policy": "compact"} if is_state else deleted
    spec = TopicSpec(name, topics.partitions, topics.replication_factor, config)
    return spec if topics.replication_factor is None else spec.at(topics.replication_factor)


def _longer(one: int, other: int) -> int:
    return FOR_EVER if FOR_EVER in (one, other) else max(one, other)


def _new_topic(spec: TopicSpec) -> NewTopic:
    replication = _BROKERS_DEFAULT if spec.replication_factor is None else spec.replication_factor
    return NewTopic(spec.name, spec.partitions, replication, config=dict(spec.config))


def _state(description: TopicDescription, config: Mapping[str, ConfigEntry]) -> TopicState:
    return TopicState(
        name=description.name,
        partitions=len(description.partitions),
        replication_factor=min(len(partition.replicas) for partition in description.partitions),
        config={name: entry.value for name, entry in config.items() if entry.value is not None},
        in_sync=tuple(frozenset(node.id for node in partition.isr) for partition in description.partitions),
        leaders=tuple(partition.leader.id if partition.leader else None for partition in description.partitions),
    )


def _operations(description: TopicDescription) -> frozenset[str] | None:
    operations = description.authorized_operations
    return None if operations is None else frozenset(operation.name for operation in operations)


def _differences(spec: TopicSpec, state: TopicState | None) -> Iterator[Difference]:
    if state is None:
        yield Difference(spec.name, "topic", _described(spec), "missing", "create")
        return
    yield from _partition_difference(spec, state)
    yield from _replication_difference(spec, state)
    for name, value in spec.at(state.replication_factor).config.items():
        actual = state.config.get(name, "not set")
        if actual != value:
            yield Difference(spec.name, name, value, actual, "alter")


def _partition_difference(spec: TopicSpec, state: TopicState) -> Iterator[Difference]:
    if spec.partitions != state.partitions:
        action: Action = "add-partitions" if spec.partitions > state.partitions else "forbidden"
        yield Difference(spec.name, "partitions", str(spec.partitions), str(state.partitions), action)


def _replication_difference(spec: TopicSpec, state: TopicState) -> Iterator[Difference]:
    if spec.replication_factor not in (None, state.replication_factor):
        actual = str(state.replication_factor)
        yield Difference(spec.name, "replication.factor", str(spec.replication_factor), actual, "forbidden")


def _described(spec: TopicSpec) -> str:
    replication = "the brokers' default" if spec.replication_factor is None else spec.replication_factor
    return f"partitions={spec.partitions}, replication.factor={replication}"
