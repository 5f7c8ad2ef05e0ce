"""Credentials × outcomes: what a request shows gets the answer of the table; without a right one it leaves no trace."""

import asyncio
import base64
import ipaddress
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from connector.errors import CREDENTIAL_REASONS
from connector.receiver.authentication import Credentials
from connector.settings.signing_secrets import secret_bytes
from tests.contract.test_http import Served, message

ROOT = Path(__file__).parents[2]
ROWS = yaml.safe_load((ROOT / "tests" / "data" / "credentials.yaml").read_text(encoding="utf-8"))
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NOW = int(time.time())
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def secret(letter):
    return f"whsec_{base64.b64encode(letter.encode() * 32).decode()}"


SECRETS = {name: secret(name[0]) for name in ("new", "old", "wrong", "hr's", "fenced")} | {"other": secret("h")}
SOURCES = {
    "default": Credentials(
        tokens=("t-old", "t-new"),
        secrets=(secret_bytes(SECRETS["old"]), secret_bytes(SECRETS["new"])),
        certificates=("ours.example",),
    ),
    "hr": Credentials(tokens=("t-other",), secrets=(secret_bytes(SECRETS["other"]),), certificates=("others.example",)),
    "tokens": Credentials(tokens=("t-only",)),
    "fenced": Credentials(
        tokens=("t-fenced",), secrets=(secret_bytes(SECRETS["fenced"]),), networks=(ipaddress.ip_network("127.0.0.1"),)
    ),
}


def signed(body, by, *, identity="msg-1", age=0, version="v1"):
    """The three headers, as the specification's own library makes them."""
    at = datetime.fromtimestamp(NOW - age, UTC)
    names = ("wrong", "new") if by == "both" else (by,)
    signatures = [Webhook(SECRETS[name]).sign(identity, at, body.decode()) for name in names]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures).replace("v1,", f"{version},"),
    }


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The connector checks signatures in the second in which they are made: 299 s do not become 300 on the way."""
    monkeypatch.setattr("connector.receiver.authentication.time", SimpleNamespace(time=lambda: float(NOW)))


@pytest.fixture
async def served():
    one = Served(sources=SOURCES, trusted_proxies=LOOPBACK)
    await one.start()
    yield one
    await one.stop()


def request_of(shown, body):
    """Headers of a request by what a row of the table says that it shows."""
    headers = {"authorization": None, "x-forwarded-for": shown.get("forwarded")}
    if "token" in shown:
        headers["authorization"] = f"Bearer t-{shown['token']}"
    if shown.get("twice"):
        headers["Authorization"] = "Bearer t-other"
    if "x_token" in shown:
        headers["x-weda-token"] = f"t-{shown['x_token']}"
    if "signed" in shown:
        options = {name: shown[name] for name in ("age", "version") if name in shown}
        headers |= signed(body, shown["signed"], **options)
    if "without" in shown:
        headers[shown["without"]] = None
    return headers


async def ask(served, shown):
    path = f"/sources/{shown.get('path', 'default')}/messageDeliver"
    is_get = shown.get("method") == "GET"
    text = b"msgContext=%7B%22msgType%22:%22Task%22,%22instanceId%22:%22i-1%22%7D" if is_get else message()
    body = b"" if shown.get("empty") else text
    headers = request_of(shown, body)
    if is_get:
        return await served.ask(method="GET", path=f"{path}?{body.decode()}", **headers)
    if shown.get("tampered"):
        body = body.replace(b"i-1", b"i-2")
    if "again" in shown:
        await served.ask(body, path=path, **headers)
    if shown.get("again") == "other":
        body = message(instanceId="i-9")
        headers |= signed(body, shown["signed"])
    return await served.ask(body, path=path, **headers)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["when"])
async def test_a_credential_has_the_outcome_that_the_table_says(served, row, monkeypatch):
    shown = row["with"]
    if "certificate" in shown:
        names = frozenset({f"{shown['certificate']}.example"})
        monkeypatch.setattr("connector.receiver.connection.names_of", lambda _: names)
    answer = await ask(served, shown)
    counted = served.metrics.credentials_refused
    counts = {
        reason: sum(counted.labels(source, reason)._value.get() for source in (*served.sources, "unknown"))
        for reason in CREDENTIAL_REASONS
    }
    refused = {reason: count for reason, count in counts.items() if count}

    assert answer.status == row["status"]
    assert refused == ({row["reason"]: 1} if "reason" in row else {})
    let_in = len(served.publisher.published) + len(served.journal.rows)
    assert let_in == (2 if row["status"] == 200 or "again" in shown else 0)
    if row["status"] in {401, 403}:
        assert answer.headers["connection"] == "close"
        assert answer.code == row["status"] * 100


def test_the_document_has_the_table():
    lines = [f"| {row['when']} | {row['status']} | {row.get('reason', '')} |".replace("|  |", "| |") for row in ROWS]

    assert [line for line in lines if line not in DOCUMENT] == []


async def test_a_repeated_signed_request_without_a_message_id_is_published_once(served):
    body = json.dumps({"msgType": "Task", "instanceId": "i-1"}).encode()
    headers = {"authorization": None} | signed(body, "new")
    answers = [await served.ask(body, **headers) for _ in range(3)]

    assert [answer.code for answer in answers] == [0, 0, 0]
    assert len(served.values()) == 1
    assert served.outcomes() == {"accepted": 1, "duplicate": 2}


async def test_what_was_refused_may_be_sent_again_under_its_id(served):
    body = message()
    headers = {"authorization": None} | signed(body, "new")
    served.publisher.close()
    served.journal.is_full = True
    first = await served.ask(body, **headers)
    served.journal.is_full = False
    served.publisher.reopen()
    second = await served.ask(body, **headers)

    assert (first.status, second.status) == (503, 200)
    assert len(served.values()) == 1


async def test_of_a_wrong_credential_nothing_is_kept_or_reported(served):
    body = message(comment="planted-content")
    with capture_logs() as logs:
        answers = [
            await served.ask(body, authorization="Bearer planted-token"),
            await served.ask(body, authorization=None, **signed(body, "wrong", identity="planted-id")),
        ]

    assert [answer.status for answer in answers] == [401, 401]
    assert served.publisher.published == []
    assert served.journal.rows == {}
    assert "planted" not in str([answer.fields for answer in answers])
    assert "planted" not in str(logs)


async def test_the_rate_is_of_the_proven_source_alone():
    served = Served(sources=SOURCES, rates={"default": 2})
    await served.start()
    body = message()
    for _ in range(5):
        await served.ask(body, authorization="Bearer wrong")
        await served.ask(body, authorization=None, **signed(body, "wrong"))
    # At once: a second later, two more would be let in.
    answers = await asyncio.gather(
        *(served.ask(message(msgId=str(each)), authorization="Bearer t-new") for each in range(20))
    )
    await served.stop()

    assert [answer.status for answer in answers].count(200) >= 2
    assert 429 in {answer.status for answer in answers}
    late = next(answer for answer in answers if answer.status == 429)
    assert (late.code, late.headers["retry-after"], late.fields["retriable"]) == (42900, "1", True)
