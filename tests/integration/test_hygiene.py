"""Secrets and contents are planted in a whole run, and every output of it is searched for them."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from tests.servers import KafkaCluster, read_topic
from tests.servers.ports import LOOPBACK, free_ports
from tests.waiting import PATIENCE_SECONDS, until

WEBHOOK_KEY = b"planted-webhook-key-32-bytes-long"
SECRETS = {
    "token": "planted-token",
    "second token": "planted-second-token",
    "webhook secret": f"whsec_{base64.b64encode(WEBHOOK_KEY).decode()}",
    "operations token": "planted-operations-token",
    "privacy key": "planted-privacy-key",
    "kafka password": "planted-kafka-password",
    "registry password": "planted-registry-password",
}
CONTENT = "planted-content"
WRONG = "planted-wrong-credential"


def settings(kafka: KafkaCluster, prefix: str, folder: Path) -> dict[str, str]:
    sources = {"default": {"tokens": [SECRETS["second token"]], "secrets": [SECRETS["webhook secret"]]}}
    properties = folder / "properties.json"
    properties.write_text(json.dumps({"sasl.username": "u", "sasl.password": SECRETS["kafka password"]}))
    port, operations_port = free_ports(2)
    return {
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "WEDA_KAFKA__PROPERTIES_FILE": str(properties),
        "WEDA_TOPICS__PREFIX": prefix,
        "WEDA_TOKEN": SECRETS["token"],
        "WEDA_SOURCES": json.dumps(sources),
        "WEDA_OPERATIONS__TOKEN": SECRETS["operations token"],
        "WEDA_REGISTRY__USERNAME": "u",
        "WEDA_REGISTRY__PASSWORD": SECRETS["registry password"],
        "WEDA_PRIVACY__REDACT": "comment,secretOfOurs",
        "WEDA_PRIVACY__PSEUDONYMS": "flowTitle,approverMap",
        "WEDA_PRIVACY__KEY": SECRETS["privacy key"],
        "WEDA_RECEIVER__HOST": LOOPBACK,
        "WEDA_RECEIVER__PORT": str(port),
        "WEDA_OPERATIONS__PORT": str(operations_port),
        "WEDA_JOURNAL__PATH": str(folder / "journal.db"),
        "WEDA_LOG__LEVEL": "debug",
    }


def message(**fields):
    known = {"msgType": "Task", "instanceId": "i-1", "comment": CONTENT, "secretOfOurs": CONTENT}
    return json.dumps(known | {"flowTitle": CONTENT, "approverMap": {CONTENT: CONTENT}} | fields).encode()


def requests():
    """Method, query, body, headers: good ones, and every way to be refused."""
    token = {"authorization": f"Bearer {SECRETS['token']}"}
    yield "POST", "", message(), token
    yield "POST", "", message(), {"x-weda-token": SECRETS["second token"]}
    yield "GET", f"?msgContext={quote(message())}", b"", token
    yield "POST", "", message(), {"authorization": f"Bearer {WRONG}"}
    yield "POST", f"?token={WRONG}", message(), {}
    yield (
        "POST",
        "",
        message(),
        {"webhook-id": WRONG, "webhook-timestamp": str(int(time.time())), "webhook-signature": WRONG},
    )
    yield "POST", "", message(action=CONTENT), token
    yield "POST", "", message(msgType=CONTENT), token
    yield "POST", "", message(startTime=CONTENT), token
    yield "POST", "", message(taskMap=CONTENT), token
    yield "POST", "", CONTENT.encode(), token
    yield "POST", "", b'{"' + CONTENT.encode() + b'": \xff}', token
    yield "POST", "", message(), token | {"content-type": f"text/{CONTENT}"}
    yield "POST", "", message(), token | {"content-encoding": CONTENT}
    yield "POST", "", message() + b" " * 600_000, token
    yield CONTENT.upper(), "", message(), token


@pytest.fixture
async def outputs(kafka: KafkaCluster, topic_prefix: str, tmp_path: Path):
    """Name → text of everything that a run shows."""
    reported = settings(kafka, topic_prefix, tmp_path)
    words = ["env", *(f"{name}={text}" for name, text in reported.items()), sys.executable, "-m", "connector"]
    log = tmp_path / "log"
    url, operations = (f"http://{LOOPBACK}:{reported[f'WEDA_{one}__PORT']}" for one in ("RECEIVER", "OPERATIONS"))
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(*words, "serve", stderr=errors, stdout=errors)
    found: dict[str, str] = {}
    try:
        await until(lambda: b"the connector is up" in log.read_bytes() or process.returncode is not None)
        assert process.returncode is None, log.read_text()
        async with aiohttp.ClientSession() as session:
            for number, (method, query, body, headers) in enumerate(requests()):
                address = f"{url}/messageDeliver{query}"
                async with session.request(method, address, data=body, headers=headers) as answer:
                    found[f"answer {number}: {answer.status}"] = f"{answer.headers} {await answer.text()}"
            opened = {"authorization": f"Bearer {SECRETS['operations token']}"}
            for path in (
                "/metrics",
                "/livez",
                "/readyz",
                "/api/status",
                "/api/config",
                "/api/openapi.json",
                "/api/docs",
            ):
                for who, headers in (
                    ("open", {}),
                    ("with token", opened),
                    ("wrong", {"authorization": f"Bearer {WRONG}"}),
                ):
                    async with session.get(operations + path, headers=headers) as answer:
                        found[f"{path} {who}"] = f"{answer.headers} {await answer.text()}"
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    for command in (["config"], ["config", "--json"], ["journal", "status"]):
        done = await asyncio.to_thread(
            subprocess.run, [*words, *command], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        found[" ".join(command)] = done.stdout + done.stderr
    found["log"] = log.read_text()
    return found


async def test_nothing_that_was_planted_shows(outputs, kafka: KafkaCluster, topic_prefix: str, tmp_path):
    planted = [*SECRETS.values(), WEBHOOK_KEY.decode(), CONTENT, WRONG]
    leaks = [f"{one} in {where}" for where, text in outputs.items() for one in planted if one.lower() in text.lower()]
    events = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 3)
    letters = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.dead-letters", 6)

    open_to_others = {path.name for path in tmp_path.glob("journal.db*") if path.stat().st_mode & 0o077}

    assert leaks == []
    assert open_to_others == set()
    assert {name.rpartition(" ")[2] for name in outputs if name.startswith("answer")} >= {
        "200",
        "400",
        "401",
        "413",
        "415",
        "422",
    }
    assert "request" in outputs["log"]
    assert [
        record for record in events if CONTENT.encode() in (record.value() or b"") + str(record.headers()).encode()
    ] == []
    assert all(CONTENT.encode() in (letter.value() or b"") for letter in letters)  # as received: see docs/security.md
    assert [letter for letter in letters if CONTENT in str(letter.headers())] == []
