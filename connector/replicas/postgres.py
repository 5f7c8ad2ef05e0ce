"""A connection to PostgreSQL through psycopg, whose statements always end in time."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from connector.replicas import explain
from connector.replicas.database import DatabaseUnreachable, StatementError

_SESSION: Final = (
    "-c statement_timeout=5000 -c lock_timeout=1500 -c idle_in_transaction_session_timeout=5000 "
    "-c default_transaction_isolation=read\\ committed -c synchronous_commit=on"
)
_EXPLAIN_SECONDS: Final = 10.0
_CONNECTION: Final = {
    "autocommit": True,
    "connect_timeout": 2,
    "options": _SESSION,
    "tcp_user_timeout": 5_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Connection parameters; those in the URL override them."""


class PostgresConnection:
    """A connection through psycopg; see `connector.replicas.database.Connection`.

    Args:
        url: The database's URL, as libpq takes it.
        name: The connection's purpose, shown to the database's administrator.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._explained_words = self._explanation = ""
        self._explained_at = 0.0

    async def execute(self, sql: str, parameters: Mapping[str, Any], *, seconds: float) -> list[tuple[Any, ...]]:
        """Run one statement as a transaction."""
        async with self._one_at_a_time:
            running = asyncio.create_task(self._run(sql, parameters))
            try:
                done, _ = await asyncio.wait((running,), timeout=seconds)
            except asyncio.CancelledError:
                self._abandon(running)
                raise
            if not done:
                self._abandon(running)
                raise DatabaseUnreachable(f"the database did not answer within {seconds:g} s")
            return await self._result(running)

    def close(self) -> None:
        """Close the connection; the next statement reconnects."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    def _abandon(self, running: asyncio.Task[Any]) -> None:
        """Give up a statement, and its connection with it."""
        # Not awaited: the client asks the server to cancel the statement, and waits for that answer, too.
        running.cancel()
        running.add_done_callback(partial(_discard, self._connection))
        # The statement may still be running: the next one gets a connection of its own.
        self._connection = None

    async def _result(self, running: asyncio.Task[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        try:
            return running.result()
        except psycopg.Error as error:
            # If the connection is still open, the server has answered: the statement is rolled back.
            if self._connection is not None and not self._connection.closed and error.sqlstate is not None:
                raise StatementError(_words(error), error.sqlstate) from error
            self.close()
            raise DatabaseUnreachable(f"the database is not reachable: {await self._cause(error)}") from error

    async def _cause(self, error: psycopg.Error) -> str:
        """Explain why there is no connection."""
        words, now = _words(error), time.monotonic()
        # The explanation may need a handshake with the server, which is too much for every attempt.
        if words != self._explained_words or now > self._explained_at + _EXPLAIN_SECONDS:
            self._explanation = await asyncio.to_thread(cause, self._url, error)
            self._explained_words, self._explained_at = words, now
        return self._explanation

    async def _run(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            options: dict[str, Any] = {**_CONNECTION, "application_name": f"weda-connector {self._name}"}
            self._connection = await psycopg.AsyncConnection.connect(self._url, **options)
        cursor = await self._connection.execute(sql.encode(), parameters)
        return await cursor.fetchall() if cursor.description is not None else []


def _discard(connection: psycopg.AsyncConnection[Any] | None, running: asyncio.Task[Any]) -> None:
    if not running.cancelled():
        running.exception()  # retrieved, or asyncio would log it
    if connection is not None:
        connection.pgconn.finish()


def cause(url: str, error: psycopg.Error) -> str:
    """Explain in one sentence why there is no connection; see `connector.replicas.explain`."""
    return explain.sentence(_words(error), conninfo_to_dict(url))


def _words(error: psycopg.Error) -> str:
    """Return the error in one line; libpq's own lines name host, port and user, never a password."""
    return error.diag.message_primary or str(error).strip().partition("\n")[0]
