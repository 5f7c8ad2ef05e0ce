"""Several faults at once, as the seed has it: brokers are broken in one order, the connector in another."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from tests.faults.host import Control
from tests.faults.scenarios import Scenario, without_broker
from tests.faults.stage import Stage
from tests.servers.access import EVERY_TOPIC, writing_denied

Fault = Callable[[Stage], Awaitable[None]]
LONGEST_REST_SECONDS = 4.0


def mixes() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario(
        *("mixed-by-chance", "the brokers break and the connector breaks, each in an order of its own", _by_chance),
        nodes=3,
        seconds=120,
        secured=True,
        breakable=True,
        interrupts=True,
        oldest_age_seconds=2,
        share_accepted=0.1,
    )


async def _by_chance(stage: Stage, seconds: float) -> None:
    until = time.monotonic() + seconds * 0.8
    async with asyncio.TaskGroup() as both:
        both.create_task(_break_again_and_again(stage, BROKER_FAULTS, until))
        both.create_task(_break_again_and_again(stage, CONNECTOR_FAULTS, until))
    await asyncio.sleep(seconds * 0.1)


async def _break_again_and_again(stage: Stage, faults: Sequence[Fault], until: float) -> None:
    """Each fault before any comes twice."""
    chance = random.Random(stage.chance.random())
    while time.monotonic() < until:
        for fault in chance.sample(faults, len(faults)):
            await asyncio.sleep(chance.uniform(0.5, LONGEST_REST_SECONDS))
            await fault(stage)


async def _freeze_all(stage: Stage) -> None:
    await stage.freeze_brokers(10)


async def _freeze_one(stage: Stage) -> None:
    node = stage.chance.choice(stage.cluster.nodes)
    async with stage.disturbing(f"broker {node} frozen"):
        await asyncio.to_thread(stage.cluster.pause, node)
        await asyncio.sleep(7)
        await asyncio.to_thread(stage.cluster.resume, node)


async def _kill_one(stage: Stage) -> None:
    await without_broker(stage, 5)


async def _deny(stage: Stage) -> None:
    async with stage.disturbing("no right to write any topic"):
        denial = writing_denied(stage.cluster, EVERY_TOPIC)
        await asyncio.to_thread(denial.__enter__)
        await asyncio.sleep(6)
        await asyncio.to_thread(denial.__exit__, None, None, None)


async def _kill_connector(stage: Stage) -> None:
    await stage.restart_connector()


async def _stop_connector(stage: Stage) -> None:
    async with stage.disturbing("connector stopped", closes_door=True):
        await stage.connector.terminate()
        await stage.connector.start()
        await stage.connector.wait_until_up()


async def _break(stage: Stage, *, name: str, control: Control) -> None:
    async with stage.disturbing(name):
        stage.connector.break_by(control)
        await asyncio.sleep(5)
        stage.connector.break_by(Control())


BROKER_FAULTS: Sequence[Fault] = (_freeze_all, _freeze_one, _kill_one, _deny)
CONNECTOR_FAULTS: Sequence[Fault] = (
    _kill_connector,
    _kill_connector,
    _stop_connector,
    partial(_break, name="disk full", control=Control(disk="full")),
    partial(_break, name="disk unsynced", control=Control(disk="unsynced")),
    partial(_break, name="clock back by half an hour", control=Control(clock_seconds=-1800)),
)
