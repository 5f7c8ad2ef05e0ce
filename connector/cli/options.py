"""The options and arguments that several commands share, and the settings that they lead to."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from connector.errors import ConfigurationError
from connector.periods import moment
from connector.settings import EMBEDDED, Settings

SERVERS: Final = "kafka.bootstrap_servers"
OPERATIONS_URL: Final = "operations.url"
OPERATIONS_TOKEN: Final = "operations.token"  # noqa: S105 - the setting's name
REGISTRY_URL: Final = "registry.url"

_ITS_ADDRESS: Final = "give the address that its connector prints with --bootstrap-servers"


def _moment(text: str) -> int:
    try:
        return moment(text, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def moment_option(help: str) -> Any:  # noqa: A002 - as Typer calls it
    """An option that takes a period before now or a time; the command gets epoch milliseconds."""
    return typer.Option(parser=_moment, metavar="TIME", help=f"{help}: 2h (ago) or an ISO 8601 time.")


File = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings; WEDA_CONFIG if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Servers = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", metavar="ADDRESSES", help="Brokers as host:port, comma-separated."),
]
OperationsUrl = Annotated[
    str | None,
    typer.Option(
        "--operations-url", metavar="URL", help="Operations API of the connector; WEDA_OPERATIONS__URL if not given."
    ),
]
OperationsToken = Annotated[
    str | None,
    typer.Option("--token", help="Token of the operations listener; WEDA_OPERATIONS__TOKEN if not given."),
]
RegistryUrl = Annotated[
    str | None, typer.Option("--registry-url", metavar="URL", help="Address of the schema registry.")
]
Since = Annotated[int | None, moment_option("Received since")]
Until = Annotated[int | None, moment_option("Received before")]

TopicSource = Annotated[str, typer.Option("--source", help="What {source} stands for in the topics' prefix.")]
TopicEnvType = Annotated[str, typer.Option("--env-type", help="What {envType} stands for in the topics' prefix.")]
Seed = Annotated[
    int | None, typer.Option("--seed", help="The same seed plays the same instances; random if not given.")
]


def operations_settings(file: Path | None, url: str | None, token: str | None) -> Settings:
    """The settings of a command that asks a running connector."""
    return Settings.load(file=file, flags={OPERATIONS_URL: url, OPERATIONS_TOKEN: token})


def servers_of(settings: Settings, *, embedded: str = _ITS_ADDRESS) -> str:
    """The brokers' addresses.

    Args:
        settings: The effective settings.
        embedded: What to say about the embedded broker, which has no address of its own to reach from here.

    Raises:
        ConfigurationError: None are set, or they are the embedded broker.
    """
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        raise ConfigurationError(
            "WEDA_KAFKA__BOOTSTRAP_SERVERS is not set: give the brokers as host:port,host:port, or --bootstrap-servers"
        )
    if servers == EMBEDDED:
        raise ConfigurationError(f"WEDA_KAFKA__BOOTSTRAP_SERVERS is {EMBEDDED}: {embedded}")
    return servers
