"""What breaks among replicas that share a journal."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import aiohttp

from tests.faults.replicas import Replicas
from tests.faults.scenarios import Scenario
from tests.faults.stage import Stage, is_ready
from tests.servers import ServerError

REPLICAS = 3
LEASE_SECONDS = 25
"""What docs/scaling.md says: how long a replica that is not heard of keeps its lanes."""

Break = Callable[[Stage, Replicas], Awaitable[None]]


def replica_faults() -> Iterator[Scenario]:
    """All of them."""
    yield among_replicas("calm", "three replicas, clocks 5 s apart, nothing breaks", _nothing, seconds=20)
    yield among_replicas("killed", "one of three replicas is killed, and started again", _kill_one, interrupts=True)
    yield among_replicas("killed-often", "replicas are killed six times, as it comes", _kill_often, seconds=60)
    yield among_replicas(
        "kafka-gone", "all brokers are gone, twice; at each moment some replica accepts", _kafka_gone, seconds=70
    )
    yield among_replicas("cut-from-kafka", "one of three replicas is cut from Kafka for 35 s", _cut_kafka, seconds=60)
    yield among_replicas(
        "cut-from-postgres", "one of three replicas is cut from PostgreSQL for 35 s", _cut_postgres, seconds=60
    )
    yield among_replicas("postgres-restarted", "PostgreSQL is restarted under load, twice", _restart_postgres)
    yield among_replicas("postgres-killed", "PostgreSQL is killed under load, and back after 8 s", _kill_postgres)
    yield among_replicas(
        "postgres-away", "PostgreSQL is away for 35 s, longer than any lease", _postgres_away, seconds=65
    )
    yield among_replicas("come-and-go", "replicas are stopped and started in turn under load", _roll, seconds=45)
    yield among_replicas(
        "roll-in-outage",
        "all brokers are gone while replicas are stopped and started in turn",
        _roll_in_outage,
        seconds=60,
    )
    yield among_replicas("frozen", "a replica hangs (SIGSTOP) for 35 s, longer than its lease", _freeze, seconds=60)
    yield among_replicas("mixed", "kills, cuts and an outage of all brokers, as it comes", _mixed, seconds=90)


def among_replicas(name: str, does: str, break_it: Break, *, seconds: float = 40, interrupts: bool = False) -> Scenario:
    """A scenario of three replicas whose clocks are 5 s apart."""

    async def play(stage: Stage, seconds: float) -> None:
        replicas = stage.connector
        assert isinstance(replicas, Replicas)
        replicas.set_clocks(0, 5, -5)
        await asyncio.sleep(seconds * 0.2)
        await break_it(stage, replicas)
        await asyncio.sleep(seconds * 0.2)

    return Scenario(
        f"replicas-{name}",
        does,
        play,
        nodes=3,
        replicas=REPLICAS,
        seconds=seconds,
        rate=60,
        instances=60,
        interrupts=interrupts,
    )


async def _nothing(_: Stage, __: Replicas) -> None:
    await asyncio.sleep(10)


async def _kill_one(stage: Stage, replicas: Replicas) -> None:
    await _killed(stage, replicas, stage.chance.randrange(REPLICAS), away=3)


async def _killed(stage: Stage, replicas: Replicas, number: int, *, away: float) -> None:
    member = replicas.members[number]
    async with stage.disturbing(f"replica {number} killed", closes_door=True):
        await member.kill()
        await asyncio.sleep(away)
        await member.start()
        await member.wait_until_up()


async def _kill_often(stage: Stage, replicas: Replicas) -> None:
    for _ in range(6):
        await _killed(stage, replicas, stage.chance.randrange(REPLICAS), away=stage.chance.uniform(0, 3))
        await asyncio.sleep(stage.chance.uniform(0.5, 6))


async def _kafka_gone(stage: Stage, replicas: Replicas) -> None:
    for _ in range(2):
        async with stage.disturbing("all brokers killed"):
            await asyncio.to_thread(stage.cluster.kill_all)
            await _somebody_accepts(replicas, seconds=12)
            await asyncio.to_thread(stage.cluster.start_all)
        await stage.wait_until_ready([True, True, True])
        await asyncio.sleep(5)


async def _somebody_accepts(replicas: Replicas, *, seconds: float) -> None:
    """At no moment of so many seconds do all replicas stand aside; ``ServerError`` if they did."""
    until = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while time.monotonic() < until:
            ready = await asyncio.gather(*(is_ready(session, url) for url in replicas.operations_urls))
            if not any(ready):
                raise ServerError("every replica stands aside, and none accepts")
            await asyncio.sleep(0.05)


async def _cut_kafka(stage: Stage, replicas: Replicas) -> None:
    number = stage.chance.randrange(REPLICAS)
    async with stage.disturbing(f"replica {number} cut from Kafka", closes_door=True):
        await replicas.cut_from_kafka(number, 35)


async def _cut_postgres(stage: Stage, replicas: Replicas) -> None:
    number = stage.chance.randrange(REPLICAS)
    async with stage.disturbing(f"replica {number} cut from PostgreSQL", closes_door=True):
        await replicas.cut_from_postgres(number, LEASE_SECONDS + 10)
        await replicas.members[number].wait_until_up()


async def _restart_postgres(stage: Stage, replicas: Replicas) -> None:
    for _ in range(2):
        async with stage.disturbing("PostgreSQL restarted"):
            await asyncio.to_thread(replicas.postgres.shut_down)
            await asyncio.to_thread(replicas.postgres.restart)
        await asyncio.sleep(5)


async def _kill_postgres(stage: Stage, replicas: Replicas) -> None:
    async with stage.disturbing("PostgreSQL killed"):
        await asyncio.to_thread(replicas.postgres.kill)
        await asyncio.sleep(5)
        await asyncio.to_thread(replicas.postgres.restart)
    await asyncio.sleep(5)


async def _postgres_away(stage: Stage, replicas: Replicas) -> None:
    async with stage.disturbing("PostgreSQL away", closes_door=True):
        replicas.note_forgotten()
        await asyncio.to_thread(replicas.postgres.kill)
        await asyncio.sleep(LEASE_SECONDS + 10)
        await asyncio.to_thread(replicas.postgres.restart)
        await asyncio.sleep(8)
        await replicas.wait_until_up()


async def _roll(stage: Stage, replicas: Replicas) -> None:
    for number, member in enumerate(replicas.members):
        async with stage.disturbing(f"replica {number} stopped and started", closes_door=True):
            await member.terminate()
            await asyncio.sleep(2)
            await member.start()
            await member.wait_until_up()
        await asyncio.sleep(2)


async def _roll_in_outage(stage: Stage, replicas: Replicas) -> None:
    async with stage.disturbing("all brokers killed"):
        await asyncio.to_thread(stage.cluster.kill_all)
        await asyncio.sleep(4)
        await _roll(stage, replicas)
        await asyncio.to_thread(stage.cluster.start_all)


async def _freeze(stage: Stage, replicas: Replicas) -> None:
    number = stage.chance.randrange(REPLICAS)
    async with stage.disturbing(f"replica {number} hangs", closes_door=True):
        replicas.note_forgotten()
        await asyncio.to_thread(replicas.members[number].process.pause)
        await asyncio.sleep(LEASE_SECONDS + 10)
        await asyncio.to_thread(replicas.members[number].process.resume)
        await asyncio.sleep(8)
        await replicas.members[number].wait_until_up()


async def _mixed(stage: Stage, replicas: Replicas) -> None:
    async def outage() -> None:
        await asyncio.sleep(stage.chance.uniform(5, 15))
        async with stage.disturbing("all brokers killed"):
            await asyncio.to_thread(stage.cluster.kill_all)
            await asyncio.sleep(8)
            await asyncio.to_thread(stage.cluster.start_all)

    async with asyncio.TaskGroup() as group:
        group.create_task(outage())
        group.create_task(_kill_often(stage, replicas))
        group.create_task(_cut_kafka(stage, replicas))
        group.create_task(_kill_postgres(stage, replicas))
