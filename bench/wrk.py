"""The load generator wrk, where it is installed: it leaves more of the other core to the broker than ours does.

Every request has ids of its own, made in Lua; latencies are those of a closed loop, of all answers.
"""

import secrets
import shutil
import subprocess
import tempfile
from typing import Final

import msgspec

from bench.load import CONNECTIONS, PATH, TOKEN, Plan
from bench.message import ID_DIGITS, INSTANCE_ID, MESSAGE_ID, body
from bench.sample import Sample, cpu_seconds, resident_bytes

_SCRIPT: Final = """\
local run = "{run}"
local number = 0
local before, between, after, length = {before}, {between}, {after}, {length}
local head = "POST {path} HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\n"
    .. "Authorization: Bearer {token}\\r\\nContent-Length: " .. length .. "\\r\\n\\r\\n"
function request()
    number = number + 1
    local id = run .. string.format("%0{digits}x", number)
    return head .. before .. id .. between .. id .. after
end
function done(summary, latency, requests)
    io.write(string.format('{{"answers":%d,"errors":%d,"lost":%d,"microseconds":%d,"p50":%f,"p99":%f,"p999":%f}}\\n',
        summary.requests, summary.errors.status,
        summary.errors.connect + summary.errors.read + summary.errors.write,
        summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


class _Facts(msgspec.Struct):
    """What the script prints; latencies in microseconds."""

    answers: int
    errors: int
    lost: int
    microseconds: int
    p50: float
    p99: float
    p999: float


def is_installed() -> bool:
    """Whether there is a wrk."""
    return shutil.which("wrk") is not None


def script() -> str:
    """The Lua that makes each request of the benchmark's message, with ids that no other script has."""
    before, rest = body().decode().split(MESSAGE_ID)
    between, after = rest.split(INSTANCE_ID)
    return _SCRIPT.format(
        run=secrets.token_hex(4),
        before=_quoted(before),
        between=_quoted(between),
        after=_quoted(after),
        length=len((before + between + after).encode()) + 2 * ID_DIGITS,
        path=PATH,
        token=TOKEN,
        digits=ID_DIGITS - 8,
    )


def run(plan: Plan) -> Sample:
    """Warm up, then send for the plan's seconds and measure.

    Raises:
        ConnectionError: Requests were left without an answer.
        subprocess.CalledProcessError: wrk failed; it has said why on standard error.
    """
    _wrk(plan.port, plan.warm_up_seconds)
    cpu = cpu_seconds(plan.pid)
    told = _wrk(plan.port, plan.seconds)
    if told.lost:
        raise ConnectionError(f"wrk had no answer to {told.lost} requests")
    return Sample(
        accepted=told.answers - told.errors,
        refused=told.errors,
        seconds=told.microseconds / 1e6,
        p50=told.p50 / 1e3,
        p99=told.p99 / 1e3,
        p999=told.p999 / 1e3,
        cpu_seconds=cpu_seconds(plan.pid) - cpu,
        rss=resident_bytes(plan.pid),
    )


def _wrk(port: int, seconds: float) -> _Facts:
    duration = f"-d{max(round(seconds), 1)}s"
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as file:
        file.write(script())
        file.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", duration, "-s", file.name, f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=_Facts)


def _quoted(text: str) -> str:
    """A Lua string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
