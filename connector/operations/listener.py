"""The listener's application: metrics, probes, state, API and pages, separate from the public listener."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from connector import answers
from connector.errors import ConnectorError
from connector.intake.reprocessing import AlreadyRunning
from connector.operations import api, console
from connector.operations.context import Context
from connector.operations.guard import Guard
from connector.operations.guesses import Guesses
from connector.operations.sessions import Sessions


def operations_app(
    registry: CollectorRegistry,
    context: Context,
    *,
    token: str | None,
    on_refused: Callable[[str], None] = lambda _reason: None,
) -> Guard:
    """Build the listener's application, with its guard in front.

    Args:
        registry: The metrics.
        context: The parts of the connector.
        token: Needed for everything but metrics and probes, where there is one.
        on_refused: Called with ``missing`` or ``unknown`` for each request that was refused for want of the token.
    """
    app = FastAPI(
        title="weda-connector operations",
        version=context.version,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )

    sessions, guesses = Sessions(token), Guesses(on_refused)

    @app.exception_handler(ConnectorError)
    async def respond(_: Request, error: Exception) -> Response:
        return _error_response(error) if isinstance(error, ConnectorError) else JSONResponse({}, 500)

    @app.exception_handler(RequestValidationError)
    async def tell_what_does_not_fit(_: Request, error: Exception) -> Response:
        problems = error.errors() if isinstance(error, RequestValidationError) else ()
        errors = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in problems]
        return Response(json.dumps({"detail": errors}), 422, media_type="application/json")  # half a surrogate pair too

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/livez")
    async def livez() -> JSONResponse:
        """200 while the process answers and no part of it has ended; says nothing of Kafka."""
        dead = context.health.dead
        return JSONResponse({"live": not dead, **({"dead": dead} if dead else {})}, status_code=503 if dead else 200)

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 while a message can be accepted durably: by the brokers, or by the journal."""
        return JSONResponse(context.health.as_dict(), status_code=200 if context.health.is_ready else 503)

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """The state of the outside and of the backlog."""
        return {"version": context.version, **context.health.as_dict()}

    @app.get("/api/config")
    async def config() -> dict[str, Any]:
        """The effective settings, secrets redacted."""
        return context.settings()

    app.include_router(api.router(context))
    app.include_router(console.router(context, sessions, guesses))
    return Guard(app, sessions, guesses, on_loopback=context.is_loopback)


def _error_response(error: ConnectorError) -> Response:
    answer = answers.to_operator(error, status=409 if isinstance(error, AlreadyRunning) else None)
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers
    return response
