"""Options that several commands share, and the settings that result from them."""

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

_EMBEDDED_HINT: Final = "give the address that its connector prints with --bootstrap-servers"


def _moment(text: str) -> int:
    try:
        return moment(text, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def moment_option(help: str) -> Any:  # noqa: A002 - as Typer calls it
    """Create an option that takes a time or a period before now; the command receives epoch milliseconds."""
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
    """Load the settings of a command that asks a running connector."""
    return Settings.load(file=file, flags={OPERATIONS_URL: url, OPERATIONS_TOKEN: token})


def servers_of(settings: Settings, *, embedded: str = _EMBEDDED_HINT) -> str:
    """Return the brokers' addresses.

    Args:
        settings: The effective settings.
        embedded: Hint for the error if the broker is embedded: it lives in another process, at an unknown address.

    Raises:
        ConfigurationError: No brokers are set, or the broker is embedded.
    """
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        raise ConfigurationError(
            "WEDA_KAFKA__BOOTSTRAP_SERVERS is not set: give the brokers as host:port,host:port, or --bootstrap-servers"
        )
    if servers == EMBEDDED:
        raise ConfigurationError(f"WEDA_KAFKA__BOOTSTRAP_SERVERS is {EMBEDDED}: {embedded}")
    return servers
