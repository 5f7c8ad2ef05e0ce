"""Signed requests among replicas: whichever of them is asked, what was accepted once is not accepted again."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook

from connector.errors import OutcomeUnknown
from connector.message.encoding import decode
from tests.running import BY_DEFAULT, Running
from tests.servers import read_topic
from tests.servers.postgres import Postgres
from tests.waiting import equals, until

SECRET = f"whsec_{base64.b64encode(b's' * 32).decode()}"
SOURCES = {"default": {"secrets": [SECRET]}}


@pytest.fixture
async def pair(start, database) -> AsyncIterator[tuple[Running, Running]]:
    made = [await start(sources=SOURCES, token=None, journal__url=database.url()) for _ in range(2)]
    yield made[0], made[1]
    for each in made:
        await each.connector.stop()


def message(number: int, **fields: Any) -> bytes:
    """Without an id: nothing but the signature says that it is the same."""
    known = {"msgType": "Task", "instanceId": "i-1", "action": 2, "comment": str(number)}
    return json.dumps(known | fields).encode()


async def send(running: Running, body: bytes, webhook_id: str) -> tuple[int, dict[str, Any]]:
    at = datetime.now(UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(webhook_id, at, body.decode()),
    }
    async with aiohttp.ClientSession() as session, session.post(running.url, data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def comments(running: Running, topic_prefix: str) -> list[str]:
    read = partial(read_topic, running.connector.bootstrap_servers, f"{topic_prefix}.events")
    return [value["comment"] for value in (decode(record.value()) for record in await asyncio.to_thread(read))]


async def test_what_one_has_accepted_another_one_does_not_accept_again(pair, topic_prefix):
    one, other = pair
    assert await send(one, message(1), "id-1") == (200, {"code": 0})

    assert await send(other, message(1), "id-1") == (200, {"code": 0}), "the outcome of the first"
    status, reported = await send(other, message(2), "id-1")
    assert (status, "another body" in reported["message"]) == (401, True)
    assert await send(other, message(2), "id-2") == (200, {"code": 0})
    assert (await send(one, message(3), "id-2"))[0] == 401
    assert await comments(one, topic_prefix) == ["1", "2"]


async def test_of_many_at_once_at_both_one_is_accepted(pair, topic_prefix):
    asked = [send(pair[number % 2], message(1), "id-1") for number in range(20)]

    answers = await asyncio.gather(*asked)

    assert {status for status, _ in answers} <= {200, 503}
    assert (200, {"code": 0}) in answers
    assert await comments(pair[0], topic_prefix) == ["1"]


async def test_what_was_refused_may_be_sent_again_to_another_one(pair, topic_prefix):
    one, other = pair
    status, _ = await send(one, message(1, action="planted"), "id-1")
    assert status == 422

    assert await send(other, message(1), "id-1") == (200, {"code": 0})
    assert await comments(one, topic_prefix) == ["1"]


async def test_while_the_database_hangs_the_answer_is_in_time_and_nothing_is_left_of_the_request(
    start, database, topic_prefix
):
    """The database's own timeout is longer than the reply deadline, after which nothing of the request may go on."""
    settings = {"sources": SOURCES, "token": None, "journal__url": database.url()}
    one, other = [await start(**settings, **BY_DEFAULT), await start(**settings)]
    await until(lambda: send(one, message(1), "id-1"), equals((200, {"code": 0})))
    database.pause()
    try:
        status, reported = await send(one, message(2), "id-2")
    finally:
        database.resume()

    assert (status, reported["code"]) == (503, OutcomeUnknown.code), "not the database's timeout, which is 50300"
    assert "same webhook-id" in reported["message"]

    async def accepted() -> bool:
        return await send(other, message(3), "id-2") == (200, {"code": 0})

    await until(accepted)  # with another body: the id is unused, here and elsewhere
    status, _ = await until(lambda: send(one, message(2), "id-2"), lambda answer: answer[0] != 503)
    assert status == 401
    assert await comments(one, topic_prefix) == ["1", "3"]


async def test_without_the_database_nobody_knows(start, topic_prefix):
    with Postgres.start() as database:
        database.migrate()
        one = await start(sources=SOURCES, token=None, journal__url=database.url())
        assert await send(one, message(1), "id-1") == (200, {"code": 0})
        await asyncio.to_thread(database.shut_down)

        assert await send(one, message(1), "id-1") == (200, {"code": 0}), "its own it knows"
        status, reported = await send(one, message(2), "id-2")
        assert (status, reported["retriable"]) == (503, True)
        await one.connector.stop()
