"""The schema registry: ids of our schemas, resolved at the start, cached on disk, never requested on the hot path."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import structlog
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.common.schema_registry_client import ConfigCompatibilityLevel, ServerConfig
from confluent_kafka.schema_registry.error import SchemaRegistryError

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable, Unreadable
from connector.message import schemas
from connector.message.compatibility import incompatibilities
from connector.message.routes import Route
from connector.message.schemas import Schema
from connector.settings import Registry as RegistrySettings

COMPATIBILITY: Final = "FULL_TRANSITIVE"
"""The compatibility of a new subject: any version can read any other."""

_SECONDS: Final = 5.0
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_DENIED: Final = frozenset({401, 403})
_LOG = structlog.get_logger()


class Unregistered(ConnectorError):
    """Subjects that the topics need are missing from the registry, or have another schema."""

    stage = "registry"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject in the registry."""

    number: int
    schema_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The schema ids that the framing of records needs.

    Attributes:
        ids: Topic → the id of the schema of its records.
        from_registry: Whether the registry has returned the ids now; otherwise they are those of the last start.
    """

    ids: Mapping[str, int]
    from_registry: bool


class Registry:
    """A schema registry that speaks Confluent's API. Blocking: from an event loop, call it in a thread.

    Every method raises :class:`OutsideUnreachable` if the registry does not answer or fails, and
    :class:`ConfigurationError` if it rejects the credentials.

    Args:
        settings: The registry's address, which must be set, and credentials.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self.url = settings.url or ""
        try:
            self._client = SchemaRegistryClient(_configuration(settings))
        except OSError as error:  # the client opens the files
            raise ConfigurationError(
                f"{', '.join(_files_named(settings))}: the registry's client cannot use the file ({error})"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def id_of(self, route: Route) -> int | None:
        """The id of the schema of a topic's records, or None if the subject does not have this schema."""
        with self._uncached():
            try:
                registered = self._client.lookup_schema(route.subject, _as_registered(route.schema))
            except SchemaRegistryError as error:
                if error.http_status_code == _NOT_FOUND:
                    return None
                raise
        return registered.schema_id

    def register(self, route: Route) -> int:
        """Register the schema of a topic's records and return its id; a new subject requires full compatibility.

        Raises:
            Unregistered: The registry finds it incompatible with an earlier version; the message names the field.
        """
        with self._uncached():
            is_new = not self._numbers(route.subject)
            if is_new:  # an existing subject keeps its own setting
                self._client.set_config(
                    route.subject, ServerConfig(compatibility=ConfigCompatibilityLevel(COMPATIBILITY))
                )
            try:
                return self._client.register_schema(route.subject, _as_registered(route.schema))
            except SchemaRegistryError as error:
                if error.http_status_code != _CONFLICT:
                    raise
                why = self.incompatibilities(route) or [str(error.error_message)]
        raise Unregistered(f"the registry rejects {route.subject}: {'; '.join(why)}")

    def versions(self, name: str) -> list[Version]:
        """The versions of a subject, oldest first; empty if the registry does not have the subject."""
        with self._uncached():
            entries = [self._client.get_version(name, number) for number in self._numbers(name)]
        return [Version(entry.version or 0, entry.schema_id or 0, entry.schema.schema_str or "") for entry in entries]

    def incompatibilities(self, route: Route) -> list[str]:
        """Why the schema and the registered versions of its subject cannot read each other, by field."""
        versions = self.versions(route.subject)
        complaints = [
            f"version {version.number}: {why}"
            for version in versions
            for why in incompatibilities(route.schema.text, version.text)
        ]
        if versions and not complaints and not self._accepts(route):
            complaints.append("the registry's own check finds it incompatible and does not say where")
        return complaints

    def schema(self, schema_id: int) -> Schema:
        """The schema with this id, for readers.

        Raises:
            Unreadable: The registry has no such schema, or it is not an Avro record.
        """
        # From the client's cache if possible: the schema of an id never changes.
        with self._translated():
            try:
                text = self._client.get_schema(schema_id).schema_str
            except SchemaRegistryError as error:
                if error.http_status_code == _NOT_FOUND:
                    raise Unreadable(f"the registry has no schema with the id {schema_id}") from error
                raise
        return schemas.parse(text or "")

    def _accepts(self, route: Route) -> bool:
        with self._translated():
            return bool(self._client.test_compatibility_all_versions(route.subject, _as_registered(route.schema)))

    def _numbers(self, name: str) -> list[int]:
        try:
            return list(self._client.get_versions(name))
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return []
            raise

    @contextmanager
    def _uncached(self) -> Iterator[None]:
        # The client would answer from its cache, even for a subject that was deleted since.
        self._client.clear_caches()  # type: ignore[no-untyped-call]
        with self._translated():
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SchemaRegistryError as error:
            if error.http_status_code in _DENIED:
                raise ConfigurationError(
                    f"WEDA_REGISTRY__USERNAME, WEDA_REGISTRY__PASSWORD: the registry {self.url} rejects the "
                    f"credentials ({error.http_status_code})"
                ) from error
            raise OutsideUnreachable(
                f"the registry {self.url} fails: {error.http_status_code} {error.error_message}"
            ) from error
        except ConnectorError:
            raise
        except Exception as error:  # whatever HTTP library the client uses
            raise OutsideUnreachable(
                f"the registry {self.url} does not answer ({type(error).__name__}): is WEDA_REGISTRY__URL right?"
            ) from error


@contextmanager
def schemas_by_id(settings: RegistrySettings | None) -> Iterator[Callable[[int], Schema] | None]:
    """Yield a function that returns the registry's schema of an id; None if no registry is set."""
    if settings is None or settings.url is None:
        yield None
        return
    with Registry(settings) as registry:
        yield registry.schema


def resolve(registry: Registry, routes: Iterable[Route], cache: Path, *, auto_register: bool) -> Resolved:
    """The ids of the topics' schemas, from the registry, or from the last start if the registry is away.

    Args:
        registry: The registry.
        routes: The routes to the topics that the connector writes.
        cache: File that keeps the ids for the next start.
        auto_register: Whether to register missing schemas.

    Raises:
        Unregistered: The registry lacks some schemas, and ``auto_register`` is off.
        OutsideUnreachable: The registry is away, and no earlier start has cached the ids.
    """
    routes = tuple(routes)
    try:
        if auto_register:
            ids = {route.topic: registry.register(route) for route in routes}
        else:
            ids = _registered_ids(registry, routes)
    except OutsideUnreachable as error:
        remembered = _remembered(registry.url, routes, cache)
        if remembered is None:
            raise OutsideUnreachable(f"{error.message}; no earlier start has left the ids of the schemas") from error
        _LOG.warning("the registry is away: the ids of the last start are used", reason=error.message)
        return Resolved(remembered, from_registry=False)
    _remember(registry.url, routes, ids, cache)
    return Resolved(ids, from_registry=True)


def _registered_ids(registry: Registry, routes: Iterable[Route]) -> dict[str, int]:
    ids = {route: registry.id_of(route) for route in routes}
    missing = [route.subject for route, schema_id in ids.items() if schema_id is None]
    if missing:
        raise Unregistered(
            f"the registry does not have our schemas of {', '.join(missing)}: "
            "run weda-connector schemas register, or set WEDA_REGISTRY__AUTO_REGISTER=true"
        )
    return {route.topic: schema_id for route, schema_id in ids.items() if schema_id is not None}


def _remembered(url: str, routes: Iterable[Route], cache: Path) -> dict[str, int] | None:
    """The ids of the last start, or None if it had another registry or other schemas."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        return {route.topic: int(content[url][_cache_key(route)]) for route in routes}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(url: str, routes: Iterable[Route], ids: Mapping[str, int], cache: Path) -> None:
    draft = cache.with_name(cache.name + ".part")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump({url: {_cache_key(route): ids[route.topic] for route in routes}}, file)
        draft.replace(cache)  # a crash leaves the old file or the new one, never a partial one
    except OSError as error:
        _LOG.warning("the ids of the schemas were not kept for the next start", error=str(error))


def _cache_key(route: Route) -> str:
    # With the schema's text: an upgrade that changes the schema must not write with the old id.
    return f"{route.subject} {sha256(route.schema.text.encode()).hexdigest()}"


def _as_registered(schema: Schema) -> RegistrySchema:
    return RegistrySchema(schema.text, "AVRO")


def _files_named(settings: RegistrySettings) -> Iterator[str]:
    for name in ("ca_location", "certificate_location", "key_location"):
        if getattr(settings, name) is not None:
            yield f"WEDA_REGISTRY__{name.upper()}"


def _configuration(settings: RegistrySettings) -> dict[str, Any]:
    files = {
        "ssl.ca.location": settings.ca_location,
        "ssl.certificate.location": settings.certificate_location,
        "ssl.key.location": settings.key_location,
    }
    configuration: dict[str, Any] = {"url": settings.url, "timeout": _SECONDS, "max.retries": 1, "retries.wait.ms": 200}
    configuration |= {name: str(path) for name, path in files.items() if path is not None}
    if settings.username is not None and settings.password is not None:
        configuration["basic.auth.user.info"] = f"{settings.username}:{settings.password.get_secret_value()}"
    return configuration
