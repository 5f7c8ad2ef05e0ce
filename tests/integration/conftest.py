"""A connector in this process, on a real broker."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connector.app.connector import Connector
from connector.errors import Unavailable
from connector.settings import Settings
from tests.servers import KafkaCluster
from tests.servers.gate import Certificates
from tests.servers.secured import start_with_certificates, start_with_every_mechanism
from tests.servers.tokens import TokenService, token_service
from tests.waiting import equals, until

TOKEN = "a-token-for-tests"
PREFIX = "guarded"
"""What the topics' names begin with on a broker that asks for credentials."""

PATIENT = {"kafka.publish_wait_seconds": 4, "receiver.reply_deadline_seconds": 20}
"""What is accepted while Kafka answers is in Kafka, however slow the machine is; the journal answers for outages."""

PATIENT_ENVIRONMENT = {f"WEDA_{name.upper().replace('.', '__')}": str(seconds) for name, seconds in PATIENT.items()}

BY_DEFAULT = {"kafka__publish_wait_seconds": 0.4, "receiver__reply_deadline_seconds": 0.8}
"""For tests of how soon an answer comes while something does not answer."""


class Running:
    """A started connector and the calls that tests make of it."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.url = f"{connector.url}/messageDeliver"

    async def post(self, message: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a message (an object in the default envelope, or bytes as they are); gives status and answer."""
        body = message if isinstance(message, bytes) else json.dumps({"msgContext": json.dumps(message)}).encode()
        known = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"} | headers
        async with aiohttp.ClientSession() as session, session.post(self.url, data=body, headers=known) as answer:
            return answer.status, await answer.json()

    async def ready(self) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.connector.operations_url}/readyz") as answer:
            return answer.status, await answer.json()

    async def exposed(self) -> str:
        """The text of `/metrics`."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.connector.operations_url}/metrics") as answer,
        ):
            return await answer.text()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry the labels."""
        samples = [one for family in text_string_to_metric_families(await self.exposed()) for one in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    async def drained(self) -> None:
        """Wait until nothing waits for Kafka; of replicas, in the journal that they share."""
        await until(self._is_drained)

    async def _is_drained(self) -> bool:
        # Ask the journal itself: what metrics and probes say of it is up to half a second old, so that they may say 0
        # though an accepted message has been written since.
        try:
            return (await self.connector.context.journal.state()).oldest is None
        except Unavailable:
            return False


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def service(certificates: Certificates) -> Iterator[TokenService]:
    with token_service(certificates) as service:
        yield service


@pytest.fixture
def tokens(service: TokenService) -> Iterator[TokenService]:
    """The endpoint of tokens, which is as it was once a test is over."""
    right = dict(vars(service))
    yield service
    vars(service).update(right)


@pytest.fixture(scope="module")
def guarded(certificates: Certificates, service: TokenService) -> Iterator[KafkaCluster]:
    with start_with_every_mechanism(certificates, service, PREFIX) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def by_certificates(certificates: Certificates) -> Iterator[KafkaCluster]:
    with start_with_certificates(certificates) as cluster:
        yield cluster


Start = Callable[..., Any]


@pytest.fixture
def base_flags(kafka, topic_prefix, tmp_path) -> dict[str, Any]:
    """The flags of a patient connector on the session's broker."""
    return {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "topics.prefix": topic_prefix,
        "receiver.host": "127.0.0.1",
        "receiver.port": 0,
        "operations.port": 0,
        "journal.path": tmp_path / "journal.db",
        **PATIENT,
    }


@pytest.fixture
async def start(kafka, base_flags) -> AsyncIterator[Start]:
    """Start a connector on the session's broker; flags override; whatever runs at the end is stopped.

    Where the broker answers it has made its topics: a slow one may take longer than a start waits.
    """
    started: list[Connector] = []

    async def start(**flags: Any) -> Running:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        connector = Connector(Settings.load(environment={"WEDA_TOKEN": TOKEN}, flags=base_flags | given))
        started.append(connector)
        await connector.start()
        if connector.bootstrap_servers == kafka.bootstrap_servers and kafka.is_whole:
            await until(lambda: connector.health.kafka, equals("up"))
        return Running(connector)

    yield start
    for connector in started:
        await connector.stop()
