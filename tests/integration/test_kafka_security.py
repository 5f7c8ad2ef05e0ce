"""Kafka by TLS and every mechanism, with right and wrong credentials, on a broker that asks; changed while it runs."""

import asyncio
import json
import logging
import shutil
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from joserfc.jwk import ECKey
from structlog.testing import capture_logs

from connector.admin import doctor
from connector.app.connector import Connector
from connector.app.reload import Reload
from connector.settings import Settings
from tests.integration.conftest import PREFIX
from tests.running import PATIENT_ENVIRONMENT, TOKEN, Running
from tests.servers import KafkaCluster, read_topic
from tests.servers.access import ROOT
from tests.servers.gate import Certificates
from tests.servers.secured import (
    LATE,
    MECHANISMS,
    OTHER,
    SIGNED,
    by_certificate,
    by_signed_token,
    over_tls,
    set_password,
)
from tests.waiting import PATIENCE_SECONDS, at_least, until


class Connecting:
    """Starts connectors with a file of Kafka properties, which they read again when it changes."""

    def __init__(self, prefix: str, folder: Path, log: list[MutableMapping[str, Any]]) -> None:
        self.prefix = f"{PREFIX}-{prefix}"
        self.started: list[Connector] = []
        self.log = log
        self.folder = folder
        self._file = folder / "properties.json"

    def write(self, properties: dict[str, str]) -> None:
        self._file.write_text(json.dumps(properties))

    async def __call__(
        self, servers: KafkaCluster | str, properties: dict[str, str], prefix: str = "", **more: str
    ) -> Running:
        self.write(properties)
        environment = {
            "WEDA_TOKEN": TOKEN,
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": servers if isinstance(servers, str) else servers.bootstrap_servers,
            "WEDA_KAFKA__PROPERTIES_FILE": str(self._file),
            "WEDA_TOPICS__PREFIX": prefix or self.prefix,
            "WEDA_TOPICS__PARTITIONS": "1",
            "WEDA_STREAMS": "events",
            "WEDA_RECEIVER__HOST": "127.0.0.1",
            "WEDA_RECEIVER__PORT": "0",
            "WEDA_OPERATIONS__PORT": "0",
            "WEDA_JOURNAL__PATH": str(self.folder / "journal.db"),
            **PATIENT_ENVIRONMENT,
            **more,
        }
        load = partial(Settings.load, environment=environment)
        self.settings = load()
        connector = Connector(self.settings, Reload(load, Settings.files(environment=environment)))
        self.started.append(connector)
        await connector.start()
        return Running(connector)


@pytest.fixture
def log() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged meanwhile, warnings and worse."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with capture_logs() as log:
        yield log
    structlog.configure(wrapper_class=before)


@pytest.fixture
async def connect(
    topic_prefix: str, tmp_path: Path, log: list, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connecting]:
    monkeypatch.setattr(doctor, "_TIMEOUT_SECONDS", 3.0)
    connecting = Connecting(topic_prefix, tmp_path, log)
    yield connecting
    for connector in connecting.started:
        await connector.stop()


def message(number: int) -> dict[str, str]:
    return {"msgType": "Task", "instanceId": "i-1", "msgId": f"m-{number}"}


async def published(cluster: KafkaCluster, prefix: str, count: int) -> list[str]:
    """The ids of the events of a prefix."""
    read = partial(
        read_topic, cluster.bootstrap_servers, f"{prefix}.events", count, PATIENCE_SECONDS, cluster.client_properties
    )
    return [dict(record.headers())["ce_id"].decode() for record in await asyncio.to_thread(read)]


async def until_kafka_is(state: str, running: Running) -> dict:
    _, reported = await until(running.ready, lambda answer: answer[1]["kafka"] == state)
    return reported


async def until_everybody_is_reported(words: str, running: Running, connect: Connecting) -> str:
    """Wait until the probe tells of a problem in one line with these words; the log and the doctor say the same."""
    problem = await until(partial(until_brokers_are_a_problem, running), lambda problem: words in problem)
    examined = await asyncio.to_thread(
        lambda: next(one for one in doctor.examine(connect.settings) if one.check == "brokers")
    )
    logged = [
        one["problem"] for one in connect.log if one["event"] == "a problem outside" and one["about"] == "brokers"
    ]

    assert len(problem.splitlines()) == 1
    assert problem in logged
    assert (examined.verdict, examined.found) == ("failed", problem)
    return problem


async def until_brokers_are_a_problem(running: Running) -> str:
    _, reported = await until(running.ready, lambda answer: "brokers" in answer[1]["problems"])
    return reported["problems"]["brokers"]


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
async def test_a_wrong_credential_is_reported_in_one_line_and_the_right_one_is_taken_without_a_restart(
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
    async with asyncio.timeout(PATIENCE_SECONDS):
        while running.connector.publisher.generation < 1 or sent < 120:
            assert (await running.post(message(sent)))[1] == {"code": 0}
            sent += 1
    # with the new password: the old one is back in a moment, for other tests
    await until(partial(running.metric, "weda_connector_messages_published_total"), at_least(sent))
    set_password(guarded, "connector")

    assert await published(guarded, connect.prefix, sent) == [f"m-{number}" for number in range(sent)]
    assert await running.metric("weda_connector_producer_rebuilds_total") == 0, "it was planned: no error"


async def test_the_canary_is_read_back_with_the_properties_of_now(guarded, certificates, connect):
    right = over_tls(certificates, "PLAIN", name=ROOT, password=ROOT)  # it reads, which `USER` may not
    canary = {"WEDA_CANARY__ENABLED": "true", "WEDA_CANARY__INTERVAL_SECONDS": "1"}
    running = await connect(guarded, right | {"sasl.password": "planted-wrong"}, **canary)
    connect.write(right)

    await until(partial(running.metric, "weda_connector_canary_round_trip_seconds_count"), at_least(2))


@pytest.mark.parametrize(
    "reported", ["it is of an authority that is not known there", "it has expired (20"], ids=["unknown", "late"]
)
async def test_a_client_certificate_is_refused_with_the_reason_and_replaced_without_a_restart(
    reported, by_certificates, certificates, connect
):
    stranger = Certificates.issue(connect.folder)
    if "expired" in reported:
        shutil.copy(certificates.late_client, stranger.client)
        shutil.copy(certificates.late_client, stranger.client_key)
    own = {"ssl.certificate.location": str(stranger.client), "ssl.key.location": str(stranger.client_key)}
    running = await connect(by_certificates, by_certificate(certificates) | own)
    assert (await running.post(message(1)))[1] == {"code": 0}  # into the journal
    refusal = f"{by_certificates.bootstrap_servers} rejects our certificate: {reported}"
    await until_everybody_is_reported(refusal, running, connect)
    shutil.copy(certificates.client, stranger.client)
    shutil.copy(certificates.client_key, stranger.client_key)
    await until_kafka_is("up", running)

    assert await published(by_certificates, connect.prefix, 1) == ["m-1"]


@pytest.mark.parametrize(
    ("listener", "reported"),
    [
        (LATE, "certificate has expired"),
        (OTHER, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (None, "unable to get local issuer certificate"),
    ],
)
async def test_a_brokers_certificate_that_is_not_to_be_trusted_is_refused_with_the_reason(
    listener, reported, by_certificates, certificates, connect
):
    servers = by_certificates.listener(listener) if listener else by_certificates.bootstrap_servers
    trusted = certificates if listener else Certificates.issue(connect.folder)
    running = await connect(servers, by_certificate(certificates) | {"ssl.ca.location": str(trusted.authority)})
    assert (await running.post(message(1)))[1] == {"code": 0}  # it waits in the journal

    words = f"{servers} shows a certificate that is not to be trusted: {reported}"
    await until_everybody_is_reported(words, running, connect)


# --- signed tokens, by OpenID Connect ---


async def test_messages_are_published_by_a_signed_token_with_the_least_rights(guarded, certificates, tokens, connect):
    running = await connect(guarded.listener(SIGNED), by_signed_token(certificates, tokens))

    assert (await running.post(message(1)))[1] == {"code": 0}
    assert await published(guarded, connect.prefix, 1) == ["m-1"]
    assert (await until_kafka_is("up", running))["problems"].keys() <= {"durability"}


INVALID = '{"status":"invalid_token"}; the broker\'s log says whether for its issuer, audience, key or time'
WRONG_TOKENS = {
    "another secret": ({"secret": "planted-right"}, "no such client or another secret"),
    "another audience": ({"audience": "another"}, INVALID),
    "a key that nobody knows": ({"key": ECKey.generate_key("P-256", {"kid": "other"})}, INVALID),
    "expired": ({"lifetime": -60}, "the one that came has expired"),
    "no endpoint": ({"is_down": True}, "perhaps no token comes from https://"),
}


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
async def test_a_wrong_token_is_reported_in_one_line_and_the_right_one_is_taken_without_a_restart(
    wrong, guarded, certificates, tokens, connect
):
    properties, right = by_signed_token(certificates, tokens), dict(vars(tokens))
    changes, reported = WRONG_TOKENS[wrong]
    vars(tokens).update(changes)
    running = await connect(guarded.listener(SIGNED), properties)
    assert (await running.post(message(1)))[1] == {"code": 0}  # into the journal
    problem = await until_everybody_is_reported(reported, running, connect)
    vars(tokens).update(right)
    await until_kafka_is("up", running)

    assert await published(guarded, connect.prefix, 1) == ["m-1"]
    assert (await running.post(message(2)))[1] == {"code": 0}
    assert await published(guarded, connect.prefix, 2) == ["m-1", "m-2"]
    assert tokens.secret not in problem


async def test_tokens_are_renewed_before_they_expire_and_no_message_is_lost_or_late(
    guarded, certificates, tokens, connect
):
    """So short that librdkafka may show the old one again just before it has the new one, and lose a connection."""
    tokens.lifetime = 15
    running = await connect(guarded.listener(SIGNED), by_signed_token(certificates, tokens))
    await until_kafka_is("up", running)
    began, issued, sent = time.monotonic(), tokens.issued, 0
    while time.monotonic() < began + 3 * tokens.lifetime:
        assert (await running.post(message(sent)))[1] == {"code": 0}
        sent += 1
        assert (await running.ready())[1]["problems"].keys() <= {"durability"}
        await asyncio.sleep(0.1)

    assert tokens.issued - issued >= 6, "the producer's and the administrator's, each three times"
    assert await published(guarded, connect.prefix, sent) == [f"m-{number}" for number in range(sent)]
    assert await running.metric("weda_connector_producer_rebuilds_total") == 0


async def test_beyond_its_prefix_the_connector_may_do_nothing(guarded, certificates, connect):
    running = await connect(guarded, over_tls(certificates, "PLAIN"), f"elsewhere-{connect.prefix}")
    problem = await until_brokers_are_a_problem(running)

    assert "grant Describe on Topic" in problem
    assert (await running.post(message(1)))[1] == {"code": 0}  # it waits in the journal
