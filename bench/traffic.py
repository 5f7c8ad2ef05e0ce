"""The requests that every benchmark sends: the simulator's process runs in their default mix, or one fixed message.

Both are HTTP/1.1 as an ingress passes it on: the headers of the client, and a request id that no other request has.
"""

import secrets
from collections.abc import Iterator
from itertools import count
from typing import Final

import msgspec

from bench.message import body
from connector.simulator.runs import runs
from connector.simulator.shapes import Shape, render

TOKEN: Final = "bench-token"
PATH: Final = "/messageDeliver"
SIMULATED: Final = "simulated"
FIXED: Final = "fixed"
RUNS: Final = 300
"""Distinct runs, some 3,400 messages; after them the same again, with other ids."""

SEED: Final = 7
_START_MS: Final = 1_790_000_000_000
_NUMBER_DIGITS: Final = 24
"""Of the 32 hex digits of an id; the first eight are the sender's."""


def simulated(seed: int = SEED, count: int = RUNS) -> list[list[bytes]]:
    """The bodies of so many runs of the simulator, each with the places of ``msgId`` and ``instanceId`` marked."""
    return [
        [_marked(render(dict(message), Shape.TEXT).body, message) for message in run.messages]
        for run in runs(seed, count, _START_MS)
    ]


def fixed(size: int | None = None) -> list[list[bytes]]:
    """One run of the one fixed message."""
    return [[_marked(body(size), {"msgId": "{message-id}", "instanceId": "{instance-id}"})]]


class Traffic:
    """Makes requests without end.

    Args:
        kind: `SIMULATED` or `FIXED`.
        host: The value of ``Host``.
        instances: Distinct instanceIds; 0 gives each run its own.
        size: Bytes of the fixed message, about.
    """

    def __init__(self, kind: str, host: str, *, instances: int = 0, size: int | None = None) -> None:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weda\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\nX-Request-Id: %(request)b\r\n"
        )
        bodies = simulated() if kind == SIMULATED else fixed(size)
        self._runs = [[_request(head, each) for each in run] for run in bodies]
        self._sender = secrets.token_hex(4)
        self._messages = count()
        self._plays = count()
        self._instances = instances

    def requests(self) -> Iterator[bytes]:
        """What one connection sends: run after run, in order; no two connections play the same run at once."""
        while True:
            play = next(self._plays)
            instance_id = self._id(play % self._instances if self._instances else play)
            for template in self._runs[play % len(self._runs)]:
                message_id = self._id(next(self._messages))
                yield template % {b"request": message_id, b"message": message_id, b"instance": instance_id}

    def _id(self, number: int) -> bytes:
        return f"{self._sender}{number:0{_NUMBER_DIGITS}x}".encode()


def _marked(rendered: bytes, message: dict[str, object]) -> bytes:
    escaped = rendered.replace(b"%", b"%%")
    for name, mark in (("msgId", b"%(message)b"), ("instanceId", b"%(instance)b")):
        escaped = escaped.replace(msgspec.json.encode(message[name])[1:-1], mark)
    return escaped


def _request(head: str, template: bytes) -> bytes:
    filled = template % {b"message": b"-" * 32, b"instance": b"-" * 32}
    return f"{head}Content-Length: {len(filled)}\r\n\r\n".encode() + template
