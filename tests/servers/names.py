"""A server of names that knows one: the addresses that it has now, as an orchestrator tells of its replicas."""

import socketserver
import threading
from types import TracebackType
from typing import Self

from tests.servers.ports import LOOPBACK

HEADER = 12
ADDRESS, INTERNET = 1, 1
ANSWERS, AUTHORITATIVE = 0x8000, 0x0400
THE_NAME = b"\xc0\x0c"
"""Points to where the question has it."""


class Names:
    """Answers every question for an IPv4 address by the same ones, over UDP.

    Args:
        port: Where it listens, on the loopback.
        addresses: What it answers; may be replaced at any time.
    """

    def __init__(self, port: int, addresses: list[str]) -> None:
        self.addresses = addresses
        names = self

        class Answer(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                question, socket = self.request
                socket.sendto(names._answer(question), self.client_address)

        self._server = socketserver.UDPServer((LOOPBACK, port), Answer)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="names", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, question: bytes) -> bytes:
        end = question.index(0, HEADER) + 5  # the name, which ends in a zero; its type and its class
        asked_for = int.from_bytes(question[end - 4 : end - 2])
        addresses = self.addresses if asked_for == ADDRESS else []
        records = [
            THE_NAME + _numbers(ADDRESS, INTERNET, 0, 1, 4) + bytes(map(int, each.split("."))) for each in addresses
        ]
        head = question[:2] + _numbers(ANSWERS | AUTHORITATIVE, 1, len(records), 0, 0)
        return head + question[HEADER:end] + b"".join(records)


def _numbers(*numbers: int) -> bytes:
    return b"".join(each.to_bytes(2) for each in numbers)
