"""Alerts are raised for real: a real Prometheus scrapes connectors in real trouble, and sees it come and go.

The rules' times are cut short (`rules.cut_short`), nothing else. What cannot be brought about for real within the test
is shown by promtool alone: brokers that gain replicas.
"""

import asyncio
import json
import os
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from confluent_kafka.admin import NewPartitions

from connector import supervision
from connector.app import brokers, connector, watch
from connector.journal.sqlite import SqliteJournal
from connector.telemetry import logs
from tests.integration import test_front_door, test_notify
from tests.integration.test_damaged_journal import admission, pages_of, scramble
from tests.integration.test_front_door import Authority, Serving, files
from tests.monitoring.rules import SHORT, alerts, cut_short
from tests.running import Running
from tests.servers import KafkaCluster, Prometheus
from tests.servers.postgres import Postgres
from tests.servers.wires import Wires
from tests.waiting import equals, until

SCRAPED = "count_over_time(weda_connector_ready[1m]) >= 10"
_SENT = 'source:weda_connector_requests:increase1h{source="hr"}'
SENT_IN_BOTH_WEEKS = f"min_over_time({_SENT}[{SHORT['1w']}]) >= 10 and {_SENT} offset {SHORT['1w']} >= 10"
"""What a source must have done before its silence is worth an alert."""

OF_THE_FREEZE = {
    "WedaConnectorPublishingStalled",
    "WedaConnectorBacklogOld",
    "WedaConnectorBacklogGrowing",
    "WedaConnectorJournalHalfFull",
    "WedaConnectorJournalFullSoon",
    "WedaConnectorJournalFull",
    "WedaConnectorNotReady",
    "WedaConnectorErrorBudgetBurn",
    "WedaConnectorBrokerDown",
    "WedaConnectorCanaryLate",
}
OF_OTHER_TROUBLE = {
    "WedaConnectorDeadLetters",
    "WedaConnectorPartitionCountChanged",
    "WedaConnectorJournalLostMessages",
    "WedaConnectorLedgerImbalance",
    "WedaConnectorJournalFailing",
    "WedaConnectorRegistryDown",
    "WedaConnectorSourceSilent",
    "WedaConnectorPartRestarted",
    "WedaConnectorLogLinesDropped",
}
OF_REPLICAS = {"WedaConnectorReplicaHoldsBack", "WedaConnectorDatabaseDown", "WedaConnectorLeaseLost"}
serve, authority = test_front_door.serve, test_front_door.authority
platforms, notifiers = test_notify.platforms, test_notify.notifiers

OF_SETTINGS = {
    "WedaConnectorCredentialsRefused",
    "WedaConnectorOperationsRefused",
    "WedaConnectorReloadFailing",
    "WedaConnectorRestartNeeded",
    "WedaConnectorCertificateExpires",
}
THAT_LAST = {"WedaConnectorDeadLettersWaiting"}
"""What goes only with the dead letter's reason."""

OF_A_STARVED_PROCESS = {"WedaConnectorSlowAnswers", "WedaConnectorEventLoopLate"}
OF_THE_NOTIFIER = {
    "WedaConnectorNotificationsParked",
    "WedaConnectorNotificationsFailing",
    "WedaConnectorNotifierBehind",
}


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with Prometheus.start(rules=cut_short(), scrape_seconds=0.5) as started:
        yield started


@pytest.fixture
def kafka_with_door() -> Iterator[KafkaCluster]:
    """A broker that one client can be cut from."""
    with KafkaCluster.start(1, doors=1) as started:
        yield started


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    """Topics and registry are looked at every second, not every half minute."""
    monkeypatch.setattr(brokers, "TOPICS_SECONDS", 1.0)
    monkeypatch.setattr(watch, "REGISTRY_SECONDS", 1.0)


@pytest.fixture
async def damaged(tmp_path, topic_prefix) -> Path:
    """A journal with a page that does not come back; what does is for a topic that exists."""
    path = tmp_path / "damaged" / "journal.db"
    path.parent.mkdir()
    journal = SqliteJournal(path, max_bytes=1 << 26)
    await journal.open()
    for number in range(1, 200):
        waiting = admission(number)
        (record,) = waiting.records
        there = msgspec.structs.replace(record, topic=f"{topic_prefix}-b.events")
        await journal.store(msgspec.structs.replace(waiting, records=(there,)))
    await journal.close()
    scramble(path, pages_of(path, "message")[-1])
    return path


def test_every_alert_is_raised_for_real_or_named_as_not():
    shown = OF_THE_FREEZE | OF_OTHER_TROUBLE | OF_REPLICAS | OF_SETTINGS | THAT_LAST
    shown |= OF_A_STARVED_PROCESS | OF_THE_NOTIFIER

    assert {alert["alert"] for alert in alerts()} - shown == {"WedaConnectorAbsent", "WedaConnectorDurabilityDegraded"}


async def test_trouble_is_seen_to_come_and_to_go(  # noqa: PLR0917 - fixtures
    prometheus, start, kafka, registry, topic_prefix, tmp_path, disk, damaged, monkeypatch
):
    await asyncio.to_thread(prometheus.wait_for, "WedaConnectorAbsent")

    loaded = await start(
        journal__max_bytes="8MiB",
        sources={"default": {}, "hr": {"tokens": ["hr-token"]}},
        canary__enabled=True,
        canary__interval_seconds=1,
    )
    registered = await start(
        journal__path=tmp_path / "registered.db",
        registry__url=registry.url,
        registry__auto_register=True,
        topics__prefix=f"{topic_prefix}-r",
    )
    monkeypatch.setattr(connector, "SqliteJournal", partial(SqliteJournal, vfs=disk.name))
    flags = {"topics__prefix": f"{topic_prefix}-b", "topics__partitions": 2}
    broken = await start(journal__path=damaged, **flags)
    prometheus.scrape([one.connector.operations_url for one in (loaded, registered, broken)])
    async with sending(loaded) as (default, hr):
        await asyncio.to_thread(prometheus.wait_for_end, "WedaConnectorAbsent")
        await until(partial(asyncio.to_thread, prometheus.query, SENT_IN_BOTH_WEEKS))

        hr.cancel()
        fired = await asyncio.to_thread(prometheus.wait_for, "WedaConnectorSourceSilent")
        assert (await broken.post(b"no JSON"))[0] == 400
        admin = kafka.admin()  # held: its futures end with it
        (grown,) = admin.create_partitions([NewPartitions(f"{topic_prefix}-b.events", 3)]).values()
        await asyncio.to_thread(grown.result)
        registry.pause()
        disk.failing.add("sync")
        dropping = asyncio.create_task(failing_process(monkeypatch))
        try:
            fired |= await asyncio.to_thread(prometheus.wait_for, *OF_OTHER_TROUBLE - fired.keys())
            kafka.pause(1)
            fired |= await asyncio.to_thread(prometheus.wait_for, *OF_THE_FREEZE)
        finally:
            kafka.resume_all()
            registry.resume()
            disk.failing.clear()
            dropping.cancel()
        default.cancel()

    for alert in (alert for alerts_of_one in fired.values() for alert in alerts_of_one):
        assert "error" not in alert["annotations"]["description"], alert
    burns = {alert["labels"]["long"] for alert in prometheus.firing().get("WedaConnectorErrorBudgetBurn", [])}
    assert burns <= {"1h", "6h", "1d", "3d"}
    await broken.connector.stop()
    for file in damaged.parent.glob("*.damaged-*"):
        file.unlink()
    again = await start(journal__path=damaged, **flags)
    prometheus.scrape([one.connector.operations_url for one in (loaded, registered, again)])
    ended = asyncio.to_thread(prometheus.wait_for_end, *OF_THE_FREEZE, *OF_OTHER_TROUBLE)
    async with sending(loaded):
        await ended


async def test_trouble_of_replicas_is_seen_to_come_and_to_go(prometheus, start, kafka_with_door):
    """One is cut from Kafka, and its rows wait until it is ended; then the database is away for both."""
    bootstrap, ports = kafka_with_door.door(0)
    with Postgres.start() as database, Wires(ports) as wires:
        database.migrate()
        cut = await start(journal__url=database.url(), kafka__bootstrap_servers=bootstrap)
        other = await start(journal__url=database.url(), kafka__bootstrap_servers=kafka_with_door.bootstrap_servers)
        prometheus.scrape([one.connector.operations_url for one in (cut, other)])
        try:
            async with sending(cut), sending(other):
                await until(partial(asyncio.to_thread, prometheus.query, SCRAPED), lambda found: len(found) == 2)
                assert not OF_REPLICAS & set(prometheus.firing())
                wires.cut()
                fired = await asyncio.to_thread(prometheus.wait_for, "WedaConnectorReplicaHoldsBack")
                assert instances(fired["WedaConnectorReplicaHoldsBack"]) == {address(cut)}
                assert "WedaConnectorDatabaseDown" not in prometheus.firing()
            await cut.connector.stop()
            async with sending(other):
                await asyncio.to_thread(prometheus.wait_for_end, "WedaConnectorReplicaHoldsBack")
            await until(lambda: database.ask("SELECT count(*) FROM weda_row"), equals([(0,)]))

            await asyncio.to_thread(database.shut_down)
            fired = await asyncio.to_thread(prometheus.wait_for, "WedaConnectorDatabaseDown")
            assert instances(fired["WedaConnectorDatabaseDown"]) == {address(other)}
            assert "WedaConnectorJournalFailing" not in prometheus.firing()
            await asyncio.to_thread(database.restart)
            await asyncio.to_thread(prometheus.wait_for_end, "WedaConnectorDatabaseDown")

            assert "WedaConnectorLeaseLost" not in prometheus.firing(), "it was not away for so long"
            await asyncio.to_thread(database.shut_down)
            fired = await asyncio.to_thread(prometheus.wait_for, "WedaConnectorLeaseLost")
            assert instances(fired["WedaConnectorLeaseLost"]) == {address(other)}
        finally:
            for one in (cut, other):
                await one.connector.stop()


async def test_trouble_of_settings_and_credentials_is_seen_to_come_and_to_go(
    prometheus, serve, authority: Authority, tmp_path: Path
):
    """Wrong tokens, a token file that is empty, a setting that needs a restart, a certificate that ends tomorrow."""
    token, config = tmp_path / "token", tmp_path / "connector.yaml"
    token.write_text("t-1")
    config.write_text("journal: {max_bytes: 64MiB}\n")
    issued = authority.issuer.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=1))
    issued.private_key_pem.write_to_path(authority.folder / "key.pem")
    (authority.folder / "certificate.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    settings = {
        "WEDA_TOKEN_FILE": str(token),
        "WEDA_CONFIG": str(config),
        "WEDA_OPERATIONS__TOKEN": "operations-token",
        **files(authority),
    }
    serving = await serve(scheme="https", **settings)
    prometheus.scrape([serving.operations_url])
    tls = authority.client()
    assert await serving.post(tls=tls, authorization="Bearer t-1") == 200

    config.write_text("journal: {max_bytes: 65MiB}\n")
    guessing = asyncio.create_task(_guess(serving, tls))
    try:
        of_a_file = {"WedaConnectorReloadFailing"}  # until that is mended no other change is looked at
        await asyncio.to_thread(prometheus.wait_for, *OF_SETTINGS - of_a_file)
        token.write_text("")
        await asyncio.to_thread(prometheus.wait_for, *of_a_file)
    finally:
        guessing.cancel()
        await asyncio.gather(guessing, return_exceptions=True)

    config.write_text("journal: {max_bytes: 64MiB}\n")
    token.write_text("t-1")
    authority.renew()
    await asyncio.to_thread(prometheus.wait_for_end, *OF_SETTINGS)
    assert not prometheus.firing().keys() & THAT_LAST

    async with (
        aiohttp.ClientSession(headers={"authorization": "Bearer t-1"}) as session,
        session.post(f"{serving.url}/messageDeliver", data=b"no JSON", ssl=authority.client()) as answer,
    ):
        assert answer.status == 400
    await asyncio.to_thread(prometheus.wait_for, *THAT_LAST)


async def test_a_process_that_gets_no_cpu_answers_late_until_it_gets_some(prometheus, serve, kafka, topic_prefix):
    """It is halted again and again for longer than an answer may take, as a machine does that has no core for it."""
    settings = {"WEDA_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "WEDA_TOPICS__PREFIX": topic_prefix}
    serving = await serve(**settings, WEDA_AUTH="none")
    prometheus.scrape([serving.operations_url])
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        senders = [tasks.create_task(_send(session, serving.url, "default", "", size=100)) for _ in range(20)]
        halting = tasks.create_task(_halt(serving.process.pid))

        await asyncio.to_thread(prometheus.wait_for, *OF_A_STARVED_PROCESS)
        halting.cancel()
        await asyncio.to_thread(prometheus.wait_for_end, *OF_A_STARVED_PROCESS)
        for sender in senders:
            sender.cancel()


async def _halt(process: int) -> None:
    """Halt a process for nine tenths of each second, until cancelled."""
    try:
        while True:
            os.kill(process, signal.SIGSTOP)
            await asyncio.sleep(0.9)
            os.kill(process, signal.SIGCONT)
            await asyncio.sleep(0.2)
    finally:
        os.kill(process, signal.SIGCONT)


async def test_trouble_of_the_notifier_is_seen_to_come_and_to_go(prometheus, start, platforms, notifiers):
    """It finds a backlog, and a platform that is away and refuses one text for good; then the platform is back."""
    is_away = True
    running = await start()
    platform = platforms(lambda text: (404 if text.startswith("m-0 ") else 503) if is_away else 200)
    notifier = notifiers(running, test_notify.rules_for(platform))
    alone = test_notify.todo(0, approverMap=[{"999": "人999"}])  # or it would wait behind another of its person
    await test_notify.post_all(running, [alone, *(test_notify.todo(number) for number in range(1, 250))])
    prometheus.scrape([f"http://127.0.0.1:{notifier.port}"])
    notifier.start()

    await asyncio.to_thread(prometheus.wait_for, *OF_THE_NOTIFIER)
    is_away = False
    await until(lambda: platform.notified.total() == 249)
    assert json.loads(notifier.run("--retry-parked", "--state", "notify.db")) == {"retried": 1}
    await asyncio.to_thread(prometheus.wait_for_end, *OF_THE_NOTIFIER)

    assert platform.notified.total() == 250


async def _guess(serving: Serving, tls: ssl.SSLContext) -> None:
    """Guess tokens at both listeners until cancelled."""

    async def once(number: int) -> None:
        await serving.post(tls=tls, authorization=f"Bearer wrong-{number}")
        await serving.get("/api/status", authorization=f"Bearer wrong-{number}")

    for number in count():
        await asyncio.gather(*(once(20 * number + each) for each in range(20)))


def address(running: Running) -> str:
    return running.connector.operations_url.removeprefix("http://")


async def failing_process(monkeypatch) -> None:
    """Lines go to a full disk, and a part fails, again and again."""
    full = os.open("/dev/full", os.O_WRONLY)
    sink = logs.Sink(logs._Descriptor(full).write)
    monkeypatch.setattr(logs, "_sink", sink)
    try:
        while True:
            sink.add(b"a line")
            supervision.record_failure("history", KeyError())
            await asyncio.sleep(0.5)
    finally:
        sink.close(5)
        os.close(full)


def instances(alerts_of_one: list[dict[str, Any]]) -> set[str]:
    return {alert["labels"]["instance"] for alert in alerts_of_one}


@asynccontextmanager
async def sending(running: Running) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Task[None]]]:
    """Load of two sources: some 400 kB a second of the one, a few small messages of the other."""
    async with aiohttp.ClientSession() as session:
        load = partial(_send, session, running.connector.url)
        tasks = (
            asyncio.create_task(load("default", "a-token-for-tests", size=40_000)),
            asyncio.create_task(several(partial(load, "hr", "hr-token", size=100))),
        )
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def several(load: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(*(load() for _ in range(3)))


async def _send(session: aiohttp.ClientSession, base: str, source: str, token: str, *, size: int) -> None:
    for number in count():
        message = {"msgType": "Task", "instanceId": f"i-{number % 50}", "msgId": secrets.token_hex(8), "action": 2}
        headers = {"authorization": f"Bearer {token}"}
        url = f"{base}/sources/{source}/messageDeliver"
        async with session.post(url, json=message | {"comment": "x" * size}, headers=headers) as answer:
            await answer.read()
        await asyncio.sleep(0.1)
