"""Traces by OpenTelemetry: a span for each request, and one for each record that is produced for it.

Switched on, the receiver and the publisher are each wrapped once, where they are built; switched off, neither knows of
it. The context travels the way it travels without tracing: as the request's ``traceparent``, which its records carry
and the journal keeps. So a record that is replayed an hour later still belongs to the trace of its request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from connector.errors import ConfigurationError
from connector.kafka.publisher import Failures, Publisher
from connector.receiver.application import Answer, Call, Receiver
from connector.telemetry.logs import TRACE_ID
from connector.values import ProducibleRecord

_TRACEPARENT: Final = "traceparent"
_W3C: Final = TraceContextTextMapPropagator()
_SERVER_ERRORS: Final = 500
_METHODS: Final = frozenset({"GET", "POST", "PUT"})
_ROUTE: Final = "/messageDeliver"
_ROUTE_OF_A_SOURCE: Final = "/sources/{source}/messageDeliver"
_LONGEST_PATH: Final = 200

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Tracing:
    """OpenTelemetry's SDK with its OTLP exporter; both read their own ``OTEL_…`` variables.

    Args:
        version: Of the connector.

    Raises:
        ConfigurationError: The extra ``otlp`` is not installed.
    """

    def __init__(self, version: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - extra
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
        except ImportError as error:
            raise ConfigurationError(
                "WEDA_TRACING__ENABLED: the exporter is not installed: add the extra otlp "
                "(pip install '.[otlp]' in the checkout)"
            ) from error
        ours = Resource({"service.name": "weda-kafka-connector", "service.version": version})
        self._provider = TracerProvider(resource=ours.merge(_named(Resource.create())), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer: Tracer = self._provider.get_tracer("connector", version)

    async def stop(self) -> None:
        """Send what is left, as long as the exporter's time-outs let it."""
        await asyncio.to_thread(self._provider.shutdown)


def _named(resource: Any) -> Any:
    """A resource without the SDK's stand-in for a name."""
    attributes = {
        name: value for name, value in resource.attributes.items() if not str(value).startswith("unknown_service")
    }
    return type(resource)(attributes)


class TracedReceiver:
    """A receiver with a server span around each request.

    Args:
        receiver: What answers.
        tracer: Makes spans.
    """

    def __init__(self, receiver: Receiver, tracer: Tracer) -> None:
        self._receiver = receiver
        self._tracer = tracer

    @property
    def is_full(self) -> bool:
        """Whether as many requests are open as may be."""
        return self._receiver.is_full

    def take(self, call: Call, body: bytes) -> None:
        """Answer one request that is whole; see `connector.receiver.Receiver`."""
        span = self._begin(call.head.method, call.head.path, call.head.header(b"traceparent"))
        call.trace = _traceparent(span)
        call.send = partial(_end_and_send, span, call.send)
        self._receiver.take(call, body)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer one request of which the body is still to come, or parts of it."""
        if scope["type"] != "http":
            return
        given = dict(scope["headers"]).get(b"traceparent", b"")
        span = self._begin(scope["method"], scope["path"], given.decode("latin-1"))
        others = [(name, value) for name, value in scope["headers"] if name != b"traceparent"]
        with_span = scope | {"headers": [*others, (b"traceparent", _traceparent(span).encode())]}
        try:
            await self._receiver(with_span, receive, partial(_note_and_send, span, send))
        finally:
            span.end()

    def _begin(self, method: str, path: str, parent: str) -> Span:
        """A span under the one that the caller's ``traceparent`` names."""
        span = self._tracer.start_span(
            _name(method, path), _extracted(parent), SpanKind.SERVER, _request_attributes(method, path)
        )
        TRACE_ID.set(format_trace_id(span.get_span_context().trace_id))
        return span


def _end_and_send(span: Span, send: Callable[[Answer, str], None], answer: Answer, request_id: str) -> None:
    _note(span, answer.status)
    span.end()
    send(answer, request_id)


async def _note_and_send(span: Span, send: Send, event: dict[str, Any]) -> None:
    if event["type"] == "http.response.start":
        _note(span, event["status"])
    await send(event)


def _note(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= _SERVER_ERRORS:
        span.set_status(Status(StatusCode.ERROR))


def _name(method: str, path: str) -> str:
    return f"{method} {_route(path)}".strip() if method in _METHODS else "HTTP"


def _request_attributes(method: str, path: str) -> dict[str, str]:
    """What the conventions ask of a server span; a query may hold a message, so it is left out."""
    shown = method if method in _METHODS else "_OTHER"
    attributes = {"http.request.method": shown, "url.path": path[:_LONGEST_PATH], "url.scheme": "http"}
    return attributes | {"http.route": _route(path)} if _route(path) else attributes


def _route(path: str) -> str:
    if path.startswith("/sources/") and path.endswith(_ROUTE):
        return _ROUTE_OF_A_SOURCE
    return _ROUTE if path == _ROUTE else ""


class TracedPublisher:
    """A publisher with a producer span for each record that belongs to a trace; its ``traceparent`` names that span.

    Args:
        publisher: Where records go.
        tracer: Makes spans.
    """

    def __init__(self, publisher: Publisher, tracer: Tracer) -> None:
        self._publisher = publisher
        self._tracer = tracer

    @property
    def is_open(self) -> bool:
        """Whether records are taken now."""
        return self._publisher.is_open

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        """Produce the records of one message; see `connector.publisher.Publisher`."""
        spans = [self._span(record) for record in records]
        carrying = [_carrying(record, span) for record, span in zip(records, spans, strict=True)]
        self._publisher.publish(carrying, partial(_report, spans, report))

    async def start(self) -> None:
        """Take records from now on."""
        await self._publisher.start()

    async def stop(self, deadline_seconds: float) -> None:
        """Flush for at most so long, then report what is left as failed."""
        await self._publisher.stop(deadline_seconds)

    def _span(self, record: ProducibleRecord) -> Span:
        parent = dict(record.headers).get(_TRACEPARENT)
        if parent is None:
            return INVALID_SPAN  # a dead letter: its request's span says what it was
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": record.topic,
            "messaging.message.body.size": len(record.value or b""),
        }
        if record.key is not None:
            key = record.key.decode(errors="replace")
            attributes |= {"messaging.kafka.message.key": key, "messaging.message.conversation_id": key}
        context = _extracted(parent.decode("latin-1"))
        return self._tracer.start_span(f"send {record.topic}", context, SpanKind.PRODUCER, attributes)


def _report(spans: Sequence[Span], report: Callable[[Failures], None], failures: Failures) -> None:
    for span, failure in zip(spans, failures, strict=True):
        if failure is not None:
            span.set_attribute("error.type", failure.name)
            span.set_status(Status(StatusCode.ERROR, failure.detail))
        span.end()
    report(failures)


def _carrying(record: ProducibleRecord, span: Span) -> ProducibleRecord:
    if span is INVALID_SPAN:
        return record
    others = tuple((name, value) for name, value in record.headers if name != _TRACEPARENT)
    return msgspec.structs.replace(record, headers=(*others, (_TRACEPARENT, _traceparent(span).encode())))


def _extracted(traceparent: str) -> Context:
    """The context that a header names; an empty one where it names none, so that the span begins a trace."""
    return _W3C.extract({_TRACEPARENT: traceparent}, Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get(_TRACEPARENT, "")
