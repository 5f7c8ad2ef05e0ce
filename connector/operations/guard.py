"""The guard of the operations listener: who gets past metrics and probes, and what browsers may do with the answers.

With a token, everything but metrics and probes needs it. Without one the listener serves this machine alone: beyond
loopback the rest is closed, and on loopback a page of another site cannot reach it through the browser of the person
who sits here: the request must name this machine as its host, and must not come from another origin or site.
"""

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Request

from connector import answers
from connector.operations import console
from connector.operations.sessions import COOKIE, Sessions
from connector.operations.token_throttle import TokenThrottle
from connector.settings import is_loopback

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN: Final = frozenset({"/metrics", "/livez", "/readyz"})

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer, browsers send "Origin: null" with our own forms
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_NOTHING: Final = b"default-src 'none'; frame-ancestors 'none'"
_LOCAL_ALONE: Final = "without WEDA_OPERATIONS__TOKEN this listener answers to localhost and 127.0.0.1 alone"
_CROSS_SITE: Final = (
    "without WEDA_OPERATIONS__TOKEN no page of another site may ask this listener: type its address, or set the token"
)
_NEEDED: Final = 401, "Authorization: Bearer <WEDA_OPERATIONS__TOKEN> is needed"
_HTTPS_FROM_NOW_ON: Final = (b"strict-transport-security", b"max-age=31536000")


class Guard:
    """Stands in front of the listener's application.

    Args:
        app: The application.
        sessions: Browser sessions.
        throttle: Where wrong tokens are counted and slowed down.
        on_loopback: Whether the listener can be reached from this machine alone.
    """

    def __init__(self, app: Application, sessions: Sessions, throttle: TokenThrottle, *, on_loopback: bool) -> None:
        self._app = app
        self._sessions = sessions
        self._throttle = throttle
        self._on_loopback = on_loopback

    def replace_token(self, token: str | None) -> None:
        """Replace the token; this ends all sessions."""
        self._sessions.replace_token(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let the application do it."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}  # HEAD is there wherever GET is

        async def send_strictly(event: Event) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = list(_strict(scope, event.get("headers", [])))
            elif is_head:
                event["body"] = b""
            await send(event)

        if self._sessions.are_needed and (scope["path"] == "/" or scope["path"].startswith(console.ROOT)):
            application = self._page(scope)
            await application(scope, receive, send_strictly)
            return
        rejection = None if scope["path"] in OPEN else await self._rejection(scope, headers)
        if rejection is None:
            await self._app(scope, receive, send_strictly)
        else:
            status, message = rejection
            await answers.notice(status, message).send(send_strictly)

    def _page(self, scope: Scope) -> Application:
        """The application, or the way to the login where the browser has no session.

        The path is the one that is routed: ``Request.url`` depends on the Host header.
        """
        request = Request(scope)
        is_admitted = console.is_public(scope["path"]) or self._sessions.is_valid(request.cookies.get(COOKIE))
        return self._app if is_admitted else console.to_login(request)

    async def _rejection(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and message if the request is rejected; delayed after a wrong token."""
        if self._sessions.are_needed:
            given = _presented(headers)
            if self._sessions.is_token(given):
                return None
            if given:
                await self._throttle.wrong(peer_of(scope))
            else:
                self._throttle.missing()
            return _NEEDED
        if not self._on_loopback:
            return 403, "closed: without WEDA_OPERATIONS__TOKEN this listener gives metrics and probes alone"
        if not _is_ours(headers.get(b"host", b"")) or not _is_ours(headers.get(b"origin", b"//localhost")):
            return 403, _LOCAL_ALONE
        return (403, _CROSS_SITE) if headers.get(b"sec-fetch-site") == b"cross-site" else None


def peer_of(scope: Scope) -> str:
    """The address that connected, for the log."""
    client = scope.get("client")
    return client[0] if client else ""


def _presented(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else b""


def _is_ours(place: bytes) -> bool:
    """Whether a Host or an Origin names this machine."""
    text = place.decode("latin-1")
    try:
        return is_loopback(urlsplit(text if "//" in text else f"//{text}").hostname or "")
    except ValueError:
        return False


def _strict(scope: Scope, headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The answer's headers, with those that it does not set itself."""
    yield from headers
    set_already = {name.lower(): value for name, value in headers}
    yield from ((name, value) for name, value in _ALWAYS if name not in set_already)
    if b"content-security-policy" not in set_already:
        yield b"content-security-policy", _NOTHING
    if scope["scheme"] == "https":
        yield _HTTPS_FROM_NOW_ON
