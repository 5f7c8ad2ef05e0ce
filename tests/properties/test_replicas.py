"""Several ways in and one journal: whoever receives the next message, an instance's messages stand in order.

Each replica is real but for Kafka, which is one list for all of them that answers late, fails now and then, and hangs.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Self

import pytest

from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import Duplicates, dedup_key_of
from connector.delivery.order import NewMessage
from connector.errors import Unavailable
from connector.journal.model import Contents
from connector.kafka.publisher import Failure, FailureKind, Failures
from connector.replicas.journal import SharedJournal
from connector.replicas.lease import LeasedPublisher
from connector.replicas.order import SharedOrder
from connector.replicas.postgres import PostgresConnection
from connector.telemetry.metrics import Metrics
from connector.values import ProducibleRecord, Request
from tests.faults.checks import tail_breaks
from tests.servers.postgres import Postgres
from tests.waiting import PATIENCE_SECONDS, equals, until

REPLICAS = 3
INSTANCES = 12
MESSAGES = 25
FAILED = Failure(FailureKind.UNCERTAIN, "_TIMED_OUT", "no report came in time")


class Kafka:
    """One list; what fails is in it or not."""

    def __init__(self, chance: random.Random) -> None:
        self.records: list[ProducibleRecord] = []
        self._chance = chance

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        fails = self._chance.random() < 0.05
        if not fails or self._chance.random() < 0.5:
            self.records += records
        wait = self._chance.choice((0.0, 0.002, 0.02, 0.3))
        failures = (FAILED if fails else None,) * len(records)
        asyncio.get_running_loop().call_later(wait, report, failures)


class ToKafka:
    """A replica's publisher."""

    def __init__(self, kafka: Kafka) -> None:
        self.is_open = True
        self.publish = kafka.publish

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self, deadline_seconds: float) -> None:
        self.is_open = False
        await asyncio.sleep(0.4)


class Replica:
    """The way in, from claim to Kafka."""

    def __init__(self, database: Postgres, kafka: Kafka) -> None:
        self.journal = SharedJournal(
            partial(PostgresConnection, database.url()),
            max_bytes=1 << 30,
            dedup_window_seconds=3600,
            max_dedup_keys=10**6,
            on_loss=lambda: None,
        )
        self._publisher = LeasedPublisher(ToKafka(kafka), self.journal.lease)

    async def __aenter__(self) -> Self:
        await self.journal.open()
        ledger = Metrics(version="", sources=("default",), streams=("events",), journal_is_shared=True)
        self._delivery = Delivery(
            self._publisher,
            self.journal,
            Contents({}, {}, None),
            ledger=ledger,
            make_dead_letter=lambda *_: None,
            publish_wait_seconds=0.05,
            journaled=self.journal.lanes,
        )
        self._delivery.start_publishing()
        duplicates = Duplicates(window_seconds=3600, max_entries=1000, is_written=False)
        self.order = SharedOrder(self.journal, self._delivery, duplicates, ledger, reply_deadline_seconds=0.8)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._delivery.stop(1)
        await self.order.stop()
        await self.journal.close()

    async def take(self, instance: str, number: int) -> bool:
        request = Request("default", b"body", "application/json", number)
        record = ProducibleRecord("events", "t", instance.encode(), str(number).encode(), (), number)
        seen = dedup_key_of("message", "default", f"{instance}/{number}", b"f" * 16)
        try:
            await self.order.admit(NewMessage(instance, request, (record,), seen))
        except Unavailable:
            return False
        return True


class Senders:
    """One request at a time for an instance, to whichever replica chance says."""

    def __init__(self, replicas: list[Replica], chance: random.Random) -> None:
        self.replicas = replicas
        self.under_way: set[asyncio.Task[bool]] = set()
        self._chance = chance

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(INSTANCES):
                group.create_task(self._send(f"{number}"))
                group.create_task(self._send_impatiently(f"impatient {number}"))
        await asyncio.wait(self.under_way)

    async def _send(self, instance: str) -> None:
        for number in range(MESSAGES):
            while not await self._take(instance, number):
                await asyncio.sleep(0.01)

    async def _send_impatiently(self, instance: str) -> None:
        """Send the next one though the one before may be on its way: order is not asked for, whole tails are."""
        for number in range(MESSAGES):
            taking = asyncio.create_task(self._take(instance, number))
            await asyncio.wait((taking,), timeout=0.02)
            self.under_way.add(taking)

    async def _take(self, instance: str, number: int) -> bool:
        return await self._chance.choice(self.replicas).take(instance, number)


def check(kafka: Kafka) -> None:
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for record in kafka.records:
        seen[(record.key or b"").decode()].append((str(record.timestamp), ""))
    for number in range(INSTANCES):
        assert list(dict.fromkeys(seen[str(number)])) == [(str(each), "") for each in range(MESSAGES)]
    for instance, publications in seen.items():
        assert list(tail_breaks(publications)) == [], instance


@pytest.mark.parametrize("leaves", [False, True], ids=["all stay", "one leaves and another comes"])
async def test_an_instance_stays_in_order_whoever_receives_its_messages(database, seed, leaves):
    kafka = Kafka(random.Random(seed + 1))
    async with AsyncExitStack() as stack, AsyncExitStack() as leaver, asyncio.timeout(PATIENCE_SECONDS):
        replicas = [await stack.enter_async_context(Replica(database, kafka)) for _ in range(REPLICAS - 1)]
        replicas.append(await leaver.enter_async_context(Replica(database, kafka)))
        senders = Senders(replicas, random.Random(seed))
        sending = asyncio.create_task(senders.run())
        if leaves:
            await asyncio.sleep(0.5)
            replicas[-1] = await stack.enter_async_context(Replica(database, kafka))
            await leaver.aclose()
        await sending
        for left in ("weda_row", "weda_lane", "weda_dedup_key WHERE owner IS NOT NULL"):
            await until(partial(database.ask, f"SELECT count(*) FROM {left}"), equals([(0,)]))

    check(kafka)
