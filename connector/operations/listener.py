"""The application of the operations listener: metrics, probes, API and console, apart from the public listener."""

import json
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from connector import answers
from connector.errors import ConnectorError
from connector.intake.reprocessing import AlreadyRunning
from connector.operations import api, console
from connector.operations.context import Context
from connector.operations.guard import Guard
from connector.operations.sessions import Sessions
from connector.operations.status import status_of, topics_of
from connector.operations.token_throttle import TokenThrottle


def operations_app(
    registry: CollectorRegistry,
    context: Context,
    *,
    token: str | None,
    on_rejected: Callable[[str], None] = lambda _reason: None,
) -> Guard:
    """Build the listener's application, with its guard in front.

    Args:
        registry: The metrics.
        context: The parts of the connector.
        token: The token that everything but metrics and probes needs, or None.
        on_rejected: Called with ``missing`` or ``unknown`` for each request rejected because of its token.
    """
    app = FastAPI(
        title="weda-connector operations",
        version=context.version,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )

    sessions, throttle = Sessions(token), TokenThrottle(on_rejected)

    @app.exception_handler(ConnectorError)
    async def respond(_: Request, error: Exception) -> Response:
        return _error_response(error) if isinstance(error, ConnectorError) else JSONResponse({}, 500)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: Exception) -> Response:
        problems = error.errors() if isinstance(error, RequestValidationError) else ()
        # Without `input` and `ctx`: they repeat what the client sent, and `ctx` may hold an exception.
        errors = [{name: problem[name] for name in ("type", "loc", "msg")} for problem in problems]
        text = json.dumps({"detail": errors})  # escapes lone surrogates, which JSONResponse cannot encode
        return Response(text, 422, media_type="application/json")

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse(console.ROOT, 303)

    # Not a coroutine: FastAPI calls it in a thread, and collecting the metrics does not hold up the event loop.
    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        generate, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(generate(registry), headers={"content-type": content_type})

    @app.get("/livez")
    async def livez() -> JSONResponse:
        """200 while the process answers and no part of it has ended; says nothing of Kafka."""
        ended = context.health.ended
        return JSONResponse(
            {"live": not ended, **({"dead": ended} if ended else {})}, status_code=503 if ended else 200
        )

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 while a message can be accepted durably: by the brokers, or by the journal."""
        return JSONResponse(context.health.as_dict(), status_code=200 if context.health.is_ready else 503)

    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        """The state of the outside and of the backlog, rates of the last minutes, and versions."""
        return status_of(context)

    @app.get("/api/topics")
    async def topics() -> dict[str, Any]:
        """Brokers and topics as they are."""
        return await topics_of(context)

    @app.get("/api/config")
    async def config() -> dict[str, Any]:
        """The effective settings, secrets redacted."""
        return context.settings().redacted()

    app.include_router(api.router(context))
    app.include_router(console.router(context, sessions, throttle))
    return Guard(app, sessions, throttle, on_loopback=context.is_loopback)


def _error_response(error: ConnectorError) -> Response:
    answer = answers.to_operator(error, status=409 if isinstance(error, AlreadyRunning) else None)
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers
    return response
