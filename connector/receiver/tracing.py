"""A span for each request: the receiver's hook if tracing is enabled; see `connector.telemetry.tracing`."""

from functools import partial
from typing import Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id

from connector import endpoints
from connector.answers import Answer
from connector.receiver.application import Call
from connector.telemetry.logs import TRACE_ID
from connector.telemetry.tracing import context_of, traceparent_of

_SERVER_ERRORS: Final = 500
_SOURCE_ROUTE: Final = endpoints.path_of("{source}")
_MAX_PATH_CHARS: Final = 200  # an unknown path can be as long as a URL


class RequestSpans:
    """Makes a server span for each request, from its head to its answer.

    Args:
        tracer: Makes spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, call: Call) -> None:
        """Begin the span of a request as a child of the one in its ``traceparent``; its records name the new span."""
        method, path = call.head.method, call.head.path
        parent = context_of(call.head.header(b"traceparent"))
        span = self._tracer.start_span(_name(method, path), parent, SpanKind.SERVER, _request_attributes(method, path))
        TRACE_ID.set(format_trace_id(span.get_span_context().trace_id))
        call.trace = traceparent_of(span)
        call.on_end = partial(_end, span)


def _end(span: Span, answer: Answer | None) -> None:
    """End the span of a request; ``answer`` is None if the sender hung up before it."""
    if answer is not None:
        _set_status(span, answer)
    span.end()


def _set_status(span: Span, answer: Answer) -> None:
    span.set_attribute("http.response.status_code", answer.status)
    # By the nominal status: a source with `code-only` answers gets 200 even for an error.
    if answer.nominal_status >= _SERVER_ERRORS:
        span.set_status(Status(StatusCode.ERROR))


def _name(method: str, path: str) -> str:
    return f"{method} {_route(path)}".strip() if method in endpoints.METHODS else "HTTP"


def _request_attributes(method: str, path: str) -> dict[str, str]:
    """The attributes of a server span by OpenTelemetry's conventions, without the query, which may hold a message."""
    shown = method if method in endpoints.METHODS else "_OTHER"
    attributes = {"http.request.method": shown, "url.path": path[:_MAX_PATH_CHARS], "url.scheme": "http"}
    return attributes | {"http.route": _route(path)} if _route(path) else attributes


def _route(path: str) -> str:
    if path.startswith(endpoints.SOURCES_PATH) and path.endswith(endpoints.DELIVER_PATH):
        return _SOURCE_ROUTE  # a route has few values, by the conventions, but a client chooses the name in the path
    return endpoints.DELIVER_PATH if path == endpoints.DELIVER_PATH else ""
