"""Traces arrive by OTLP where the standard's variables say, and hang together from the caller to the records."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from connector import answers
from connector.app import connector
from connector.app.connector import Connector
from connector.errors import Unavailable
from connector.kafka.publisher import KafkaPublisher
from connector.operations.guard import Guard
from connector.receiver.application import Call, Receiver
from connector.receiver.client_address import NOWHERE
from connector.receiver.head import Head
from connector.receiver.tracing import RequestSpans
from tests.integration.test_outage import message
from tests.servers.endpoint import Handler, serving
from tests.servers.ports import LOOPBACK
from tests.servers.reading import read_topic

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"


class Collector:
    """The receiving end of OTLP over HTTP: it decodes what comes and keeps the spans."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def named(self, start: str) -> list[Span]:
        return [span for span in self.spans if span.name.startswith(start)]


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    class Endpoint(Handler):
        def do_POST(self) -> None:  # noqa: N802 - named by http.server
            asked = ExportTraceServiceRequest.FromString(self.body())
            for resource in asked.resource_spans:
                collector.services |= {
                    one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
                }
                for scope in resource.scope_spans:
                    collector.spans += scope.spans
            self.answer(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

    with serving(Endpoint) as port:
        collector = Collector(port)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield collector


def attributes(span: Span) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def test_a_request_its_records_and_its_caller_are_one_trace(start, kafka, topic_prefix, collector):
    running = await start(tracing__enabled=True)
    assert (await running.post(message("i-1", 1), traceparent=PARENT))[0] == 200
    await running.connector.stop()

    (server,) = collector.named("POST /messageDeliver")
    assert (server.trace_id.hex(), server.parent_span_id.hex(), server.kind) == (TRACE, CALLER, Span.SPAN_KIND_SERVER)
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/messageDeliver",
        "http.response.status_code": 200,
        "url.path": "/messageDeliver",
        "url.scheme": "http",
    }
    sent = {span.name: span for span in collector.named("send ")}
    assert set(sent) == {f"send {topic_prefix}.events", f"send {topic_prefix}.tasks"}
    produced = sent[f"send {topic_prefix}.events"]
    assert (produced.trace_id, produced.parent_span_id) == (server.trace_id, server.span_id)
    assert produced.kind == Span.SPAN_KIND_PRODUCER
    known = attributes(produced)
    assert known.pop("messaging.message.body.size") > 50
    assert known == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": f"{topic_prefix}.events",
        "messaging.kafka.message.key": "i-1",
        "messaging.message.conversation_id": "i-1",
    }
    (record,) = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.events")
    assert dict(record.headers())["traceparent"].decode() == f"00-{TRACE}-{produced.span_id.hex()}-01"
    assert collector.services == {"weda-kafka-connector"}


async def test_without_a_caller_s_context_a_trace_begins_and_a_refusal_ends_it(start, collector, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "weda-of-mine")
    running = await start(tracing__enabled=True)
    assert (await running.post(message("i-1", 1), traceparent="00-nonsense"))[0] == 200
    assert (await running.post(b"no JSON"))[0] == 400
    running.connector.health.is_closing = True
    await running.connector.stop()

    fine, bad = sorted(collector.named("POST"), key=lambda span: attributes(span)["http.response.status_code"])
    assert fine.parent_span_id == b""
    assert re.fullmatch(r"[0-9a-f]{32}", fine.trace_id.hex())
    assert attributes(bad)["http.response.status_code"] == 400
    assert bad.status.code == Status.STATUS_CODE_UNSET, "a sender's mistake is no error of ours"
    assert len(collector.named("send ")) == 2, "a dead letter has no span of its own"
    assert collector.services == {"weda-of-mine"}


async def test_a_record_that_waited_in_the_journal_belongs_to_its_request(start, kafka, collector):
    running = await start(tracing__enabled=True)
    await running.post(message("i-1", 0))
    kafka.pause(1)
    try:
        assert (await running.post(message("i-2", 1), traceparent=PARENT))[0] == 200
        await running.connector.stop()
    finally:
        kafka.resume(1)
    again = await start(tracing__enabled=True)

    await again.drained()
    await again.connector.stop()

    (server,) = [span for span in collector.named("POST") if span.trace_id.hex() == TRACE]
    ended = [span for span in collector.named("send ") if span.trace_id.hex() == TRACE]
    assert {span.parent_span_id for span in ended} == {server.span_id}
    assert [span for span in ended if span.status.code == Status.STATUS_CODE_UNSET], "published in the end"


async def test_spans_hold_nothing_of_a_message_but_its_instance(start, collector):
    running = await start(tracing__enabled=True)
    await running.post(message("i-1", 1) | {"comment": "a-private-remark", "flowTitle": "a-private-title"})
    await running.connector.stop()

    assert collector.spans
    assert "private" not in str(collector.spans)
    assert "a-token-for-tests" not in str(collector.spans)


async def test_switched_off_nothing_stands_in_the_way(start, collector, monkeypatch):
    """Free when off: the listener serves the receiver itself, and delivery publishes by Kafka's adapter itself."""
    serve, deliver = Connector._serve, connector.Delivery
    built = []

    async def noting_serve(connector, part, application, *rest):
        built.append(application)
        return await serve(connector, part, application, *rest)

    def noting_delivery(publisher, *rest, **more):
        built.append(publisher)
        return deliver(publisher, *rest, **more)

    monkeypatch.setattr(Connector, "_serve", noting_serve)
    monkeypatch.setattr(connector, "Delivery", noting_delivery)
    running = await start()
    await running.post(message("i-1", 1), traceparent=PARENT)
    await running.connector.stop()

    assert {type(one) for one in built} == {Guard, KafkaPublisher, Receiver}
    assert collector.spans == []


@pytest.mark.parametrize("is_code_only", [False, True])
def test_a_failure_of_ours_is_an_error_whatever_status_the_source_is_sent(is_code_only):
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    call = Call(Head("POST", "/messageDeliver", []), lambda _answer, _id: None, NOWHERE)
    RequestSpans(provider.get_tracer("test")).begin(call)

    call.answer(answers.to_source(Unavailable("the journal is full"), is_code_only=is_code_only))

    [span] = kept.get_finished_spans()
    assert span.attributes["http.response.status_code"] == (200 if is_code_only else 503)
    assert not span.status.is_ok
    assert not span.status.is_unset


def test_without_the_extra_the_start_says_how_to_get_it():
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; sys.modules['opentelemetry.exporter'] = None\n"
        "from connector.cli import main\n"
        "sys.argv = ['weda-connector', 'serve']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "WEDA_TRACING__ENABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "WEDA_TRACING__ENABLED" in done.stderr
    assert "add the extra `otlp`" in done.stderr
