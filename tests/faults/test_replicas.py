"""The oracle in little, among replicas that share a journal; `make faults` plays the long list."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from tests.faults.replica_faults import among_replicas
from tests.faults.replicas import Replicas
from tests.faults.run import perform
from tests.faults.stage import Stage
from tests.servers import KafkaCluster
from tests.servers.postgres import OWNER


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    """One broker with a door for each of three replicas."""
    with KafkaCluster.start(doors=3) as cluster:
        yield cluster


async def _everything_in_little(stage: Stage, replicas: Replicas) -> None:
    async with stage.disturbing("replica 0 killed", closes_door=True):
        await replicas.members[0].kill()
        await asyncio.sleep(1)
        await replicas.members[0].start()
        await replicas.members[0].wait_until_up()
    async with stage.disturbing("the broker hangs"):
        await asyncio.to_thread(stage.cluster.pause_all)
        await asyncio.sleep(3)
        await asyncio.to_thread(stage.cluster.resume_all)
    async with stage.disturbing("PostgreSQL killed"):
        await asyncio.to_thread(replicas.postgres.kill)
        await asyncio.to_thread(replicas.postgres.restart)


async def _lose_rows(stage: Stage, replicas: Replicas) -> None:
    async with stage.disturbing("rows lost"):
        await asyncio.to_thread(stage.cluster.pause_all)
        await asyncio.sleep(4)
        # Every batch begins with an update of weda_replica: none is under way, and so none holds another lock.
        replicas.postgres.ask(
            "BEGIN; LOCK TABLE weda_replica IN EXCLUSIVE MODE; "
            "DELETE FROM weda_row; UPDATE weda_lane SET rows_in_lane = 0, bytes = 0; COMMIT",
            role=OWNER,
        )
        await asyncio.to_thread(stage.cluster.resume_all)


async def test_every_promise_holds_among_three_replicas(broker: KafkaCluster, seed: int) -> None:
    """One killed, the broker frozen, PostgreSQL killed; clocks 5 s apart all the while."""
    scenario = among_replicas("in-little", "a kill, a freeze, a killed database", _everything_in_little)

    report = await perform(scenario, broker, seed=seed, seconds=10, instances=30, rate=60)

    assert report.ok, f"\n{report}"


async def _cut_one_from_kafka(stage: Stage, replicas: Replicas) -> None:
    """Until it says that it is the one, and lets nothing in; then until it does again."""
    async with stage.disturbing("replica 1 cut from Kafka", closes_door=True):
        replicas.to_kafka[1].cut()
        await stage.wait_until_ready([True, False, True])
        await asyncio.sleep(2)
        replicas.to_kafka[1].mend()
        await stage.wait_until_ready([True, True, True])


async def test_who_is_cut_from_kafka_alone_lets_nothing_in_until_it_is_not(broker: KafkaCluster, seed: int) -> None:
    """The others take what it does not; what it had taken before waits for it, in order."""
    scenario = among_replicas("aside", "one of three replicas is cut from Kafka", _cut_one_from_kafka)

    report = await perform(scenario, broker, seed=seed, seconds=10, instances=30, rate=60)

    assert report.ok, f"\n{report}"


async def test_replicas_that_lose_their_journal_are_found_out(broker: KafkaCluster, seed: int) -> None:
    """The oracle can fail: what was accepted while the broker hung is gone with the rows."""
    scenario = among_replicas("rows-lost", "rows are deleted behind the replicas' backs", _lose_rows)

    report = await perform(scenario, broker, seed=seed, seconds=6, instances=30, rate=60)

    assert "missing" in {breach.check for breach in report.breaches}
    assert report.folder
    shutil.rmtree(report.folder)
