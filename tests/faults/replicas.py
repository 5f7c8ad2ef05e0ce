"""Several connectors that share a journal, each by wires of its own to Kafka and to PostgreSQL, which can be cut."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import psycopg

from tests.faults.host import Control
from tests.faults.stage import Connector
from tests.servers import KafkaCluster, ServerError
from tests.servers.ports import free_ports
from tests.servers.postgres import OWNER, Postgres
from tests.servers.wires import Wires


class Replicas:
    """The replicas in place of one connector; the members are broken one by one."""

    def __init__(
        self, members: list[Connector], to_kafka: list[Wires], to_postgres: list[Wires], postgres: Postgres
    ) -> None:
        self.members = members
        self.to_kafka = to_kafka
        self.to_postgres = to_postgres
        self.postgres = postgres
        self.prefix = members[0].prefix
        self.folder = members[0].folder.parent
        self.forgotten: list[float] = []
        """When a replica was cut from PostgreSQL for longer than its lease: what it had claimed is as lost as if it
        had been killed."""

    @classmethod
    @contextmanager
    def of(
        cls, count: int, folder: Path, cluster: KafkaCluster, prefix: str, settings: Mapping[str, str]
    ) -> Iterator[Self]:
        """Start PostgreSQL, lay the wires, and make the replicas; they are not started yet."""
        with ExitStack() as stack:
            postgres = stack.enter_context(Postgres.start())
            postgres.migrate()
            members, to_kafka, to_postgres = [], [], []
            for number in range(count):
                bootstrap, ports = cluster.door(number)
                to_kafka.append(stack.enter_context(Wires(ports)))
                (port,) = free_ports(1)
                to_postgres.append(stack.enter_context(Wires({port: postgres.port})))
                own = folder / f"replica{number}"
                own.mkdir()
                more = {**settings, "WEDA_JOURNAL__URL": postgres.url(port=port)}
                members.append(Connector(own, bootstrap, prefix, breakable=True, more=more))
            yield cls(members, to_kafka, to_postgres, postgres)

    @property
    def urls(self) -> list[str]:
        """Where messages are sent."""
        return [each.url for each in self.members]

    @property
    def operations_urls(self) -> list[str]:
        """Where they tell of themselves."""
        return [each.operations_url for each in self.members]

    @property
    def kills(self) -> list[float]:
        """When something that was claimed may have been forgotten."""
        return sorted([*(kill for each in self.members for kill in each.kills), *self.forgotten])

    @property
    def state(self) -> str:
        """For people."""
        return ", ".join(f"replica {number} {each.state}" for number, each in enumerate(self.members))

    def unpublished(self) -> int:
        """Messages that wait in the shared journal; ``ServerError`` while nobody can look."""
        try:
            return int(self.postgres.ask("SELECT count(*) FROM weda_row", role=OWNER)[0][0])
        except psycopg.Error as error:
            raise ServerError(f"PostgreSQL does not tell: {error}") from error

    def resident_bytes(self) -> int:
        """Of the largest."""
        return max(each.resident_bytes() for each in self.members)

    def complaints(self) -> Iterator[str]:
        """The lines of their logs that tell of an error."""
        for number, each in enumerate(self.members):
            yield from (f"replica {number}: {line}" for line in each.complaints())

    async def start(self) -> None:
        """Start them all; they are not up yet."""
        for each in self.members:
            await each.start()

    async def wait_until_up(self) -> None:
        """Wait until each takes messages."""
        for each in self.members:
            await each.wait_until_up()

    async def kill(self) -> None:
        """SIGKILL to all."""
        for each in self.members:
            await each.kill()

    def set_clocks(self, *seconds: float) -> None:
        """Each one's wall clock is off by so much."""
        for each, off in zip(self.members, seconds, strict=True):
            each.break_by(Control(clock_seconds=off))

    def note_forgotten(self) -> None:
        """From now on a replica cannot tell what becomes of what it has claimed."""
        self.forgotten.append(time.monotonic())

    async def cut_from_postgres(self, number: int, seconds: float) -> None:
        """Cut one replica from PostgreSQL for a while."""
        self.note_forgotten()
        self.to_postgres[number].cut()
        await asyncio.sleep(seconds)
        self.to_postgres[number].mend()

    async def cut_from_kafka(self, number: int, seconds: float) -> None:
        """Cut one replica from Kafka for a while."""
        self.to_kafka[number].cut()
        await asyncio.sleep(seconds)
        self.to_kafka[number].mend()
