"""The load generator, in a process of its own: keep-alive connections, each with one request on its way at any time.

`python -m bench.load '<Plan as JSON>'` prints a `Sample` as JSON. In a closed loop the next request of a connection
leaves when the answer to the one before is there. In an open one (``rate``) requests are due at fixed times, whatever
the server does; a latency counts from the time at which the request was due, so that a slow server cannot hide behind
requests that were never sent (coordinated omission). How long the server itself took, from the sending, is reported
beside it.
"""

import asyncio
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import msgspec
import uvloop

from bench.sample import Sample, cpu_seconds, percentile, resident_bytes
from bench.traffic import SIMULATED, Traffic

ACCEPTED = b'{"code":0}'
CONNECTIONS = 64


class Plan(msgspec.Struct, frozen=True):
    """What to send.

    Attributes:
        port: The server's, on the loopback.
        pid: The server's process, whose CPU time and memory are read.
        seconds: How long to measure.
        warm_up_seconds: How long to send before that.
        traffic: `bench.traffic.SIMULATED` or `FIXED`.
        instances: Distinct instanceIds; 0 gives each run of a process its own.
        size: Bytes of the fixed message, about; None for the message as it is.
        connections: Requests on their way at once.
        rate: Requests a second of an open loop; None for a closed one.
        messages: Go on until at least so many are answered, however long it takes.
    """

    port: int
    pid: int
    seconds: float
    warm_up_seconds: float = 1.0
    traffic: str = SIMULATED
    instances: int = 0
    size: int | None = None
    connections: int = CONNECTIONS
    rate: float | None = None
    messages: int = 0


class Tally:
    """What was answered since the last `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the answers so far."""
        self.accepted = 0
        self.refused = 0
        self.latencies = array("d")
        self.refusals = array("d")
        self.since_sent = array("d")
        self.refusals_since_sent = array("d")

    def take(self, since_due: float, since_sent: float, *, is_accepted: bool) -> None:
        """Count an answer, and the seconds that it took."""
        self.accepted += is_accepted
        self.refused += not is_accepted
        (self.latencies if is_accepted else self.refusals).append(since_due)
        (self.since_sent if is_accepted else self.refusals_since_sent).append(since_sent)


class Pace:
    """When requests are due: at once in a closed loop, at fixed times in an open one."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due: deque[float] = deque()
        self._free: deque[Connection] = deque()

    def next(self, connection: "Connection") -> None:
        """A connection is free: give it a request that is due, or have it wait for one."""
        if self._rate is None:
            connection.send(time.perf_counter())
        elif self._due:
            connection.send(self._due.popleft())
        else:
            self._free.append(connection)

    async def keep(self) -> None:
        """Have requests come due, for ever; at once in an open loop what a late tick has missed."""
        if self._rate is None:
            return
        due = time.perf_counter()
        while True:
            while due <= time.perf_counter():
                if self._free:
                    self._free.popleft().send(due)
                else:
                    self._due.append(due)
                due += 1 / self._rate
            await asyncio.sleep(0.001)


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, pace: Pace) -> None:
        self._requests = requests
        self._tally = tally
        self._pace = pace
        self._received = b""
        self._due = 0.0
        self._sent = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]
        self._pace.next(self)

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        self._received += data
        body = answer_body(self._received)
        if body is None:
            return
        is_accepted = self._received.startswith(b"HTTP/1.1 200 ") and body == ACCEPTED
        now = time.perf_counter()
        self._tally.take(now - self._due, now - self._sent, is_accepted=is_accepted)
        self._received = b""
        self._pace.next(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """The server hung up, or we did."""
        if not self.lost.done():
            self.lost.set_result(None)

    def close(self) -> None:
        """Hang up without waiting for the last answer."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, due: float) -> None:
        """Send a request that is due since then."""
        if self._transport is not None:
            self._due, self._sent = due, time.perf_counter()
            self._transport.write(next(self._requests))


async def run(plan: Plan) -> Sample:
    """Send for the plan's seconds and measure.

    Raises:
        ConnectionError: The server hung up, or accepted nothing.
    """
    traffic = Traffic(plan.traffic, f"127.0.0.1:{plan.port}", instances=plan.instances, size=plan.size)
    tally, pace = Tally(), Pace(plan.rate)
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(plan.connections):
        made = partial(Connection, traffic.requests(), tally, pace)
        connections.append((await loop.create_connection(made, "127.0.0.1", plan.port))[1])
    pacing = asyncio.create_task(pace.keep())
    await asyncio.sleep(plan.warm_up_seconds)
    tally.reset()
    started, cpu = time.perf_counter(), cpu_seconds(plan.pid)
    await _until(plan, tally, connections, started)
    sample = _sample(plan, tally, time.perf_counter() - started, cpu_seconds(plan.pid) - cpu)
    pacing.cancel()
    for connection in connections:
        connection.close()
    return sample


async def _until(plan: Plan, tally: Tally, connections: Sequence[Connection], started: float) -> None:
    while time.perf_counter() - started < plan.seconds or tally.accepted < plan.messages:
        await asyncio.sleep(min(0.05, plan.seconds))
        if any(each.lost.done() for each in connections):
            raise ConnectionError("the server hung up under load")


def _sample(plan: Plan, tally: Tally, seconds: float, cpu: float) -> Sample:
    if not tally.accepted:
        raise ConnectionError(f"the server accepted nothing and refused {tally.refused} requests")
    milliseconds = _sorted(tally.latencies)
    return Sample(
        accepted=tally.accepted,
        refused=tally.refused,
        seconds=seconds,
        p50=percentile(milliseconds, 0.5),
        p99=percentile(milliseconds, 0.99),
        p999=percentile(milliseconds, 0.999),
        cpu_seconds=cpu,
        rss=resident_bytes(plan.pid),
        offered=plan.rate,
        refused_p99=percentile(_sorted(tally.refusals), 0.99),
        sent_p99=percentile(_sorted(tally.since_sent), 0.99),
        refused_sent_p99=percentile(_sorted(tally.refusals_since_sent), 0.99),
    )


def _sorted(seconds: Iterable[float]) -> list[float]:
    """In milliseconds."""
    return sorted(1000 * each for each in seconds)


def answer_body(answer: bytes) -> bytes | None:
    """The body of an answer, its length declared or in one chunk; None while some of it is missing."""
    head, found, rest = answer.partition(b"\r\n\r\n")
    if not found:
        return None
    fields = head.lower()
    if b"\r\ntransfer-encoding: chunked" in fields:
        size, _, chunk = rest.partition(b"\r\n")
        return chunk[: int(size, 16)] if rest.endswith(b"\r\n0\r\n\r\n") else None
    length = int(fields.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    return rest if len(rest) >= length else None


if __name__ == "__main__":
    sample = uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))
    print(msgspec.json.encode(sample).decode())
