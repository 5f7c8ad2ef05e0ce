"""The ledger goes on over restarts, and a journal that is damaged while it is open mends without an operator."""

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from connector.journal.model import Account
from connector.journal.sqlite import SqliteJournal
from tests.faults.stage import TOKEN as STAGE_TOKEN
from tests.faults.stage import Connector as Process
from tests.integration.test_outage import message
from tests.running import PATIENT_ENVIRONMENT
from tests.servers.reading import read_topic
from tests.waiting import until

PAGE = 4096


async def accounts_of(path: Path) -> dict[str, Account]:
    journal = SqliteJournal(path, max_bytes=1 << 30)
    try:
        return (await journal.open()).accounts
    finally:
        await journal.close()


async def test_the_ledger_goes_on_over_restarts(start, kafka, tmp_path):
    """Accepted = published + dead-lettered + journaled, since the journal's creation."""
    first = await start()
    for number in range(5):
        await first.post(message("a", number))
    assert (await first.post(b"no JSON"))[0] == 400
    await first.drained()
    kafka.pause(1)
    try:
        for number in range(5, 15):
            await first.post(message("ab"[number % 2], number))
        assert await first.metric("weda_connector_ledger_imbalance") == 0
        await first.connector.stop()
        assert (await accounts_of(tmp_path / "journal.db"))["default"] == Account(accepted=16, published=6)
    finally:
        kafka.resume(1)

    second = await start()
    await second.drained()
    await second.post(message("a", 15))
    assert await second.metric("weda_connector_ledger_imbalance") == 0
    await second.connector.stop()
    assert (await accounts_of(tmp_path / "journal.db"))["default"] == Account(accepted=17, published=17)


async def test_the_status_says_how_long_the_journal_takes_to_empty(start, kafka):
    running = await start()
    kafka.pause(1)
    try:
        for number in range(5):
            await running.post(message("a", number))

        async def is_reported() -> bool:
            return (await running.ready())[1]["journal_messages_by_source"] == {"default": 5}

        await until(is_reported)
        reported = (await running.ready())[1]
        assert reported["catch_up_seconds"] is None, "nothing moves"
    finally:
        kafka.resume(1)

    async def has_caught_up() -> bool:
        reported = (await running.ready())[1]
        return (reported["catch_up_seconds"], reported["publish_rate"] > 0) == (0, True)

    await until(has_caught_up)


async def post(process: Process, number: int, **more: str) -> int:
    headers = {"authorization": f"Bearer {STAGE_TOKEN}"}
    body = message("abcdefghij"[number % 10], number) | more
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{process.url}/messageDeliver", json=body) as answer,
    ):
        return (await answer.json())["code"]


@pytest.fixture
async def process(kafka, topic_prefix, tmp_path):
    process = Process(tmp_path, kafka.bootstrap_servers, topic_prefix, more=PATIENT_ENVIRONMENT)
    await process.start()
    await process.wait_until_up()
    yield process
    await process.kill()


async def test_a_journal_that_is_damaged_while_it_is_open_is_salvaged_by_the_connector_itself(
    process, kafka, topic_prefix
):
    """P8: no operator, no new process; what is lost is counted and reported."""
    count = 300
    kafka.pause(1)
    try:
        for number in range(count):
            assert await post(process, number, remark="x" * 3_000) == 0
        damage_the_middle(process.folder / "journal.db")
    finally:
        kafka.resume(1)

    await until(process.is_drained)
    lost = await process.metric("journal_lost_messages")
    assert await post(process, count) == 0
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events")
    found = {int(dict(record.headers())["ce_id"].decode().split("-")[1]) for record in records}

    # what was lost with the disk may be in Kafka all the same: a frozen broker's socket still held it
    assert count + 1 - lost <= len(found) <= count + 1
    assert await process.metric("ledger_imbalance") == lost
    assert list(process.folder.glob("journal.db.damaged-*"))
    assert "turned out to be damaged" in process.process.log.read_text()


def damage_the_middle(path: Path) -> None:
    """The log is emptied into the database now and then, so most rows are there; their pages are overwritten."""
    pages = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        for number in range(pages // 2, pages // 2 + 30):
            file.seek(number * PAGE)
            file.write(os.urandom(PAGE))
