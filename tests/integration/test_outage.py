"""The brokers go away and come back: nothing is lost, nothing is reordered, and the state is reported truly."""

import asyncio
import operator
import time
from collections import defaultdict
from functools import partial
from statistics import median

from confluent_kafka import Producer

from connector.errors import OutcomeUnknown
from connector.kafka.publisher import KafkaPublisher
from connector.simulator import Plan, play
from tests.integration.fatal import report_fatal_error
from tests.running import BY_DEFAULT, TOKEN
from tests.servers.reading import read_topic
from tests.waiting import at_least, until


def message(instance: str, number: int) -> dict[str, object]:
    return {"msgType": "Task", "instanceId": instance, "msgId": f"{instance}-{number}", "action": 2}


async def test_frozen_brokers_delay_nothing_and_lose_nothing(start, kafka, topic_prefix):
    """P1, P3, P6, P8: the answer comes within its deadline, the backlog is published in order, by itself."""
    running = await start(**BY_DEFAULT)

    async def is_accepted(number: int) -> bool:
        status, answer = await running.post(message("ab"[number % 2], number))
        assert (status, answer["code"]) in {(200, 0), (503, OutcomeUnknown.code)}
        return status == 200

    await until(partial(is_accepted, 0))
    kafka.pause(1)
    try:
        durations = []
        for number in range(1, 40):
            before = time.monotonic()
            await until(partial(is_accepted, number))
            durations.append(time.monotonic() - before)
        # the deadline, and what the client itself takes: one late answer is a busy machine's, many are the connector's
        assert median(durations) < 0.8 + 0.2

        status, reported = await running.ready()
        assert (status, reported["journal"]) == (200, "ok")
        assert await running.metric("weda_connector_journal_messages") >= 39

        async def is_reported() -> bool:
            age = await running.metric("weda_connector_journal_oldest_age_seconds")
            through = await running.metric("weda_connector_published_through_timestamp_seconds")
            return age > 0.5 and through < time.time() - 0.5

        await until(is_reported)
    finally:
        kafka.resume(1)

    await running.drained()
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 40)
    order = defaultdict(list)
    for record in records:
        order[record.key()].append(int(dict(record.headers())["ce_id"].decode().split("-")[1]))
    assert order == {b"a": [0, *range(2, 40, 2)], b"b": list(range(1, 40, 2))}
    assert await running.metric("weda_connector_ledger_imbalance") == 0


async def test_a_connector_that_starts_before_kafka_accepts_and_publishes_later(start, kafka, topic_prefix):
    """Start with brokers gone: messages are journaled, topics are made when the brokers come."""
    kafka.kill(1)
    try:
        running = await start()
        assert await running.post(message("a", 1)) == (200, {"code": 0})
        assert (await running.ready())[1]["kafka"] == "down"
        assert await running.metric("weda_connector_broker_up") == 0
    finally:
        await asyncio.to_thread(kafka.restart, 1)

    async def is_up() -> bool:
        return (await running.ready())[1]["kafka"] == "up" and await running.metric(
            "weda_connector_journal_messages"
        ) == 0

    await until(is_up)
    (record,) = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 1)
    assert record.key() == b"a"


async def test_what_is_journaled_is_published_after_a_restart(start, kafka, topic_prefix):
    """P1: stopped in an outage, the connector leaves everything accepted in the journal, and the next one goes on."""
    running = await start()
    await running.post(message("a", 0))
    kafka.pause(1)
    try:
        for number in range(1, 20):
            assert await running.post(message("a", number)) == (200, {"code": 0})
        async with asyncio.timeout(running.connector._settings.receiver.shutdown_grace_seconds):
            await running.connector.stop()
    finally:
        kafka.resume(1)

    again = await start()

    await again.drained()
    assert await again.post(message("a", 7)) == (200, {"code": 0})  # a repeat, recognised across the restart
    assert await again.post(message("a", 20)) == (200, {"code": 0})
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", None)
    ids = [int(dict(record.headers())["ce_id"].decode().split("-")[1]) for record in records]
    assert list(dict.fromkeys(ids)) == list(range(21))
    ingest = [dict(record.headers())["weda.fingerprint"] for record in records]
    assert len(set(ingest)) == 21


async def test_a_stop_under_load_keeps_everything_that_was_accepted(start, kafka, topic_prefix, seed):
    """SIGTERM's path: every accepted message is in Kafka or in the journal, in order."""
    running = await start()
    accepted: dict[str, list[str]] = defaultdict(list)

    def note(answer) -> None:
        if answer.outcome == "accepted":
            accepted[str(answer.message["instanceId"])].append(answer.message["msgId"])

    plan = Plan(url=running.url, token=TOKEN, seed=seed, instances=200, concurrency=32, retries=0)
    playing = asyncio.create_task(play(plan, on_answer=note))
    await until(lambda: sum(map(len, accepted.values())) > 100)
    await running.connector.stop()
    await playing
    again = await start()

    await again.drained()
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", None)
    found: dict[str, list[str]] = defaultdict(list)
    for record in records:
        found[record.key().decode()].append(dict(record.headers())["ce_id"].decode())
    for instance, ids in accepted.items():
        assert [one for one in found[instance] if one in ids] == ids


async def test_fatal_errors_under_load_lose_nothing_and_reorder_nothing(start, kafka, topic_prefix, seed):
    """The producer is rebuilt, and what it held goes back to the head of each lane."""
    running = await start()
    accepted: dict[str, list[str]] = defaultdict(list)

    def note(answer) -> None:
        assert answer.outcome == "accepted"
        accepted[str(answer.message["instanceId"])].append(answer.message["msgId"])

    playing = asyncio.create_task(
        play(Plan(url=running.url, token=TOKEN, seed=seed, instances=150, concurrency=64), on_answer=note)
    )
    publisher = running.connector.publisher
    for generation in range(3):
        enough = 200 * (generation + 1)
        await until(lambda: sum(map(len, accepted.values())), at_least(enough))
        report_fatal_error(publisher)
        await until(lambda: publisher.generation, partial(operator.lt, generation))
    summary = await playing

    await running.drained()
    assert await running.metric("weda_connector_producer_rebuilds_total") == 3
    assert await running.metric("weda_connector_ledger_imbalance") == 0
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", None)
    found: dict[str, list[str]] = defaultdict(list)
    for record in records:
        found[record.key().decode()].append(dict(record.headers())["ce_id"].decode())
    assert summary.accepted == summary.sent
    assert {instance: list(dict.fromkeys(ids)) for instance, ids in found.items()} == accepted


async def test_the_journal_when_full_refuses_and_says_when_to_come_back(start, kafka):
    """P6, P7: 503 with Retry-After, never an acceptance that is not durable."""
    running = await start(journal__max_bytes=4 * 1024 * 1024)
    await running.post(message("a", 0))
    kafka.pause(1)
    try:
        refused = None
        for number in range(1, 3000):
            status, answer = await running.post(message(f"i{number}", number) | {"comment": "长" * 20_000})
            if status != 200:
                refused = (status, answer["code"], answer["retriable"])
                break
        assert refused == (503, 50300, True)

        async def is_unready() -> bool:
            return (await running.ready())[0] == 503

        await until(is_unready)
    finally:
        kafka.resume(1)

    await running.drained()
    await until(running.ready, lambda answer: answer[0] == 200)
    assert await running.metric("weda_connector_ledger_imbalance") == 0
    assert (await running.post(message("z", 0)))[0] == 200


async def test_a_producer_that_never_connects_is_replaced_once_the_brokers_are_known_to_be_up(
    start, kafka, topic_prefix, monkeypatch
):
    """P8: librdkafka's client may forget every broker; nobody has to restart the connector for that."""
    monkeypatch.setattr("connector.app.brokers.UNCONNECTED_SECONDS", float("inf"))
    monkeypatch.setattr("connector.app.brokers.ASK_SECONDS", 0.5)
    build = KafkaPublisher._build

    def lost(publisher: KafkaPublisher) -> Producer:
        monkeypatch.setattr(KafkaPublisher, "_build", build)
        return Producer(
            {
                "bootstrap.servers": "127.0.0.1:1",
                "log_level": 0,
                "statistics.interval.ms": 200,
                "stats_cb": publisher._watch_connections,
            }
        )

    monkeypatch.setattr(KafkaPublisher, "_build", lost)
    running = await start()

    assert await running.post(message("a", 0)) == (200, {"code": 0})
    assert await running.metric("weda_connector_journal_messages") == 1
    monkeypatch.setattr("connector.app.brokers.UNCONNECTED_SECONDS", 1.0)

    rebuilds = partial(running.metric, "weda_connector_producer_rebuilds_total")
    await until(rebuilds, at_least(1))
    # The last statistics of the lost producer may count for the new one, which has its own only after five seconds.
    monkeypatch.setattr("connector.app.brokers.UNCONNECTED_SECONDS", float("inf"))
    (record,) = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 1)
    assert record.key() == b"a"
