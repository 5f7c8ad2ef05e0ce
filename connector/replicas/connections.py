"""Connections to the database of a shared journal; its client is imported only where there is one."""

from collections.abc import Callable
from functools import partial

from connector.errors import missing_extra
from connector.replicas.database import Connection


def postgres_connections(url: str) -> Callable[[str], Connection]:
    """Returns what makes connections to the database, each by what it is for.

    Raises:
        ConfigurationError: The client of PostgreSQL is not installed.
    """
    try:
        from connector.replicas.postgres import PostgresConnection  # noqa: PLC0415 - its client is an extra
    except ImportError as error:
        raise missing_extra("WEDA_JOURNAL__URL: the client of PostgreSQL", "postgresql") from error
    return partial(PostgresConnection, url)
