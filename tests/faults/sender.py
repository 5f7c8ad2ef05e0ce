"""The independent sender: one request at a time for an instance, many instances at once, everything written down."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

import aiohttp

from tests.faults.ledger import Attempt, Issued, Ledger
from tests.faults.messages import Message, messages

PATIENCE_SECONDS = 10.0
"""How long most instances wait for an answer. The connector promises less than one; on a machine that the brokers keep
busy too it is late now and then, but only a request that hangs takes this long."""
IMPATIENCE_SECONDS = 1.0
"""How long every fifth instance waits: it sends again while the first request may still be under way."""
MOST_ATTEMPTS = 5
RETRIES = 0.85
"""Share of unknown and refused messages that are sent again."""
REPEATS = 0.03
"""Share of accepted messages that are sent again all the same, as a source does that lost an answer."""
KNOCK_SECONDS = 0.1


@dataclass(frozen=True)
class Load:
    """How much the sender sends."""

    run: str
    """Name of the run, part of every id."""
    seed: int
    instances: int
    rate: float
    """Messages a second over all instances, where the connector keeps up."""
    seconds: float = 0
    """For about how long."""
    large: float = 0
    """Share of large messages."""


class Sender:
    """Sends until it is stopped; ``ledger`` says what was sent and answered.

    Of several addresses each request takes one by chance, as a plain load balancer does.
    """

    def __init__(self, urls: Sequence[str], token: str, load: Load) -> None:
        self.ledger = Ledger()
        self._urls = [f"{url}/messageDeliver" for url in urls]
        self._balancing = random.Random(f"{load.seed}/balancing")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._load = load
        self._stop = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._under_way = 0

    async def __aenter__(self) -> Self:
        # POST is never sent again by the client itself: each attempt is one request.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def run(self) -> None:
        """Send the messages of every instance until ``stop``."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._load.instances):
                group.create_task(self._play(number))

    def stop(self) -> None:
        """Let each instance end its request and send no more."""
        self._stop.set()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """No request is under way, and none begins, for as long as the context lasts."""
        self._may_send.clear()
        while self._under_way:
            await asyncio.sleep(KNOCK_SECONDS)
        yield
        self._may_send.set()

    async def send_fresh(self, name: str) -> Issued:
        """Send the first message of a new instance until it is accepted, or the attempts are used up."""
        message = next(messages(self._load.run, f"fresh-{name}", random.Random(self._load.seed)))
        issued = Issued(message)
        for _ in range(MOST_ATTEMPTS):
            if await self._attempt(issued, PATIENCE_SECONDS) == "accepted":
                break
            await asyncio.sleep(KNOCK_SECONDS)
        return issued

    async def _play(self, number: int) -> None:
        chance = random.Random(f"{self._load.seed}/{number}")
        name = f"9{self._load.seed % 10**6}{number:06d}" if number % 10 == 0 else f"{self._load.run}-{number}"
        pause = self._load.instances / self._load.rate
        await self._sleep(chance.random() * pause)
        for message in messages(self._load.run, name, chance, large=self._load.large):
            if self._stop.is_set():
                return
            started = time.monotonic()
            await self._deliver(message, IMPATIENCE_SECONDS if number % 5 == 1 else PATIENCE_SECONDS, chance)
            await self._sleep(pause * chance.uniform(0.6, 1.4) - (time.monotonic() - started))

    async def _deliver(self, message: Message, patience: float, chance: random.Random) -> None:
        """Send a message, again where that is called for, and give it up now and then."""
        issued = Issued(message)
        while not self._stop.is_set() and len(issued.attempts) < MOST_ATTEMPTS:
            outcome = await self._attempt(issued, patience)
            if outcome == "never sent":
                await self._sleep(KNOCK_SECONDS * chance.uniform(0.5, 1.5))
            elif chance.random() >= (REPEATS if outcome == "accepted" else RETRIES):
                return
            elif outcome == "refused":
                await self._sleep(KNOCK_SECONDS)

    async def _attempt(self, issued: Issued, patience: float) -> str:
        await self._may_send.wait()
        self._under_way += 1
        try:
            return await self._attempt_now(issued, patience)
        finally:
            self._under_way -= 1

    async def _attempt_now(self, issued: Issued, patience: float) -> str:
        sent = time.monotonic()
        # Entered before it leaves: whatever shows up in a topic was in the ledger first.
        self.ledger.issued.setdefault(issued.message.identity, issued)
        try:
            attempt = await self._request(issued.message, sent, patience)
        except aiohttp.ClientConnectorError:
            self.ledger.never_sent += 1
            return "never sent"
        issued.attempts.append(attempt)
        return attempt.outcome

    async def _request(self, message: Message, sent: float, patience: float) -> Attempt:
        headers = {**self._headers, "Content-Type": message.content_type}
        limit = aiohttp.ClientTimeout(total=patience)
        url = self._balancing.choice(self._urls)
        try:
            async with self._session.post(url, data=message.body, headers=headers, timeout=limit) as response:
                text = await response.read()
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, TimeoutError):
            return Attempt(sent, time.monotonic(), "unknown")
        ended = time.monotonic()
        if (code := _code(text)) == 0:
            return Attempt(sent, ended, "accepted", code)
        return Attempt(sent, ended, "refused", code, text.decode(errors="replace"))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not past ``stop``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), max(seconds, 0.001))


def _code(text: bytes) -> int:
    try:
        code = json.loads(text)["code"]
    except (ValueError, KeyError, TypeError):
        return -1
    return code if isinstance(code, int) else -1
