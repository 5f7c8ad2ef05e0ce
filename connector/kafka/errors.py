"""The errors of Kafka and librdkafka by name, and their translation into the connector's own."""

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
"""librdkafka's ``log_level`` for clients whose errors are raised: else it logs a line for each attempt to connect."""

# librdkafka's names of errors; those of its own start with an underscore.
END_OF_PARTITION: Final = "_PARTITION_EOF"
TOO_SLOW: Final = "_MAX_POLL_EXCEEDED"
UNKNOWN_TOPIC: Final = "UNKNOWN_TOPIC_OR_PART"
MISSING_TOPIC: Final = frozenset({UNKNOWN_TOPIC, "UNKNOWN_TOPIC_ID", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
"""Errors for a topic or partition that does not exist, or that the broker or client does not know yet."""

FENCED: Final = frozenset({"_FENCED", "FENCED_INSTANCE_ID", "UNRELEASED_INSTANCE_ID"})
"""Errors for a group member whose name another member uses."""

PARTITIONS_LOST: Final = frozenset(
    {"_ASSIGNMENT_LOST", "_STATE", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "STALE_MEMBER_EPOCH", TOO_SLOW}
)
"""Errors for a member that has lost its partitions."""

UNSETTLED: Final = frozenset(
    {
        *("REBALANCE_IN_PROGRESS", "_WAIT_COORD", "COORDINATOR_LOAD_IN_PROGRESS"),
        *("COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR"),
    }
)
"""Errors while a group is rebalancing, or its coordinator is moving."""

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
"""The attempt of a request that only checks that Kafka answers."""

_MAX_PROBLEMS: Final = 100


class Problems:
    """The latest errors of a client's connections, which explain why it got no answer.

    Args:
        poll: The client's ``poll``, which serves its callbacks.
    """

    def __init__(self, poll: Callable[[], object]) -> None:
        self._poll = poll
        self._errors: deque[KafkaError] = deque(maxlen=_MAX_PROBLEMS)

    def record(self, error: KafkaError) -> None:
        """Store an error; pass this as the client's ``error_cb``."""
        self._errors.append(error)

    def recent(self) -> list[KafkaError]:
        """The stored errors, oldest first."""
        self._poll()  # librdkafka calls ``error_cb`` only from ``poll``
        return list(self._errors)

    def clear(self) -> None:
        """Remove all errors, before the next request."""
        self._errors.clear()


def timed_out() -> KafkaException:
    """The exception that librdkafka raises at a timeout."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's own name of it


@contextmanager
def translated(
    attempt: str,
    *,
    acl: str | None = None,
    problems: Callable[[], Iterable[KafkaError]] = tuple,
    properties: Mapping[str, Any] = NO_PROPERTIES,
) -> Iterator[None]:
    """Translate Kafka's errors into the connector's own.

    Args:
        attempt: What is being done, such as "describe the topics".
        acl: The ACL that it needs.
        problems: Returns the connections' errors meanwhile, which explain why there was no answer.
        properties: The client's librdkafka properties, if they help to find the cause.

    Raises:
        OutsideUnreachable: No broker answered in time.
        ConfigurationError: Kafka or librdkafka rejects the request.
    """
    try:
        yield
    except KafkaException as exception:
        raise _translation(exception.args[0], attempt, acl, problems, properties) from exception
    except TimeoutError as error:
        raise OutsideUnreachable(f"cannot {attempt}: Kafka did not answer in time") from error


def is_transient(error: KafkaError) -> bool:
    """Whether an error goes away without intervention once the brokers are healthy.

    librdkafka's own ``retriable`` is set for transactions only.
    """
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
    # "All brokers are down" follows from the other problems, and explains nothing.
    seen = [problem for problem in problems() if problem.name() != "_ALL_BROKERS_DOWN"]
    rejection = next(filter(is_credential_error, seen), None)
    if rejection is not None:
        reason = explain.sentence(rejection.str(), properties)
        return ConfigurationError(f"WEDA_KAFKA__PROPERTIES: Kafka rejects the credentials: {reason}")
    reason = explain.sentence(seen[-1].str(), properties) if seen else error.str() + explain.silence(properties)
    if attempt == REACH:
        return OutsideUnreachable(f"cannot reach Kafka: {reason}")
    return OutsideUnreachable(f"cannot {attempt}: Kafka is not reachable: {reason}")
