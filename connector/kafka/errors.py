"""What Kafka and librdkafka call their errors, and what they are to the connector."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.kafka import explain

NO_PROPERTIES: Final[Mapping[str, Any]] = MappingProxyType({})

LOG_NOTHING: Final = 2
"""librdkafka's ``log_level`` for clients whose errors are raised: one line says it, not a line for each attempt."""

# librdkafka's names of errors; those of its own start with an underscore.
END_OF_PARTITION: Final = "_PARTITION_EOF"
TOO_SLOW: Final = "_MAX_POLL_EXCEEDED"
UNKNOWN_TOPIC: Final = "UNKNOWN_TOPIC_OR_PART"
MISSING_TOPIC: Final = frozenset({UNKNOWN_TOPIC, "UNKNOWN_TOPIC_ID", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
"""Errors of a topic, or a partition, that is not there, or not known yet."""

FENCED: Final = frozenset({"_FENCED", "FENCED_INSTANCE_ID", "UNRELEASED_INSTANCE_ID"})
"""Errors of a member of a group whose name another one uses."""

PARTITIONS_LOST: Final = frozenset(
    {"_ASSIGNMENT_LOST", "_STATE", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "STALE_MEMBER_EPOCH", TOO_SLOW}
)
"""Errors of a member that has its partitions no longer."""

UNSETTLED: Final = frozenset(
    {"REBALANCE_IN_PROGRESS", "_WAIT_COORD", "COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR"}
)
"""Errors of a group that is rebalanced, or whose coordinator moves."""

_NOT_ALLOWED: Final = frozenset({"TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
_TRANSIENT: Final = frozenset(
    {
        "_ALL_BROKERS_DOWN",
        "_RESOLVE",
        "_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_TRANSPORT",
        "BROKER_NOT_AVAILABLE",
        "LEADER_NOT_AVAILABLE",
        "NETWORK_EXCEPTION",
        "NOT_CONTROLLER",
        "NOT_LEADER_FOR_PARTITION",
        "OFFSET_NOT_AVAILABLE",
        "REQUEST_TIMED_OUT",
        "THROTTLING_QUOTA_EXCEEDED",
    }
)
_BAD_CREDENTIALS: Final = frozenset({"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"})

REACH: Final = "reach Kafka"
"""The attempt of a request that only asks for an answer."""


_MAX_PROBLEMS: Final = 100


class Problems:
    """The latest errors of a client's connections: they say why it got no answer.

    Args:
        poll: The client's ``poll``, which serves its callbacks.
    """

    def __init__(self, poll: Callable[[], object]) -> None:
        self._poll = poll
        self._errors: deque[KafkaError] = deque(maxlen=_MAX_PROBLEMS)

    def record(self, error: KafkaError) -> None:
        """Keep an error; the client's ``error_cb``."""
        self._errors.append(error)

    def recent(self) -> list[KafkaError]:
        """Those so far, in their order."""
        self._poll()  # librdkafka hands them over only to who polls
        return list(self._errors)

    def clear(self) -> None:
        """Forget them, before something else is asked."""
        self._errors.clear()


def timed_out() -> KafkaException:
    """What librdkafka raises when nothing has come in time."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's own name of it


@contextmanager
def translated(
    attempt: str,
    *,
    acl: str | None = None,
    problems: Callable[[], Iterable[KafkaError]] = tuple,
    properties: Mapping[str, Any] = NO_PROPERTIES,
) -> Iterator[None]:
    """Kafka's errors as the connector's own.

    Args:
        attempt: What is being done, as in "describe the topics".
        acl: What Kafka wants granted for it.
        problems: What befell the connections meanwhile: it says why there was no answer.
        properties: Those of the client, where the cause may be found out by them.

    Raises:
        OutsideUnreachable: No broker answered in time.
        ConfigurationError: Kafka, or librdkafka, rejects.
    """
    try:
        yield
    except KafkaException as exception:
        raise _translation(exception.args[0], attempt, acl, problems, properties) from exception
    except TimeoutError as error:
        raise OutsideUnreachable(f"cannot {attempt}: Kafka did not answer in time") from error


def is_transient(error: KafkaError) -> bool:
    """Whether an error goes away by itself once the brokers are well; librdkafka only says so of transactions."""
    return error.name() in _TRANSIENT


def is_credential_error(error: KafkaError) -> bool:
    """Whether the broker rejects the credentials."""
    return error.name() in _BAD_CREDENTIALS


def _translation(
    error: KafkaError,
    attempt: str,
    acl: str | None,
    problems: Callable[[], Iterable[KafkaError]],
    properties: Mapping[str, Any],
) -> ConnectorError:
    if error.name() in _NOT_ALLOWED:
        grant = f"; grant {acl}" if acl else ""
        reason = explain.sentence(error.str(), properties)
        return ConfigurationError(f"WEDA_KAFKA__PROPERTIES: this user may not {attempt}{grant} ({reason})")
    if not is_transient(error):
        return ConfigurationError(f"cannot {attempt}: Kafka rejects it: {explain.sentence(error.str(), properties)}")
    seen = [problem for problem in problems() if problem.name() != "_ALL_BROKERS_DOWN"]
    rejection = next(filter(is_credential_error, seen), None)
    if rejection is not None:
        reason = explain.sentence(rejection.str(), properties)
        return ConfigurationError(f"WEDA_KAFKA__PROPERTIES: Kafka rejects the credentials: {reason}")
    reason = explain.sentence(seen[-1].str(), properties) if seen else error.str() + explain.silence(properties)
    if attempt == REACH:
        return OutsideUnreachable(f"cannot reach Kafka: {reason}")
    return OutsideUnreachable(f"cannot {attempt}: Kafka is not reachable: {reason}")
