"""The Kafka adapter on a real broker: reports, refusals, and what a fatal error leaves behind."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator

import pytest
from confluent_kafka import Producer

from connector.kafka import publisher as publisher_module
from connector.kafka.embedded import EmbeddedBroker
from connector.kafka.publisher import Failure, FailureKind, Failures, KafkaPublisher, producer_properties
from connector.values import ProducibleRecord
from tests.integration.fatal import bring_into_fatal_state, refuse_the_next_request, report_fatal_error
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS, at_least, equals, until


def record(topic: str, value: bytes = b"v", key: bytes = b"k") -> ProducibleRecord:
    return ProducibleRecord("events", topic, key, value, (("h", b"1"),), 1_763_000_000_000)


async def publish(publisher: KafkaPublisher, *records: ProducibleRecord) -> Failures:
    reported: asyncio.Future[Failures] = asyncio.get_running_loop().create_future()
    publisher.publish(records, reported.set_result)
    return await asyncio.wait_for(reported, PATIENCE_SECONDS)


@pytest.fixture
async def publisher(kafka) -> AsyncIterator[KafkaPublisher]:
    running = KafkaPublisher(producer_properties(kafka.bootstrap_servers, {}))
    await running.start()
    yield running
    await running.stop(5)


@pytest.fixture
def topic(kafka, topic_prefix) -> str:
    name = f"{topic_prefix}.publisher"
    kafka.create_topic(name, partitions=1, replication=1, config={"max.message.bytes": "2000"})
    return name


async def test_a_message_is_published_when_all_its_records_are_reported(publisher, kafka, topic):
    assert await publish(publisher, record(topic, b"1"), record(topic, b"2")) == (None, None)

    found = read_topic(kafka.bootstrap_servers, topic, 2)
    assert [(one.key(), one.value(), one.headers()) for one in found] == [
        (b"k", b"1", [("h", b"1")]),
        (b"k", b"2", [("h", b"1")]),
    ]
    assert {one.timestamp()[1] for one in found} == {1_763_000_000_000}


async def test_what_may_be_produced_is_asked_at_the_last_moment(publisher, kafka, topic):
    """Between the two a process may stand still for as long as the machine likes."""
    refusal = Failure(FailureKind.UNCERTAIN, "_NO_LEASE", "it has run out")
    late = asyncio.create_task(publish(publisher, record(topic, b"late"), record(topic, b"late too")))
    await asyncio.sleep(0)  # it has been published, and not produced
    publisher.failure_now = lambda: refusal

    assert await late == (refusal, refusal)
    publisher.failure_now = lambda: None
    assert await publish(publisher, record(topic, b"1")) == (None,)
    assert [one.value() for one in read_topic(kafka.bootstrap_servers, topic, 1)] == [b"1"]


async def test_no_records_are_published_at_once(publisher):
    assert await publish(publisher) == ()


async def test_a_record_over_the_topics_limit_is_refused_for_its_own_sake(publisher, topic):
    (failure,) = await publish(publisher, record(topic, random.Random(1).randbytes(5000)))

    assert failure is not None
    assert (failure.kind, failure.name) == (FailureKind.REJECTED, "MSG_SIZE_TOO_LARGE")


async def test_a_raising_report_harms_nobody_else(publisher, topic):
    def raising(_failures: Failures) -> None:
        raise ValueError("a caller's defect")

    publisher.publish((record(topic),), raising)

    assert await publish(publisher, record(topic)) == (None,)


async def test_a_cancelled_waiter_harms_nobody_else(publisher, topic):
    """A request that is gone does not poison the reports of the others."""
    waiter = asyncio.ensure_future(publish(publisher, record(topic)))
    await asyncio.sleep(0)
    waiter.cancel()

    assert await publish(publisher, record(topic)) == (None,)


async def test_after_a_fatal_error_a_new_generation_publishes(publisher, topic):
    """The producer is purged and rebuilt; what it held is reported as uncertain."""
    assert await publish(publisher, record(topic, b"before")) == (None,)
    bring_into_fatal_state(publisher)

    failures = await publish(publisher, record(topic, b"during"))

    await until(lambda: publisher.generation)
    assert failures == (None,) or failures[0].kind is FailureKind.UNCERTAIN
    assert publisher.is_open
    assert await publish(publisher, record(topic, b"after")) == (None,)


async def test_every_message_in_flight_at_a_fatal_error_is_reported_once(publisher, topic):
    reports: list[Failures] = []
    for number in range(500):
        publisher.publish((record(topic, str(number).encode()),), reports.append)
        if number == 250:
            report_fatal_error(publisher)

    await until(lambda: len(reports) >= 500 and publisher.generation)
    await asyncio.sleep(0.2)  # nothing is reported again
    assert len(reports) == 500


async def test_a_record_that_was_acknowledged_before_its_producer_was_purged_stays_published(kafka, topic, monkeypatch):
    monkeypatch.setattr(publisher_module, "_PURGE_SECONDS", 0.0)  # as if librdkafka did not report what it purges
    waits = {"topic.metadata.propagation.max.ms": 600_000}  # for a topic that is not there
    publisher = KafkaPublisher(producer_properties(kafka.bootstrap_servers, waits))
    await publisher.start()
    both = asyncio.create_task(publish(publisher, record(topic), record(f"{topic}.missing")))
    await until(lambda: [message.missing for message in publisher._in_flight], equals([1]))
    report_fatal_error(publisher)

    acknowledged, failure = await both
    await publisher.stop(5)

    assert acknowledged is None
    assert failure is not None
    assert failure.kind is FailureKind.UNCERTAIN


async def test_stop_reports_what_is_left(kafka, topic):
    """A flush has a deadline; what is not acknowledged by then is reported as failed, never forgotten."""
    publisher = KafkaPublisher(producer_properties("127.0.0.1:1", {}))
    await publisher.start()
    reports: list[Failures] = []
    publisher.publish((record(topic),), reports.append)

    await publisher.stop(0.3)

    assert [failure.kind for (failure,) in reports] == [FailureKind.UNCERTAIN]


async def test_a_record_that_only_librdkafka_concludes_to_be_there_is_not_published(topic_prefix):
    """P1: of two requests in flight the first fails and the second succeeds; the first is reported as delivered."""
    broker = EmbeddedBroker()
    publisher = KafkaPublisher(producer_properties(broker.bootstrap_servers, {"linger.ms": 0}))
    await publisher.start()
    topic = f"{topic_prefix}.concluded"
    assert await publish(publisher, record(topic, b"0")) == (None,)
    refuse_the_next_request(broker, milliseconds=3_000)

    first = asyncio.create_task(publish(publisher, record(topic, b"1")))
    await asyncio.sleep(0.5)
    second = asyncio.create_task(publish(publisher, record(topic, b"2")))

    (failure,) = await first
    assert failure is not None
    assert (failure.kind, failure.name) == (FailureKind.UNCERTAIN, "_NO_OFFSET")
    assert await second == (None,)
    await publisher.stop(5)
    assert [one.value() for one in read_topic(broker.bootstrap_servers, topic, 2)] == [b"0", b"2"]


async def test_a_producer_that_does_not_connect_says_so_and_is_renewed(kafka, topic):
    properties = producer_properties("127.0.0.1:1", {"statistics.interval.ms": 100})
    publisher = KafkaPublisher(properties)
    await publisher.start()
    stuck = asyncio.create_task(publish(publisher, record(topic, b"1")))
    await until(lambda: publisher.unconnected_seconds, at_least(0.5))

    properties["bootstrap.servers"] = kafka.bootstrap_servers
    publisher.replace_unconnected()

    (failure,) = await stuck
    assert failure is not None
    assert failure.kind is FailureKind.UNCERTAIN
    await until(lambda: publisher.is_open)
    assert await publish(publisher, record(topic, b"1")) == (None,)
    await until(lambda: publisher.unconnected_seconds, equals(0))
    await publisher.stop(5)
    assert [one.value() for one in read_topic(kafka.bootstrap_servers, topic, 1)] == [b"1"]


async def test_properties_that_change_while_a_producer_is_being_built_are_not_forgotten(kafka, topic, monkeypatch):
    """The window is between the reading of the properties and the new producer: an exchange there was lost."""
    built: list[str] = []
    properties = producer_properties(kafka.bootstrap_servers, {})
    running = KafkaPublisher(properties)
    build, is_building = running._build, threading.Event()

    def slowly() -> Producer:
        producer = build()
        built.append(str(running._properties["client.id"]))
        is_building.set()
        time.sleep(0.3)
        return producer

    await running.start()
    monkeypatch.setattr(running, "_build", slowly)
    running.replace_properties({**properties, "client.id": "first"})
    await asyncio.to_thread(is_building.wait, PATIENCE_SECONDS)
    await asyncio.to_thread(running.replace_properties, {**properties, "client.id": "second"})
    await until(lambda: running.generation, at_least(2))
    failures = await publish(running, record(topic))
    await running.stop(5)

    assert built == ["first", "second"]
    assert failures == (None,)


@pytest.mark.parametrize("is_planned", [True, False])
async def test_new_properties_are_no_error_and_are_not_counted_as_one(is_planned, kafka, monkeypatch):
    reported: list[tuple[str, str]] = []
    monkeypatch.setattr(
        publisher_module._LOG, "info", lambda event, **_: reported.append(("info", event)), raising=False
    )
    monkeypatch.setattr(
        publisher_module._LOG, "error", lambda event, **_: reported.append(("error", event)), raising=False
    )
    rebuilt: list[int] = []
    properties = producer_properties(kafka.bootstrap_servers, {})
    running = KafkaPublisher(properties, on_rebuild=lambda: rebuilt.append(1))
    await running.start()
    if is_planned:
        running.replace_properties(properties)
    else:
        running.replace_unconnected()
    await until(lambda: running.generation, at_least(1))
    await asyncio.sleep(0)
    await running.stop(5)

    assert reported == (
        [("info", "rebuilding the producer with other properties")]
        if is_planned
        else [("error", "rebuilding the producer")]
    )
    assert len(rebuilt) == (0 if is_planned else 1)


async def test_a_fatal_error_while_the_producer_is_exchanged_is_counted(kafka):
    rebuilt: list[int] = []
    properties = producer_properties(kafka.bootstrap_servers, {})
    running = KafkaPublisher(properties, on_rebuild=lambda: rebuilt.append(1))
    await running.start()
    running.replace_properties(properties)
    report_fatal_error(running)
    await until(lambda: running.generation, at_least(1))
    await asyncio.sleep(0)
    await running.stop(5)

    assert rebuilt == [1]
