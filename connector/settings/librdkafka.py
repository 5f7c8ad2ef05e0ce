"""Checks librdkafka properties: the connector decides some of them, and librdkafka checks the others."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from confluent_kafka import KafkaException, Producer

from connector.settings.types import EMBEDDED, REDACTED, Property, rejection

SECRETIVE: Final = re.compile(r"password|secret|key|token|jaas|^(topic\.)?sasl\.", re.IGNORECASE)
# Properties that our publisher sets, and that a user may repeat but not change: librdkafka's name → the values that
# keep the promise (empty: the property must not be set), and why.
_PROMISED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "acks": (("all", "-1"), "an accepted message is in all in-sync replicas"),
    "enable.idempotence": (("true", "t", "1"), "retries must neither repeat nor reorder records"),
    "max.in.flight.requests.per.connection": (tuple("54321"), "more than 5 breaks the order of retries"),
    "message.timeout.ms": (("0",), "the publisher decides how long a message waits"),
    "partitioner": (("murmur2_random",), "a key must lie where Java clients look for it"),
    "retries": (("2147483647",), "a record is retried until the publisher gives up"),
    "transactional.id": ((), "records are published outside transactions"),
    "enable.gapless.guarantee": ((), "one failed record would stop the whole producer"),
    "delivery.report.only.error": ((), "an answer waits for the report of success"),
    "enabled_events": ((), "it can switch delivery reports off"),
    "bootstrap.servers": ((), "use WEDA_KAFKA__BOOTSTRAP_SERVERS"),
    "logger": ((), "it is not a librdkafka property"),
}
_ALIASES: Final[Mapping[str, str]] = {
    "request.required.acks": "acks",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "delivery.timeout.ms": "message.timeout.ms",
    "message.send.max.retries": "retries",
    "metadata.broker.list": "bootstrap.servers",
    "sasl.mechanism": "sasl.mechanisms",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.oauthbearer.client.secret",
    "linger.ms": "queue.buffering.max.ms",
    "compression.type": "compression.codec",
    "max.partition.fetch.bytes": "fetch.message.max.bytes",
    "auto.commit.enable": "enable.auto.commit",
}
UNDERSCORED: Final = ("enabled_events", "log_level")
"""The properties with a text value and an underscore in their name."""

ENDING_IN_FILE: Final = (
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
)
"""The properties that name a file and do not end in ``.location``."""

_QUOTED: Final = re.compile(r'"([^"]+)"')
_PROBE: Final = "probe"
"""The value of ``ssl.ca.location`` that makes librdkafka look for the system's certificates: not a path."""


def check_properties(
    properties: Mapping[str, Property],
    *,
    name: str = "WEDA_KAFKA__PROPERTIES",
    parts: Mapping[tuple[str, ...], str] = MappingProxyType({}),
) -> None:
    """Have librdkafka check these properties together with ours; nothing is sent to a broker.

    Args:
        properties: librdkafka's names and values.
        name: The setting as the user wrote it.
        parts: The variables that set one property each.

    Raises:
        ConfigurationError: librdkafka does not know a property, or rejects a value.
    """
    _check_files(properties, name, parts)
    silent = logging.getLogger("connector.settings.librdkafka")
    silent.disabled = True  # the real clients log the same warnings
    ours = {"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random", "message.timeout.ms": 0}
    try:
        Producer({**ours, **properties, "logger": silent})
    except KafkaException as error:
        message = error.args[0].str()
        # librdkafka quotes the property that it rejects, which tells the variable to blame.
        quoted = {plain_name(text) for text in _QUOTED.findall(message)}
        guilty = next((variable for (key,), variable in parts.items() if plain_name(key) in quoted), name)
        raise rejection(guilty, _mask_secrets(message, properties)) from None
    except (TypeError, ValueError, AttributeError):  # for these names the Python client expects objects
        raise rejection(name, "a property is no librdkafka property but takes a Python object") from None


def _check_files(properties: Mapping[str, Property], name: str, parts: Mapping[tuple[str, ...], str]) -> None:
    """Reject a file that is missing or unreadable: librdkafka only says ``BIO lib``, and does not name the file."""
    for key, value in properties.items():
        if not (key.endswith(".location") or key in ENDING_IN_FILE) or value == _PROBE:
            continue
        try:
            path = Path(str(value))
            if not path.is_dir():
                path.open("rb").close()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            guilty = parts.get((key,), name)
            raise rejection(guilty, _mask_secrets(f"{key}: cannot read {value} ({why})", properties)) from None


def check_promise(name: str, value: str) -> None:
    """Reject a librdkafka property that would break a promise of the connector.

    Raises:
        ValueError: The property must not be set, or has a value that breaks the promise.
    """
    plain = plain_name(name)
    if plain.startswith("test.mock."):
        raise ValueError(f"{name} must not be set: use WEDA_KAFKA__BOOTSTRAP_SERVERS={EMBEDDED}")
    allowed, why = _PROMISED.get(plain, ((value,), ""))
    if value in allowed:
        return
    wanted = f"must be {allowed[0]}" if allowed else "must not be set"
    raise ValueError(f"{name} {wanted}: {why}")


def plain_name(name: str) -> str:
    """The main name of a property: librdkafka has aliases, and takes topic properties with ``topic.`` in front, too."""
    plain = name.removeprefix("topic.")
    return _ALIASES.get(plain, plain)


def _mask_secrets(text: str, properties: Mapping[str, Property]) -> str:
    for name, value in properties.items():
        if SECRETIVE.search(name) and str(value):
            text = text.replace(str(value), REDACTED)
    return text
