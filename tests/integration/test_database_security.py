"""The way to a shared journal's database over TLS: what gets in does, what does not is explained in one sentence."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connector.admin import doctor
from connector.errors import OutsideUnreachable
from connector.replicas.migrate import migrate
from connector.settings import Settings
from tests.running import Running
from tests.servers.gate import Certificates
from tests.servers.ports import LOOPBACK
from tests.servers.postgres import OWNER, PASSWORD, RUNNER, Postgres
from tests.waiting import PATIENCE_SECONDS, until


@dataclass(frozen=True)
class Database:
    """A server that lets the runner in over TLS alone, and the certificates around it."""

    server: Postgres
    ours: Certificates
    strangers: Certificates

    def url(self, *, password: str = PASSWORD, **parameters: object) -> str:
        known = {"sslmode": "verify-full", "sslrootcert": self.ours.authority} | parameters
        asked = "&".join(f"{name}={text}" for name, text in known.items())
        return f"postgresql://{RUNNER}:{password}@{LOOPBACK}:{self.server.port}/weda?{asked}"

    def shows(self, certificate: Path, *, asks_for_certificate: bool = False) -> None:
        self.server.encrypt(certificate, self.ours.authority, asks_for_certificate=asks_for_certificate)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Database]:
    folders = [tmp_path_factory.mktemp(name) for name in ("ours", "strangers")]
    ours, strangers = map(Certificates.issue, folders)
    for each in (ours.client_key, strangers.client_key, ours.late_client):
        each.chmod(0o600)
    with Postgres.start() as server:
        server.migrate()
        yield Database(server, ours, strangers)


@pytest.fixture
def secured(guarded: Database) -> Database:
    """Its own certificate is shown, and a password is enough."""
    guarded.shows(guarded.ours.server)
    guarded.server.ask("DELETE FROM weda_replica", role=OWNER)
    return guarded


def found_by_doctor(url: str) -> doctor.Finding:
    settings = Settings.load(environment={}, flags={"journal.url": url})
    return next(one for one in doctor.examine(settings) if one.check == "journal database")


def place(database: Database) -> str:
    return f"{LOOPBACK}:{database.server.port}"


WRONG: dict[str, tuple[Callable[[Database], str], str]] = {
    "no TLS": (lambda one: one.url(sslmode="disable"), "no encryption"),
    "an authority that we do not know": (
        lambda one: one.url(sslrootcert=one.strangers.authority),
        "{place} shows a certificate that is not to be trusted: ",
    ),
    "no file of the authority": (lambda one: one.url(sslrootcert="/nowhere/ca.pem"), "does not exist"),
    "a wrong password": (
        lambda one: one.url(password="planted"),
        f'password authentication failed for user "{RUNNER}"',
    ),
}
WRONG_SERVERS: dict[str, tuple[Callable[[Database], Path], str]] = {
    "expired": (
        lambda one: one.ours.late_server,
        "{place} shows a certificate that is not to be trusted: certificate has expired",
    ),
    "another host's": (lambda one: one.ours.other_server, f'does not match host name "{LOOPBACK}"'),
}
CLIENTS: dict[str, tuple[Callable[[Database], dict[str, Path]], str]] = {
    "none": (lambda _: {}, "requires a valid client certificate; name one in sslcert and sslkey"),
    "another authority's": (
        lambda one: {"sslcert": one.strangers.client, "sslkey": one.strangers.client_key},
        "{place} rejects our certificate: it is of an authority that is not known there",
    ),
    "expired": (
        lambda one: {"sslcert": one.ours.late_client, "sslkey": one.ours.late_client},
        "{place} rejects our certificate: it has expired (20",
    ),
}


def assert_reported_by_everybody(url: str, reported: str) -> None:
    """Migration and doctor say the cause, and nobody the password."""
    with pytest.raises(OutsideUnreachable) as refusal:
        migrate(url)
    finding = found_by_doctor(url)

    assert reported in str(refusal.value)
    assert "WEDA_JOURNAL__URL" in str(refusal.value)
    assert (finding.verdict, reported in finding.found) == ("failed", True), finding
    for text in (str(refusal.value), finding.found):
        assert "\n" not in text
        assert "planted" not in text
        assert PASSWORD not in text


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_get_in_is_reported_in_one_sentence(wrong, secured):
    url, reported = WRONG[wrong]

    assert_reported_by_everybody(url(secured), reported.format(place=place(secured)))


@pytest.mark.parametrize("wrong", WRONG_SERVERS)
def test_a_server_that_is_not_to_be_trusted_is_reported_in_one_sentence(wrong, secured):
    certificate, reported = WRONG_SERVERS[wrong]
    secured.shows(certificate(secured))

    assert_reported_by_everybody(secured.url(), reported.format(place=place(secured)))


@pytest.mark.parametrize("wrong", CLIENTS)
def test_a_client_that_is_not_let_in_is_reported_in_one_sentence(wrong, secured):
    files, reported = CLIENTS[wrong]
    secured.shows(secured.ours.server, asks_for_certificate=True)

    assert_reported_by_everybody(secured.url(**files(secured)), reported.format(place=place(secured)))


def test_a_client_with_its_certificate_gets_in(secured):
    secured.shows(secured.ours.server, asks_for_certificate=True)
    finding = found_by_doctor(secured.url(sslcert=secured.ours.client, sslkey=secured.ours.client_key))

    assert (finding.verdict, finding.found) == (
        "ok",
        "the database answers: 0 replicas in reach of Kafka, 0 messages waiting",
    )


def test_tables_that_are_not_there_are_reported_with_the_command_that_makes_them(secured):
    url = secured.url().replace("/weda?", "/postgres?")
    finding = found_by_doctor(url)

    assert (finding.verdict, finding.to_do) == ("failed", "weda-connector journal migrate")


@pytest.fixture
async def running(secured, start) -> AsyncIterator[Running]:
    made = await start(journal__url=secured.url())
    yield made
    await made.connector.stop()


def message(number: int) -> dict[str, Any]:
    return {"msgType": "Task", "instanceId": "i-1", "msgId": f"m-{number}", "action": 2}


async def test_a_server_that_changes_its_certificate_for_a_bad_one_is_reported_and_taken_again_without_a_restart(
    secured, running
):
    assert (await running.post(message(1)))[1] == {"code": 0}

    secured.shows(secured.ours.late_server)
    await asyncio.to_thread(secured.server.shut_down)
    await asyncio.to_thread(secured.server.restart)
    reported = f"{place(secured)} shows a certificate that is not to be trusted: certificate has expired"
    await until_ready(running, 503, reported)
    status, answer = await running.post(message(2))
    assert (status, answer["retriable"]) == (503, True)
    assert place(secured) not in answer["message"], "where the database is, is no business of a source"

    secured.shows(secured.ours.server)
    await until_ready(running, 200)
    assert (await running.post(message(2)))[1] == {"code": 0}


async def until_ready(running: Running, status: int, reported: str = "") -> None:
    """Until it is ready or not, and says why."""
    await until(
        running.ready,
        lambda answer: answer[0] == status and reported in answer[1]["problems"].get("journal", ""),
    )


def test_the_command_says_what_is_wrong_and_ends(secured):
    ended = subprocess.run(
        [sys.executable, "-m", "connector", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={name: text for name, text in os.environ.items() if not name.startswith("WEDA_")}
        | {"WEDA_JOURNAL__URL": secured.url(password="planted")},
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    checks = {one["check"]: one for one in json.loads(ended.stdout)["checks"]}

    assert ended.returncode == 1
    assert "password authentication failed" in checks["journal database"]["found"]
    assert "planted" not in ended.stdout + ended.stderr
