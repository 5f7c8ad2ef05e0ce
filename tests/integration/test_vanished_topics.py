"""Topics that are gone while the connector runs: deleted, as on an empty cluster that took the old one's address."""

import asyncio
from functools import partial

from confluent_kafka.admin import AdminClient

from tests.integration.test_outage import message
from tests.servers.kafka import KafkaCluster
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS, until


async def test_topics_that_were_deleted_are_made_again_and_what_waits_is_published(start, kafka, topic_prefix):
    """P8: without an operator; the order of an instance holds, and the loss is in the log."""
    running = await start()
    assert await running.post(message("a", 0)) == (200, {"code": 0})
    await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 1)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    ours = [name for name in admin.list_topics(timeout=60).topics if name.startswith(topic_prefix)]
    for deleted in admin.delete_topics(ours).values():
        await asyncio.to_thread(deleted.result, PATIENCE_SECONDS)
    await until(partial(refuses_records, kafka, f"{topic_prefix}.events"))  # until then it takes records with it
    for number in range(1, 6):
        assert await running.post(message("ab"[number % 2], number)) == (200, {"code": 0})

    async def are_back() -> bool:
        return set(ours) <= set(await asyncio.to_thread(lambda: admin.list_topics(timeout=60).topics))

    await until(are_back)
    await running.drained()
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 5)
    found = [dict(one.headers())["ce_id"].decode() for one in records]
    assert [one for one in found if one.startswith("a")] == ["a-2", "a-4"]
    assert [one for one in found if one.startswith("b")] == ["b-1", "b-3", "b-5"]
    assert await running.metric("weda_connector_ledger_imbalance") == 0


async def test_an_empty_cluster_at_the_same_address_gets_the_topics_and_what_was_not_published(start, topic_prefix):
    """P1 and P8: what the old cluster had acknowledged is gone with it; everything after that is in the new one."""
    with KafkaCluster.start() as cluster:
        running = await start(kafka__bootstrap_servers=cluster.bootstrap_servers)
        assert await running.post(message("a", 0)) == (200, {"code": 0})
        replacing = asyncio.create_task(asyncio.to_thread(cluster.replace_with_an_empty_one))
        sent = 0
        while not replacing.done() or sent < 20:
            sent += 1
            assert await running.post(message("ab"[sent % 2], sent)) == (200, {"code": 0})
            await asyncio.sleep(0.1)
        await replacing

        await running.drained()
        found = await asyncio.to_thread(ids_in, cluster, f"{topic_prefix}.events")
        of_a = [int(one.partition("-")[2]) for one in dict.fromkeys(found) if one.startswith("a")]
        of_b = [int(one.partition("-")[2]) for one in dict.fromkeys(found) if one.startswith("b")]
        assert of_a == sorted(of_a)
        assert of_b == sorted(of_b)
        assert {*of_a, *of_b} >= {*range(3, sent + 1)}, "the first few may have reached the old cluster"
        assert await running.metric("weda_connector_ledger_imbalance") == 0


async def refuses_records(kafka: KafkaCluster, topic: str) -> bool:
    """Whether the broker itself has let go of a topic, which it does a moment after the deletion is answered."""
    return not any(
        folder.name.startswith(f"{topic}-") and not folder.name.endswith("-delete")
        for folder in kafka.storage(1).iterdir()
    )


def ids_in(cluster: KafkaCluster, topic: str) -> list[str]:
    """The ``ce_id`` of every record of a topic, partition by partition."""
    count = sum(cluster.end_offsets(topic).values())
    records = read_topic(cluster.bootstrap_servers, topic, count)
    return [dict(one.headers())["ce_id"].decode() for one in records]
