"""Nothing that an operator asks holds an answer up: the receiver is loaded while every operation runs."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from connector.errors import OutcomeUnknown
from tests.running import BY_DEFAULT, TOKEN
from tests.servers import produce
from tests.waiting import at_least, until

LETTERS = 30_000
SENDERS = 4
SECONDS = 4.0
"""How long the operations run at least: some ask brokers that do not answer for longer."""

MOST_LAG_SECONDS = 0.4
"""Half of the time within which an answer has to come."""

OPERATIONS = (
    *(
        "GET /metrics",
        "GET /readyz",
        "GET /api/config",
        "GET /api/openapi.json",
        "GET /console/",
        "GET /console/events",
    ),
    *("GET /console/requests", "GET /console/topics", "GET /console/settings", "GET /console/api"),
    *(
        "GET /console/instances?id=i-1",
        "GET /console/instances?q=i-1",
        "GET /console/business",
        "GET /console/dead-letters",
        "GET /console/dead-letters?code=422",
    ),
    *("GET /api/dead-letters?limit=1000", "POST /api/replays", "GET /api/replays/current"),
)


class Sent:
    """What was answered, and how long the longest answer took."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.longest = 0.0

    async def send(self, session: aiohttp.ClientSession, url: str, instance: str) -> None:
        number = 0
        while True:
            number += 1
            message = {"msgType": "Task", "instanceId": instance, "msgId": f"{instance}-{number}-{time.monotonic()}"}
            began = time.monotonic()
            async with session.post(url, json=message) as answer:
                code = (await answer.json())["code"]
            self.codes[code] = self.codes.get(code, 0) + 1
            self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("brokers", ["up", "frozen", "gone"])
async def test_no_operation_holds_an_answer_up(start, kafka, topic_prefix, brokers):
    """P6: console, API, metrics, topics and dead letters by the ten thousands, with brokers and without."""
    running = await start(**BY_DEFAULT)
    await asyncio.to_thread(make_dead_letter, kafka.bootstrap_servers, f"{topic_prefix}.dead-letters")
    {"up": lambda _: None, "frozen": kafka.pause, "gone": kafka.kill}[brokers](1)
    sent, lags = Sent(), []
    try:
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"}) as session:
            senders = [asyncio.create_task(sent.send(session, running.url, f"i-{one}")) for one in range(SENDERS)]
            senders.append(asyncio.create_task(measure(lags)))
            url = running.connector.operations_url
            asked = [asyncio.create_task(ask(session, url, each)) for each in OPERATIONS]
            answered, waiting = await asyncio.wait(asked, timeout=SECONDS)
            await until(lambda: sum(one.done() for one in asked), at_least(len(OPERATIONS) / 2))
            await until(lambda: sent.codes.get(0, 0), at_least(50))
            for task in (*waiting, *senders):
                task.cancel()
            await asyncio.gather(*waiting, *senders, return_exceptions=True)
    finally:
        {"up": lambda _: None, "frozen": kafka.resume, "gone": kafka.restart}[brokers](1)

    assert [one for one in answered if one.result() == 500] == []
    assert sent.codes.keys() <= {0, OutcomeUnknown.code}, "one that is late is the machine's"
    assert sorted(lags)[int(len(lags) * 0.95)] < MOST_LAG_SECONDS, (
        "one late moment is the machine's, many are an operation's"
    )
    assert await running.metric("weda_connector_event_loop_lag_seconds_count") > 0


async def ask(session: aiohttp.ClientSession, url: str, operation: str) -> int:
    method, _, path = operation.partition(" ")
    body = {"json": {"dry_run": True}} if method == "POST" else {}
    async with session.request(method, f"{url}{path}", **body) as answer:
        await answer.read()
        return answer.status


async def measure(lags: list[float]) -> None:
    """How late the event loop is, again and again, by this process's own doing: what others take is not counted."""
    while True:
        due, spent = time.monotonic() + 0.01, time.process_time()
        await asyncio.sleep(0.01)
        lags.append(min(time.monotonic() - due, time.process_time() - spent))


def make_dead_letter(bootstrap_servers: str, topic: str) -> None:
    """Put dead letters into a topic."""
    produce(bootstrap_servers, _dead_letters(topic))


def _dead_letters(topic: str) -> Iterator[dict[str, Any]]:
    for number in range(LETTERS):
        body = json.dumps({"msgContext": {"msgType": "Task", "number": number, "comment": "x" * 150}}).encode()
        about = {"code": "42203", "stage": "convert", "message": "instanceId is missing"}
        headers = [(f"weda.error.{name}", text.encode()) for name, text in about.items()]
        headers += [("weda.source", b"default"), ("weda.received-at", str(1_795_000_000_000 + number).encode())]
        yield {"topic": topic, "value": body, "key": f"i-{number % 1000}".encode(), "headers": headers}
