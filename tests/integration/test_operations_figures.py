"""What operators see: dead letters that wait, refused credentials by source, reloads, certificates, exemplars."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connector.app import watch
from connector.app.certificates import expiries
from connector.app.connector import Connector
from connector.app.reload import Reload
from connector.settings import Settings
from tests.running import TOKEN, Running
from tests.waiting import equals, until

SOURCES = {"default": {"tokens": [TOKEN], "env_types": ["prod"]}, "hr": {"tokens": ["hr-token"]}}
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def until_metric(running: Running, name: str, value: float) -> None:
    await until(partial(running.metric, name), equals(value))


async def test_dead_letters_wait_until_they_are_replayed(start, monkeypatch):
    """The same after a restart, whose connector counts them again."""
    monkeypatch.setattr(watch, "LETTERS_SECONDS", 0.2)
    running = await start(sources=SOURCES)
    await until_metric(running, "weda_connector_dead_letters_waiting", 0)
    task = {"msgType": "Task", "instanceId": "i-1", "msgId": "m-1", "envType": "pre"}
    assert (await running.post(task))[0] == 422
    assert (await running.post(b"no JSON"))[0] == 400
    await until_metric(running, "weda_connector_dead_letters_waiting", 2)
    await running.connector.stop()

    again = await start()
    await until_metric(again, "weda_connector_dead_letters_waiting", 2)
    async with aiohttp.ClientSession() as session:
        order = {"codes": [42201]}
        async with session.post(f"{again.connector.operations_url}/api/replays", json=order) as answer:
            assert answer.status == 202
    await until_metric(again, "weda_connector_dead_letters_waiting", 1)


async def test_refused_credentials_are_counted_by_the_source_that_is_named(start):
    running = await start(sources=SOURCES)
    for path in ("messageDeliver", "sources/hr/messageDeliver", "sources/nobody/messageDeliver"):
        running.url = f"{running.connector.url}/{path}"
        assert (await running.post({}, authorization="Bearer wrong"))[0] == 401

    for source in ("default", "hr", "unknown"):
        assert await running.metric("weda_connector_credentials_refused_total", source=source) == 1


async def test_what_the_journal_answered_is_counted(start):
    running = await start(kafka__bootstrap_servers="127.0.0.1:1")

    assert (await running.post({"msgType": "Task", "instanceId": "i-1"}))[0] == 200

    assert await running.metric("weda_connector_answers_from_journal_total", source="default") == 1


async def test_those_who_ask_for_openmetrics_get_the_id_of_a_trace(start):
    running = await start()
    task = {"msgType": "Task", "instanceId": "i-1"}
    assert (await running.post(task, traceparent=f"00-{TRACE}-b7ad6b7169203331-01"))[0] == 200

    address, asked = f"{running.connector.operations_url}/metrics", {"accept": "application/openmetrics-text"}
    async with aiohttp.ClientSession() as session, session.get(address, headers=asked) as answer:
        text = await answer.text()

    assert f'# {{trace_id="{TRACE}"}}' in text
    assert text.endswith("# EOF\n")
    assert TRACE not in await running.exposed()


async def test_a_reload_that_fails_and_one_that_needs_a_restart_are_shown(base_flags, tmp_path):
    file = tmp_path / "connector.yaml"
    good = "sources: {default: {tokens: [one]}}"
    file.write_text(good)
    load = partial(Settings.load, environment={}, flags=base_flags, file=file)
    connector = Connector(load(), Reload(load, (file,)))
    try:
        await connector.start()
        running = Running(connector)
        for text, failing, needed in (
            (good.replace("tokens: [one]", "tokens: ["), 1, 0),
            (good.replace("tokens: [one]", "tokens: [two]"), 0, 0),
            (good.replace("{default:", "{hr: {tokens: [three]}, default:"), 0, 1),
            (good, 0, 0),
        ):
            file.write_text(text)
            await until_metric(running, "weda_connector_reload_failing", failing)
            await until_metric(running, "weda_connector_restart_needed", needed)
    finally:
        await connector.stop()


@pytest.mark.parametrize("days", [1, 400])
def test_the_first_certificate_of_a_file_to_expire_counts(tmp_path, days):
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    file = tmp_path / "tls.pem"
    file.write_bytes(certificate(later + timedelta(days=9)) + certificate(later))
    flags = {"receiver.tls_certificate": file, "kafka.properties": {"ssl.certificate.pem": file.read_text()}}

    assert dict(expiries(Settings.load(environment={}, flags=flags))) == {
        "receiver": later.timestamp(),
        "kafka": later.timestamp(),
    }


def test_a_certificate_that_cannot_be_read_is_left_out():
    flags = {"receiver.tls_certificate": Path("/no/such.pem")}

    assert expiries(Settings.load(environment={}, flags=flags)) == []


def certificate(until_then: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weda")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(until_then - timedelta(days=500)).not_valid_after(until_then)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
