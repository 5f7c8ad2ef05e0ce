"""Writes a first configuration file: every setting with its description, the important ones set from a probe."""

import secrets
import socket
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from connector.endpoints import TOKEN_HEADER
from connector.errors import ConnectorError
from connector.kafka.topics import DURABLE_REPLICATION, TopicAdmin
from connector.settings import EMBEDDED, Settings

DEFAULT_SERVERS: Final = "localhost:9092"
DEFAULT_REGISTRY: Final = "http://localhost:8081"

_BROKERS_SECONDS: Final = 3.0
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
class Environment:
    """What the probe found.

    Attributes:
        bootstrap_servers: The brokers' addresses, also if no broker answered.
        brokers: How many brokers there are; 0 if none answered.
        problem: Why no broker answered; empty if one did.
        registry_url: The schema registry, or None if none was given and none answered.
    """

    bootstrap_servers: str
    brokers: int
    problem: str
    registry_url: str | None


def probe(bootstrap_servers: str | None, registry_url: str | None, properties: Mapping[str, Any]) -> Environment:
    """Look for brokers and a registry at the given addresses, or at the default ones."""
    servers = bootstrap_servers or DEFAULT_SERVERS
    if servers == EMBEDDED:
        return Environment(servers, 1, "", registry_url)
    is_given = bootstrap_servers is not None
    # Asking Kafka takes seconds if nobody answers. At the default address a closed port says so at once.
    may_answer = is_given or _is_listening(servers)
    brokers, problem = _count_brokers(servers, properties) if may_answer else (0, "nobody listens")
    registry = registry_url or (DEFAULT_REGISTRY if _is_registry(DEFAULT_REGISTRY) else None)
    return Environment(servers, brokers, problem, registry)


def render(environment: Environment, file: str, *, token: str | None = None) -> str:
    """Return the text of a configuration file.

    Args:
        environment: What the probe found.
        file: The file's name, for the commands in its first lines.
        token: The token of the source ``default``; None generates one.
    """
    chosen: dict[str, Any] = {
        "kafka.bootstrap_servers": environment.bootstrap_servers,
        "token": token or secrets.token_urlsafe(_TOKEN_BYTES),
    }
    # Otherwise it is not set, and the brokers' default applies.
    if environment.brokers >= DURABLE_REPLICATION:
        chosen["topics.replication_factor"] = DURABLE_REPLICATION
    if environment.registry_url is not None:
        chosen |= {"registry.url": environment.registry_url, "registry.auto_register": True}
    head = [f"# {line}" for line in _HEAD.format(file=file).splitlines()]
    lines = [*head, *_settings(chosen, _remarks(environment))]
    return "\n".join(lines) + "\n"


def _remarks(environment: Environment) -> dict[str, str]:
    """Return sentences that depend on the probe, by setting."""
    if not environment.brokers:
        brokers = f"Not reached when this was written ({environment.problem}): put the right address here."
    elif environment.brokers < DURABLE_REPLICATION:
        brokers = f"{environment.brokers} found: with fewer than 3 brokers, losing one can lose acknowledged records."
    else:
        brokers = f"{environment.brokers} found."
    return {"kafka.bootstrap_servers": brokers, "token": f"Generated: WeDa sends it as {TOKEN_HEADER}."}


def _settings(chosen: Mapping[str, Any], remarks: Mapping[str, str]) -> Iterator[str]:
    # Lists every setting by its description in the code, so the file cannot miss one.
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
            # lists and mappings as YAML, other values as in docs/settings.md
            value = (defaults[before] if before else defaults)[name]
            has_parts = isinstance(value, list | dict)
            yield f"{indent}# {_line(name, value) if has_parts else f'{name}: {default}'}".rstrip()


def _line(name: str, value: Any) -> str:
    # In flow style a mapping of one key is "{name: value}" on one line; the braces are cut off.
    return str(yaml.safe_dump({name: value}, allow_unicode=True, default_flow_style=True, width=10_000)).strip()[1:-1]


def _comment(text: str, indent: str) -> Iterator[str]:
    for part in textwrap.wrap(text, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {part}"


def _count_brokers(servers: str, properties: Mapping[str, Any]) -> tuple[int, str]:
    try:
        return TopicAdmin(servers, properties).brokers(_BROKERS_SECONDS), ""
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
