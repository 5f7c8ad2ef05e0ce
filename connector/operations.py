"""The operations listener: ``/metrics``, the probes, and the API of the state. Apart from the public one."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from connector.health import Health


def operations_app(
    registry: CollectorRegistry, health: Health, *, settings: Callable[[], dict[str, Any]], version: str
) -> FastAPI:
    """Build the listener's application; :mod:`connector.guard` stands in front of it.

    Args:
        registry: The metrics.
        health: The connector's state.
        settings: Gives the effective settings, secrets redacted.
        version: The connector's.
    """
    app = FastAPI(
        title="weda-connector operations",
        version=version,
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )

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
        return settings()

    return app
