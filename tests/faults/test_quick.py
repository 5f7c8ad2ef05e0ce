"""The oracle in little: three faults that every run of the tests goes through; `make faults` plays the long ones."""

from collections.abc import Iterator

import pytest

from tests.faults.run import perform
from tests.faults.scenarios import Scenario, brokers_frozen, connector_sigkill, kafka_after_connector
from tests.servers import KafkaCluster


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    """One broker that this module may break."""
    with KafkaCluster.start() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("scenario", "seconds"),
    [(connector_sigkill(3), 12), (brokers_frozen(8, nodes=1), 14), (kafka_after_connector(), 10)],
    ids=lambda each: each.name if isinstance(each, Scenario) else "",
)
async def test_every_promise_holds_through(scenario: Scenario, seconds: float, broker: KafkaCluster, seed: int) -> None:
    report = await perform(scenario, broker, seed=seed, seconds=seconds, instances=50, rate=150)

    assert report.ok, f"\n{report}"
