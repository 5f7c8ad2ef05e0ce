"""A first configuration, drafted for what is found: every setting with its sentence, those that matter filled in."""

import secrets
import socket
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from connector.errors import ConnectorError
from connector.kafka.topics import DURABLE_REPLICATION, TopicAdmin
from connector.message.weda import TOKEN_HEADER
from connector.settings import EMBEDDED, Settings

USUAL_SERVERS: Final = "localhost:9092"
USUAL_REGISTRY: Final = "http://localhost:8081"

_SECONDS: Final = 3.0
_CONNECT_SECONDS: Final = 0.5
_TOKEN_BYTES: Final = 24
_WIDTH: Final = 100
_PREFIX: Final = "WEDA_"
_HEAD: Final = (
    "Configuration of the WeDa to Kafka connector, written by `weda-connector init`.\n"
    "What starts with # is not set: it shows the default. The environment (WEDA_…) wins over this file.\n"
    "It holds a token: keep it readable for its owner only.\n"
    "Next: weda-connector doctor --config {file}; then weda-connector serve --config {file}"
)


@dataclass(frozen=True, slots=True)
class Found:
    """What is there.

    Attributes:
        bootstrap_servers: The brokers' addresses; those that were named, whether they answer or not.
        brokers: How many there are; 0 where none answered.
        problem: Why none did.
        registry_url: The schema registry, or None where none was named or answered.
    """

    bootstrap_servers: str
    brokers: int
    problem: str
    registry_url: str | None


def look(bootstrap_servers: str | None, registry_url: str | None, properties: Mapping[str, Any]) -> Found:
    """Look for brokers and a registry: where they were named, else where they usually are."""
    servers = bootstrap_servers or USUAL_SERVERS
    if servers == EMBEDDED:
        return Found(servers, 1, "", registry_url)
    named = bootstrap_servers is not None
    brokers, problem = _count_brokers(servers, properties) if named or _is_listening(servers) else (0, "nobody listens")
    registry = registry_url or (USUAL_REGISTRY if _is_registry(USUAL_REGISTRY) else None)
    return Found(servers, brokers, problem, registry)


def draft(found: Found, file: str, *, token: str | None = None) -> str:
    """The text of a configuration file.

    Args:
        found: What is there.
        file: The file's name, for the commands that its head shows.
        token: Of the source ``default``; None makes one.
    """
    chosen: dict[str, Any] = {
        "kafka.bootstrap_servers": found.bootstrap_servers,
        "token": token or secrets.token_urlsafe(_TOKEN_BYTES),
    }
    if found.brokers >= DURABLE_REPLICATION:
        chosen["topics.replication_factor"] = DURABLE_REPLICATION
    if found.registry_url is not None:
        chosen |= {"registry.url": found.registry_url, "registry.auto_register": True}
    head = [f"# {line}" for line in _HEAD.format(file=file).splitlines()]
    lines = [*head, *_settings(chosen, _remarks(found))]
    return "\n".join(lines) + "\n"


def _remarks(found: Found) -> dict[str, str]:
    """What else is to be said of a setting, for what was found."""
    if not found.brokers:
        brokers = f"Not reached when this was written ({found.problem}): put the right address here."
    elif found.brokers < DURABLE_REPLICATION:
        brokers = f"{found.brokers} found: fewer than 3 brokers lose acknowledged records with one of them."
    else:
        brokers = f"{found.brokers} found."
    return {"kafka.bootstrap_servers": brokers, "token": f"Made for you: WeDa sends it as {TOKEN_HEADER}."}


def _settings(chosen: Mapping[str, Any], remarks: Mapping[str, str]) -> Iterator[str]:
    defaults, group = Settings().redacted(), ""
    for variable, default, sentence in Settings.describe():
        setting = variable.removeprefix(_PREFIX).lower().replace("__", ".")
        before, _, name = setting.rpartition(".")
        if before != group or not before:
            yield ""
        if before and before != group:
            yield f"{before}:"
        group, indent = before, "  " if before else ""
        yield from _comment(f"{sentence} {remarks.get(setting, '')}".strip(), indent)
        if setting in chosen:
            yield f"{indent}{_line(name, chosen[setting])}"
        else:
            # what is built of parts as YAML has it, the rest as the documents do
            value = (defaults[before] if before else defaults)[name]
            has_parts = isinstance(value, list | dict)
            yield f"{indent}# {_line(name, value) if has_parts else f'{name}: {default}'}".rstrip()


def _line(name: str, value: Any) -> str:
    return str(yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=True, width=10_000)).strip()[1:-1]


def _comment(text: str, indent: str) -> Iterator[str]:
    for part in textwrap.wrap(text, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {part}"


def _count_brokers(servers: str, properties: Mapping[str, Any]) -> tuple[int, str]:
    try:
        return TopicAdmin(servers, properties).brokers(_SECONDS), ""
    except ConnectorError as error:
        return 0, error.message


def _is_listening(servers: str) -> bool:
    host, _, port = servers.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _is_registry(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=_CONNECT_SECONDS) as answer:  # noqa: S310 - ours, http
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (OSError, ValueError, urllib.error.URLError):
        return False
