"""The oracle in little: six faults that every run of the tests goes through; `make faults` plays the long ones."""

import asyncio
import shutil
from collections.abc import Iterator

import pytest

from tests.faults.broker_faults import max_message_bytes_lowered
from tests.faults.connector_faults import disk, killed_at
from tests.faults.run import perform
from tests.faults.scenarios import Scenario, brokers_frozen, connector_sigkill, kafka_after_connector
from tests.faults.stage import Stage
from tests.servers import KafkaCluster


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    """One broker that this module may break."""
    with KafkaCluster.start() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("scenario", "seconds"),
    [
        (connector_sigkill(3), 12),
        (brokers_frozen(8, nodes=1), 14),
        (kafka_after_connector(), 10),
        (max_message_bytes_lowered(), 12),
        (killed_at(("after produce", "after a commit, before its answers", "start: the journal is open")), 12),
        (disk("full", outage=True), 12),
    ],
    ids=lambda each: each.name if isinstance(each, Scenario) else "",
)
async def test_every_promise_holds_through(scenario: Scenario, seconds: float, broker: KafkaCluster, seed: int) -> None:
    report = await perform(scenario, broker, seed=seed, seconds=seconds, instances=50, rate=150)

    assert report.ok, f"\n{report}"


async def test_a_connector_that_loses_its_journal_is_found_out(broker: KafkaCluster, seed: int) -> None:
    """The oracle can fail: what was accepted while the brokers hung is gone with the journal."""
    scenario = Scenario("journal-lost", "the journal is deleted while it holds messages", _lose_the_journal)

    report = await perform(scenario, broker, seed=seed, seconds=6, instances=50, rate=150)

    assert "missing" in {breach.check for breach in report.breaches}
    assert report.folder
    shutil.rmtree(report.folder)


async def _lose_the_journal(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds / 3)
    async with stage.disturbing("journal lost", closes_door=True):
        await asyncio.to_thread(stage.cluster.pause_all)
        await asyncio.sleep(seconds / 3)
        await stage.connector.kill()
        for file in stage.connector.folder.glob("journal.db*"):
            file.unlink()
        await asyncio.to_thread(stage.cluster.resume_all)
        await stage.connector.start()
        await stage.connector.wait_until_up()
    await asyncio.sleep(seconds / 3)
