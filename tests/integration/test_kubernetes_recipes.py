"""The recipes of `docs/kubernetes.md`: rendered as they stand, and started against brokers that ask for just that."""

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.app.connector import Connector
from connector.app.reload import Reload
from connector.settings import Settings
from tests.chart import pods
from tests.integration.conftest import PREFIX
from tests.running import PATIENT, TOKEN, Running
from tests.servers import KafkaCluster, read_topic
from tests.servers.access import USER
from tests.servers.gate import Certificates
from tests.servers.secured import SIGNED, set_password
from tests.servers.tokens import TokenService
from tests.waiting import PATIENCE_SECONDS, until

PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("## Kafka with credentials\n")[2].partition("\n## ")[0]
RECIPES = {name: yaml.safe_load(text) for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", SECTION, re.DOTALL)}
BY_PASSWORD = ("scram.yaml", "strimzi-scram.yaml")
BY_CERTIFICATE = ("mutual-tls.yaml", "strimzi-mutual-tls.yaml")


@pytest.fixture
def secrets(certificates: Certificates, tokens: TokenService) -> dict[str, dict[str, str]]:
    """As the operators write them, under the names of the recipes."""
    authority, certificate, key = (
        path.read_text() for path in (certificates.authority, certificates.client, certificates.client_key)
    )
    return {
        "weda-connector": {"token": TOKEN, "operations-token": "o"},
        "kafka-ca": {"ca.crt": authority},
        "identity-ca": {"ca.crt": authority},
        "my-cluster-cluster-ca-cert": {"ca.crt": authority, "ca.p12": "", "ca.password": ""},
        "weda-kafka": {"username": USER, "password": USER},
        "weda-oauth": {"client-secret": tokens.secret},
        "weda-kafka-client": {"ca.crt": authority, "tls.crt": certificate, "tls.key": key},
        "connector": {  # of a KafkaUser: of either kind of authentication, here all at once
            "password": USER,
            "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            "ca.crt": "the authority of the clients, not of the brokers",
            "user.crt": certificate,
            "user.key": key,
        },
    }


class Started:
    """Connectors that read what the chart gives a pod."""

    def __init__(self, folder: Path, prefix: str, secrets: dict[str, dict[str, str]]) -> None:
        self.folder = folder
        self.prefix = prefix
        self.secrets = secrets
        self.all: list[Connector] = []

    async def __call__(self, values: dict[str, Any], servers: str) -> Running:
        pod = pods.lay_out(values, self.secrets, self.folder)
        flags = {
            "kafka.bootstrap_servers": servers,
            "topics.prefix": self.prefix,
            "topics.partitions": 1,
            "streams": "events",
            "receiver.host": "127.0.0.1",
            "receiver.port": 0,
            "operations.host": "127.0.0.1",
            "operations.port": 0,
            "journal.path": self.folder / "journal.db",
            **PATIENT,
        }
        load = partial(Settings.load, environment=pod.environment, file=pod.file, flags=flags)
        connector = Connector(load(), Reload(load, Settings.files(environment=pod.environment, file=pod.file)))
        self.all.append(connector)
        await connector.start()
        return Running(connector)


@pytest.fixture
async def start(tmp_path: Path, topic_prefix: str, secrets: dict) -> AsyncIterator[Started]:
    started = Started(tmp_path, f"{PREFIX}-{topic_prefix}", secrets)
    yield started
    for connector in started.all:
        await connector.stop()


async def publishes(running: Running, cluster: KafkaCluster, prefix: str, *numbers: int) -> None:
    """Send the last of these messages; all of them are in the topic."""
    message = {"msgType": "Task", "instanceId": "i-1", "msgId": f"m-{numbers[-1]}"}
    assert (await running.post(message))[1] == {"code": 0}
    read = partial(read_topic, cluster.bootstrap_servers, f"{prefix}.events", len(numbers), PATIENCE_SECONDS)
    records = await asyncio.to_thread(read, cluster.client_properties)
    assert [dict(record.headers())["ce_id"].decode() for record in records] == [f"m-{number}" for number in numbers]


def test_every_recipe_is_tried():
    assert set(RECIPES) == {*BY_PASSWORD, *BY_CERTIFICATE, "oauthbearer.yaml"}


@pytest.mark.parametrize("recipe", BY_PASSWORD)
async def test_a_user_with_a_password_comes_in(recipe, guarded, start):
    running = await start(RECIPES[recipe], guarded.bootstrap_servers)

    await publishes(running, guarded, start.prefix, 1)


@pytest.mark.parametrize("recipe", BY_CERTIFICATE)
async def test_a_client_with_a_certificate_comes_in(recipe, by_certificates, start):
    running = await start(RECIPES[recipe], by_certificates.bootstrap_servers)

    await publishes(running, by_certificates, start.prefix, 1)


async def test_a_client_with_a_token_comes_in(guarded, tokens, start):
    values = RECIPES["oauthbearer.yaml"]
    values["settings"]["kafka"]["properties"]["sasl.oauthbearer.token.endpoint.url"] = tokens.endpoint
    issued = tokens.issued
    running = await start(values, guarded.listener(SIGNED))

    await publishes(running, guarded, start.prefix, 1)
    assert tokens.issued > issued


async def test_a_password_that_the_operator_changes_is_taken_without_a_restart(guarded, start, tmp_path):
    running = await start(RECIPES["strimzi-scram.yaml"], guarded.bootstrap_servers)
    await publishes(running, guarded, start.prefix, 1)
    try:
        set_password(guarded, "rotated")
        file = tmp_path / "etc/weda-connector/secrets/WEDA_KAFKA__PROPERTIES__SASL_PASSWORD"
        file.write_text("rotated")
        await until(partial(running.metric, "weda_connector_reloads_total", outcome="applied"))

        await publishes(running, guarded, start.prefix, 1, 2)
    finally:
        set_password(guarded, USER)
