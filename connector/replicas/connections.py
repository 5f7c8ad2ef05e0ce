"""Connections to the database of a shared journal; the client is imported only if such a journal is configured."""

from collections.abc import Callable
from functools import partial

from connector.errors import missing_extra
from connector.replicas.database import Connection


def postgres_connections(url: str) -> Callable[[str], Connection]:
    """Return a function that makes a connection to the database, given the connection's purpose.

    Raises:
        ConfigurationError: The PostgreSQL client is not installed.
    """
    try:
        from connector.replicas.postgres import PostgresConnection  # noqa: PLC0415 - its client is an extra
    except ImportError as error:
        raise missing_extra("WEDA_JOURNAL__URL: the client of PostgreSQL", "postgresql") from error
    return partial(PostgresConnection, url)
