"""A real schema registry: what readers find there; what happens when it is away, empty, locked, of another mind."""

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from connector.consuming import Events
from connector.errors import ConfigurationError, OutsideUnreachable
from connector.kafka.registry import Unregistered
from connector.message.schemas import WORKFLOW_EVENT, load
from tests.contract.test_evolution import grown
from tests.running import Running, Start
from tests.servers import SchemaRegistry, produce, read_topic
from tests.servers.gate import Certificates, gate
from tests.waiting import equals, until

STREAMS = ["events", "instances", "tasks", "state"]
CREDENTIALS = ("reader", "pässword")
INSTANCE = {"msgType": "Instance", "instanceId": "i-1", "msgId": "m-1", "envType": "prod", "instanceStatus": 1}
TASK = {"msgType": "Task", "instanceId": "i-1", "msgId": "m-2", "envType": "prod", "approverMap": {"u1": "王芳"}}
DELETED = {**INSTANCE, "msgId": "m-3", "action": "18"}


@pytest.fixture
def breakable() -> Iterator[SchemaRegistry]:
    """A registry that the test may break."""
    with SchemaRegistry.start() as registry:
        yield registry


def command(*arguments: str, url: str, prefix: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run ``weda-connector schemas …`` against a registry."""
    given = {"WEDA_REGISTRY__URL": url, "WEDA_TOPICS__PREFIX": prefix, "WEDA_STREAMS": json.dumps(STREAMS)} | settings
    words = ["env", *(f"{name}={text}" for name, text in given.items()), sys.executable, "-m", "connector", "schemas"]
    return subprocess.run([*words, *arguments], capture_output=True, text=True, timeout=120, check=False)


async def records(running: Running, stream: str, count: int) -> list[Message]:
    topic = f"{running.connector.routes.dead_letter_topic('default').removesuffix('dead-letters')}{stream}"
    return await asyncio.to_thread(read_topic, running.connector.bootstrap_servers, topic, count)


def decoded(url: str, record: Message, schema: str | None = None) -> dict[str, Any] | None:
    """What Confluent's own deserializer makes of it, which knows the registry's address, and perhaps its own schema."""
    with SchemaRegistryClient({"url": url, "timeout": 10}) as client:
        read = AvroDeserializer(client, schema)
        found: dict[str, Any] | None = read(record.value(), SerializationContext(record.topic(), MessageField.VALUE))
    return found


# --- what readers find ---


async def test_whoever_knows_the_registry_decodes_every_stream(start: Start, registry: SchemaRegistry):
    running = await start(registry__url=registry.url, registry__auto_register=True, streams=STREAMS)
    for message in (INSTANCE, TASK):
        assert await running.post(message) == (200, {"code": 0})

    (instance, task), (typed,), (typed_task,), (state,) = [
        [decoded(registry.url, record) for record in await records(running, stream, count)]
        for stream, count in (("events", 2), ("instances", 1), ("tasks", 1), ("state", 1))
    ]

    assert (instance["msgId"], task["msgId"], task["approverMap"]) == ("m-1", "m-2", [{"u1": "王芳"}])
    assert typed["instanceStatus"] == instance["instanceStatus"] == 1
    assert (typed_task["instanceId"], typed_task["approverMap"]) == ("i-1", [{"u1": "王芳"}])
    assert state == typed


async def test_a_deleted_instance_leaves_a_tombstone_in_its_state(start: Start, registry: SchemaRegistry):
    running = await start(registry__url=registry.url, registry__auto_register=True, streams=STREAMS)
    for message in (INSTANCE, DELETED):
        assert await running.post(message) == (200, {"code": 0})

    before, after = await records(running, "state", 2)

    assert (before.key(), after.key(), after.value()) == (b"i-1", b"i-1", None)
    assert before.value() is not None


async def test_a_new_subject_is_held_to_full_transitive_compatibility(registry: SchemaRegistry, topic_prefix: str):
    done = command("register", "--json", url=registry.url, prefix=topic_prefix)

    assert done.returncode == 0, done.stderr
    for line in json.loads(done.stdout):
        assert registry.ask(f"/config/{line['subject']}")["compatibilityLevel"] == "FULL_TRANSITIVE"
        found = registry.ask(f"/subjects/{line['subject']}/versions/latest")
        assert (found["id"], found["version"]) == (line["id"], 1)
        assert json.loads(found["schema"]) == json.loads(load(line["schema"]).text)


async def test_registering_twice_changes_nothing(registry: SchemaRegistry, topic_prefix: str):
    first, second = (command("register", "--json", url=registry.url, prefix=topic_prefix) for _ in range(2))

    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert registry.ask(f"/subjects/{topic_prefix}.events-value/versions") == [1]


async def test_list_and_check_say_what_is_there_and_what_is_not(registry: SchemaRegistry, topic_prefix: str):
    before = command("list", "--json", url=registry.url, prefix=topic_prefix)
    fresh = command("check", "--json", url=registry.url, prefix=topic_prefix)
    command("register", url=registry.url, prefix=topic_prefix)
    after = command("list", "--json", url=registry.url, prefix=topic_prefix)
    checked = command("check", "--json", url=registry.url, prefix=topic_prefix)

    assert {line["state"] for line in json.loads(before.stdout)} == {"not registered"}
    assert (fresh.returncode, checked.returncode) == (0, 0)
    assert {line["state"] for line in json.loads(after.stdout)} == {"registered"}
    assert [line["subject"] for line in json.loads(after.stdout)] == [f"{topic_prefix}.{one}-value" for one in STREAMS]
    assert {line["state"] for line in json.loads(checked.stdout)} == {"compatible", "registered"}


# --- of another version ---


async def test_readers_and_writers_of_neighbouring_versions_read_each_other(
    start: Start, registry: SchemaRegistry, topic_prefix: str
):
    """The next version, with one field more, is registered while this one runs: both write, and each reads both."""
    running = await start(registry__url=registry.url, registry__auto_register=True)
    assert await running.post(TASK) == (200, {"code": 0})
    topic = f"{topic_prefix}.events"
    with SchemaRegistryClient({"url": registry.url, "timeout": 10}) as client:
        later = AvroSerializer(client, grown(load(WORKFLOW_EVENT).text))
        ours = {"instanceId": "i-1", "msgType": "Task", "msgId": "later", "source": "default", "ingestId": "x"}
        fields = dict.fromkeys(load(WORKFLOW_EVENT).fields) | ours | {"receivedAt": 1, "extras": {}, "newField": 2}
        value = later(fields, SerializationContext(topic, MessageField.VALUE))
    record = {"topic": topic, "key": b"i-1", "value": value}
    await asyncio.to_thread(produce, running.connector.bootstrap_servers, [record])
    assert await running.post({**TASK, "msgId": "m-4"}) == (200, {"code": 0})

    found = await records(running, "events", 3)
    seen = {
        version: [decoded(registry.url, record, schema) for record in found]
        for version, schema in (("now", load(WORKFLOW_EVENT).text), ("next", grown(load(WORKFLOW_EVENT).text)))
    }

    assert registry.ask(f"/subjects/{topic}-value/versions") == [1, 2]
    for values in seen.values():
        assert [each["msgId"] for each in values] == ["m-2", "later", "m-4"]
    assert [each["newField"] for each in seen["next"]] == [None, 2, None]
    assert all("newField" not in each for each in seen["now"])
    with Events(
        running.connector.bootstrap_servers, prefix=topic_prefix, registry=registry.url, until_end=True
    ) as ours:
        assert [event.value["msgId"] for event in await asyncio.to_thread(list, ours)] == ["m-2", "later", "m-4"]


# --- of another mind ---


@pytest.fixture
def with_another_version(registry: SchemaRegistry, topic_prefix: str) -> str:
    """The prefix of topics whose events have a registered version in which ``msgId`` is a number."""
    theirs = json.loads(load(WORKFLOW_EVENT).text)
    for field in theirs["fields"]:
        if field["name"] == "msgId":
            field |= {"type": "long", "default": 0}
    subject = f"{topic_prefix}.events-value"
    registry.ask(f"/config/{subject}", method="PUT", body={"compatibility": "FULL_TRANSITIVE"})
    registry.ask(f"/subjects/{subject}/versions", method="POST", body={"schema": json.dumps(theirs)})
    return topic_prefix


async def test_an_incompatible_version_makes_check_fail_and_names_the_field(
    registry: SchemaRegistry, with_another_version: str
):
    done = command("check", url=registry.url, prefix=with_another_version)

    assert done.returncode == 1
    assert f"{with_another_version}.events-value: version 1: " in done.stderr
    assert "msgId" in done.stderr


async def test_register_refuses_what_is_incompatible_and_names_the_field(
    registry: SchemaRegistry, with_another_version: str
):
    done = command("register", url=registry.url, prefix=with_another_version)

    assert done.returncode == 1
    assert f"the registry rejects {with_another_version}.events-value" in done.stderr
    assert "msgId" in done.stderr
    assert done.stderr.count("\n") == 1
    assert registry.ask(f"/subjects/{with_another_version}.events-value/versions") == [1]


async def test_the_connector_does_not_start_against_another_version(
    start: Start, registry: SchemaRegistry, with_another_version: str
):
    with pytest.raises(Unregistered, match=f"{with_another_version}.events-value.*msgId"):
        await start(registry__url=registry.url, registry__auto_register=True)


async def test_without_auto_registration_what_is_missing_stops_the_start(
    start: Start, registry: SchemaRegistry, topic_prefix: str
):
    with pytest.raises(Unregistered, match=rf"{topic_prefix}\.events-value.*schemas register.*AUTO_REGISTER"):
        await start(registry__url=registry.url)

    assert f"{topic_prefix}.events-value" not in registry.ask("/subjects")


# --- away ---


async def test_a_registry_that_goes_away_later_is_reported_and_has_no_other_effect(
    start: Start, breakable: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("connector.app.watch.REGISTRY_SECONDS", 0.2)
    running = await start(registry__url=breakable.url, registry__auto_register=True)
    assert await running.post(INSTANCE) == (200, {"code": 0})
    assert await running.metric("weda_connector_registry_up") == 1

    breakable.kill()
    await until(partial(running.metric, "weda_connector_registry_up"), equals(0))

    assert await running.post(TASK) == (200, {"code": 0})
    first, second = await records(running, "events", 2)
    assert first.value()[:5] == second.value()[:5]
    status, ready = await running.ready()
    assert status == 200
    assert breakable.url in json.dumps(ready)


async def test_a_registry_that_has_lost_our_schemas_is_reported(
    start: Start, breakable: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("connector.app.watch.REGISTRY_SECONDS", 0.2)
    running = await start(registry__url=breakable.url, registry__auto_register=True)

    await asyncio.to_thread(breakable.restart)
    await until(running.ready, lambda answer: "other ids" in json.dumps(answer[1]))

    assert await running.post(INSTANCE) == (200, {"code": 0})


@pytest.mark.parametrize("away", ["killed", "paused"])
async def test_at_a_start_without_the_registry_the_last_ids_are_used(
    start: Start, breakable: SchemaRegistry, away: str
):
    first = await start(registry__url=breakable.url, registry__auto_register=True)
    assert await first.post(INSTANCE) == (200, {"code": 0})
    await first.connector.stop()
    if away == "killed":
        breakable.kill()
    else:
        breakable.pause()

    second = await start(registry__url=breakable.url, registry__auto_register=True)

    assert await second.post(TASK) == (200, {"code": 0})
    before, after = await records(second, "events", 2)
    assert before.value()[:5] == after.value()[:5]
    assert await second.metric("weda_connector_registry_up") == 0


async def test_at_a_first_start_without_the_registry_the_refusal_says_so(start: Start):
    with pytest.raises(OutsideUnreachable, match=r"127\.0\.0\.1:1 .*no earlier start"):
        await start(registry__url="http://127.0.0.1:1")


async def test_ids_of_another_registry_are_not_used(start: Start, registry: SchemaRegistry):
    first = await start(registry__url=registry.url, registry__auto_register=True)
    await first.connector.stop()

    with pytest.raises(OutsideUnreachable, match="no earlier start"):
        await start(registry__url="http://127.0.0.1:1")


# --- locked ---


async def test_a_registry_behind_tls_and_a_password_is_used(
    start: Start, registry: SchemaRegistry, certificates: Certificates
):
    with gate(registry.url, certificates=certificates, credentials=CREDENTIALS) as url:
        running = await start(
            registry__url=url,
            registry__auto_register=True,
            registry__username=CREDENTIALS[0],
            registry__password=CREDENTIALS[1],
            registry__ca_location=certificates.authority,
        )

        assert await running.post(INSTANCE) == (200, {"code": 0})
    (record,) = await records(running, "events", 1)
    assert (decoded(registry.url, record) or {})["msgId"] == "m-1"


async def test_a_registry_that_asks_for_a_certificate_gets_ours(
    registry: SchemaRegistry, certificates: Certificates, topic_prefix: str
):
    with gate(registry.url, certificates=certificates, asks_for_certificate=True) as url:
        known = {"WEDA_REGISTRY__CA_LOCATION": str(certificates.authority)}
        ours = {
            "WEDA_REGISTRY__CERTIFICATE_LOCATION": str(certificates.client),
            "WEDA_REGISTRY__KEY_LOCATION": str(certificates.client_key),
        }
        with_it = command("register", url=url, prefix=topic_prefix, **known, **ours)
        without = command("list", url=url, prefix=topic_prefix, **known)

    assert with_it.returncode == 0, with_it.stderr
    assert without.returncode == 3


async def test_a_wrong_password_is_one_line_that_names_the_settings(registry: SchemaRegistry, topic_prefix: str):
    with gate(registry.url, credentials=CREDENTIALS) as url:
        wrong = {"WEDA_REGISTRY__USERNAME": "reader", "WEDA_REGISTRY__PASSWORD": "a-wrong-secret"}
        done = command("list", url=url, prefix=topic_prefix, **wrong)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "WEDA_REGISTRY__USERNAME, WEDA_REGISTRY__PASSWORD" in done.stderr
    assert "a-wrong-secret" not in done.stderr


async def test_a_wrong_password_stops_the_start_though_ids_are_known(start: Start, registry: SchemaRegistry):
    with gate(registry.url, credentials=CREDENTIALS) as url:
        known = {"registry__url": url, "registry__auto_register": True, "registry__username": CREDENTIALS[0]}
        first = await start(**known, registry__password=CREDENTIALS[1])
        await first.connector.stop()

        with pytest.raises(ConfigurationError, match="WEDA_REGISTRY__PASSWORD"):
            await start(**known, registry__password="another")


async def test_an_authority_that_is_not_ours_is_not_trusted(
    registry: SchemaRegistry, certificates: Certificates, topic_prefix: str, tmp_path: Path
):
    (tmp_path / "other").mkdir()
    other = Certificates.issue(tmp_path / "other")
    with gate(registry.url, certificates=certificates) as url:
        done = command("list", url=url, prefix=topic_prefix, WEDA_REGISTRY__CA_LOCATION=str(other.authority))

    assert done.returncode == 3
    assert done.stderr.count("\n") == 1


async def test_an_authority_file_that_is_missing_is_named(registry: SchemaRegistry, topic_prefix: str):
    done = command("list", url=registry.url, prefix=topic_prefix, WEDA_REGISTRY__CA_LOCATION="/nowhere/ca.pem")

    assert done.returncode == 2
    assert "WEDA_REGISTRY__CA_LOCATION" in done.stderr


# --- the gate itself ---


async def test_the_gate_lets_nobody_in_without_what_it_demands(registry: SchemaRegistry, certificates: Certificates):
    trusting = ssl.create_default_context(cafile=certificates.authority)
    with gate(registry.url, credentials=CREDENTIALS) as url, pytest.raises(urllib.error.HTTPError, match="401"):
        await asyncio.to_thread(urllib.request.urlopen, url + "/subjects")
    with (
        gate(registry.url, certificates=certificates, asks_for_certificate=True) as url,
        pytest.raises((urllib.error.URLError, ssl.SSLError, OSError)),
    ):
        await asyncio.to_thread(urllib.request.urlopen, url + "/subjects", context=trusting)
