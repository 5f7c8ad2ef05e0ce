"""Traces with OpenTelemetry: the SDK, and a span for each record that is produced.

If tracing is enabled, the receiver gets a hook (`connector.receiver.tracing`) and the publisher is wrapped; otherwise
neither knows about tracing. In both cases the context travels as the request's ``traceparent``, which its records carry
and the journal stores. A record that is replayed an hour later still belongs to the trace of its request.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from connector.errors import missing_extra
from connector.kafka.publisher import Failures, Publisher
from connector.values import ProducibleRecord

_TRACEPARENT: Final = "traceparent"
_W3C: Final = TraceContextTextMapPropagator()


class Tracing:
    """OpenTelemetry's SDK with its OTLP exporter; both read their own ``OTEL_…`` variables.

    Args:
        version: The connector's version.

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
            raise missing_extra("WEDA_TRACING__ENABLED: the exporter of OpenTelemetry", "otlp") from error
        # Our names are defaults: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override them.
        ours = Resource({"service.name": "weda-kafka-connector", "service.version": version})
        self._provider = TracerProvider(resource=ours.merge(_named(Resource.create())), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer: Tracer = self._provider.get_tracer("connector", version)

    async def stop(self) -> None:
        """Send the remaining spans, within the exporter's timeouts."""
        await asyncio.to_thread(self._provider.shutdown)


def _named(resource: Any) -> Any:
    """A resource without the service name that the SDK sets if none is configured."""
    attributes = {
        name: value for name, value in resource.attributes.items() if not str(value).startswith("unknown_service")
    }
    return type(resource)(attributes)


class TracedPublisher:
    """A publisher that makes a producer span for each record of a trace, which the record's ``traceparent`` then names.

    Args:
        publisher: Publishes the records.
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
        """Produce the records of one message; see `connector.kafka.publisher.Publisher`."""
        spans = [self._span(record) for record in records]
        traced = [_with_traceparent(record, span) for record, span in zip(records, spans, strict=True)]
        self._publisher.publish(traced, partial(_report, spans, report))

    async def start(self) -> None:
        """Start to take records."""
        await self._publisher.start()

    async def stop(self, deadline_seconds: float) -> None:
        """Flush until the deadline, then report the remaining records as failed."""
        await self._publisher.stop(deadline_seconds)

    def _span(self, record: ProducibleRecord) -> Span:
        parent = dict(record.headers).get(_TRACEPARENT)
        if parent is None:
            return INVALID_SPAN  # a dead letter, which the span of its request describes
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
        context = context_of(parent.decode("latin-1"))
        return self._tracer.start_span(f"send {record.topic}", context, SpanKind.PRODUCER, attributes)


def _report(spans: Sequence[Span], report: Callable[[Failures], None], failures: Failures) -> None:
    for span, failure in zip(spans, failures, strict=True):
        if failure is not None:
            span.set_attribute("error.type", failure.name)
            span.set_status(Status(StatusCode.ERROR, failure.detail))
        span.end()
    report(failures)


def _with_traceparent(record: ProducibleRecord, span: Span) -> ProducibleRecord:
    if span is INVALID_SPAN:
        return record
    others = tuple((name, value) for name, value in record.headers if name != _TRACEPARENT)
    return msgspec.structs.replace(record, headers=(*others, (_TRACEPARENT, traceparent_of(span).encode())))


def context_of(traceparent: str) -> Context:
    """The context that a ``traceparent`` names; an empty one, which begins a new trace, if it names none."""
    return _W3C.extract({_TRACEPARENT: traceparent}, Context())


def traceparent_of(span: Span) -> str:
    """The ``traceparent`` header that names a span."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get(_TRACEPARENT, "")
