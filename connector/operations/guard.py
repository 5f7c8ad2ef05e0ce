"""Access control of the operations listener, and the security headers of its answers.

Metrics and probes are open. With a token, everything else needs it. Without one, everything else is served to this
machine only: a listener that other machines can reach answers 403, and on loopback a request must name this machine as
its host and must not come from another origin or site, so that a web page cannot use the browser of a person here.
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

_DEFAULT_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer, browsers send "Origin: null" with our own forms
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_LOAD_NOTHING: Final = b"default-src 'none'; frame-ancestors 'none'"
_NOT_LOCAL: Final = "without WEDA_OPERATIONS__TOKEN this listener answers to localhost and 127.0.0.1 alone"
_CROSS_SITE: Final = (
    "without WEDA_OPERATIONS__TOKEN no page of another site may ask this listener: type its address, or set the token"
)
_TOKEN_NEEDED: Final = 401, "Authorization: Bearer <WEDA_OPERATIONS__TOKEN> is needed"
_STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")


class Guard:
    """Admits or rejects each request before the listener's application sees it.

    Args:
        app: The application.
        sessions: Browser sessions.
        throttle: Counts wrong tokens and slows down guessing.
        on_loopback: Whether only this machine can reach the listener.
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
        """Answer a request, or pass it to the application."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        is_head = scope["method"] == "HEAD"
        if is_head:
            # FastAPI answers HEAD on a route for GET with 405.
            scope = {**scope, "method": "GET"}

        async def send_secured(event: Event) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = list(_secured(scope, event.get("headers", [])))
            elif is_head:
                event["body"] = b""
            await send(event)

        if self._sessions.are_needed and (scope["path"] == "/" or scope["path"].startswith(console.ROOT)):
            application = self._page(scope)
            await application(scope, receive, send_secured)
            return
        rejection = None if scope["path"] in OPEN else await self._rejection(scope, headers)
        if rejection is None:
            await self._app(scope, receive, send_secured)
        else:
            status, message = rejection
            await answers.notice(status, message).send(send_secured)

    def _page(self, scope: Scope) -> Application:
        """Return the application, or a redirect to the login if the browser has no session."""
        request = Request(scope)
        # The scope's path is the one that is routed; `Request.url` depends on the Host header, which a client chooses.
        is_admitted = console.is_public(scope["path"]) or self._sessions.is_valid(request.cookies.get(COOKIE))
        return self._app if is_admitted else console.to_login(request)

    async def _rejection(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Return status and message if the request is rejected; after a wrong token only with a delay."""
        if self._sessions.are_needed:
            token = _bearer_token(headers)
            if self._sessions.is_token(token):
                return None
            if token:
                await self._throttle.wrong(peer_of(scope))
            else:
                self._throttle.missing()
            return _TOKEN_NEEDED
        if not self._on_loopback:
            return 403, "closed: without WEDA_OPERATIONS__TOKEN this listener gives metrics and probes alone"
        # A Host that is not ours: DNS rebinding has led another site's name to 127.0.0.1.
        if not _is_local(headers.get(b"host", b"")) or not _is_local(headers.get(b"origin", b"//localhost")):
            return 403, _NOT_LOCAL
        # Browsers send no Origin with a GET by a link or an image of another site, but they mark it as cross-site.
        return (403, _CROSS_SITE) if headers.get(b"sec-fetch-site") == b"cross-site" else None


def peer_of(scope: Scope) -> str:
    """Return the peer's address, for the log."""
    client = scope.get("client")
    return client[0] if client else ""


def _bearer_token(headers: dict[bytes, bytes]) -> bytes:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _is_local(host_or_origin: bytes) -> bool:
    """Whether a Host or Origin header names this machine."""
    text = host_or_origin.decode("latin-1")
    try:
        return is_loopback(urlsplit(text if "//" in text else f"//{text}").hostname or "")
    except ValueError:
        return False


def _secured(scope: Scope, headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the answer's headers, then the security headers that it does not set itself."""
    yield from headers
    set_already = {name.lower(): value for name, value in headers}
    yield from ((name, value) for name, value in _DEFAULT_HEADERS if name not in set_already)
    if b"content-security-policy" not in set_already:
        yield b"content-security-policy", _LOAD_NOTHING
    if scope["scheme"] == "https":
        yield _STRICT_TRANSPORT
