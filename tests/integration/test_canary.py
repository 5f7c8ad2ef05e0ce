"""The canary goes the whole way to a topic of its own, comes back, and disturbs nobody."""

from functools import partial

from tests.integration.test_outage import message
from tests.servers.reading import read_topic
from tests.waiting import equals, until


async def test_the_canary_comes_back_and_nobody_else_is_disturbed(start, kafka, topic_prefix):
    running = await start(canary__enabled=True, canary__interval_seconds=1)
    assert (await running.post(message("a", 1)))[0] == 200

    async def has_come_back() -> bool:
        return await running.metric("weda_connector_canary_round_trip_seconds_count") >= 2

    await until(has_come_back)
    canaries = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.canary")
    events = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.events")

    assert {record.partition() for record in canaries} == {0}
    assert all(record.key().startswith(b"canary-") for record in canaries)
    assert [record.key() for record in events] == [b"a"]
    assert await running.metric("weda_connector_messages_total") == 1
    assert await running.metric("weda_connector_requests_total") == 1
    assert await running.metric("weda_connector_messages_published_total", source="default") == 1
    assert await running.metric("weda_connector_ledger_imbalance") == 0
    await until(partial(running.metric, "weda_connector_canary_age_seconds"), lambda age: age < 5)


async def test_an_outage_makes_the_canary_late_and_leaves_one_of_it_in_the_journal(start, kafka):
    running = await start(canary__enabled=True, canary__interval_seconds=1)

    async def has_come_back() -> bool:
        return await running.metric("weda_connector_canary_round_trip_seconds_count") >= 1

    await until(has_come_back)
    kafka.pause(1)
    try:

        async def is_late() -> bool:
            return await running.metric("weda_connector_canary_age_seconds") > 4

        await until(is_late)
        await until(partial(running.metric, "weda_connector_journal_messages"), equals(1))
    finally:
        kafka.resume(1)

    async def is_back() -> bool:
        return await running.metric("weda_connector_canary_age_seconds") < 2

    await until(is_back)


async def test_without_it_there_is_no_topic_and_no_reading(start, kafka, topic_prefix):
    running = await start()

    assert f"{topic_prefix}.canary" not in kafka.admin().list_topics(timeout=60).topics
    assert await running.metric("weda_connector_canary_interval_seconds") == 0
    assert await running.metric("weda_connector_canary_age_seconds") == 0
