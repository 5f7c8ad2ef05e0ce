"""Makes ``tests/data/<version>``: what a connector of this version leaves when it is killed in an outage of Kafka.

``python -m tests.upgrade.freeze``, once for each release. Data of an older release is never made again: nobody has its
code at hand, and what is frozen is what its users have.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp

from connector.kafka.topics import TopicAdmin, desired_topics
from connector.settings import Settings
from tests.faults.stage import TOKEN, Connector
from tests.servers import KafkaCluster, SchemaRegistry
from tests.waiting import until

DATA = Path(__file__).parents[1] / "data"
PREFIX = "frozen.{version}"
NOBODY = "http://127.0.0.1:9/apis/ccompat/v7"
"""Stands for the registry's address in what is frozen, so that whoever reads it finds the registry away."""

ADMIN_SECONDS = 30
PUBLISHED, WAITING = range(10), range(10, 22)
UNREADABLE = b'{"msgContext": "no JSON {"}'
SETTLED_SECONDS = 2.0
"""Longer than repeats, ledger and reserved ids wait until they are written."""


def message(number: int) -> dict[str, Any]:
    """A message of one of three instances, with a field that no schema knows."""
    return {
        "msgType": "Task" if number % 2 else "Instance",
        "msgId": f"m-{number}",
        "instanceId": f"i-{number % 3}",
        "action": 2,
        "title": f"第 {number} 号",
        "added": {"n": number},
    }


async def post(connector: Connector, body: bytes) -> dict[str, Any]:
    """Send a body as the default source; gives the answer."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{connector.url}/messageDeliver", data=body) as answer,
    ):
        answered: dict[str, Any] = await answer.json()
        return answered


async def post_message(connector: Connector, number: int) -> None:
    """Send a message that has to be accepted."""
    answered = await post(connector, json.dumps(message(number)).encode())
    assert answered == {"code": 0}, answered


async def freeze(folder: Path, release: str) -> None:
    """Let a connector publish, take the broker away, let it go on accepting, kill it, and keep what it left."""
    prefix = PREFIX.format(version=release)
    with KafkaCluster.start() as kafka, SchemaRegistry.start() as registry:
        settings = {"WEDA_REGISTRY__URL": registry.url, "WEDA_REGISTRY__AUTO_REGISTER": "true"}
        connector = Connector(folder, kafka.bootstrap_servers, prefix, more=settings)
        await connector.start()
        await connector.wait_until_up()
        for number in PUBLISHED:
            await post_message(connector, number)
        await until(connector.is_drained)
        kafka.pause(1)
        for number in WAITING:
            await post_message(connector, number)
        refused = await post(connector, UNREADABLE)
        await asyncio.sleep(SETTLED_SECONDS)
        await connector.kill()
        kafka.resume(1)
        topics = _topics(kafka.bootstrap_servers, prefix)
        _keep(folder, DATA / release, registry.url)
    facts = {"prefix": prefix, "answer_to_unreadable": refused["code"], "topics": topics}
    (DATA / release / "facts.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _topics(bootstrap_servers: str, prefix: str) -> dict[str, Any]:
    """The topics as they were made, with what this version asks for of their configuration."""
    specs = desired_topics(Settings.load(environment={"WEDA_TOPICS__PREFIX": prefix}))
    found = TopicAdmin(bootstrap_servers, {}).describe([spec.name for spec in specs], ADMIN_SECONDS)
    return {
        spec.name: {
            "partitions": found[spec.name].partitions,
            "config": {name: found[spec.name].config[name] for name in spec.config},
        }
        for spec in specs
    }


def _keep(folder: Path, target: Path, registry_url: str) -> None:
    target.mkdir()
    for file in sorted(folder.glob("journal.db*")):
        if not file.name.endswith((".lock", "-shm")):
            shutil.copy(file, target)
    ids = target / "journal.db.schemas"
    ids.write_text(ids.read_text().replace(registry_url, NOBODY))


if __name__ == "__main__":
    release = version("weda-kafka-connector")
    if (DATA / release).exists():
        sys.exit(f"{DATA / release} exists: what is frozen stays")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(freeze(Path(folder), release))
