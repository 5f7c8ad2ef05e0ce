"""A connection to PostgreSQL: statements that end in time, one way or the other; the one module that knows psycopg."""

import asyncio
import time
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from connector.kafka.explain import database_sentence
from connector.replicas.journal import DatabaseRefusal, Unanswered

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
"""The address of the database may say otherwise of what libpq knows."""


class DatabaseLink:
    """One connection; see `connector.shared_journal.Link`.

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

    async def ask(self, sql: str, parameters: Any, *, seconds: float) -> list[tuple[Any, ...]]:
        """Run one statement, a transaction of its own."""
        async with self._one_at_a_time:
            asking = asyncio.create_task(self._run(sql, parameters))
            try:
                done, _ = await asyncio.wait((asking,), timeout=seconds)
            except asyncio.CancelledError:
                self._abandon(asking)
                raise
            if not done:
                self._abandon(asking)
                raise Unanswered(f"the database did not answer within {seconds:g} s")
            return await self._answer(asking)

    def drop(self) -> None:
        """Forget the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.pgconn.finish()

    def _abandon(self, asking: asyncio.Task[Any]) -> None:
        """Not awaited: the client tries to cancel the statement, and waits for an answer to that as well."""
        asking.cancel()
        asking.add_done_callback(partial(_discard, self._connection))
        self._connection = None

    async def _answer(self, asking: asyncio.Task[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        try:
            return asking.result()
        except psycopg.Error as error:
            if self._connection is not None and not self._connection.closed and error.sqlstate is not None:
                raise DatabaseRefusal(_sentence(error), error.sqlstate) from error
            self.drop()
            raise Unanswered(f"the database is not reachable: {await self._cause(error)}") from error

    async def _cause(self, error: psycopg.Error) -> str:
        """Why there is no connection; what the words leave open is looked up now and then, not at every try."""
        words, now = _sentence(error), time.monotonic()
        if words != self._words or now > self._found_at + _LOOK_AGAIN_SECONDS:
            self._found = await asyncio.to_thread(cause, self._url, error)
            self._words, self._found_at = words, now
        return self._found

    async def _run(self, sql: str, parameters: Any) -> list[tuple[Any, ...]]:
        if self._connection is None:
            options: dict[str, Any] = {**_CONNECTION, "application_name": f"weda-connector {self._name}"}
            self._connection = await psycopg.AsyncConnection.connect(self._url, **options)
        cursor = await self._connection.execute(sql.encode(), parameters)
        return await cursor.fetchall() if cursor.description is not None else []


def _discard(connection: psycopg.AsyncConnection[Any] | None, asking: asyncio.Task[Any]) -> None:
    if not asking.cancelled():
        asking.exception()
    if connection is not None:
        connection.pgconn.finish()


def cause(url: str, error: psycopg.Error) -> str:
    """Why there is no connection, in one sentence; see `connector.causes`."""
    return database_sentence(_sentence(error), conninfo_to_dict(url))


def _sentence(error: psycopg.Error) -> str:
    """What went wrong, in one line; libpq's own lines name host, port and user, never a password."""
    return error.diag.message_primary or str(error).strip().partition("\n")[0]
