"""Topics that are gone while the connector runs: deleted, as on an empty cluster that took the old one's address."""

import asyncio

from confluent_kafka.admin import AdminClient

from tests.integration.test_outage import message, until
from tests.servers.reading import read_topic


async def test_topics_that_were_deleted_are_made_again_and_what_waits_is_published(start, kafka, topic_prefix):
    """P8: without an operator; the order of an instance holds, and the loss is in the log."""
    running = await start()
    assert await running.post(message("a", 0)) == (200, {"code": 0})
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    ours = [name for name in admin.list_topics(timeout=10).topics if name.startswith(topic_prefix)]
    for deleted in admin.delete_topics(ours).values():
        await asyncio.to_thread(deleted.result, 30)
    for number in range(1, 6):
        assert await running.post(message("ab"[number % 2], number)) == (200, {"code": 0})

    async def is_empty() -> bool:
        return await running.metric("weda_connector_journal_messages") == 0

    async def are_back() -> bool:
        return set(ours) <= set(await asyncio.to_thread(lambda: admin.list_topics(timeout=10).topics))

    await until(are_back, 60)
    await until(is_empty, 60)
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 5)
    found = [dict(one.headers())["ce_id"].decode() for one in records]
    assert [one for one in found if one.startswith("a")] == ["a-2", "a-4"]
    assert [one for one in found if one.startswith("b")] == ["b-1", "b-3", "b-5"]
    assert await running.metric("weda_connector_ledger_imbalance") == 0
