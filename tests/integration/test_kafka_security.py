"""Kafka by TLS and every mechanism, with right and wrong credentials, on a broker that asks; changed while it runs."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from connector.app import Connector, Reload
from connector.settings import Settings
from tests.integration.conftest import TOKEN, Running
from tests.servers import KafkaCluster, read_topic
from tests.servers.gate import Certificates
from tests.servers.secured import (
    MECHANISMS,
    by_certificate,
    over_tls,
    set_password,
    start_with_certificates,
    start_with_every_mechanism,
)

PREFIX = "guarded"
SECONDS = 40


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(certificates: Certificates) -> Iterator[KafkaCluster]:
    with start_with_every_mechanism(certificates, PREFIX) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def by_certificates(certificates: Certificates) -> Iterator[KafkaCluster]:
    with start_with_certificates(certificates) as cluster:
        yield cluster


class Connecting:
    """Starts connectors with a file of Kafka properties, which they read again when it changes."""

    def __init__(self, prefix: str, folder: Path) -> None:
        self.prefix = f"{PREFIX}-{prefix}"
        self.started: list[Connector] = []
        self._folder = folder
        self._file = folder / "properties.json"

    def write(self, properties: dict[str, str]) -> None:
        self._file.write_text(json.dumps(properties))

    async def __call__(self, cluster: KafkaCluster, properties: dict[str, str], prefix: str = "") -> Running:
        self.write(properties)
        environment = {
            "WEDA_TOKEN": TOKEN,
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
            "WEDA_KAFKA__PROPERTIES_FILE": str(self._file),
            "WEDA_TOPICS__PREFIX": prefix or self.prefix,
            "WEDA_TOPICS__PARTITIONS": "1",
            "WEDA_STREAMS": "events",
            "WEDA_RECEIVER__HOST": "127.0.0.1",
            "WEDA_RECEIVER__PORT": "0",
            "WEDA_OPERATIONS__PORT": "0",
            "WEDA_JOURNAL__PATH": str(self._folder / "journal.db"),
        }
        load = partial(Settings.load, environment=environment)
        connector = Connector(load(), Reload(load, Settings.files(environment=environment)))
        self.started.append(connector)
        await connector.start()
        return Running(connector)


@pytest.fixture
async def connect(topic_prefix: str, tmp_path: Path) -> AsyncIterator[Connecting]:
    connecting = Connecting(topic_prefix, tmp_path)
    yield connecting
    for connector in connecting.started:
        await connector.stop()


def message(number: int) -> dict[str, str]:
    return {"msgType": "Task", "instanceId": "i-1", "msgId": f"m-{number}"}


async def published(cluster: KafkaCluster, prefix: str, count: int) -> list[str]:
    """The ids of the events of a prefix."""
    read = partial(read_topic, cluster.bootstrap_servers, f"{prefix}.events", count, SECONDS, cluster.client_properties)
    return [dict(record.headers())["ce_id"].decode() for record in await asyncio.to_thread(read)]


async def until_kafka_is(state: str, running: Running) -> dict:
    async with asyncio.timeout(SECONDS):
        while (told := (await running.ready())[1])["kafka"] != state:
            await asyncio.sleep(0.2)
    return told


async def until_brokers_are_a_problem(running: Running) -> str:
    async with asyncio.timeout(SECONDS):
        while "brokers" not in (told := (await running.ready())[1])["problems"]:
            await asyncio.sleep(0.2)
    return told["problems"]["brokers"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_messages_are_published_by_each_mechanism_with_the_least_rights(
    mechanism, guarded, certificates, connect
):
    running = await connect(guarded, over_tls(certificates, mechanism))

    assert (await running.post(message(1)))[1] == {"code": 0}
    assert await published(guarded, connect.prefix, 1) == ["m-1"]
    assert (await until_kafka_is("up", running))["problems"].keys() <= {"durability"}


@pytest.mark.parametrize(
    ("mechanism", "wrong"),
    [
        ("PLAIN", {"sasl.password": "planted-wrong"}),
        ("SCRAM-SHA-256", {"sasl.password": "planted-wrong"}),
        ("SCRAM-SHA-512", {"sasl.username": "planted-nobody"}),
        ("OAUTHBEARER", {"sasl.oauthbearer.config": "principal=planted-nobody lifeSeconds=3600"}),
    ],
)
async def test_a_wrong_credential_is_told_in_one_line_and_the_right_one_is_taken_without_a_restart(
    mechanism, wrong, guarded, certificates, connect
):
    right = over_tls(certificates, mechanism)
    running = await connect(guarded, right | wrong)
    assert (await running.post(message(1)))[1] == {"code": 0}  # into the journal
    problem = await until_brokers_are_a_problem(running)
    connect.write(right)
    await until_kafka_is("up", running)

    assert await published(guarded, connect.prefix, 1) == ["m-1"]
    assert (await running.post(message(2)))[1] == {"code": 0}
    assert await published(guarded, connect.prefix, 2) == ["m-1", "m-2"]
    assert len(problem.splitlines()) == 1
    assert "planted-wrong" not in problem
    assert "authenti" in problem.lower() or "Create on" in problem or "authoriz" in problem.lower()


async def test_a_password_that_changes_under_load_loses_and_reorders_nothing(guarded, certificates, connect):
    running = await connect(guarded, over_tls(certificates, "SCRAM-SHA-512"))
    sent = 0
    for _ in range(40):
        assert (await running.post(message(sent)))[1] == {"code": 0}
        sent += 1
    set_password(guarded, "another-password")
    changed = over_tls(certificates, "SCRAM-SHA-512", password="another-password")
    connect.write(changed)
    async with asyncio.timeout(SECONDS):
        while await running.metric("weda_connector_producer_rebuilds_total") < 1 or sent < 120:
            assert (await running.post(message(sent)))[1] == {"code": 0}
            sent += 1
    set_password(guarded, "connector")

    assert await published(guarded, connect.prefix, sent) == [f"m-{number}" for number in range(sent)]


async def test_an_unknown_authority_is_told_in_one_line(guarded, certificates, connect, tmp_path):
    stranger = Certificates.issue(tmp_path)
    properties = over_tls(certificates, "PLAIN") | {"ssl.ca.location": str(stranger.authority)}
    running = await connect(guarded, properties)
    problem = await until_brokers_are_a_problem(running)

    assert len(problem.splitlines()) == 1
    assert "certificate verify failed" in problem or "SSL" in problem


async def test_a_client_certificate_is_replaced_without_a_restart(by_certificates, certificates, connect, tmp_path):
    stranger = Certificates.issue(tmp_path)
    own = {"ssl.certificate.location": str(stranger.client), "ssl.key.location": str(stranger.client_key)}
    running = await connect(by_certificates, by_certificate(certificates) | own)
    assert (await running.post(message(1)))[1] == {"code": 0}  # into the journal
    problem = await until_brokers_are_a_problem(running)
    shutil.copy(certificates.client, stranger.client)
    shutil.copy(certificates.client_key, stranger.client_key)
    await until_kafka_is("up", running)

    assert await published(by_certificates, connect.prefix, 1) == ["m-1"]
    assert len(problem.splitlines()) == 1


async def test_beyond_its_prefix_the_connector_may_do_nothing(guarded, certificates, connect):
    running = await connect(guarded, over_tls(certificates, "PLAIN"), f"elsewhere-{connect.prefix}")
    problem = await until_brokers_are_a_problem(running)

    assert "grant Describe on Topic" in problem
    assert (await running.post(message(1)))[1] == {"code": 0}  # it waits in the journal
