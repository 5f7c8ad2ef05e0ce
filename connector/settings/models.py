"""The settings in their groups: names, defaults, descriptions, and rules that involve more than one setting."""

import json
import os
import re
from collections.abc import Collection, Mapping
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from connector.message.schemas import WORKFLOW_EVENT, kinds
from connector.message.schemas import load as load_schema
from connector.settings.librdkafka import SECRETIVE, check_promise, check_properties, plain_name
from connector.settings.load import (
    PREFIX,
    RawSetting,
    build_tree,
    config_file,
    environment_name,
    known_settings,
    read_environment,
    read_file,
    read_flags,
    show_default,
    translate,
)
from connector.settings.parts import add_parts, is_part, names_file
from connector.settings.signing_secrets import WINDOW_SECONDS
from connector.settings.types import (
    INT32,
    INT64,
    KIB,
    REDACTED,
    CertificateName,
    DatabaseUrl,
    Environment,
    FieldName,
    Group,
    Key,
    NetworkName,
    Number,
    Port,
    Property,
    PropertyName,
    Seconds,
    Secret,
    Size,
    SourceName,
    Stream,
    Text,
    Token,
    WebhookSecret,
    check_file_name,
    check_timezone,
    check_url,
    reject_boolean,
)
from connector.values import DEFAULT_SOURCE

NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})
_TOPIC_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,236}")  # Kafka's 249 less `.dead-letters`, the longest suffix
_MAX_PREFIX_CHARS: Final = 236
_KINDS: Final = kinds(load_schema(WORKFLOW_EVENT))


class Kafka(Group):
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
        "promise. One property alone: `WEDA_KAFKA__PROPERTIES__SASL_PASSWORD` is `sasl.password`.",
    )
    publish_wait_seconds: Seconds = Field(
        default=0.4,
        gt=0,
        description="How long an answer waits for Kafka, in seconds, before the message goes to the journal; "
        "less than the reply deadline.",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _reject_credentials(cls, servers: str | None) -> str | None:
        if servers is not None and "@" in servers:
            raise ValueError("must not hold a credential: user and password are properties (WEDA_KAFKA__PROPERTIES)")
        return servers

    @field_validator("properties")
    @classmethod
    def _keep_promises(cls, properties: dict[str, Property]) -> dict[str, Property]:
        for name, value in properties.items():
            check_promise(name, str(value).strip().lower())  # JSON's true is Python's True
        return properties

    @field_serializer("properties", when_used="json")
    def _mask(self, properties: dict[str, Property]) -> dict[str, Property]:
        return {name: REDACTED if SECRETIVE.search(name) else value for name, value in properties.items()}


class Topics(Group):
    """The topics that the connector creates where they are missing."""

    prefix: str = Field(
        default="weda.workflow",
        description="What the names of all topics start with; may hold `{source}` and `{envType}`.",
    )
    partitions: Number = Field(default=12, ge=1, le=INT32, description="Partitions of a topic at its creation.")
    replication_factor: Annotated[int, Field(ge=1, le=32767), BeforeValidator(reject_boolean)] | None = Field(
        default=None, description="Replicas of a topic at its creation; none means the broker's default."
    )
    retention_ms: Number = Field(
        default=30 * 24 * 3600 * 1000,
        ge=-1,
        le=INT64,
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
        if retention_ms == 0:  # Kafka accepts it, and deletes records as soon as it can
            raise ValueError("must be more than 0, or -1 to keep records for ever")
        return retention_ms


class Registry(Group):
    """The schema registry, where there is one: anything that speaks Confluent's API."""

    url: Annotated[str, AfterValidator(check_url)] | None = Field(
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


class Journal(Group):
    """The durable store of what is accepted and not yet published."""

    path: Annotated[Path, AfterValidator(check_file_name)] = Field(
        default=Path("var/journal.db"), description="File of the journal, on a disk that survives a restart."
    )
    max_bytes: Size = Field(
        default=KIB**3,
        ge=KIB**2,
        le=INT64,
        description="Most that the journal may take on disk, in bytes or as text such as `512MiB`; at least `1MiB`. "
        "Of a shared journal: most that waits in it, for all replicas together.",
    )
    url: DatabaseUrl | None = Field(
        default=None,
        description="Address of a PostgreSQL database in which replicas share their journal, such as "
        "`postgresql://weda@db/weda?sslmode=verify-full`, with any parameter of libpq. None means a file of this "
        "connector's own, at the path.",
    )


class Receiver(Group):
    """The public listener, where sources send messages."""

    host: Text = Field(default="0.0.0.0", description="Address that the public listener binds to.")
    port: Port = Field(default=8080, description="Port of the public listener; 0 means any free one.")
    max_body_bytes: Size = Field(
        default=512 * KIB,
        ge=KIB,
        le=INT32,
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


class Repeats(Group):
    """The memory of what was seen, by which a repeat is known."""

    window_seconds: Seconds = Field(default=3600, gt=0, description="How long a message is remembered, in seconds.")
    max_entries: Number = Field(default=1_000_000, ge=1, description="How many messages are remembered at most.")


class Source(Group):
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
    rate: Annotated[float, Field(gt=0, le=INT32), BeforeValidator(reject_boolean)] | None = Field(
        default=None, description="Requests a second that the source may send; none means as many as fit."
    )
    env_types: tuple[Environment, ...] = Field(
        default=(),
        description="Values of `envType` that the source may send; none means any, or `pre` and `prod` where the "
        "topics' prefix holds `{envType}`.",
    )
    answers: Literal["status", "code-only"] = Field(
        default="status",
        description="What tells the source whether its message was accepted: the HTTP status and `code`, or `code` "
        "alone, with HTTP status 200 always, for a platform that reads no body of another status.",
    )

    @property
    def has_credential(self) -> bool:
        """Whether anything identifies the source; a network alone does not."""
        return bool(self.tokens or self.secrets or self.certificates)


class Privacy(Group):
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


class Operations(Group):
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
    url: Annotated[str, AfterValidator(check_url)] = Field(
        default="http://127.0.0.1:9464",
        description="Where commands reach the operations listener of a running connector.",
    )


class Canary(Group):
    """A message of our own that goes the whole way every now and then and is read back."""

    enabled: bool = Field(
        default=False,
        description="Whether the connector sends itself messages, to the topic `<prefix>.canary`, and reads them back.",
    )
    interval_seconds: Seconds = Field(default=15, ge=1, description="Seconds from one such message to the next.")


class Tracing(Group):
    """Traces by OpenTelemetry; where they go is said by the standard's own variables (``OTEL_…``)."""

    enabled: bool = Field(
        default=False,
        description="Whether requests and records are traced; needs the extra `otlp`. Endpoint and sampler are set by "
        "OpenTelemetry's own variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.",
    )


class Log(Group):
    """What the connector writes about itself."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is written: `debug`, `info`, `warning` or `error`."
    )
    format: Literal["json", "console"] | None = Field(
        default=None, description="`json` or `console`; none means console on a terminal and json elsewhere."
    )


class EffectiveSetting(NamedTuple):
    """A setting as commands and the console show it.

    Attributes:
        variable: The environment variable, such as ``WEDA_KAFKA__BOOTSTRAP_SERVERS``.
        value: The JSON value, with secrets redacted.
        origins: The variables, the file or the flag that the value comes from; empty for a default.
    """

    variable: str
    value: Any
    origins: tuple[str, ...]

    @property
    def text(self) -> str:
        """The value in one line: text as it is, anything else as JSON."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)


class Settings(Group):
    """All settings of one connector."""

    _origins: Mapping[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    kafka: Kafka = Field(default=Kafka(), description="The brokers.")
    streams: tuple[Stream, ...] = Field(
        default=("events", "instances", "tasks"),
        min_length=1,
        description="Streams to publish, comma-separated or JSON: "
        "`events`, `instances`, `tasks`, `state`, `flat`, `flat-state`.",
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
        description='Calling systems by name (JSON), such as `{"hr": {"tokens": ["…"]}}`. The credentials of one '
        "alone: `WEDA_SOURCES__HR__TOKENS` and `WEDA_SOURCES__HR__SECRETS`, one a line.",
    )
    auth: Literal["required", "none"] = Field(
        default="required",
        description="`required`, or `none` to accept requests without a credential beyond loopback too.",
    )
    operations: Operations = Field(default=Operations(), description="The operations listener.")
    canary: Canary = Field(default=Canary(), description="The canary.")
    privacy: Privacy = Field(default=Privacy(), description="What of a message the topics do not get to see.")
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field(
        default="Asia/Shanghai", description="Time zone of dates that come without one."
    )
    tracing: Tracing = Field(default=Tracing(), description="Traces.")
    log: Log = Field(default=Log(), description="The log.")

    @field_validator("streams")
    @classmethod
    def _reject_duplicates(cls, streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
        if len(set(streams)) < len(streams):
            raise ValueError("must name each stream once")
        return streams

    @field_validator("sources")
    @classmethod
    def _add_token(cls, sources: dict[str, Source], info: ValidationInfo) -> dict[str, Source]:
        token: SecretStr | None = info.data.get("token")  # validated before: the field is declared above `sources`
        default = sources.get(DEFAULT_SOURCE, Source())
        if token is not None and token not in default.tokens:
            sources = {**sources, DEFAULT_SOURCE: default.model_copy(update={"tokens": (*default.tokens, token)})}
        if not sources:
            raise ValueError("must name at least one source")
        return sources

    @model_validator(mode="after")
    def _check_between(self) -> Self:
        if self.kafka.publish_wait_seconds >= self.receiver.reply_deadline_seconds:
            _reject_pair(
                ("kafka.publish_wait_seconds", self.kafka.publish_wait_seconds),
                ("receiver.reply_deadline_seconds", self.receiver.reply_deadline_seconds),
            )
        if self.receiver.max_body_bytes >= self.journal.max_bytes:
            _reject_pair(
                ("receiver.max_body_bytes", self.receiver.max_body_bytes),
                ("journal.max_bytes", self.journal.max_bytes),
            )
        timed = next((name for name in self.kafka.properties if plain_name(name) == "message.timeout.ms"), None)
        if self.journal.url is not None and timed is not None:
            why = f"contradict each other: where replicas share a journal the connector sets {timed}; leave it out"
            _reject(("kafka.properties", "journal.url"), why)
        if (self.registry.username is None) != (self.registry.password is None):
            _reject(("registry.username", "registry.password"), "go together: both or none")
        if self.registry.key_location is not None and self.registry.certificate_location is None:
            _reject(("registry.key_location", "registry.certificate_location"), "go together")
        if (self.privacy.key is None) != (not self.privacy.pseudonyms):
            _reject(("privacy.pseudonyms", "privacy.key"), "go together: both or none")
        if self._longest_prefix > _MAX_PREFIX_CHARS:
            _reject(("topics.prefix", "sources"), "make a topic's name longer than Kafka takes (249 letters)")
        return self

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        """Check that a signed request is remembered while it is valid: 5 minutes before and after its time."""
        valid = 2 * WINDOW_SECONDS
        if self.repeats.window_seconds < valid and any(source.secrets for source in self.sources.values()):
            why = f"contradict each other: where a source has secrets, what it signed is to be remembered for {valid} s"
            _reject(("repeats.window_seconds", "sources"), why)
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        for name, group in (("receiver", self.receiver), ("operations", self.operations)):
            if group.tls_certificate is None and group.tls_key is not None:
                _reject((f"{name}.tls_key", f"{name}.tls_certificate"), "go together")
        if self.receiver.tls_certificate is None and self.receiver.tls_client_ca is not None:
            _reject(("receiver.tls_client_ca", "receiver.tls_certificate"), "go together")
        if self.receiver.tls_client_ca is None and any(source.certificates for source in self.sources.values()):
            _reject(("sources", "receiver.tls_client_ca"), "go together where a source has certificates")
        return self

    @property
    def _longest_prefix(self) -> int:
        environments = [name for source in self.sources.values() for name in source.env_types]
        environment = max([*environments, "prod"], key=len)
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
        """Read the effective settings.

        Args:
            environment: Variables by name; those that start with ``WEDA_`` are ours.
            file: YAML file with the same tree in lower case; None means the one that ``WEDA_CONFIG`` names, if any.
            flags: Values by dotted name, such as ``kafka.bootstrap_servers``; None means the flag was not given.
            only: Dotted names of the settings that the caller needs; others are neither read nor checked, since they
                may be incomplete. Empty means all.

        Raises:
            ConfigurationError: The first problem, in one line that names the setting as the user wrote it.
        """
        needed = frozenset(only or known_settings(cls))
        read = cls._read(environment, file, flags, needed)
        written = add_parts({name: value for name, value in read.items() if name in needed}, environment, needed)
        try:
            settings = cls.model_validate(build_tree(written))
        except ValidationError as error:
            # Raised `from None`: pydantic's error holds the input, which may be a secret.
            problem = error.errors(include_url=False, include_input=False)[0]
            raise translate(cls, problem, written, parts=Source.model_fields) from None
        if settings.kafka.properties:
            properties = written["kafka.properties"]
            check_properties(settings.kafka.properties, name=properties.name, parts=properties.parts)
        settings._origins = _origins(read, written, config_file(environment, file))  # noqa: SLF001 - of this class
        return settings

    def __eq__(self, other: object) -> bool:
        """Whether every value is the same, whatever its origin."""
        return isinstance(other, Settings) and self.__dict__ == other.__dict__

    __hash__ = Group.__hash__

    def shown(self) -> dict[str, EffectiveSetting]:
        """Every setting by its dotted name, with its value and its origins."""
        tree, settings = self.redacted(), {}
        for name in known_settings(type(self)):
            group, _, last = name.rpartition(".")
            value = (tree[group] if group else tree)[last]
            settings[name] = EffectiveSetting(environment_name(name), value, self._origins.get(name, ()))
        return settings

    @classmethod
    def _read(
        cls,
        environment: Mapping[str, str],
        file: Path | None,
        flags: Mapping[str, object],
        needed: Collection[str],
    ) -> dict[str, RawSetting]:
        """Every setting as written where it takes precedence; without the variables that set a part of a setting."""
        whole = {name: text for name, text in environment.items() if not is_part(name)}
        return {
            **read_file(cls, config_file(environment, file)),
            **read_environment(cls, whole, needed),
            **read_flags(cls, flags),
        }

    @staticmethod
    def files(*, environment: Mapping[str, str] = os.environ, file: Path | None = None) -> tuple[Path, ...]:
        """The files that `load` reads: the configuration file, and those that ``…_FILE`` variables name."""
        named = [Path(path) for name, path in environment.items() if name.startswith(PREFIX) and names_file(name)]
        config = config_file(environment, file)
        return tuple(named if config is None else [config, *named])

    @property
    def credentials_exist(self) -> bool:
        """Whether any source has a credential."""
        return any(source.has_credential for source in self.sources.values())

    def rotated(self, newer: "Settings") -> "Settings":
        """Return these settings with the newer values of those that may change while the connector runs.

        They are credentials, rates, networks and kind of answers of existing sources, the operations token, the key of
        pseudonyms and the properties of the Kafka clients. A removed source keeps its name and has no credential.
        """
        # A source's `env_types` stay: the routes, and so the topics, are made from them at the start.
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
        """The variables of the settings whose value differs in ``newer``."""
        return tuple(
            environment_name(name)
            for name in known_settings(type(self))
            if attrgetter(name)(self) != attrgetter(name)(newer)
        )

    def redacted(self) -> dict[str, Any]:
        """The settings as JSON values, with every secret replaced by ``********``."""
        return self.model_dump(mode="json")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON Schema (2020-12) of a configuration file."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """The variable, the default as text and the description of each setting."""
        return [
            (environment_name(setting), show_default(field), field.description or "")
            for setting, field in known_settings(cls).items()
        ]


def _origins(
    read: Mapping[str, RawSetting], written: Mapping[str, RawSetting], file: Path | None
) -> dict[str, tuple[str, ...]]:
    """Dotted name → the variables, the flag or the file that the value comes from; defaults are left out."""
    origins = {}
    for name, raw in written.items():
        whole = [read[name].name] if name in read else []
        places = [str(file) if place.startswith("file: ") else place for place in whole]
        origins[name] = (*places, *raw.parts.values())
    return origins


def _reject_pair(small: tuple[str, float], large: tuple[str, float]) -> NoReturn:
    problem = f"{small[0]} ({small[1]:g}) must be less than {large[0]} ({large[1]:g})"
    raise PydanticCustomError("between_settings", "{problem}", {"problem": problem, "settings": (small[0], large[0])})


def _reject(settings: tuple[str, str], why: str) -> NoReturn:
    problem = f"{settings[0]} and {settings[1]} {why}"
    raise PydanticCustomError("between_settings", "{problem}", {"problem": problem, "settings": settings})
