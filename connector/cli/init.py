"""``init``: a commented configuration for what is found."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from connector.admin import template
from connector.admin.template import Found
from connector.cli.topics import Servers
from connector.errors import ConfigurationError
from connector.settings import Settings

_FILE: Final = Path("connector.yaml")


def init(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = _FILE,
    bootstrap_servers: Servers = None,
    registry_url: Annotated[str | None, typer.Option("--registry-url", help="A schema registry to use.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a configuration file: every setting with its meaning, those that matter filled in, a token made.

    Brokers and a registry are looked for where they are named (flags, environment), else at localhost:9092 and
    localhost:8081. On a terminal the brokers are asked for where none is found; elsewhere nothing is asked.

    \b
    Examples:
      weda-connector init
      weda-connector init --bootstrap-servers kafka:9092 --output connector.yaml
      weda-connector init --bootstrap-servers kafka:9092 --registry-url http://registry:8081

    Exit codes: 0 written, 2 bad usage or configuration, the file exists.
    """
    settings = Settings.load(flags={"kafka.bootstrap_servers": bootstrap_servers, "registry.url": registry_url})
    found = template.look(settings.kafka.bootstrap_servers, settings.registry.url, settings.kafka.properties)
    if not found.brokers and sys.stdin.isatty() and settings.kafka.bootstrap_servers is None:
        servers = typer.prompt("Kafka brokers, as host:port", default=found.bootstrap_servers)
        found = template.look(servers, settings.registry.url, settings.kafka.properties)
    token = None if settings.token is None else settings.token.get_secret_value()
    _write(output, template.draft(found, str(output), token=token), replace=force)
    Settings.load(file=output)  # what we write, we read
    _say(found, output)


def _write(path: Path, text: str, *, replace: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - with its mode
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists: --force replaces it, --output names another") from None
    except OSError as error:
        raise ConfigurationError(f"--output: {path} cannot be written ({error.strerror})") from error


def _say(found: Found, output: Path) -> None:
    brokers = f"{found.brokers} at {found.bootstrap_servers}" if found.brokers else f"none reached ({found.problem})"
    print(f"brokers: {brokers}\nregistry: {found.registry_url or 'none, none needed'}\nwritten: {output}\n")
    print(f"next: weda-connector doctor --config {output}\nthen: weda-connector serve --config {output}")
