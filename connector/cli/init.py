"""``init``: write a commented configuration file for the brokers that are found."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from connector.admin import config_file
from connector.admin.config_file import Environment
from connector.cli.options import REGISTRY_URL, SERVERS, RegistryUrl, Servers
from connector.errors import ConfigurationError
from connector.settings import Settings

_FILE: Final = Path("connector.yaml")


def init(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = _FILE,
    bootstrap_servers: Servers = None,
    registry_url: RegistryUrl = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a configuration file.

    It has every setting with its description; the important ones are set, and a token is generated.

    Brokers and a registry are looked for at the given addresses (flags, environment), else at localhost:9092 and
    localhost:8081. On a terminal you are asked for the brokers if none are found.

    \b
    Examples:
      weda-connector init
      weda-connector init --bootstrap-servers kafka:9092 --output connector.yaml
      weda-connector init --bootstrap-servers kafka:9092 --registry-url http://registry:8081

    Exit codes: 0 written, 2 bad usage or configuration, or the file exists.
    """
    settings = Settings.load(flags={SERVERS: bootstrap_servers, REGISTRY_URL: registry_url})
    environment = config_file.probe(settings.kafka.bootstrap_servers, settings.registry.url, settings.kafka.properties)
    if not environment.brokers and sys.stdin.isatty() and settings.kafka.bootstrap_servers is None:
        servers = typer.prompt("Kafka brokers, as host:port", default=environment.bootstrap_servers)
        environment = config_file.probe(servers, settings.registry.url, settings.kafka.properties)
    token = None if settings.token is None else settings.token.get_secret_value()
    _write(output, config_file.render(environment, str(output), token=token), replace=force)
    Settings.load(file=output)  # check that the file can be loaded
    _print_next(environment, output)


def _write(path: Path, text: str, *, replace: bool) -> None:
    # O_EXCL instead of a look before: nothing can create the file in between. 0600, because it has a token.
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - with its mode
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists: --force replaces it, --output names another") from None
    except OSError as error:
        raise ConfigurationError(f"--output: {path} cannot be written ({error.strerror})") from error


def _print_next(environment: Environment, output: Path) -> None:
    if environment.brokers:
        brokers = f"{environment.brokers} at {environment.bootstrap_servers}"
    else:
        brokers = f"none reached ({environment.problem})"
    print(f"brokers: {brokers}\nregistry: {environment.registry_url or 'none, not needed'}\nwritten: {output}\n")
    print(f"next: weda-connector doctor --config {output}\nthen: weda-connector serve --config {output}")
