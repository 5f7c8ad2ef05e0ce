"""The listener's application: who may ask what, metrics, probes, state. Apart from the public one."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable, Refused
from connector.operations import console, letters
from connector.operations.desk import Desk
from connector.operations.sessions import COOKIE, Sessions
from connector.replay import AlreadyRunning

_OPEN: Final = frozenset({"/metrics", "/livez", "/readyz"})
_HARMLESS: Final = (*_OPEN, "/api/status", "/api/config", "/api/docs", "/api/openapi.json")
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_MISDIRECTED: Final = 421
_NEEDED: Final = "set WEDA_OPERATIONS__TOKEN: it is needed here once the listener is not on loopback"
_NAME_ADDRESS: Final = "ask by address or as localhost, or set WEDA_OPERATIONS__TOKEN: other names may be a trap"


def operations_app(registry: CollectorRegistry, desk: Desk) -> FastAPI:
    """Build the listener's application.

    Args:
        registry: The metrics.
        desk: The parts of the connector.
    """
    app = FastAPI(
        title="weda-connector operations",
        version=desk.version,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )

    sessions = Sessions(desk.token)

    @app.middleware("http")
    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return _refusal(request, desk, sessions) or await call_next(request)

    @app.exception_handler(ConnectorError)
    async def tell(_: Request, error: Exception) -> JSONResponse:
        return _told(error) if isinstance(error, ConnectorError) else JSONResponse({}, 500)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/livez")
    async def livez() -> dict[str, bool]:
        """The process answers; says nothing of Kafka."""
        return {"live": True}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 while a message can be accepted durably: by the brokers, or by the journal."""
        return JSONResponse(desk.health.told(), status_code=200 if desk.health.is_ready else 503)

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """The state of the outside and of the backlog."""
        return {"version": desk.version, **desk.health.told()}

    @app.get("/api/config")
    async def config() -> dict[str, Any]:
        """The effective settings, secrets redacted."""
        return desk.settings

    app.include_router(letters.router(desk))
    app.include_router(console.router(desk, sessions))
    return app


def _refusal(request: Request, desk: Desk, sessions: Sessions) -> Response | None:
    """Why the request is not answered, or None where it is."""
    path = request.url.path
    if path in _OPEN:
        return None
    if desk.token is not None:
        if path.startswith(console.ROOT):
            is_let_in = console.is_open(path) or sessions.holds(request.cookies.get(COOKIE))
            return None if is_let_in else console.to_login(request)
        return None if _is_token(request, desk.token) else _unauthorized()
    if path in _HARMLESS:
        return None
    if not desk.is_loopback:
        return JSONResponse({"message": _NEEDED}, _FORBIDDEN)
    # A page of another site that gave its name our address (DNS rebinding) is told nothing.
    return None if _is_local(request.url.hostname) else JSONResponse({"message": _NAME_ADDRESS}, _MISDIRECTED)


def _unauthorized() -> Response:
    message = "Authorization: Bearer <WEDA_OPERATIONS__TOKEN> is needed"
    return JSONResponse({"message": message}, _UNAUTHORIZED, {"www-authenticate": "Bearer"})


def _told(error: ConnectorError) -> JSONResponse:
    status, headers = 500, None
    if isinstance(error, Refused):
        status, headers = error.code // 100, {"retry-after": str(error.retry_after)}
    elif isinstance(error, AlreadyRunning):
        status = 409
    elif isinstance(error, OutsideUnreachable | ConfigurationError):
        status = 502
    return JSONResponse({"message": error.message}, status, headers)


def _is_token(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _is_local(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
