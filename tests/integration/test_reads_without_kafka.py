"""Commands, API and pages that read topics say within seconds that the brokers are gone."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from connector.admin import doctor
from connector.app.connector import Connector
from connector.settings import Settings
from tests.running import PATIENT, TOKEN, Running
from tests.servers import KafkaCluster
from tests.waiting import PATIENCE_SECONDS, equals, until

SECONDS = 15.0
COMMAND_SECONDS = 90.0
"""A read gives up after five; a busy machine starts several commands at once slowly."""


@pytest.fixture(params=["killed", "frozen"])
def gone(request, cluster) -> Iterator[KafkaCluster]:
    """The cluster, all of whose brokers `leave`; afterwards they are back."""
    yield cluster
    if request.param == "killed":
        cluster.start_all()
    else:
        cluster.resume_all()


@pytest.fixture
async def running(cluster, topic_prefix, tmp_path) -> AsyncIterator[Running]:
    """A connector with a dead letter and an event in Kafka, and more dead letters in its journal later."""
    flags = {
        "kafka.bootstrap_servers": cluster.bootstrap_servers,
        "topics.prefix": topic_prefix,
        "topics.partitions": 3,
        "receiver.port": 0,
        "receiver.host": "127.0.0.1",
        "operations.port": 0,
        "journal.path": tmp_path / "journal.db",
        **PATIENT,
    }
    connector = Connector(Settings.load(environment={"WEDA_TOKEN": TOKEN}, flags=flags))
    await connector.start()
    running = Running(connector)
    await until(lambda: connector.health.kafka, equals("up"))
    try:
        yield running
    finally:
        await connector.stop()


async def command(*arguments: str, **environment: str) -> tuple[int, str, str, float]:
    """Exit code, standard output, standard error, seconds."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "connector",
        *arguments,
        env=known | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, said.decode(), errors.decode(), time.monotonic() - began


async def page(running: Running, path: str) -> tuple[int, str, float]:
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(3 * SECONDS)) as session,
        session.get(f"{running.connector.operations_url}{path}") as answer,
    ):
        return answer.status, await answer.text(), time.monotonic() - began


async def test_every_read_ends_within_seconds_and_says_why(gone, running, request, topic_prefix):
    assert (await running.post(b"no JSON"))[0] == 400
    assert (await running.post({"msgType": "Task", "instanceId": "i-1", "envType": "pre"}))[0] == 200
    if request.node.callspec.params["gone"] == "killed":
        gone.kill_all()
    else:
        gone.pause_all()
    operations = {"WEDA_OPERATIONS__URL": running.connector.operations_url}
    brokers = {"WEDA_KAFKA__BOOTSTRAP_SERVERS": gone.bootstrap_servers, "WEDA_TOPICS__PREFIX": topic_prefix}
    letter = f"{topic_prefix}.dead-letters/0/0"

    for path in (
        "dead-letters",
        f"dead-letters/{letter}",
        "instances?id=i-1",
        "topics",
        f"records/{topic_prefix}.events/0/0",
    ):
        status, text, seconds = await page(running, f"/console/{path}")
        assert (status, seconds < SECONDS) == (503, True), (path, status, seconds)
        assert "Kafka does not answer" in text, path
    for path in ("instances", "business"):
        status, text, seconds = await page(running, f"/console/{path}")
        assert (status, seconds < SECONDS) == (200, True), (path, status, seconds)
        assert "The index could not be brought up to date" in text or "Kafka is still being read" in text, path
        assert "Nothing yet" not in text, path
        assert "everything that Kafka has" not in text, path
    for path in ("dead-letters", f"dead-letters/{letter}"):
        status, text, seconds = await page(running, f"/api/{path}")
        assert (status, seconds < SECONDS) == (502, True), (path, status, seconds)
        assert "cannot reach Kafka" in json.loads(text)["message"], text
    ended = await asyncio.gather(
        command("dead-letters", "list", **operations),
        command("dead-letters", "replay", "--dry-run", **operations),
        command("tail", "--from-beginning", "--until-end", **brokers),
        command("tail", "--from-beginning", **brokers),
    )
    for code, said, errors, seconds in ended:
        assert (code, said, errors.count("\n"), seconds < COMMAND_SECONDS) == (3, "", 1, True), (
            code,
            said,
            errors,
            seconds,
        )
    code, said, errors, seconds = await command("dead-letters", "replay", "--json", **operations)
    assert (code, json.loads(said)["state"]) == (3, "broken"), errors


async def test_two_of_three_brokers_that_are_gone_are_named(cluster, running, topic_prefix):
    """By the doctor and by the page, whatever the one that is left believes of the others."""
    alive, *silent = cluster.bootstrap_servers.split(",")
    for node in cluster.nodes[1:]:
        cluster.kill(node)
    try:
        given = Settings.load(
            environment={},
            flags={"kafka.bootstrap_servers": cluster.bootstrap_servers, "topics.prefix": topic_prefix},
        )
        checks = doctor.examine(given)
        found = next(each for each in checks if each.check == "brokers")
        checks.close()
        status, text, _ = await page(running, "/console/topics")
    finally:
        cluster.start_all()

    assert found.verdict == "failed", (found, alive)
    assert "1 of 3 answer" in found.found
    assert all(address in found.found for address in silent), found
    assert status == 503 or ("do not answer" in text and ">durable<" not in text), text


async def test_dead_letters_that_wait_in_the_journal_are_reported(start):
    """Their topic is missing here; in an outage they wait as long. `total` counts those in the topic alone."""
    running = await start(topics__create=False)
    operations = {"WEDA_OPERATIONS__URL": running.connector.operations_url}
    for number in range(3):
        assert (await running.post(b"no JSON %d" % number))[0] == 400
    _, text, _ = await page(running, "/api/dead-letters")
    reported = json.loads(text)
    assert (reported["total"], reported["in_journal"]) == (0, 3)
    code, said, _, _ = await command("dead-letters", "list", **operations)
    assert (code, said) == (0, "3 more in the journal; they are listed once they are published\n")
    _, text, _ = await page(running, "/console/dead-letters")
    assert "There are more in the journal" in text
    assert "None. Everything" not in text
    _, said, _, _ = await command("dead-letters", "replay", "--dry-run", **operations)
    assert "3 more in the journal" in said


async def test_a_first_start_complains_of_no_topic_that_it_has_just_made(start, capfd):
    running = await start()
    await until(lambda: running.connector.health.kafka, equals("up"))

    assert "topics" not in running.connector.health.problems
