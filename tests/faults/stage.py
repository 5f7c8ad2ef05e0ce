"""What a scenario plays on: a cluster and a connector as processes of their own, both of which it may break."""

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from tests.faults.consumer import Record, read_stream
from tests.faults.host import CONTROL, Control
from tests.faults.ledger import Disturbance
from tests.faults.log_pipe import LogPipe
from tests.faults.sender import Sender
from tests.servers import DidNotStart, KafkaCluster, SchemaRegistry, ServerError
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import ServerProcess
from tests.waiting import NotInTime, equals, until

if TYPE_CHECKING:
    from tests.faults.replicas import Replicas

TOKEN = "the-oracle's-token"
ANSWER_SECONDS = 5
STOP_SECONDS = 45
SAMPLE_SECONDS = 0.5
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Sample:
    """What the connector said of itself at one moment; numbers are None while it did not answer."""

    at: float
    waiting: float | None = None
    """Messages in the journal."""
    oldest_age: float | None = None
    """Seconds."""
    imbalance: float | None = None
    rebuilds: float | None = None
    """Producers that were rebuilt since the connector's start."""
    lost: float | None = None
    """Messages that a damaged journal did not give back."""
    resident_bytes: int = 0


class Connector:
    """``serve`` as a process of its own; always the same ports and the same journal."""

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        prefix: str,
        properties: Mapping[str, str] | None = None,
        *,
        breakable: bool = False,
        piped: bool = False,
        more: Mapping[str, str] | None = None,
    ) -> None:
        public, operations = free_ports(2)
        self.folder = folder
        self.prefix = prefix
        self.url = f"http://{LOOPBACK}:{public}"
        self.operations_url = f"http://{LOOPBACK}:{operations}"
        self.kills: list[float] = []
        settings = {
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "WEDA_KAFKA__PROPERTIES": json.dumps(dict(properties or {})),
            "WEDA_TOKEN": TOKEN,
            "WEDA_RECEIVER__HOST": LOOPBACK,
            "WEDA_RECEIVER__PORT": str(public),
            "WEDA_OPERATIONS__PORT": str(operations),
            "WEDA_JOURNAL__PATH": str(folder / "journal.db"),
            "WEDA_TOPICS__PREFIX": prefix,
            "WEDA_LOG__FORMAT": "json",
            CONTROL: str(folder / "faults.json"),
            **(more or {}),
        }
        self.break_by(Control())
        module = "tests.faults.host" if breakable else "connector"
        command = ["env", *(f"{name}={text}" for name, text in settings.items())]
        command += [sys.executable, "-m", module, "serve"]
        pipe = folder / "log.pipe"
        if piped:
            command = ["sh", "-c", f'exec "$@" 2>{pipe}', "sh", *command]
        self.process = ServerProcess("connector", command, folder, detached=False)
        self.log_pipe = LogPipe(pipe, self.process.log) if piped else None

    @property
    def urls(self) -> list[str]:
        """Where messages are sent."""
        return [self.url]

    @property
    def operations_urls(self) -> list[str]:
        """Where it tells of itself."""
        return [self.operations_url]

    @property
    def state(self) -> str:
        """For people."""
        return "runs" if self.process.running else "has died"

    def unpublished(self) -> int:
        """Messages that wait, as seen from outside; nobody but the connector looks into its own journal."""
        return 0

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / "journal.db"

    def break_by(self, control: Control) -> None:
        """Break what is broken by the process itself: its clock, its disk; or end it at a point."""
        control.write(self.folder / "faults.json")

    def reached(self) -> list[str]:
        """The points at which it has ended so far."""
        file = self.folder / "faults.reached"
        return file.read_text().splitlines() if file.exists() else []

    async def start(self) -> None:
        """Start the process; it is not up yet."""
        await asyncio.to_thread(self.process.start)

    async def wait_until_up(self) -> None:
        """Wait until its public listener answers; ``DidNotStart`` with the log's end when it does not."""
        with suppress(NotInTime):
            await until(self._is_up_or_has_died)
        if not self.process.running or not await self._is_up():
            raise DidNotStart(f"the connector did not come up; its log ends:\n{self.process.last_lines()}")

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.to_thread(self.process.kill)
        self.kills.append(time.monotonic())  # once it is gone: nothing that it takes in can be later

    async def terminate(self) -> None:
        """SIGTERM, and wait for the end."""
        await asyncio.to_thread(self.process.terminate, seconds=STOP_SECONDS)

    async def metric(self, name: str) -> float:
        """A metric of now, summed over its labels; 0 if the connector does not answer."""
        return _sum(await reported(self.operations_urls), name)

    async def is_drained(self) -> bool:
        """Whether all that it has accepted is in Kafka; False while it does not answer."""
        # Not /readyz: what that says is up to a second old, and rows may have been written since.
        text = await reported(self.operations_urls)
        return _sum(text, "broker_up") == 1 and _sum(text, "journal_messages") == 0

    def resident_bytes(self) -> int:
        """Memory of the process now; 0 when there is none."""
        with suppress(OSError):
            status = Path(f"/proc/{self.process._running_pid()}/status").read_text()
            if found := re.search(r"VmRSS:\s+(\d+) kB", status):
                return int(found[1]) * 1024
        return 0

    def complaints(self) -> Iterator[str]:
        """The lines of its log that tell of an error; brokers that cannot be reached are none."""
        for line in self.process.log.read_text(errors="replace").splitlines():
            if (
                re.search(r'"level": ?"(error|critical)"|^\w*(Error|Exception)\b|Traceback', line)
                and "librdkafka" not in line
            ):
                yield line[:500]

    async def _is_up_or_has_died(self) -> bool:
        return not self.process.running or await self._is_up()

    async def _is_up(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.url):
                return True  # whatever it says of a request without path and credential
        except (aiohttp.ClientError, TimeoutError):
            return False


class Stage:
    """The parts of one run, and what happened to them."""

    def __init__(
        self,
        cluster: KafkaCluster,
        connector: "Connector | Replicas",
        chance: random.Random,
        registry: SchemaRegistry | None = None,
    ) -> None:
        self.cluster = cluster
        self.registry = registry
        self.connector = connector
        self.chance = chance
        self.disturbances: list[Disturbance] = []
        self.freezes: list[Disturbance] = []
        self.samples: list[Sample] = []
        self.sender: Sender | None = None
        self.damages: list[Disturbance] = []
        """When bytes of the journal were destroyed."""
        self.gone: list[Record] = []
        """What had been read of topics before they lost it."""
        self.cuts: dict[tuple[str, int], list[int]] = {}
        """Stream and partition → the offsets from which on it lost what it held, and was written again."""

    @asynccontextmanager
    async def disturbing(self, name: str, *, closes_door: bool = False) -> AsyncIterator[None]:
        """Note how long something was broken."""
        began = time.monotonic()
        yield
        self.disturbances.append(Disturbance(name, began, time.monotonic(), closes_door))

    async def wait_until_ready(self, wanted: list[bool]) -> None:
        """Wait until each connector says that it can accept a message, or that it cannot."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def ready() -> list[bool]:
                return [await is_ready(session, url) for url in self.connector.operations_urls]

            await until(ready, equals(wanted))

    async def restart_connector(self, *, wait: bool = True) -> None:
        """SIGKILL the connector and start it again."""
        async with self.disturbing("connector killed", closes_door=True):
            await self.connector.kill()
            await self.connector.start()
            if wait:
                await self.connector.wait_until_up()

    async def freeze_brokers(self, seconds: float) -> None:
        """SIGSTOP every broker for a while."""
        async with self.disturbing(f"brokers frozen for {seconds:g} s"):
            await asyncio.to_thread(self.cluster.pause_all)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.cluster.resume_all)
        self.freezes.append(self.disturbances[-1])

    @asynccontextmanager
    async def at_rest(self, *, seconds: float) -> AsyncIterator[None]:
        """Nothing is sent and everything is published while the context lasts; ``ServerError`` if it never is."""
        assert self.sender is not None
        async with self.sender.paused():
            if not await self.wait_until_published(seconds=seconds):
                raise ServerError(f"the backlog was not published within {seconds:g} s")
            yield

    async def remember(self, stream: str) -> list[Record]:
        """Read what a topic holds, before it loses it."""
        where = self.cluster.bootstrap_servers, self.connector.prefix, stream, self.cluster.client_properties
        found = await asyncio.to_thread(read_stream, *where)
        self.gone += self.with_eras(found)
        return found

    def note_cut(self, stream: str, partition: int, offset: int) -> None:
        """From this offset on the partition lost what it held."""
        self.cuts.setdefault((stream, partition), []).append(offset)

    def history_of(self, records: list[Record]) -> list[Record]:
        """What is in the topics at the end, together with what they lost on the way."""
        written = self.with_eras(records)
        known = {(one.stream, one.partition, one.place): one for one in (*self.gone, *written)}
        return [*known.values()]

    def with_eras(self, records: Iterable[Record]) -> list[Record]:
        """The same records, each with how often its partition had lost what stood in its place."""
        return [replace(one, era=sum(one.offset >= cut for cut in self._cuts_of(one))) for one in records]

    def _cuts_of(self, record: Record) -> list[int]:
        return self.cuts.get((record.stream, record.partition), [])

    @property
    def lost_reported(self) -> int:
        """Messages that the connector says a damaged journal did not give back."""
        return int(max((sample.lost or 0 for sample in self.samples), default=0))

    async def watch(self) -> None:
        """Take samples until cancelled."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self.samples.append(await self._sample(session))
                await asyncio.sleep(SAMPLE_SECONDS)

    async def _sample(self, session: aiohttp.ClientSession) -> Sample:
        at = time.monotonic()
        reported = await asyncio.gather(*(_reported(session, each) for each in self.connector.operations_urls))
        texts = [text for text in reported if text is not None]
        if not texts:
            return Sample(at)
        text = "\n".join(texts)
        waiting = _sum(text, "journal_messages")
        with suppress(ServerError):
            waiting = max(waiting, await asyncio.to_thread(self.connector.unpublished))
        return Sample(
            at,
            waiting,
            max(_sum(each, "journal_oldest_age_seconds") for each in texts),
            _sum(text, "ledger_imbalance"),
            _sum(text, "producer_rebuilds_total"),
            _sum(text, "journal_lost_messages"),
            self.connector.resident_bytes(),
        )

    async def metric(self, name: str) -> float:
        """A metric of now, summed over its labels and over every connector that answers."""
        return _sum(await reported(self.connector.operations_urls), name)

    async def wait_until_published(self, *, seconds: float) -> bool:
        """Wait until the journal is empty and stays so for a while; False when time is up."""
        deadline = time.monotonic() + seconds
        began = time.monotonic()
        while time.monotonic() < deadline:
            last = [sample.waiting for sample in self.samples if sample.at >= began][-4:]
            if last == [0.0] * 4:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False


async def is_ready(session: aiohttp.ClientSession, operations_url: str) -> bool:
    """What a connector says; one that does not answer is not."""
    try:
        async with session.get(f"{operations_url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def reported(operations_urls: Iterable[str]) -> str:
    """The metrics of every connector that answers."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_reported(session, url) for url in operations_urls))
    return "\n".join(text for text in texts if text is not None)


async def _reported(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(f"{url}/metrics") as response:
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return None


def _sum(metrics: str, name: str) -> float:
    """Sum of a metric over its labels."""
    found = re.findall(rf"^weda_connector_{name}(?:{{[^}}]*}})? (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, found))
