"""The load generator, in a process of its own: keep-alive connections, each with one request on its way at any time.

`python -m bench.load '<Plan as JSON>'` prints a `Sample` as JSON. The next request of a connection leaves when the
answer to the one before is there, so latencies are those of a closed loop.
"""

import asyncio
import secrets
import sys
import time
from array import array
from itertools import count

import msgspec
import uvloop

from bench.message import ID_DIGITS, INSTANCE_ID, MESSAGE_ID, body, ids
from bench.sample import Sample, cpu_seconds, percentile, resident_bytes

ACCEPTED = b'{"code":0}'
CONNECTIONS = 64
TOKEN = "bench-token"
PATH = "/messageDeliver"


class Plan(msgspec.Struct, frozen=True):
    """What to send.

    Attributes:
        port: The server's, on the loopback.
        pid: The server's process, whose CPU time and memory are read.
        seconds: How long to measure.
        warm_up_seconds: How long to send before that.
        instances: Distinct instanceIds; 0 gives each message its own.
        size: Bytes of the message, about; None for the message as it is.
        connections: Requests on their way at once.
    """

    port: int
    pid: int
    seconds: float
    warm_up_seconds: float = 1.0
    instances: int = 0
    size: int | None = None
    connections: int = CONNECTIONS


class Requests:
    """Renders requests, each with ids of its own; all but the ids is rendered beforehand."""

    def __init__(self, plan: Plan) -> None:
        text = body(plan.size).replace(b"%", b"%%")
        length = len(body(plan.size)) - len(MESSAGE_ID) - len(INSTANCE_ID) + 2 * ID_DIGITS
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n"
        )
        ids_marked = text.replace(MESSAGE_ID.encode(), b"%(message)b").replace(INSTANCE_ID.encode(), b"%(instance)b")
        self._template = head.encode() + ids_marked
        self._run = secrets.token_hex(4)
        self._numbers = count()
        self._instances = plan.instances

    def next(self) -> bytes:
        """The next request, head and body."""
        message_id, instance_id = ids(self._run, next(self._numbers), self._instances)
        return self._template % {b"message": message_id.encode(), b"instance": instance_id.encode()}


class Tally:
    """What was answered since the last `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the answers so far."""
        self.accepted = 0
        self.refused = 0
        self.latencies = array("d")


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, requests: Requests, tally: Tally) -> None:
        self._requests = requests
        self._tally = tally
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        self._received += data
        if not _is_whole(self._received):
            return
        self._tally.latencies.append(time.perf_counter() - self._sent_at)
        if self._received.startswith(b"HTTP/1.1 200 ") and self._received.endswith(ACCEPTED):
            self._tally.accepted += 1
        else:
            self._tally.refused += 1
        self._received = b""
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        """The server hung up, or we did."""
        if not self.lost.done():
            self.lost.set_result(None)

    def close(self) -> None:
        """Hang up without waiting for the last answer."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        if self._transport is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(self._requests.next())


async def run(plan: Plan) -> Sample:
    """Send for the plan's seconds and measure.

    Raises:
        ConnectionError: The server hung up.
    """
    requests, tally = Requests(plan), Tally()
    loop = asyncio.get_running_loop()
    pairs = [
        await loop.create_connection(lambda: Connection(requests, tally), "127.0.0.1", plan.port)
        for _ in range(plan.connections)
    ]
    connections = [connection for _, connection in pairs]
    await asyncio.sleep(plan.warm_up_seconds)
    tally.reset()
    started, cpu = time.perf_counter(), cpu_seconds(plan.pid)
    await asyncio.wait([each.lost for each in connections], timeout=plan.seconds, return_when="FIRST_COMPLETED")
    sample = _sample(plan, tally, time.perf_counter() - started, cpu_seconds(plan.pid) - cpu)
    if any(each.lost.done() for each in connections):
        raise ConnectionError("the server hung up under load")
    for connection in connections:
        connection.close()
    return sample


def _sample(plan: Plan, tally: Tally, seconds: float, cpu: float) -> Sample:
    milliseconds = sorted(1000 * latency for latency in tally.latencies)
    return Sample(
        accepted=tally.accepted,
        refused=tally.refused,
        seconds=seconds,
        p50=percentile(milliseconds, 0.5),
        p99=percentile(milliseconds, 0.99),
        p999=percentile(milliseconds, 0.999),
        cpu_seconds=cpu,
        rss=resident_bytes(plan.pid),
    )


def _is_whole(answer: bytes) -> bool:
    """Whether head and body are there; servers of the benchmark always say ``Content-Length``."""
    head, found, rest = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(rest) >= int(length or 0)


if __name__ == "__main__":
    sample = uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))
    print(msgspec.json.encode(sample).decode())
