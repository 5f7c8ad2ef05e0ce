"""Replicas that share a journal, behind the balancer of docker-compose.yml: they change, and nobody is refused."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count

import aiohttp
import pytest
from aiohttp import web

from tests.chart import compose
from tests.running import TOKEN, Running
from tests.servers import read_topic
from tests.servers.balancer import balancing, opinion
from tests.servers.ports import free_ports
from tests.servers.wires import Wires
from tests.waiting import equals, until

ADDRESSES = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
NAMES = [f"i-{number}" for number in range(20)]
"""Of the instances that send."""

SOME = 3


class Replicas:
    """Three connectors with one journal and a balancer before them, and what was sent to it."""

    def __init__(self, start, url: str, ports: tuple[int, int], journal_urls: list[str]) -> None:
        self._start = start
        self._ports = ports
        self._journal_urls = journal_urls
        self.url = url
        self.running: list[Running] = []
        self.accepted: dict[str, list[str]] = {}
        self.refused: list[tuple[str, str]] = []
        """Instance and `msgId`."""

    async def run(self, number: int) -> Running:
        public, operations = self._ports
        return await self._start(
            receiver__host=ADDRESSES[number],
            receiver__port=public,
            operations__host=ADDRESSES[number],
            operations__port=operations,
            journal__url=self._journal_urls[number],
            receiver__reply_deadline_seconds=8,  # the balancer waits for ten
        )

    async def until_balancer_says(self, status: int) -> None:
        await until(partial(status_of, f"{self.url}/balancer"), equals(status))

    @asynccontextmanager
    async def sent_to(self) -> AsyncIterator[None]:
        """Meanwhile each of some instances has a message on its way, the next once that is answered."""
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"}) as session:
            ended = asyncio.Event()
            senders = [asyncio.create_task(self._send(session, one, ended)) for one in NAMES]
            try:
                yield
            finally:
                ended.set()
                await asyncio.gather(*senders)

    async def _send(self, session: aiohttp.ClientSession, instance: str, ended: asyncio.Event) -> None:
        for number in count():
            if ended.is_set():
                return
            message = {"msgType": "Task", "instanceId": instance, "msgId": f"{instance}-{number}", "action": 2}
            async with session.post(f"{self.url}/messageDeliver", json=message) as answer:
                reported = await answer.json()
                if answer.status == 200 and reported == {"code": 0}:
                    self.accepted.setdefault(instance, []).append(message["msgId"])
                else:
                    assert (answer.status, reported["retriable"]) == (503, True)
                    self.refused.append((instance, message["msgId"]))
            await asyncio.sleep(0.02)

    async def traffic(self) -> None:
        """Wait until of each instance some more messages were accepted."""
        before = [len(self.accepted.get(one, [])) for one in NAMES]

        def has_some_more() -> bool:
            return all(
                len(self.accepted.get(one, [])) >= count + SOME for one, count in zip(NAMES, before, strict=True)
            )

        await until(has_some_more)

    async def accepted_by(self, number: int) -> float:
        """How many requests a replica has accepted since its start."""
        return await self.running[number].metric("weda_connector_requests_total", outcome="accepted")

    async def is_left_alone(self, number: int) -> bool:
        """Whether a replica gets nothing of what is sent meanwhile, whichever instances get through."""
        before = await self.running[number].metric("weda_connector_requests_total")
        some_more = sum(map(len, self.accepted.values())) + SOME * len(NAMES)
        await until(lambda: sum(map(len, self.accepted.values())) >= some_more)
        return await self.running[number].metric("weda_connector_requests_total") == before


@pytest.fixture
def wires(postgres) -> Iterator[Wires]:
    """The third replica's way to PostgreSQL."""
    (port,) = free_ports(1)
    with Wires({port: postgres.port}) as wires:
        wires.port = port
        yield wires


@pytest.fixture
async def replicas(start, database, wires) -> AsyncIterator[Replicas]:
    public, operations = free_ports(2)
    urls = [database.url(), database.url(), database.url(port=wires.port)]
    configuration = compose.content("balancer")
    with balancing(configuration, public=public, operations=operations, addresses=ADDRESSES) as url:
        made = Replicas(start, url, (public, operations), urls)
        await made.until_balancer_says(503)
        made.running = [await made.run(number) for number in range(3)]
        await made.until_balancer_says(200)
        yield made
        for each in made.running:
            await each.connector.stop()


def test_haproxy_minds_nothing_in_the_configuration():
    configuration = compose.content("balancer")

    assert opinion(configuration) == "Configuration file is valid"
    assert "unknown keyword 'retri-on'" in opinion(configuration.replace("retry-on", "retri-on"))


async def test_replicas_are_replaced_one_by_one_and_no_message_is_refused_lost_or_out_of_order(
    replicas, database, kafka, topic_prefix
):
    """As in an upgrade: each ends in good order, and another one comes in its place."""
    async with replicas.sent_to():
        for number in range(3):
            await replicas.traffic()
            await replicas.running[number].connector.stop()
            await replicas.traffic()
            replicas.running[number] = await replicas.run(number)
            await until(partial(replicas.accepted_by, number))  # the balancer knows it, before the next one goes
        await replicas.traffic()

    assert replicas.refused == []
    await published(replicas, database, kafka, topic_prefix)


@asynccontextmanager
async def refusing(outcome: str) -> AsyncIterator[tuple[str, list[str]]]:
    """The balancer before three replicas that are ready and answer 503; gives its address, and who was asked."""
    public, operations = free_ports(2)
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.transport.get_extra_info("sockname")[0])
        return web.json_response({"code": 50300}, status=503, headers={"x-weda-outcome": outcome})

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    async with AsyncExitStack() as stack:
        for port, path, answer in ((public, "/messageDeliver", refuse), (operations, "/readyz", ready)):
            runner = web.AppRunner(app := web.Application())
            app.router.add_route("*", path, answer)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            for address in ADDRESSES:
                await web.TCPSite(runner, address, port).start()
        configuration = compose.content("balancer")
        url = stack.enter_context(balancing(configuration, public=public, operations=operations, addresses=ADDRESSES))
        await until(partial(status_of, f"{url}/balancer"), equals(200))
        yield url, asked


@pytest.mark.parametrize(
    ("message", "is_asked_again"),
    [
        ({"msgType": "Task", "instanceId": "i-1", "msgId": "m-1"}, True),
        ({"msgContext": json.dumps({"msgType": "Task", "instanceId": "i-1", "msgId": "m-1"})}, True),
        ({"msgType": "Task", "instanceId": "i-1", "msgId": 17}, True),
        ({"msgType": "Task", "instanceId": "i-1", "msgId": ""}, False),
        ({"msgType": "Task", "instanceId": "i-1", "msgId": None}, False),
        ({"msgContext": json.dumps({"msgType": "Task", "instanceId": "i-1", "msgId": ""})}, False),
        ({"msgType": "Task", "instanceId": "i-1"}, False),
    ],
)
async def test_what_may_be_published_all_the_same_goes_to_another_replica_only_with_a_msg_id(message, is_asked_again):
    """P4: a message whose outcome is unknown would stand there twice without one."""
    async with (
        refusing("unknown") as (url, asked),
        aiohttp.ClientSession() as session,
        session.post(f"{url}/messageDeliver", json=message) as answer,
    ):
        assert (answer.status, answer.headers["x-weda-outcome"]) == (503, "unknown")

    assert (len(asked) > 1) == is_asked_again
    assert len(asked) == 1 or len(set(asked)) > 1, "another one is asked"


async def test_a_replica_without_its_database_gets_no_messages_until_it_has_it_again(
    replicas, wires, database, kafka, topic_prefix
):
    """What it was asked while it was cut off nobody can know at once: that alone may be refused, once an instance."""
    ready = f"{replicas.running[2].connector.operations_url}/readyz"
    async with replicas.sent_to():
        await replicas.traffic()
        wires.cut()
        await until(partial(status_of, ready), equals(503))
        await until(partial(replicas.is_left_alone, 2))  # what was under way there is answered too
        doubtful = list(replicas.refused)
        taken = await replicas.running[2].metric("weda_connector_requests_total")
        wires.mend()
        await until(partial(status_of, ready), equals(200))
        await until(partial(replicas.running[2].metric, "weda_connector_requests_total"), lambda count: count > taken)

    assert replicas.refused == doubtful
    assert len({instance for instance, _ in doubtful}) == len(doubtful)
    await published(replicas, database, kafka, topic_prefix)


async def test_the_balancer_is_healthy_while_there_is_a_replica(replicas):
    """By the command of the compose file."""
    [bind] = compose.read()["services"]["balancer"]["ports"]
    _, *command = compose.read()["services"]["balancer"]["healthcheck"]["test"]
    port = replicas.url.rpartition(":")[2]
    here = [word.replace(f"/{bind['target']};", f"/{port};") for word in command]

    assert (await asyncio.to_thread(subprocess.run, here, check=False)).returncode == 0
    for each in replicas.running:
        await each.connector.stop()
    await replicas.until_balancer_says(503)
    assert (await asyncio.to_thread(subprocess.run, here, check=False)).returncode == 1


async def status_of(url: str) -> int | None:
    """None while nobody answers."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status
    except aiohttp.ClientError:
        return None


async def published(replicas: Replicas, database, kafka, topic_prefix) -> None:
    """What was accepted is in Kafka once and in its order, and nothing else but what was in doubt."""
    await until(lambda: database.ask("SELECT count(*) FROM weda_row"), equals([(0,)]))
    found: dict[str, list[str]] = {}
    for record in await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events"):
        instance, message = record.key().decode(), dict(record.headers())["ce_id"].decode()
        if (instance, message) not in replicas.refused:
            found.setdefault(instance, []).append(message)

    assert found == replicas.accepted
