"""The operations listener: ``/metrics``, the probes, and the API of the state. Apart from the public one."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from connector.health import Health

_OPEN = frozenset({"/metrics", "/livez", "/readyz"})


def operations_app(
    registry: CollectorRegistry, health: Health, *, token: str | None, settings: dict[str, Any], version: str
) -> FastAPI:
    """Build the listener's application.

    Args:
        registry: The metrics.
        health: The connector's state.
        token: Needed for everything but metrics and probes, where there is one.
        settings: The effective settings, secrets redacted.
        version: The connector's.
    """
    app = FastAPI(
        title="weda-connector operations",
        version=version,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )

    @app.middleware("http")
    async def check_token(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if token is not None and request.url.path not in _OPEN and not _is_token(request, token):
            return JSONResponse(
                {"message": "Authorization: Bearer <WEDA_OPERATIONS__TOKEN> is needed"},
                status_code=401,
                headers={"www-authenticate": "Bearer"},
            )
        return await call_next(request)

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
        return JSONResponse(health.told(), status_code=200 if health.is_ready else 503)

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """The state of the outside and of the backlog."""
        return {"version": version, **health.told()}

    @app.get("/api/config")
    async def config() -> dict[str, Any]:
        """The effective settings, secrets redacted."""
        return settings

    return app


def _is_token(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
