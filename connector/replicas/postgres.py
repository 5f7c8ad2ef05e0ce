"""A connection to PostgreSQL by its client, psycopg: statements that end in time, one way or the other."""

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
_LOOK_AGAIN_SECONDS: Final = 10.0
_CONNECTION: Final = {
    "autocommit": True,
    "connect_timeout": 2,
    "options": _SESSION,
    "tcp_user_timeout": 5_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Parameters of the URL override these."""


class PostgresConnection:
    """One connection; see `connector.replicas.database.Connection`.

    Args:
        url: Of the database, as libpq takes it.
        name: What the connection is for; the database's administrator sees it.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._words = self._found = ""
        self._found_at = 0.0

    async def execute(self, sql: str, parameters: Mapping[str, Any], *, seconds: float) -> list[tuple[Any, ...]]:
        """Run one statement, a transaction of its own."""
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
        """Close it; the next statement makes it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    def _abandon(self, running: asyncio.Task[Any]) -> None:
        """Not awaited: the client tries to cancel the statement, and waits for an answer to that as well."""
        running.cancel()
        running.add_done_callback(partial(_discard, self._connection))
        # The statement may still be running: the next one gets a connection of its own.
        self._connection = None

    async def _result(self, running: asyncio.Task[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        try:
            return running.result()
        except psycopg.Error as error:
            # With a connection that still stands the server has answered: the statement is rolled back.
            if self._connection is not None and not self._connection.closed and error.sqlstate is not None:
                raise StatementError(_words(error), error.sqlstate) from error
            self.close()
            raise DatabaseUnreachable(f"the database is not reachable: {await self._cause(error)}") from error

    async def _cause(self, error: psycopg.Error) -> str:
        """Why there is no connection; what the words leave open is looked up now and then, not at every try."""
        words, now = _words(error), time.monotonic()
        if words != self._words or now > self._found_at + _LOOK_AGAIN_SECONDS:
            self._found = await asyncio.to_thread(cause, self._url, error)
            self._words, self._found_at = words, now
        return self._found

    async def _run(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            options: dict[str, Any] = {**_CONNECTION, "application_name": f"weda-connector {self._name}"}
            self._connection = await psycopg.AsyncConnection.connect(self._url, **options)
        cursor = await self._connection.execute(sql.encode(), parameters)
        return await cursor.fetchall() if cursor.description is not None else []


def _discard(connection: psycopg.AsyncConnection[Any] | None, running: asyncio.Task[Any]) -> None:
    if not running.cancelled():
        running.exception()
    if connection is not None:
        connection.pgconn.finish()


def cause(url: str, error: psycopg.Error) -> str:
    """Why there is no connection, in one sentence; see `connector.replicas.explain`."""
    return explain.sentence(_words(error), conninfo_to_dict(url))


def _words(error: psycopg.Error) -> str:
    """What went wrong, in one line; libpq's own lines name host, port and user, never a password."""
    return error.diag.message_primary or str(error).strip().partition("\n")[0]
