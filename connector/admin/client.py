"""HTTP client for the operations API."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.settings import Operations

_SECONDS: Final = 120.0
_STATUS_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.25
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REFUSED: Final = frozenset({403, 422})
_REFUSING: Final = 400
_NOT_ENTERED: Final = "OperationsClient: use it as a context manager"
_T = TypeVar("_T")


class NotFound(ConnectorError):
    """The connector answers 404."""


class WrongToken(ConfigurationError):
    """The connector wants another token."""


class OperationsClient:
    """One running connector; an async context manager.

    Every call raises OutsideUnreachable where it does not answer or cannot do now what is asked, and ConfigurationError
    where it wants another token.

    Args:
        settings: Where its operations listener is, and its token.
        timeout_seconds: How long a call may take.
    """

    def __init__(self, settings: Operations, *, timeout_seconds: float = _SECONDS) -> None:
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
        """Dead letters by reason, and the latest of them."""
        pairs = [(name, one) for name, value in selected.items() for one in (value if _is_many(value) else [value])]
        return await self._ask("GET", "/api/dead-letters", params=[(name, _query_text(one)) for name, one in pairs])

    async def dead_letter(self, topic: str, partition: int, offset: int) -> dict[str, Any]:
        """One dead letter.

        Raises:
            NotFound: There is none at that offset.
        """
        return await self._ask("GET", f"/api/dead-letters/{topic}/{partition}/{offset}")

    async def messages(self, text: str, since: int | None, *, with_records: bool) -> dict[str, Any]:
        """Where a message is; see `connector.lookup.model.SearchReport`."""
        query = {"text": text, "records": _query_text(with_records)} | ({} if since is None else {"since": str(since)})
        return await self._ask("GET", "/api/messages", params=query)

    async def settings(self) -> dict[str, Any]:
        """The effective settings, secrets redacted."""
        return await self._ask("GET", "/api/config")

    async def status(self) -> dict[str, Any]:
        """The state of the outside and of the backlog."""
        return await self._ask("GET", "/api/status")

    async def metrics(self) -> str:
        """The text of ``/metrics``."""
        if self._session is None:
            raise RuntimeError(_NOT_ENTERED)
        try:
            async with self._session.get(f"{self._url}/metrics") as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._silent() from error

    async def topics(self) -> dict[str, Any]:
        """Brokers and topics as they are."""
        return await self._ask("GET", "/api/topics")

    async def dry_run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What reprocessing them would do."""
        return await self._ask("POST", "/api/replays", json={**request, "dry_run": True})

    async def reprocess(
        self, request: Mapping[str, Any], on_progress: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Reprocess dead letters to the end; if the waiting is cancelled, the run is stopped.

        Raises:
            ConnectorError: Another run is under way.
        """
        body = await self._ask("POST", "/api/replays", json=dict(request))
        try:
            while body["state"] == "running":
                on_progress(body)
                await asyncio.sleep(_POLL_SECONDS)
                body = await self._ask("GET", "/api/replays/current")
        except asyncio.CancelledError:
            body = await self._ask("DELETE", "/api/replays/current")
        on_progress(body)
        return body

    async def _ask(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError(_NOT_ENTERED)
        try:
            async with self._session.request(method, self._url + path, **how) as answer:
                body: dict[str, Any] = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._silent() from error
        if answer.status >= _REFUSING:
            raise self._refusal(answer.status, str(body.get("message") or body.get("detail") or answer.reason))
        return body

    def _silent(self) -> OutsideUnreachable:
        return OutsideUnreachable(
            f"no connector answers at {self._url}: is its operations listener there (WEDA_OPERATIONS__URL)?"
        )

    def _refusal(self, status: int, message: str) -> ConnectorError:
        if status == _UNAUTHORIZED:
            return WrongToken(f"WEDA_OPERATIONS__TOKEN: {self._url} wants its token; give it with --token")
        if status == _NOT_FOUND:
            return NotFound(message)
        if status == _CONFLICT:
            return ConnectorError(message)
        return ConfigurationError(message) if status in _REFUSED else OutsideUnreachable(f"{self._url}: {message}")


def ask(settings: Operations, question: Callable[[OperationsClient], Awaitable[_T]]) -> _T:
    """What a running connector answers; blocking, for commands.

    Raises:
        OutsideUnreachable: It does not answer.
        ConnectorError: It refuses.
    """

    async def answer() -> _T:
        async with OperationsClient(settings) as client:
            return await question(client)

    return asyncio.run(answer())


async def status_if_running(settings: Operations) -> dict[str, Any] | None:
    """What a running connector says of itself and of its journal; None where none answers.

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
    return status if isinstance(status, dict) and "journal_messages" in status else None


def _is_many(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _query_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
