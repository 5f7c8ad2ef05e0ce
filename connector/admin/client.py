"""HTTP client for the operations API."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.settings import Operations

_TIMEOUT_SECONDS: Final = 120.0  # a search may read whole topics before it answers
_STATUS_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.25
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REJECTED: Final = frozenset({403, 422})
_FIRST_ERROR: Final = 400
_NOT_ENTERED: Final = "OperationsClient: use it as a context manager"
_T = TypeVar("_T")


class NotFound(ConnectorError):
    """The connector answered 404."""


class WrongToken(ConfigurationError):
    """The connector wants another token."""


class OperationsClient:
    """Client of one running connector; an async context manager.

    Every call raises OutsideUnreachable if the connector does not answer or cannot do now what is asked, and
    ConfigurationError if it wants another token.

    Args:
        settings: Address and token of the operations listener.
        timeout_seconds: How long a call may take.
    """

    def __init__(self, settings: Operations, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._url = settings.url.rstrip("/")
        self._token = None if settings.token is None else settings.token.get_secret_value()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {} if self._token is None else {"authorization": f"Bearer {self._token}"}
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers=headers)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def dead_letters(self, selected: Mapping[str, Any]) -> dict[str, Any]:
        """Count dead letters by reason, and list the latest ones."""
        # A query repeats the name for each value of a list.
        lists = {name: value if _is_many(value) else [value] for name, value in selected.items()}
        params = [(name, _query_text(value)) for name, values in lists.items() for value in values]
        return await self._ask("GET", "/api/dead-letters", params=params)

    async def dead_letter(self, topic: str, partition: int, offset: int) -> dict[str, Any]:
        """Return one dead letter.

        Raises:
            NotFound: There is no dead letter at that offset.
        """
        return await self._ask("GET", f"/api/dead-letters/{topic}/{partition}/{offset}")

    async def messages(self, text: str, since: int | None, *, with_records: bool) -> dict[str, Any]:
        """Search a message; see `connector.lookup.model.SearchReport`."""
        query = {"text": text, "records": _query_text(with_records)} | ({} if since is None else {"since": str(since)})
        return await self._ask("GET", "/api/messages", params=query)

    async def settings(self) -> dict[str, Any]:
        """Return the effective settings, secrets redacted."""
        return await self._ask("GET", "/api/config")

    async def status(self) -> dict[str, Any]:
        """Return the state of Kafka and other dependencies, and of the backlog."""
        return await self._ask("GET", "/api/status")

    async def metrics(self) -> str:
        """Return the text of ``/metrics``."""
        if self._session is None:
            raise RuntimeError(_NOT_ENTERED)
        try:
            async with self._session.get(f"{self._url}/metrics") as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._no_answer() from error

    async def topics(self) -> dict[str, Any]:
        """Return the brokers and topics as they are."""
        return await self._ask("GET", "/api/topics")

    async def dry_run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what reprocessing these dead letters would do."""
        return await self._ask("POST", "/api/replays", json={**request, "dry_run": True})

    async def reprocess(
        self, request: Mapping[str, Any], on_progress: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Reprocess dead letters and wait for the end; cancelling the call stops the run.

        Raises:
            ConnectorError: Another run is under way.
        """
        body = await self._ask("POST", "/api/replays", json=dict(request))
        try:
            while body["state"] == "running":
                on_progress(body)
                await asyncio.sleep(_POLL_SECONDS)
                body = await self._ask("GET", "/api/replays/current")
        except asyncio.CancelledError:  # Ctrl-C; the report on what was done still goes to the caller
            body = await self._ask("DELETE", "/api/replays/current")
        on_progress(body)
        return body

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError(_NOT_ENTERED)
        try:
            async with self._session.request(method, self._url + path, **options) as answer:
                body: dict[str, Any] = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # no JSON: something else listens there
            raise self._no_answer() from error
        if answer.status >= _FIRST_ERROR:
            raise self._error_of(answer.status, str(body.get("message") or body.get("detail") or answer.reason))
        return body

    def _no_answer(self) -> OutsideUnreachable:
        return OutsideUnreachable(
            f"no connector answers at {self._url}: is its operations listener there (WEDA_OPERATIONS__URL)?"
        )

    def _error_of(self, status: int, message: str) -> ConnectorError:
        if status == _UNAUTHORIZED:
            return WrongToken(f"WEDA_OPERATIONS__TOKEN: {self._url} wants its token; give it with --token")
        if status == _NOT_FOUND:
            return NotFound(message)
        if status == _CONFLICT:
            return ConnectorError(message)
        return ConfigurationError(message) if status in _REJECTED else OutsideUnreachable(f"{self._url}: {message}")


def ask(settings: Operations, question: Callable[[OperationsClient], Awaitable[_T]]) -> _T:
    """Ask a running connector; blocking, for commands.

    Raises:
        OutsideUnreachable: The connector does not answer.
        ConnectorError: The connector rejects or refuses the request.
    """

    async def answer() -> _T:
        async with OperationsClient(settings) as client:
            return await question(client)

    return asyncio.run(answer())


async def status_if_running(settings: Operations) -> dict[str, Any] | None:
    """Return the status of a running connector, or None if none answers.

    Raises:
        WrongToken: The listener wants another token.
    """
    try:
        async with OperationsClient(settings, timeout_seconds=_STATUS_SECONDS) as client:
            status = await client.status()
    except WrongToken:
        raise
    except ConnectorError:
        return None
    # Another program may listen there, and answer with JSON as well.
    return status if isinstance(status, dict) and "journal_messages" in status else None


def _is_many(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _query_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
