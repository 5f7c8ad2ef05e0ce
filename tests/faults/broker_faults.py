"""What brokers do to a connector while they run: topics vanish, records vanish, rights vanish, replicas move.

Some of these faults lose records on purpose. The promise is about what the connector does, so every such scenario first
lets the topic come to rest and reads it; what was read counts as if it still stood there (`Stage.gone`), and whatever
is accepted from then on must be in the topics at the end.

Which of them bring librdkafka (2.16) into its fatal state, seen with Kafka 4.4:

- A user that may write no topic at all is refused a producer id: ``CLUSTER_AUTHORIZATION_FAILED``, fatal. Only a *new*
  producer asks for one. A producer that has an id when its rights go raises its epoch by itself after each refused
  batch, asks nobody, and is not fatal.
- A log that lost its end: the broker expects an earlier sequence number than the next one that is sent,
  ``OUT_OF_ORDER_SEQUENCE_NUMBER``, fatal, under load.
- A topic that is deleted and created again, deleted records, and a broker that forgot the producer
  (``producer.id.expiration.ms``) are none: a partition that knows nothing of a producer takes any sequence number.
"""

import asyncio
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package exports them without a word to mypy
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from tests.faults.consumer import RECORD_TYPE_OF, Record
from tests.faults.messages import LARGE_BYTES
from tests.faults.scenarios import Scenario
from tests.faults.stage import Stage
from tests.servers import KafkaCluster
from tests.servers.access import EVERY_TOPIC, writing_denied
from tests.servers.reassignment import reassign

PARTITIONS = 12
STREAMS = tuple(RECORD_TYPE_OF)
REST_SECONDS = 60
ADMIN_SECONDS = 30
BATCH_HEADER = struct.Struct(">qi")
"""Of a batch in a log: its first offset, and how many bytes follow."""


def broker_faults() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario(
        *("topic-recreated", "a topic is deleted, missing for a while under load, and created again; twice"),
        *(_recreate_topics,),
        seconds=50,
        oldest_age_seconds=3,
    )
    yield Scenario("records-deleted", "DeleteRecords on every topic, again and again, under load and at rest", _delete)
    yield max_message_bytes_lowered()
    yield acl_withdrawn(every=False)
    yield acl_withdrawn(every=True)
    yield Scenario(
        *("fatal-at-start", "the connector is killed, starts without any right to write and gets it back"),
        *(_start_without_rights,),
        secured=True,
        interrupts=True,
        oldest_age_seconds=3,
        rebuilds=1,
    )
    yield Scenario(
        *("fatal-for-real", "a broker comes back with logs that lost their ends: a fatal error under load, twice"),
        *(_cut_logs,),
        rebuilds=1,
    )
    yield Scenario(
        *("partition-reassigned", "all partitions move from brokers to brokers, four times"),
        *(_reassign,),
        nodes=3,
    )
    yield Scenario(
        *("min-isr-lost", "two of three brokers freeze for 20 s, and with them the controllers' quorum"),
        *(partial(_freeze_some, frozen=20, count=2),),
        nodes=3,
        oldest_age_seconds=10,
    )
    yield Scenario(
        *("min-isr-not-met", "one of three brokers freezes where all three must have each record"),
        *(_demand_every_replica,),
        nodes=3,
        oldest_age_seconds=5,
    )


def max_message_bytes_lowered() -> Scenario:
    """Kafka rejects some of the records for their own sake."""
    return Scenario(
        "max-message-bytes-lowered",
        "a topic's max.message.bytes is lowered under load, so that large messages no longer fit, and raised again",
        _lower_limit,
        seconds=70,
        large=0.04,
        large_refused=True,
    )


def acl_withdrawn(*, every: bool) -> Scenario:
    """The connector's user loses the right to write, and gets it back."""
    return Scenario(
        f"acl-withdrawn-{'all' if every else 'one'}",
        f"the right to write {'any topic' if every else 'one topic'} is withdrawn under load, and given back",
        partial(_withdraw, every=every),
        secured=True,
        oldest_age_seconds=2,
    )


async def _recreate_topics(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.1)
    for stream in stage.chance.sample(STREAMS, 2):
        await _without_topic(stage, stream, seconds * 0.2)
        await asyncio.sleep(seconds * 0.2)


async def _without_topic(stage: Stage, stream: str, seconds: float) -> None:
    topic = _topic(stage, stream)
    async with stage.disturbing(f"{topic} deleted and created again"):
        async with stage.at_rest(seconds=REST_SECONDS):
            await stage.remember(stream)
            await asyncio.to_thread(_delete_topic, stage.cluster, topic)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(stage.cluster.create_topic, topic, PARTITIONS)
        for partition in range(PARTITIONS):
            stage.note_cut(stream, partition, 0)


def _delete_topic(cluster: KafkaCluster, topic: str) -> None:
    admin = cluster.admin()
    admin.delete_topics([topic])[topic].result(ADMIN_SECONDS)


async def _delete(stage: Stage, seconds: float) -> None:
    for _ in range(4):
        await asyncio.sleep(seconds / 6)
        async with stage.disturbing("records deleted under load"):
            for stream in STREAMS:
                await _delete_records(stage, stream)
    await asyncio.sleep(seconds / 6)
    async with stage.disturbing("every record deleted"), stage.at_rest(seconds=REST_SECONDS):
        for stream in STREAMS:
            await _delete_records(stage, stream)
    await asyncio.sleep(seconds / 6)


async def _delete_records(stage: Stage, stream: str) -> None:
    """Delete what has been read, and nothing else."""
    read = await stage.remember(stream)
    ends: dict[int, int] = {}
    for record in read:
        ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    chosen = [TopicPartition(_topic(stage, stream), partition, end) for partition, end in ends.items()]
    await asyncio.to_thread(_delete_up_to, stage.cluster, chosen)


def _delete_up_to(cluster: KafkaCluster, ends: list[TopicPartition]) -> None:
    admin = cluster.admin()
    for answer in admin.delete_records(ends).values():
        answer.result(ADMIN_SECONDS)


async def _lower_limit(stage: Stage, seconds: float) -> None:
    chosen = [stage.chance.choice(STREAMS)] if stage.chance.random() < 0.5 else [*STREAMS]
    topics = [_topic(stage, stream) for stream in chosen]
    await asyncio.sleep(seconds * 0.15)
    async with stage.disturbing(f"max.message.bytes lowered on {', '.join(chosen)}"):
        await asyncio.to_thread(_configure, stage.cluster, topics, "max.message.bytes", str(LARGE_BYTES))
        await asyncio.sleep(seconds * 0.6)
        await asyncio.to_thread(_configure, stage.cluster, topics, "max.message.bytes", str(1 << 20))
    await asyncio.sleep(seconds * 0.25)


def _configure(cluster: KafkaCluster, topics: Sequence[str], name: str, text: str) -> None:
    admin = cluster.admin()
    entry = ConfigEntry(name, text, incremental_operation=AlterConfigOpType.SET)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry]) for topic in topics]
    for answer in admin.incremental_alter_configs(resources).values():
        answer.result(ADMIN_SECONDS)


async def _withdraw(stage: Stage, seconds: float, *, every: bool) -> None:
    topic = EVERY_TOPIC if every else _topic(stage, stage.chance.choice(STREAMS))
    await asyncio.sleep(seconds * 0.2)
    for _ in range(2):
        async with stage.disturbing(f"no right to write {topic}"):
            denial = writing_denied(stage.cluster, topic)
            await asyncio.to_thread(denial.__enter__)
            await asyncio.sleep(seconds * 0.2)
            await asyncio.to_thread(denial.__exit__, None, None, None)
        await asyncio.sleep(seconds * 0.2)


async def _start_without_rights(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.2)
    async with stage.disturbing("no right to write anything"):
        denial = writing_denied(stage.cluster, EVERY_TOPIC)
        await asyncio.to_thread(denial.__enter__)
        await asyncio.sleep(seconds * 0.1)
        await stage.restart_connector()
        await asyncio.sleep(seconds * 0.3)
        await asyncio.to_thread(denial.__exit__, None, None, None)
    await asyncio.sleep(seconds * 0.4)


async def _cut_logs(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.2)
    for stream in stage.chance.sample(STREAMS, 2):
        async with stage.disturbing(f"the logs of {stream} cut short"), stage.at_rest(seconds=REST_SECONDS):
            read = await stage.remember(stream)
            await asyncio.to_thread(_restart_without_ends, stage, stream, read)
        await asyncio.sleep(seconds * 0.3)


def _restart_without_ends(stage: Stage, stream: str, read: Sequence[Record]) -> None:
    (node,) = stage.cluster.nodes
    stage.cluster.kill(node)
    for partition in {record.partition for record in read}:
        log = stage.cluster.storage(node) / f"{_topic(stage, stream)}-{partition}" / f"{0:020}.log"
        stage.note_cut(stream, partition, _cut_last_batch(log))
    stage.cluster.restart(node)


def _cut_last_batch(log: Path) -> int:
    """Gives the first offset that is no longer there."""
    held = log.read_bytes()
    end = position = offset = 0
    while end < len(held):
        position = end
        offset, size = BATCH_HEADER.unpack_from(held, position)
        end = position + BATCH_HEADER.size + size
    with log.open("r+b") as file:
        file.truncate(position)
    return offset


async def _reassign(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.15)
    first, second, third = stage.chance.sample(stage.cluster.nodes, 3)
    for nodes in ((first, second), (second, third), (third, first), (first, second, third)):
        async with stage.disturbing(f"partitions moved to brokers {nodes}"):
            for stream in STREAMS:
                replicas = {each: stage.chance.sample(nodes, len(nodes)) for each in range(PARTITIONS)}
                await asyncio.to_thread(reassign, stage.cluster, _topic(stage, stream), replicas)
        await asyncio.sleep(seconds * 0.1)
    await asyncio.sleep(seconds * 0.2)


async def _freeze_some(stage: Stage, seconds: float, *, frozen: float, count: int) -> None:
    around = max(seconds - frozen, 4)
    await asyncio.sleep(around / 2)
    nodes = stage.chance.sample(stage.cluster.nodes, count)
    async with stage.disturbing(f"brokers {nodes} frozen"):
        for node in nodes:
            await asyncio.to_thread(stage.cluster.pause, node)
        await asyncio.sleep(frozen)
        for node in nodes:
            await asyncio.to_thread(stage.cluster.resume, node)
    await asyncio.sleep(around / 2)


async def _demand_every_replica(stage: Stage, seconds: float) -> None:
    topics = [_topic(stage, stream) for stream in STREAMS]
    await asyncio.to_thread(_configure, stage.cluster, topics, "min.insync.replicas", "3")
    await _freeze_some(stage, seconds, frozen=seconds * 0.4, count=1)


def _topic(stage: Stage, stream: str) -> str:
    return f"{stage.connector.prefix}.{stream}"
