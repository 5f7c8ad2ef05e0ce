"""A wall clock that was wrong: what Kafka rejected for its timestamp is published once the clock is right again."""

import asyncio
import time

import pytest

from connector.admin.doctor import examine
from connector.kafka.topics import TopicAdmin, TopicSpec
from connector.message.encoding import decode
from connector.settings import Settings
from tests.integration.test_outage import message
from tests.servers.reading import read_topic
from tests.waiting import until

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """The process's wall clock: set ``off`` to so many seconds."""

    class Clock:
        off = 0.0

    true, true_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: true() + Clock.off)
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + int(Clock.off * 10**9))
    return Clock


@pytest.mark.parametrize("restarts", [False, True], ids=["corrected while it runs", "corrected before a restart"])
async def test_what_was_received_by_a_clock_that_was_ahead_is_published_when_it_is_right(
    start, kafka, topic_prefix, clock, restarts
):
    """P1, P3, P8: at once, in order; the reason and the age can be seen all the while."""
    clock.off = 8 * HOUR
    running = await start()
    for number in range(6):
        assert await running.post(message("ab"[number % 2], number)) == (200, {"code": 0})

    async def is_reported() -> bool:
        _, reported = await running.ready()
        return (
            "INVALID_TIMESTAMP" in reported["problems"].get("publishing", "") and reported["oldest_waiting_seconds"] > 1
        )

    await until(is_reported)
    if restarts:
        await running.connector.stop()  # first: what it publishes with the right clock, nobody counts
    clock.off = 0.0
    if restarts:
        running = await start()
    else:
        assert 1 < (await running.ready())[1]["oldest_waiting_seconds"] < 60
    for number in range(6, 10):
        assert await running.post(message("ab"[number % 2], number)) == (200, {"code": 0})
    await running.drained()

    records = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.events", 10)
    for instance, expected in ((b"a", range(0, 10, 2)), (b"b", range(1, 10, 2))):
        found = [dict(one.headers())["ce_id"].decode() for one in records if one.key() == instance]
        assert found == [f"{instance.decode()}-{number}" for number in expected]
    assert all(abs(one.timestamp()[1] / 1000 - time.time()) < 120 for one in records)
    received = [decode(one.value(), None)["receivedAt"] / 1000 - time.time() for one in records]
    assert sum(seconds > 7 * HOUR for seconds in received) == 6, "receivedAt stays what it was"
    assert await running.metric("weda_connector_timestamps_replaced_total", stream="events") > 0
    assert await running.metric("weda_connector_ledger_imbalance") == 0

    async def is_well() -> bool:
        return "publishing" not in (await running.ready())[1]["problems"]

    await until(is_well)


async def test_what_is_older_than_its_topic_takes_is_published_with_the_current_time(start, kafka, topic_prefix, clock):
    """`message.timestamp.before.max.ms`: a clock that was behind, or a backlog that has waited for long."""
    limit = {"message.timestamp.before.max.ms": "3600000"}
    specs = [TopicSpec(f"{topic_prefix}.{stream}", 1, 1, limit) for stream in ("events", "tasks")]
    await asyncio.to_thread(TopicAdmin(kafka.bootstrap_servers, {}).create, specs, 10)
    clock.off = -8 * HOUR
    running = await start()
    assert await running.post(message("a", 0)) == (200, {"code": 0})
    clock.off = 0.0
    assert await running.post(message("a", 1)) == (200, {"code": 0})
    await running.drained()

    records = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.events", 2)
    assert [dict(one.headers())["ce_id"] for one in records] == [b"a-0", b"a-1"]
    assert all(abs(one.timestamp()[1] / 1000 - time.time()) < 120 for one in records)


@pytest.mark.parametrize(("hours", "verdict"), [(8, "failed"), (0.5, "warning"), (-8, "warning")])
async def test_the_doctor_fails_where_the_clock_is_beyond_what_the_topics_take(  # noqa: PLR0917 - the real parts
    start, kafka, topic_prefix, clock, hours, verdict
):
    """An hour ahead is Kafka's own limit; behind there is none by default."""
    await start()
    clock.off = hours * HOUR
    flags = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "topics.prefix": topic_prefix}
    settings = Settings.load(environment={}, flags=flags)
    findings = await asyncio.to_thread(lambda: list(examine(settings)))

    [reported] = [one for one in findings if one.check == "clock" and "the brokers'" in one.found]
    assert reported.verdict == verdict
    assert ("message.timestamp.after.max.ms" in reported.found) == (verdict == "failed")
