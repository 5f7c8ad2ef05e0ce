"""Sends runs over HTTP: one message at a time per instance, many instances at once."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec
from yarl import URL

from connector.simulator.ledger import Attempt, Entry, Ledger
from connector.simulator.pace import Pace
from connector.simulator.plan import Plan
from connector.simulator.runs import Run, runs, seeded_random
from connector.simulator.shapes import OutgoingRequest, render

DAY_MS: Final = 86_400_000
FIRST_BACK_OFF_SECONDS: Final = 0.1
MAX_BACK_OFF_SECONDS: Final = 5.0
MAX_RETRY_AFTER_SECONDS: Final = 60.0
PROXY_ERRORS: Final = frozenset({502, 504})
"""The statuses of a proxy that got no answer from the connector."""

RETRYABLE: Final = PROXY_ERRORS | {429, 503}
"""The statuses after which another attempt makes sense."""


class Outcome(StrEnum):
    """What became of a message.

    ACCEPTED: HTTP 200 and code 0. REFUSED: every attempt that arrived got another answer. FAILED: no connection was
    made, so that the message cannot have arrived. UNKNOWN: never accepted, but an attempt without an answer may have
    arrived.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcome of one message: number ``seq`` of ``total`` in its instance, with the latency of its last attempt.

    ``status``, ``code`` and ``reason`` (the answer's ``message``) are None if the last attempt got no answer, and
    ``code`` and ``reason`` also if the answer lacks them.
    """

    instance_id: str
    seq: int
    total: int
    message: dict[str, Any]
    outcome: Outcome
    status: int | None
    code: int | None
    latency_seconds: float
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Counts of distinct messages; ``failed`` includes the unknown ones: ``sent = accepted + refused + failed``.

    ``reached`` says whether any attempt was answered.
    """

    sent: int
    accepted: int
    refused: int
    failed: int
    reached: bool


async def play(
    plan: Plan,
    *,
    on_answer: Callable[[Answer], None] | None = None,
    stop: asyncio.Event | None = None,
) -> Summary:
    """Play a plan to its end and return the counts; ``on_answer`` is called once for each message with its outcome.

    Setting ``stop`` gives up the messages in flight and returns at once. The simulation ends early if a message has
    used up its retries and the address was never reached. Raises ``OSError`` if the ledger cannot be written.
    """
    with Ledger(plan.ledger) as ledger:
        async with _Sender(plan, ledger, on_answer or _ignore) as sender:
            await _work(sender, plan, stop or asyncio.Event())
            return sender.summary()


async def _work(sender: "_Sender", plan: Plan, stop: asyncio.Event) -> None:
    all_runs = _runs(plan)
    workers = plan.concurrency if plan.instances is None else min(plan.concurrency, plan.instances)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sender.work(all_runs)) for _ in range(workers)]
        watch = group.create_task(_cancel_after(stop, tasks))
        if tasks:
            await asyncio.wait(tasks)
        watch.cancel()


def _runs(plan: Plan) -> Iterator[Run]:
    now_ms = time.time_ns() // 1_000_000
    if plan.since_seconds is not None:
        past_ms = int(plan.since_seconds * 1000)
        return runs(plan.seed, plan.instances, now_ms - past_ms, spread_ms=past_ms, until_ms=now_ms)
    return runs(plan.seed, plan.instances, now_ms - DAY_MS if plan.start_ms is None else plan.start_ms)


async def _cancel_after(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    await stop.wait()
    for task in tasks:
        task.cancel()


class _Sender:
    """Sends with one connection pool, one pace and one count; ``work`` runs once for each instance in flight."""

    def __init__(self, plan: Plan, ledger: Ledger, on_answer: Callable[[Answer], None]) -> None:
        self._plan = plan
        self._ledger = ledger
        self._on_answer = on_answer
        self._url = URL(plan.url)
        self._url_bytes = len(str(self._url))
        # The times of the ledger are epoch seconds, but must not step back with the clock of the machine.
        self._clock_offset = time.time() - time.perf_counter()
        self._pace = Pace(plan.rate, plan.ramp_seconds, started=time.perf_counter())
        self._ending = asyncio.Event()
        self._counts = dict.fromkeys(Outcome, 0)
        self._reached = False

    async def __aenter__(self) -> Self:
        credential = {"Authorization": f"Bearer {self._plan.token}"} if self._plan.token else {}
        self._session = aiohttp.ClientSession(
            # No limit: the number of workers is the limit, and a wait for a connection would count as latency.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._plan.timeout_seconds),
            headers={"User-Agent": "weda-connector-simulate", **credential},
            middlewares=(_send_once,),
        )
        if self._plan.seconds is not None:
            asyncio.get_running_loop().call_later(self._plan.seconds, self._ending.set)
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self._session.close()

    def summary(self) -> Summary:
        counts = self._counts
        return Summary(
            sent=sum(counts.values()),
            accepted=counts[Outcome.ACCEPTED],
            refused=counts[Outcome.REFUSED],
            failed=counts[Outcome.FAILED] + counts[Outcome.UNKNOWN],
            reached=self._reached,
        )

    async def work(self, all_runs: Iterator[Run]) -> None:
        """Play one run after another; all workers share the iterator."""
        for run in all_runs:
            await self._play(run)
            if self._ending.is_set():
                return

    async def _play(self, run: Run) -> None:
        """Send a run in order, and stop once a message has used up its retries."""
        random = seeded_random(self._plan.seed, run.instance_id, "sending")
        for seqs in _grouped(len(run.messages), self._plan.overlaps, random):
            repeated = [random.random() < self._plan.repeats for _ in seqs]
            sent = await asyncio.gather(
                *(self._deliver(run, seq, repeat=repeat) for seq, repeat in zip(seqs, repeated, strict=True))
            )
            if not all(sent):
                return

    async def _deliver(self, run: Run, seq: int, *, repeat: bool) -> bool:
        """Send one message until its outcome is final; return whether the instance may go on."""
        await self._pause(self._pace.wait_seconds(time.perf_counter()))
        if self._ending.is_set():
            return False
        request = render(run.messages[seq], self._plan.shape, url_bytes=self._url_bytes)
        attempts: list[Attempt] = []
        try:
            await self._attempt_until_final(request, attempts)
            if repeat and _is_accepted(attempts[-1]):
                await self._pause(self._pace.wait_seconds(time.perf_counter()))
                await self._attempt(request, attempts, repeat=True)
        finally:
            # Also if cancelled during a call: every message that was sent is counted and in the ledger.
            self._close(run, seq, attempts)
        return _is_final(attempts[-1])

    async def _attempt_until_final(self, request: OutgoingRequest, attempts: list[Attempt]) -> None:
        await self._attempt(request, attempts)
        while not _is_final(attempts[-1]) and len(attempts) <= self._plan.retries:
            await self._pause(_back_off_seconds(attempts))
            if self._ending.is_set():
                return
            await self._attempt(request, attempts)

    async def _attempt(self, request: OutgoingRequest, attempts: list[Attempt], *, repeat: bool = False) -> None:
        """Make one HTTP call and append the attempt, even if cancelled."""
        sent_at = self._now()
        # Stays if the call is cancelled; every other way out replaces it.
        attempt = Attempt(sent_at=sent_at, error="stopped", repeat=repeat)
        try:
            attempt = await self._call(request, sent_at, repeat=repeat)
        except aiohttp.ClientConnectorError:
            attempt = Attempt(sent_at=sent_at, error="connect", repeat=repeat)
        except TimeoutError:
            attempt = Attempt(sent_at=sent_at, error="timeout", repeat=repeat)
        except (aiohttp.ClientError, OSError):
            attempt = Attempt(sent_at=sent_at, error="reset", repeat=repeat)
        finally:
            attempts.append(attempt)

    async def _call(self, request: OutgoingRequest, sent_at: float, *, repeat: bool) -> Attempt:
        url = URL(f"{self._url}?{request.query}", encoded=True) if request.query else self._url
        async with self._session.request(
            request.method, url, data=request.body or None, headers=request.headers, allow_redirects=False
        ) as response:
            body = await response.read()
        self._reached = True
        return Attempt(
            sent_at=sent_at,
            answered_at=self._now(),
            status=response.status,
            code=(answer := _read_answer(body)).code,
            message=answer.message,
            retry_after=_retry_after_seconds(response.headers.get("Retry-After")),
            repeat=repeat,
        )

    def _close(self, run: Run, seq: int, attempts: list[Attempt]) -> None:
        if not attempts:
            return
        outcome = _outcome(attempts)
        self._counts[outcome] += 1
        if not self._reached and not _is_final(attempts[-1]):
            self._ending.set()
        message = run.messages[seq]
        self._ledger.write(
            Entry(
                instance_id=run.instance_id,
                seq=seq,
                msg_id=message["msgId"],
                outcome=outcome.value,
                attempts=attempts,
                message=message,
            )
        )
        self._on_answer(self._answer(run, seq, outcome, attempts[-1]))

    def _answer(self, run: Run, seq: int, outcome: Outcome, last: Attempt) -> Answer:
        ended_at = self._now() if last.answered_at is None else last.answered_at
        return Answer(
            instance_id=run.instance_id,
            seq=seq,
            total=len(run.messages),
            message=run.messages[seq],
            outcome=outcome,
            status=last.status,
            code=last.code,
            latency_seconds=ended_at - last.sent_at,
            reason=last.message,
        )

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the simulation."""
        if seconds <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    def _now(self) -> float:
        return self._clock_offset + time.perf_counter()


def _ignore(_: Answer) -> None:
    """Default callback: do nothing."""


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Prevent aiohttp from sending a PUT or GET again by itself, because the ledger holds every attempt."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise aiohttp.ClientConnectionError("the connection broke before the answer") from error


def _grouped(messages: int, overlaps: float, random: Random) -> Iterator[range]:
    """Yield the positions that are sent together: single ones, and pairs for the share ``overlaps``."""
    start = 0
    while start < messages:
        size = 2 if overlaps and start + 1 < messages and random.random() < overlaps else 1
        yield range(start, start + size)
        start += size


def _is_accepted(attempt: Attempt) -> bool:
    return attempt.status == HTTPStatus.OK and attempt.code == 0


def _is_final(attempt: Attempt) -> bool:
    """Whether another attempt would be of no use."""
    return attempt.status is not None and _effective_status(attempt) not in RETRYABLE


def _effective_status(attempt: Attempt) -> int | None:
    """Return the status of an answer; a code-only source answers 200, and ``code`` begins with the status."""
    return attempt.code // 100 if attempt.status == HTTPStatus.OK and attempt.code else attempt.status


def _outcome(attempts: list[Attempt]) -> Outcome:
    if any(map(_is_accepted, attempts)):
        return Outcome.ACCEPTED
    if any(map(_is_open, attempts)):
        return Outcome.UNKNOWN
    return Outcome.REFUSED if any(attempt.status for attempt in attempts) else Outcome.FAILED


def _is_open(attempt: Attempt) -> bool:
    """Whether the call may have arrived although the connector's answer did not: cut off, or answered by a proxy."""
    return attempt.error not in {None, "connect"} or attempt.status in PROXY_ERRORS


def _back_off_seconds(attempts: list[Attempt]) -> float:
    if attempts[-1].retry_after is not None:
        return attempts[-1].retry_after
    return min(FIRST_BACK_OFF_SECONDS * 2.0 ** (len(attempts) - 1), MAX_BACK_OFF_SECONDS)


def _retry_after_seconds(header: str | None) -> float | None:
    """Return the seconds of a Retry-After, which may be a date; None if it is missing or not readable."""
    if header is None:
        return None
    try:
        seconds = int(header) if header.strip().isdigit() else _seconds_until(parsedate_to_datetime(header))
    except ValueError:
        return None
    return min(max(float(seconds), 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_until(at: datetime) -> float:
    return (at - datetime.now(at.tzinfo)).total_seconds()


class _Body(msgspec.Struct):
    """The body of an answer; None for missing members."""

    code: int | None = None
    message: str | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


def _read_answer(body: bytes) -> _Body:
    try:
        return _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Body()
