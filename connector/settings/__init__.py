"""Every setting of the connector: typed, frozen, and read from the environment here and nowhere else.

Precedence: flag, environment, file, default. ``python -m tools.reference settings`` prints ``docs/settings.md``.
"""

import difflib
import ipaddress
import json
import logging
import math
import os
import re
import zoneinfo
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NoReturn, Self, get_origin
from urllib.parse import urlsplit

import yaml
from confluent_kafka import KafkaException, Producer
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from connector.errors import ConfigurationError
from connector.message.schemas import WORKFLOW_EVENT, kinds
from connector.message.schemas import load as load_schema
from connector.settings.webhooks import SECRET_PREFIX, WINDOW_SECONDS, secret_bytes
from connector.values import FINGERPRINT, Network

REDACTED: Final = "********"
EMBEDDED: Final = "embedded"
DEFAULT_SOURCE: Final = "default"
NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})

_PREFIX: Final = "WEDA_"
_BY_FILE: Final = "_FILE"
_KIB: Final = 1024
_SIZE: Final = re.compile(r"(\d{1,19})\s*(?:([KMGT])iB?)?", re.ASCII)
_SOURCE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOPIC_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,236}")  # Kafka's 249, less the longest ending, `.dead-letters`
_LONGEST_PREFIX: Final = 236
_VISIBLE: Final = re.compile(r"[!-~]+")  # what an HTTP header carries unchanged, and what C reads to its end
_SECRETIVE: Final = re.compile(r"password|secret|key|token|jaas|^(topic\.)?sasl\.", re.IGNORECASE)
_SHORTEST_KEY: Final = 16
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_INDISPENSABLE: Final = frozenset({"msgType", "envType"})
_INT32: Final = 2**31 - 1
_INT64: Final = 2**63 - 1

# What our publisher sets and a property may repeat but not change: librdkafka's name → the values that keep the
# promise (none: never to be set) and why.
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
}


def _refuse_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic only translates ValueError
    return value


def _parse_size(value: object) -> object:
    """Bytes from ``512MiB`` and its like; what is no text passes through to be checked as a number."""
    if not isinstance(value, str):
        return _refuse_boolean(value)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be a number of bytes, or text such as 512KiB, 512MiB or 1GiB")
    digits, unit = match.groups()
    return int(digits) * _KIB ** " KMGT".index(unit or " ")


def _check_scalar(value: object) -> object:
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("must be text, a number, true or false")
    # The Python client crashes on a lone surrogate and cuts text at NUL.
    if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        raise ValueError("must be Unicode text without NUL")
    return value


def _check_property_name(name: str) -> str:
    if _VISIBLE.fullmatch(name) is None:
        raise ValueError("must be the name of a librdkafka property, such as `linger.ms`")
    return name


def _check_environment(name: str) -> str:
    if _SOURCE_NAME.fullmatch(name) is None:
        raise ValueError("must be 1 to 64 letters, digits, `_` and `-`")
    return name


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text:
        raise ValueError("must not be empty")
    if text == REDACTED:
        raise ValueError("is the mask of a redacted output, not a secret")
    return secret


def _check_token(token: SecretStr) -> SecretStr:
    text = _check_secret(token).get_secret_value()
    if _VISIBLE.fullmatch(text) is None:
        raise ValueError("must hold visible ASCII characters only, without spaces: an HTTP header carries it")
    return token


def _check_webhook_secret(secret: SecretStr) -> SecretStr:
    text = _check_secret(secret).get_secret_value()
    if not text.startswith(SECRET_PREFIX) or len(secret_bytes(text)) < _SHORTEST_KEY:
        raise ValueError(f"must be {SECRET_PREFIX} and the Base64 of {_SHORTEST_KEY} bytes or more")
    return secret


def _check_key(secret: SecretStr) -> SecretStr:
    if len(_check_secret(secret).get_secret_value().encode()) < _SHORTEST_KEY:
        raise ValueError(f"must have {_SHORTEST_KEY} bytes or more")
    return secret


def _parse_network(value: object) -> object:
    try:
        return ipaddress.ip_network(str(value), strict=True)
    except ValueError:
        raise ValueError("must be an address or a network such as 10.0.0.0/8, without bits beside its mask") from None


def _check_certificate_name(name: str) -> str:
    if name.startswith(FINGERPRINT) and _SHA256.fullmatch(name.removeprefix(FINGERPRINT)) is None:
        raise ValueError(f"must have 64 lower-case hexadecimal digits after {FINGERPRINT}")
    return _check_filled(name)


def _check_field_name(name: str) -> str:
    if name in _INDISPENSABLE:
        raise ValueError(f"must not be {name}: without it there is neither a record nor its topic")
    return _check_filled(name)


def _check_source_name(name: str) -> str:
    if _SOURCE_NAME.fullmatch(name) is None:
        raise ValueError("must be 1 to 64 letters, digits, `_` or `-`, and start with a letter or digit")
    if name == "unknown":
        raise ValueError("is reserved for requests of no known source")
    if name == "canary":
        raise ValueError("is reserved for the connector's own messages")
    return name


def _check_timezone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"is no time zone; {_nearest(name, zoneinfo.available_timezones())}") from None
    return name


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must be an http or https URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if "@" in parts.netloc:
        raise ValueError("must not hold a credential; there are settings for it")
    return url


def _check_database(secret: SecretStr) -> SecretStr:
    text = _check_secret(secret).get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")) or not text.isprintable():
        raise ValueError("must be an address that begins with postgresql://")
    return secret


def _check_file_name(path: Path) -> Path:
    if not path.name:
        raise ValueError("must name a file")
    return path


_KINDS: Final = kinds(load_schema(WORKFLOW_EVENT))
_SIZE_READER: Final = BeforeValidator(_parse_size)
Number = Annotated[int, BeforeValidator(_refuse_boolean)]
Seconds = Annotated[float, Field(le=_INT32), BeforeValidator(_refuse_boolean)]
Size = Annotated[
    int,
    _SIZE_READER,
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\s*[0-9]+\s*([KMGT]iB?)?\s*$"}]}
    ),
]
Text = Annotated[str, AfterValidator(_check_filled)]
Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_refuse_boolean)]
Masked = PlainSerializer(lambda _: REDACTED, return_type=str, when_used="json")
Secret = Annotated[SecretStr, AfterValidator(_check_secret), Masked]
Token = Annotated[SecretStr, AfterValidator(_check_token), Masked]
WebhookSecret = Annotated[SecretStr, AfterValidator(_check_webhook_secret), Masked]
Key = Annotated[SecretStr, AfterValidator(_check_key), Masked]
NetworkName = Annotated[
    Network, BeforeValidator(_parse_network), PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string"})
]
CertificateName = Annotated[str, AfterValidator(_check_certificate_name)]
FieldName = Annotated[str, AfterValidator(_check_field_name)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database), Masked]
Environment = Annotated[str, AfterValidator(_check_environment)]
SourceName = Annotated[str, AfterValidator(_check_source_name)]
PropertyName = Annotated[str, AfterValidator(_check_property_name)]
Property = Annotated[str | int | float | bool, BeforeValidator(_check_scalar)]
Stream = Literal["events", "instances", "tasks", "state"]


class _Group(BaseModel):
    """Settings that belong together; unknown names are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Kafka(_Group):
    """The brokers, and how the connector talks to them."""

    bootstrap_servers: Text | None = Field(
        default=None,
        description="Brokers as `host:port`, comma-separated, or `embedded` for librdkafka's in-process mock cluster; "
        "`serve` needs it.",
    )
    properties: dict[PropertyName, Property] = Field(
        default={},
        repr=False,  # passwords are among them
        description="Any librdkafka property (JSON), which wins over the connector's own unless it would break a "
        "promise.",
    )
    publish_wait_seconds: Seconds = Field(
        default=0.4,
        gt=0,
        description="How long an answer waits for Kafka, in seconds, before the message goes to the journal; "
        "less than the reply deadline.",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _refuse_credentials(cls, servers: str | None) -> str | None:
        if servers is not None and "@" in servers:
            raise ValueError("must not hold a credential: user and password go into WEDA_KAFKA__PROPERTIES")
        return servers

    @field_validator("properties")
    @classmethod
    def _keep_promises(cls, properties: dict[str, Property]) -> dict[str, Property]:
        for name, value in properties.items():
            _check_promise(name, str(value).strip().lower())
        return properties

    @field_serializer("properties", when_used="json")
    def _mask(self, properties: dict[str, Property]) -> dict[str, Property]:
        return {name: REDACTED if _SECRETIVE.search(name) else value for name, value in properties.items()}


class Topics(_Group):
    """The topics that the connector creates where they are missing."""

    prefix: str = Field(
        default="weda.workflow",
        description="What the names of all topics start with; may hold `{source}` and `{envType}`.",
    )
    partitions: Number = Field(default=12, ge=1, le=_INT32, description="Partitions of a topic at its creation.")
    replication_factor: Annotated[int, Field(ge=1, le=32767), BeforeValidator(_refuse_boolean)] | None = Field(
        default=None, description="Replicas of a topic at its creation; none means the broker's default."
    )
    retention_ms: Number = Field(
        default=30 * 24 * 3600 * 1000,
        ge=-1,
        le=_INT64,
        description="How long a created topic keeps its records, in milliseconds (30 days by default); -1 means for "
        "ever.",
    )
    create: bool = Field(
        default=True, description="Whether `serve` creates topics that are missing, at its start or since then."
    )

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if _TOPIC_PREFIX.fullmatch(prefix.replace("{source}", "s").replace("{envType}", "e")) is None:
            raise ValueError(
                "must be 1 to 236 of the characters Kafka allows (letters, digits, `.`, `_` and `-`), "
                "or the placeholders {source} and {envType}"
            )
        return prefix

    @field_validator("retention_ms")
    @classmethod
    def _check_retention(cls, retention_ms: int) -> int:
        if retention_ms == 0:
            raise ValueError("must be more than 0, or -1 to keep records for ever")
        return retention_ms


class Registry(_Group):
    """The schema registry, where there is one: anything that speaks Confluent's API."""

    url: Annotated[str, AfterValidator(_check_url)] | None = Field(
        default=None,
        description="Address of a schema registry. None means Avro's single-object encoding, for which no registry is "
        "needed.",
    )
    auto_register: bool = Field(
        default=False, description="Whether `serve` registers schemas that are missing; else it says so and ends."
    )
    username: Text | None = Field(default=None, description="Name for HTTP basic authentication at the registry.")
    password: Secret | None = Field(default=None, description="Password for it.")
    ca_location: Path | None = Field(
        default=None, description="Certificates of the authorities that vouch for the registry, if not the usual ones."
    )
    certificate_location: Path | None = Field(
        default=None, description="Our certificate, where the registry asks for one."
    )
    key_location: Path | None = Field(default=None, description="The key of our certificate.")


class Journal(_Group):
    """The durable store of what is accepted and not yet published."""

    path: Annotated[Path, AfterValidator(_check_file_name)] = Field(
        default=Path("var/journal.db"), description="File of the journal, on a disk that survives a restart."
    )
    max_bytes: Size = Field(
        default=_KIB**3,
        ge=_KIB**2,
        le=_INT64,
        description="Most that the journal may take on disk, in bytes or as text such as `512MiB`; at least `1MiB`. "
        "Of a shared journal: most that waits in it, for all replicas together.",
    )
    url: DatabaseUrl | None = Field(
        default=None,
        description="Address of a PostgreSQL database in which replicas share their journal, such as "
        "`postgresql://weda@db/weda?sslmode=verify-full`, with any parameter of libpq. None means a file of this "
        "connector's own, at the path.",
    )


class Receiver(_Group):
    """The public listener, where sources send messages."""

    host: Text = Field(default="0.0.0.0", description="Address that the public listener binds to.")
    port: Port = Field(default=8080, description="Port of the public listener; 0 means any free one.")
    max_body_bytes: Size = Field(
        default=512 * _KIB,
        ge=_KIB,
        le=_INT32,
        description="Largest request body that is read, in bytes or as text such as `512KiB`; a larger one is "
        "answered with 413.",
    )
    reply_deadline_seconds: Seconds = Field(
        default=0.8, gt=0, description="How long a source waits for its answer at most, in seconds."
    )
    max_in_flight: Number = Field(
        default=1024, ge=1, description="Requests that are worked on at once; one more is answered with 429."
    )
    shutdown_grace_seconds: Seconds = Field(
        default=25, ge=0, description="How long a shutdown waits for open requests and unpublished records, in seconds."
    )
    max_connections: Number = Field(
        default=2048, ge=1, description="Connections that are open at once; one more is answered with 503 and closed."
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the listener's certificate, with those between it and its authority; none means plain "
        "HTTP. Read again when it changes, as the next two are.",
    )
    tls_key: Path | None = Field(
        default=None, description="PEM file of the certificate's key, if it is not in the same file; not encrypted."
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities that vouch for clients; with it a client may show a certificate, and "
        "one that does not hold ends the connection.",
    )
    trusted_proxies: tuple[NetworkName, ...] = Field(
        default=(),
        description="Networks of the proxies whose `X-Forwarded-For` is believed, comma-separated or JSON; it only "
        "matters to sources that have `networks`.",
    )


class Repeats(_Group):
    """The memory of what was seen, by which a repeat is known."""

    window_seconds: Seconds = Field(default=3600, gt=0, description="How long a message is remembered, in seconds.")
    max_entries: Number = Field(default=1_000_000, ge=1, description="How many messages are remembered at most.")


class Source(_Group):
    """A calling system, known by its credential."""

    tokens: tuple[Token, ...] = Field(
        default=(), description="Tokens that identify the source; several, so that they can be rotated."
    )
    secrets: tuple[WebhookSecret, ...] = Field(
        default=(),
        description="Secrets (`whsec_…`) with which the source signs its requests, as Standard Webhooks has it; "
        "several, so that they can be rotated.",
    )
    certificates: tuple[CertificateName, ...] = Field(
        default=(),
        description="What identifies the source in its client certificate: a DNS name, URI or mail address of "
        "subjectAltName, the common name where there is none, or `sha256:<fingerprint>`.",
    )
    networks: tuple[NetworkName, ...] = Field(
        default=(), description="Networks that the source sends from, beside its credential; none means anywhere."
    )
    rate: Annotated[float, Field(gt=0, le=_INT32), BeforeValidator(_refuse_boolean)] | None = Field(
        default=None, description="Requests a second that the source may send; none means as many as fit."
    )
    env_types: tuple[Environment, ...] = Field(
        default=(),
        description="Values of `envType` that the source may send; none means any, or `pre` and `prod` where the "
        "topics' prefix holds `{envType}`.",
    )

    @property
    def has_credential(self) -> bool:
        """Whether anything identifies the source; a network alone does not."""
        return bool(self.tokens or self.secrets or self.certificates)


class Privacy(_Group):
    """What of a message does not reach the topics as it was sent."""

    redact: tuple[FieldName, ...] = Field(
        default=(), description="Fields of messages, comma-separated or JSON, that are left out of records."
    )
    pseudonyms: tuple[FieldName, ...] = Field(
        default=(),
        description="Fields, comma-separated or JSON, in whose place records hold a keyed pseudonym of each text; the "
        "same text gets the same one while the key stays.",
    )
    key: Key | None = Field(default=None, description="Key of the pseudonyms, of 16 bytes or more.")

    @field_validator("redact")
    @classmethod
    def _keep_ids(cls, redact: tuple[str, ...]) -> tuple[str, ...]:
        if lost := {"instanceId", "msgId"}.intersection(redact):
            raise ValueError(f"must not be {', '.join(sorted(lost))}: use pseudonyms; order and repeats go by it")
        return redact

    @field_validator("pseudonyms")
    @classmethod
    def _check_kinds(cls, pseudonyms: tuple[str, ...]) -> tuple[str, ...]:
        numeric = [name for name in pseudonyms if _KINDS.get(name, "string") not in {"string", "maps"}]
        if numeric:
            raise ValueError(f"cannot be {', '.join(numeric)}: only texts and maps have pseudonyms; redact it")
        return pseudonyms


class Operations(_Group):
    """The listener for metrics, probes and the console."""

    host: Text = Field(default="127.0.0.1", description="Address that the operations listener binds to.")
    port: Port = Field(default=9464, description="Port of the operations listener; 0 means any free one.")
    token: Token | None = Field(
        default=None,
        description="Token that everything there but metrics and probes needs, once it is set; without one the rest is "
        "closed beyond loopback.",
    )
    tls_certificate: Path | None = Field(
        default=None, description="PEM file of the listener's certificate, as for the receiver; none means plain HTTP."
    )
    tls_key: Path | None = Field(
        default=None, description="PEM file of the certificate's key, if it is not in the same file; not encrypted."
    )
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        default="http://127.0.0.1:9464",
        description="Where commands reach the operations listener of a running connector.",
    )


class Canary(_Group):
    """A message of our own that goes the whole way every now and then and is read back."""

    enabled: bool = Field(
        default=False,
        description="Whether the connector sends itself messages, to the topic `<prefix>.canary`, and reads them back.",
    )
    interval_seconds: Seconds = Field(default=15, ge=1, description="Seconds from one such message to the next.")


class Tracing(_Group):
    """Traces by OpenTelemetry; where they go is said by the standard's own variables (``OTEL_…``)."""

    enabled: bool = Field(
        default=False,
        description="Whether requests and records are traced; needs the extra `otlp`. Endpoint and sampler are set by "
        "OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.",
    )


class Log(_Group):
    """What the connector writes about itself."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is written: `debug`, `info`, `warning` or `error`."
    )
    format: Literal["json", "console"] | None = Field(
        default=None, description="`json` or `console`; none means console on a terminal and json elsewhere."
    )


class Settings(_Group):
    """All settings of one connector."""

    kafka: Kafka = Field(default=Kafka(), description="The brokers.")
    streams: tuple[Stream, ...] = Field(
        default=("events", "instances", "tasks"),
        min_length=1,
        description="Streams to publish, comma-separated or JSON: `events`, `instances`, `tasks`, `state`.",
    )
    topics: Topics = Field(default=Topics(), description="The topics.")
    registry: Registry = Field(default=Registry(), description="The schema registry.")
    journal: Journal = Field(default=Journal(), description="The journal.")
    receiver: Receiver = Field(default=Receiver(), description="The public listener.")
    repeats: Repeats = Field(default=Repeats(), description="The memory of repeats.")
    token: Token | None = Field(default=None, description="A token of the source `default`, beside those in sources.")
    sources: dict[SourceName, Source] = Field(
        default={DEFAULT_SOURCE: Source()},
        validate_default=True,
        description='Calling systems by name (JSON), such as `{"hr": {"tokens": ["…"]}}`.',
    )
    auth: Literal["required", "none"] = Field(
        default="required",
        description="`required`, or `none` to accept requests without a credential beyond loopback too.",
    )
    operations: Operations = Field(default=Operations(), description="The operations listener.")
    canary: Canary = Field(default=Canary(), description="The canary.")
    privacy: Privacy = Field(default=Privacy(), description="What of a message the topics do not get to see.")
    timezone: Annotated[str, AfterValidator(_check_timezone)] = Field(
        default="Asia/Shanghai", description="Time zone of dates that come without one."
    )
    tracing: Tracing = Field(default=Tracing(), description="Traces.")
    log: Log = Field(default=Log(), description="The log.")

    @field_validator("streams")
    @classmethod
    def _refuse_duplicates(cls, streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
        if len(set(streams)) < len(streams):
            raise ValueError("must name each stream once")
        return streams

    @field_validator("sources")
    @classmethod
    def _add_token(cls, sources: dict[str, Source], info: ValidationInfo) -> dict[str, Source]:
        token: SecretStr | None = info.data.get("token")
        default = sources.get(DEFAULT_SOURCE, Source())
        if token is not None and token not in default.tokens:
            sources = {**sources, DEFAULT_SOURCE: default.model_copy(update={"tokens": (*default.tokens, token)})}
        if not sources:
            raise ValueError("must name at least one source")
        return sources

    @model_validator(mode="after")
    def _check_between(self) -> Self:
        if self.kafka.publish_wait_seconds >= self.receiver.reply_deadline_seconds:
            _refuse_pair(
                ("kafka.publish_wait_seconds", self.kafka.publish_wait_seconds),
                ("receiver.reply_deadline_seconds", self.receiver.reply_deadline_seconds),
            )
        if self.receiver.max_body_bytes >= self.journal.max_bytes:
            _refuse_pair(
                ("receiver.max_body_bytes", self.receiver.max_body_bytes),
                ("journal.max_bytes", self.journal.max_bytes),
            )
        timed = next((name for name in self.kafka.properties if _plain(name) == "message.timeout.ms"), None)
        if self.journal.url is not None and timed is not None:
            why = f"contradict each other: where replicas share a journal the connector sets {timed}; leave it out"
            _refuse(("kafka.properties", "journal.url"), why)
        if (self.registry.username is None) != (self.registry.password is None):
            _refuse(("registry.username", "registry.password"), "go together: both or none")
        if self.registry.key_location is not None and self.registry.certificate_location is None:
            _refuse(("registry.key_location", "registry.certificate_location"), "go together")
        if (self.privacy.key is None) != (not self.privacy.pseudonyms):
            _refuse(("privacy.pseudonyms", "privacy.key"), "go together: both or none")
        if self._longest_prefix > _LONGEST_PREFIX:
            _refuse(("topics.prefix", "sources"), "make a topic's name longer than Kafka takes (249 letters)")
        return self

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        """A signature holds from five minutes before its time to five after it: so long its id must be known."""
        least = 2 * WINDOW_SECONDS
        if self.repeats.window_seconds < least and any(source.secrets for source in self.sources.values()):
            why = f"contradict each other: where a source has secrets, what it signed is to be remembered for {least} s"
            _refuse(("repeats.window_seconds", "sources"), why)
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        for name, group in (("receiver", self.receiver), ("operations", self.operations)):
            if group.tls_certificate is None and group.tls_key is not None:
                _refuse((f"{name}.tls_key", f"{name}.tls_certificate"), "go together")
        if self.receiver.tls_certificate is None and self.receiver.tls_client_ca is not None:
            _refuse(("receiver.tls_client_ca", "receiver.tls_certificate"), "go together")
        if self.receiver.tls_client_ca is None and any(source.certificates for source in self.sources.values()):
            _refuse(("sources", "receiver.tls_client_ca"), "go together where a source has certificates")
        return self

    @property
    def _longest_prefix(self) -> int:
        named = [name for source in self.sources.values() for name in source.env_types]
        environment = max([*named, "prod"], key=len)
        longest = self.topics.prefix.replace("{source}", max(self.sources, key=len))
        return len(longest.replace("{envType}", environment))

    @classmethod
    def load(
        cls,
        *,
        environment: Mapping[str, str] = os.environ,
        file: Path | None = None,
        flags: Mapping[str, object] = NO_FLAGS,
        only: Collection[str] = (),
    ) -> "Settings":
        """The effective settings.

        Args:
            environment: variables by name; those that start with ``WEDA_`` are ours.
            file: YAML with the same tree in lower case.
            flags: dotted names such as ``kafka.bootstrap_servers``; None means the flag was not given.
            only: dotted names of what the caller needs; the values of others are then neither read nor held against
                each other, for they may be incomplete. Empty means all.

        Raises:
            ConfigurationError: the first problem, in one line that names the setting as it was written.
        """
        needed = frozenset(only or _known_settings())
        read = {**_read_file(file), **_read_environment(environment, needed), **_read_flags(flags)}
        written = {name: value for name, value in read.items() if name in needed}
        try:
            settings = cls.model_validate(_build_tree(written))
        except ValidationError as error:
            # Without a cause: what pydantic holds of the input may be a secret.
            raise _translate(error.errors(include_url=False, include_input=False)[0], written) from None
        if settings.kafka.properties:
            check_properties(settings.kafka.properties, name=_name_as_written("kafka.properties", written))
        return settings

    @staticmethod
    def files(*, environment: Mapping[str, str] = os.environ, file: Path | None = None) -> tuple[Path, ...]:
        """The files that `load` reads settings from: the configuration, and those that ``…_FILE`` variables name."""
        named = [
            Path(path) for name, path in environment.items() if name.startswith(_PREFIX) and name.endswith(_BY_FILE)
        ]
        return tuple(named if file is None else [file, *named])

    @property
    def credentials_exist(self) -> bool:
        """Whether any source has a credential."""
        return any(source.has_credential for source in self.sources.values())

    def rotated(self, newer: "Settings") -> "Settings":
        """These settings, with what may change while the connector runs as the newer ones have it.

        Credentials, rates and networks of the sources that there are, the operations token, the key of pseudonyms and
        the properties of the Kafka clients. A source that is gone keeps its name and has no credential.
        """
        sources = {
            name: newer.sources.get(name, Source()).model_copy(update={"env_types": source.env_types})
            for name, source in self.sources.items()
        }
        return self.model_copy(
            update={
                "sources": sources,
                "token": newer.token,
                "operations": self.operations.model_copy(update={"token": newer.operations.token}),
                "privacy": self.privacy.model_copy(update={"key": newer.privacy.key}),
                "kafka": self.kafka.model_copy(update={"properties": newer.kafka.properties}),
            }
        )

    def changed(self, newer: "Settings") -> tuple[str, ...]:
        """The variables of the settings that differ in newer ones."""
        return tuple(
            environment_name(name) for name in _known_settings() if attrgetter(name)(self) != attrgetter(name)(newer)
        )

    def redacted(self) -> dict[str, Any]:
        """The settings as JSON values, every secret replaced by ``********``."""
        return self.model_dump(mode="json")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema (2020-12) of a configuration file."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """Each setting's environment name, its default as text and the sentence that says what it means."""
        return [
            (environment_name(setting), _show_default(field), field.description or "")
            for setting, field in _known_settings().items()
        ]


def environment_name(setting: str) -> str:
    """The variable of a dotted setting: ``kafka.properties`` → ``WEDA_KAFKA__PROPERTIES``."""
    return _PREFIX + setting.replace(".", "__").upper()


_SEARCHED: Final = "probe"
"""What librdkafka takes for ``ssl.ca.location`` to look for the system's certificates."""


def check_properties(properties: Mapping[str, Property], *, name: str = "WEDA_KAFKA__PROPERTIES") -> None:
    """Ask librdkafka whether it takes these properties beside ours; nothing is sent to a broker.

    Args:
        properties: librdkafka's names and values.
        name: how the user wrote the setting.

    Raises:
        ConfigurationError: librdkafka does not know a property, or refuses a value.
    """
    _check_files(properties, name)
    silent = logging.getLogger("connector.settings.librdkafka")
    silent.disabled = True  # warnings are the real client's to say
    ours = {"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random", "message.timeout.ms": 0}
    try:
        Producer({**ours, **properties, "logger": silent})
    except KafkaException as error:
        raise _refusal(name, _mask_secrets(error.args[0].str(), properties)) from None
    except (TypeError, ValueError, AttributeError):  # names that the Python client keeps for objects
        raise _refusal(name, "a property is no librdkafka property but takes a Python object") from None


def _check_files(properties: Mapping[str, Property], name: str) -> None:
    """Name a file that is missing or unreadable: librdkafka says ``BIO lib``, and not which one."""
    for key, value in properties.items():
        if not key.endswith(".location") or value == _SEARCHED:
            continue
        try:
            path = Path(str(value))
            if not path.is_dir():
                path.open("rb").close()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _refusal(name, _mask_secrets(f"{key}: cannot read {value} ({why})", properties)) from None


def documentation() -> str:
    """The text of ``docs/settings.md``."""
    rows = [
        f"| `{name}` | {f'`{default}`' if default else 'none'} | {sentence.replace('|', '&#124;')} |"
        for name, default, sentence in Settings.describe()
    ]
    return "\n".join([*_INTRODUCTION, "| Setting | Default | Meaning |", "|---|---|---|", *rows, ""])


_INTRODUCTION: Final = (
    "# Settings",
    "",
    "Generated by `python -m tools.reference settings > docs/settings.md`; do not edit.",
    "",
    (
        "A setting comes from a flag, else from the environment, else from the YAML file of `--config`, else from its "
        "default. In the file, `WEDA_KAFKA__BOOTSTRAP_SERVERS` is `bootstrap_servers` under `kafka`, and `WEDA_TOKEN` "
        "is `token`. Any variable with `_FILE` at its end (`WEDA_TOKEN_FILE`) names a file that holds the value; "
        "setting both is an error. What says JSON is JSON in the environment and plain YAML in the file. An unknown or "
        "bad setting stops the start with exit code 2 and one line that names it. `weda-connector config` shows what "
        "is in effect, with secrets redacted; `weda-connector config --schema` prints the JSON Schema of the file."
    ),
    "",
)


@dataclass(frozen=True, slots=True)
class _Written:
    """A value and the name under which the user wrote it."""

    name: str
    value: object


@cache
def _known_settings() -> dict[str, FieldInfo]:
    """Every setting by its dotted name, in the order of the models."""
    return dict(_walk(Settings, ""))


def _walk(group: type[_Group], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in group.model_fields.items():
        if _is_group(field):
            yield from _walk(field.annotation, f"{name}.")  # type: ignore[arg-type] # _is_group has said so
        else:
            yield prefix + name, field


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, _Group)


def _show_default(field: FieldInfo) -> str:
    """The default as it could be written in the environment; empty text where there is none."""
    default = field.default
    if default is None:
        return ""
    if _SIZE_READER in field.metadata:
        return _show_size(default)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, dict):
        return json.dumps(
            {name: value.model_dump(mode="json", exclude_defaults=True) for name, value in default.items()}
        )
    return str(default)


def _show_size(count: int) -> str:
    """Bytes in the largest unit that divides them: 524288 → ``512KiB``."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count % _KIB**power == 0:
            return f"{count // _KIB**power}{unit}"
    return str(count)


def _read_environment(environment: Mapping[str, str], needed: Collection[str]) -> dict[str, _Written]:
    known = {environment_name(setting): setting for setting in _known_settings()}
    written = {}
    for variable in sorted(name for name in environment if name.startswith(_PREFIX)):
        name = variable if variable in known else variable.removesuffix(_BY_FILE)
        if name not in known:
            raise _refusal(variable, f"unknown setting; {_nearest(variable.upper(), known)}")
        if name != variable and name in environment:
            raise _refusal(variable, f"{name} is set as well; keep one of the two")
        if known[name] not in needed:
            continue
        text = environment[variable] if name == variable else _read_value(variable, environment[variable])
        written[known[name]] = _Written(variable, _parse_text(variable, known[name], text))
    return written


def _read_flags(flags: Mapping[str, object]) -> dict[str, _Written]:
    known = _known_settings()
    written = {}
    for setting, value in flags.items():
        name = f"flag: {setting}"
        if setting not in known:
            raise _refusal(name, f"unknown setting; {_nearest(setting, known)}")
        if value is not None:
            parsed = _parse_text(name, setting, value) if isinstance(value, str) else value
            written[setting] = _Written(name, parsed)
    return written


def _read_file(file: Path | None) -> dict[str, _Written]:
    if file is None:
        return {}
    known = _known_settings()
    written = {}
    for setting, value in _flatten(_load_yaml(file)):
        name = f"file: {setting}"
        if setting not in known:
            group, dot, _ = setting.rpartition(".")
            beside = [other for other in known if other.startswith(group + dot)] if dot else Settings.model_fields
            raise _refusal(name, f"unknown setting; {_nearest(setting, beside)}")
        written[setting] = _Written(name, value)
    return written


def _load_yaml(file: Path) -> Mapping[object, object]:
    """The tree of a configuration file; an empty file is an empty tree."""
    text = _read_text("file", file)
    try:
        _refuse_repeated(yaml.compose(text, Loader=yaml.SafeLoader))
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # The library's own words may quote the text around the problem, and that may be a secret.
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _refusal("file", f"{file} is not YAML{where}; quote values that hold special characters") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _refusal("file", f"{file} is not YAML that can be read; quote values that are no numbers") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise _refusal("file", f"{file} must hold settings by name, such as `kafka:`")
    return tree


def _refuse_repeated(root: yaml.Node | None) -> None:
    """YAML would let the last of two equal names win, and a group written twice would lose its first half."""
    waiting = [("file: ", root)]
    seen = set()  # an alias can lead back to where it stands
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, yaml.MappingNode) or id(node) in seen:
            continue
        seen.add(id(node))
        names = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):  # the loader refuses it
                continue
            if key.value in names:
                raise _refusal(f"{path}{key.value}", f"is written twice, again at line {key.start_mark.line + 1}")
            names.add(key.value)
            waiting.append((f"{path}{key.value}.", value))


def _flatten(tree: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """Dotted names and values of a file's tree, in its order; a group left empty has none."""
    for name, value in tree.items():
        if "." in str(name):
            raise _refusal(
                f"file: {name}", "write the name after the dot on a line of its own, indented below its group"
            )
        field = Settings.model_fields.get(str(name))
        if field is None or not _is_group(field):
            yield str(name), value
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", nested) for inner, nested in value.items())
        elif value is not None:
            raise _refusal(f"file: {name}", "must hold settings by name, indented below it")


def _read_value(variable: str, path: str) -> str:
    """The text of the file that a ``…_FILE`` variable names, without the newline at its end."""
    return _read_text(variable, Path(path)).removesuffix("\n").removesuffix("\r")


def _read_text(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _refusal(name, f"{path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise _refusal(name, f"{path} cannot be read: {reason}") from None


def _parse_text(name: str, setting: str, text: str) -> object:
    """What text from the environment or a flag means: JSON for what is built of parts, else the text itself."""
    kind = get_origin(_known_settings()[setting].annotation)
    if kind is tuple and not text.lstrip().startswith("["):
        return tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if kind not in {tuple, dict}:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _refusal(name, f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        raise _refusal(name, "is not JSON that can be read") from None


def _build_tree(written: Mapping[str, _Written]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for setting, value in written.items():
        group, _, name = setting.rpartition(".")
        branch = tree.setdefault(group, {}) if group else tree
        branch[name] = value.value
    return tree


def _refuse_pair(small: tuple[str, float], large: tuple[str, float]) -> NoReturn:
    problem = f"{small[0]} ({small[1]:g}) must be less than {large[0]} ({large[1]:g})"
    raise PydanticCustomError("between_settings", "{problem}", {"problem": problem, "settings": (small[0], large[0])})


def _refuse(settings: tuple[str, str], why: str) -> NoReturn:
    problem = f"{settings[0]} and {settings[1]} {why}"
    raise PydanticCustomError("between_settings", "{problem}", {"problem": problem, "settings": settings})


def _translate(problem: ErrorDetails, written: Mapping[str, _Written]) -> ConfigurationError:
    """Pydantic's problem as ours: named as the user wrote it, without the value."""
    if problem["type"] == "between_settings":
        pair = problem["ctx"]["settings"]
        guilty = next((setting for setting in pair if setting in written), pair[0])
        return _refusal(_name_as_written(guilty, written), problem["msg"])
    place = [str(step) for step in problem["loc"] if step != "[key]"]
    depth = 1 if place[0] in _known_settings() else 2
    inner = ".".join(place[depth:])
    return _refusal(_name_as_written(".".join(place[:depth]), written), f"{inner} {_say(problem)}".strip())


def _say(problem: ErrorDetails) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":  # only a source has parts that can be unknown this deep
        return f"is unknown; {_nearest(str(problem['loc'][-1]), Source.model_fields)}"
    text = problem["msg"].removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _name_as_written(setting: str, written: Mapping[str, _Written]) -> str:
    return written[setting].name if setting in written else environment_name(setting)


def _check_promise(name: str, value: str) -> None:
    """Refuse a librdkafka property that would break what the connector promises."""
    plain = _plain(name)
    if plain.startswith("test.mock."):
        raise ValueError(f"{name} must not be set: use WEDA_KAFKA__BOOTSTRAP_SERVERS={EMBEDDED}")
    allowed, why = _PROMISED.get(plain, ((value,), ""))
    if value in allowed:
        return
    wanted = f"must be {allowed[0]}" if allowed else "must not be set"
    raise ValueError(f"{name} {wanted}: {why}")


def _plain(name: str) -> str:
    """One name for what librdkafka takes under several; its topic properties it takes under ``topic.`` too."""
    plain = name.removeprefix("topic.")
    return _ALIASES.get(plain, plain)


def _mask_secrets(text: str, properties: Mapping[str, Property]) -> str:
    for name, value in properties.items():
        if _SECRETIVE.search(name) and str(value):
            text = text.replace(str(value), REDACTED)
    return text


def _nearest(name: str, known: Iterable[str]) -> str:
    return f"the nearest known one is {difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)[0]}"


def _refusal(name: str, problem: str) -> ConfigurationError:
    """One line, whatever control characters the user's names hold."""
    line = "".join(letter if letter.isprintable() else " " for letter in f"{name}: {problem}")
    return ConfigurationError(" ".join(line.split()))
