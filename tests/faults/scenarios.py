"""The faults: what each scenario breaks while the sender sends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient

from tests.faults.checks import Wanted
from tests.faults.stage import Stage

Play = Callable[[Stage, float], Awaitable[None]]
"""Breaks and mends for about so many seconds; everything is whole when it returns."""

LEADERS_MOVE_SECONDS = 7
"""A frozen broker is fenced after 3 s; the rest is for the new leaders to work."""


@dataclass(frozen=True)
class Scenario:
    """One kind of fault run."""

    name: str
    does: str
    play: Play
    nodes: int = 1
    seconds: float = 40
    """How long it plays unless another time is asked for."""
    instances: int = 100
    rate: float = 300
    """Messages a second over all instances."""
    kafka_is_late: bool = False
    """The brokers are down until ``play`` starts them."""
    interrupts: bool = False
    """The sender must have met a closed door."""
    oldest_age_seconds: float = 0
    repeats_allowed: bool = True
    refusals_allowed: bool = True
    secured: bool = False
    """The brokers ask who is there (`tests.servers.access`)."""
    large: float = 0
    """Share of large messages."""
    large_refused: bool = False
    rebuilds: int = 0
    timestamps_replaced: bool = False
    """Kafka rejects the times at which messages were received, so records may have other ones."""
    breakable: bool = False
    """The connector runs with faults that exist in tests only (`tests.faults.host`)."""
    piped: bool = False
    """Standard error is a pipe, whose reader the scenario may stop or end."""
    registered: bool = False
    """The schemas come from a registry, which the scenario may break."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the connector, over those of every run."""
    replicas: int = 1
    """Connectors behind a balancer, which share a journal in PostgreSQL (`tests.faults.replicas`)."""
    share_accepted: float = 0.25
    """Of what the sender means to send, the least that must have been accepted."""

    @property
    def doors(self) -> int:
        """Ways to the brokers that can be cut: one for each of several replicas."""
        return self.replicas if self.replicas > 1 else 0

    def wanted(self, messages: float) -> Wanted:
        """The least that the run must have been through, of a sender that meant to send so many messages."""
        return Wanted(
            accepted=int(messages * self.share_accepted),
            interrupted=int(self.interrupts),
            refusals_allowed=self.refusals_allowed,
            repeats_allowed=self.repeats_allowed,
            oldest_age_seconds=self.oldest_age_seconds,
            large_refused=self.large_refused,
            rebuilds=self.rebuilds,
            timestamps_replaced=self.timestamps_replaced,
            replicas=self.replicas,
        )


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    from tests.faults.broker_faults import broker_faults  # noqa: PLC0415 - it builds on this module
    from tests.faults.connector_faults import connector_faults  # noqa: PLC0415 - so does it
    from tests.faults.mixes import mixes  # noqa: PLC0415 - and it
    from tests.faults.replica_faults import replica_faults  # noqa: PLC0415 - and it

    yield Scenario(*("calm", "nothing breaks", _calm), seconds=20, repeats_allowed=False, refusals_allowed=False)
    yield connector_sigkill(10)
    yield Scenario(*("connector-sigterm", "SIGTERM under load and start again, three times", _sigterm), interrupts=True)
    yield Scenario("broker-killed", "one of three brokers is killed and started again", _kill_one, nodes=3)
    yield brokers_frozen(20, nodes=3)
    yield brokers_frozen(120, nodes=3)
    yield Scenario(
        *("all-brokers-gone-and-back", "every broker is killed, and started again together", _kill_all),
        nodes=3,
        oldest_age_seconds=5,
    )
    yield kafka_after_connector()
    yield Scenario("leader-moved", "a leader freezes, others take over; then leaders are elected again", _move, nodes=3)
    yield Scenario(
        *("mixed", "three connector SIGKILLs, a broker killed and all frozen for 20 s, as it comes", _mixed),
        nodes=3,
        seconds=75,
        instances=200,
        rate=200,
        interrupts=True,
        oldest_age_seconds=5,
    )
    yield from broker_faults()
    yield from connector_faults()
    yield from mixes()
    yield from replica_faults()


def connector_sigkill(times: int) -> Scenario:
    """The connector is killed, again and again."""
    return Scenario(
        f"connector-sigkill-{times}",
        f"SIGKILL under load and start again, {times} times, also while it starts",
        partial(_sigkill, times=times),
        seconds=6.0 * times,
        interrupts=True,
    )


def brokers_frozen(seconds: float, *, nodes: int) -> Scenario:
    """All brokers hang: nobody refuses, nobody answers."""
    return Scenario(
        f"brokers-frozen-{seconds:g}",
        f"SIGSTOP to all brokers for {seconds:g} s",
        partial(_freeze, frozen=seconds),
        nodes=nodes,
        seconds=seconds + 20,
        oldest_age_seconds=seconds / 2,
    )


def kafka_after_connector() -> Scenario:
    """The connector accepts before there is any Kafka."""
    return Scenario(
        *("kafka-after-connector", "the connector starts first and accepts; then Kafka starts", _start_late),
        kafka_is_late=True,
        oldest_age_seconds=2,
    )


async def _calm(_: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _sigkill(stage: Stage, seconds: float, *, times: int) -> None:
    isolated = seconds / (times + 1)
    await asyncio.sleep(isolated)
    waits = True
    for number in range(times):
        last = number == times - 1
        # Now and then it is killed again before it is up: in its start, in its replay. Never twice in a row: in a start
        # nothing is sent.
        waits = last or not waits or stage.chance.random() < 0.8
        await stage.restart_connector(wait=waits)
        await asyncio.sleep(isolated if last else stage.chance.uniform(0.2, 1.3 * isolated))


async def _sigterm(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds / 4)
    for _ in range(3):
        async with stage.disturbing("connector terminated", closes_door=True):
            await stage.connector.terminate()
            await stage.connector.start()
            await stage.connector.wait_until_up()
        await asyncio.sleep(seconds / 4)


async def _kill_one(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.25)
    await without_broker(stage, seconds * 0.35)
    await asyncio.sleep(seconds * 0.4)


async def without_broker(stage: Stage, seconds: float) -> None:
    """Kill one broker, and start it again after a while."""
    node = stage.chance.choice(stage.cluster.nodes)
    async with stage.disturbing(f"broker {node} killed"):
        await asyncio.to_thread(stage.cluster.kill, node)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(stage.cluster.restart, node)


async def _freeze(stage: Stage, seconds: float, *, frozen: float) -> None:
    around = max(seconds - frozen, 4)
    await asyncio.sleep(around / 2)
    await stage.freeze_brokers(frozen)
    await asyncio.sleep(around / 2)


async def _kill_all(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.25)
    async with stage.disturbing("all brokers killed"):
        await asyncio.to_thread(stage.cluster.kill_all)
        await asyncio.sleep(seconds * 0.35)
        await asyncio.to_thread(stage.cluster.start_all)
    await asyncio.sleep(seconds * 0.4)


async def _start_late(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(3)
    async with stage.disturbing("no Kafka yet"):
        await asyncio.sleep(seconds * 0.4)
        await asyncio.to_thread(stage.cluster.start_all)
    await asyncio.sleep(seconds * 0.5)


async def _move(stage: Stage, seconds: float) -> None:
    begin = asyncio.get_running_loop().time()
    await asyncio.sleep(5)
    for node in stage.cluster.nodes:
        async with stage.disturbing(f"leaders moved off broker {node} and back"):
            await asyncio.to_thread(stage.cluster.pause, node)
            await asyncio.sleep(LEADERS_MOVE_SECONDS)
            await asyncio.to_thread(stage.cluster.resume, node)
            await asyncio.sleep(3)
            await asyncio.to_thread(_elect_preferred_leaders, stage.cluster.bootstrap_servers)
    await asyncio.sleep(max(5.0, begin + seconds - asyncio.get_running_loop().time()))


def _elect_preferred_leaders(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    admin.elect_leaders(ElectionType.PREFERRED).result(30)


async def _mixed(stage: Stage, seconds: float) -> None:
    async def after(share: float, break_it: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(seconds * share)
        await break_it()

    async with asyncio.TaskGroup() as group:
        freeze_at = stage.chance.uniform(0.15, 0.45)
        group.create_task(after(freeze_at, lambda: stage.freeze_brokers(20)))
        group.create_task(after(stage.chance.uniform(0.1, 0.6), lambda: without_broker(stage, 10)))
        group.create_task(_three_kills(stage, seconds))
    await asyncio.sleep(seconds * 0.2)


async def _three_kills(stage: Stage, seconds: float) -> None:
    for _ in range(3):
        await asyncio.sleep(seconds * stage.chance.uniform(0.1, 0.25))
        await stage.restart_connector()
