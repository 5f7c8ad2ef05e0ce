"""A head that was parsed before is not parsed again: nothing else may come of it, whatever comes before and behind."""

import asyncio
import itertools
import random

import pytest

from connector.receiver import head
from connector.receiver.authentication import Credentials
from connector.receiver.head import Head, Heads
from connector.receiver.protocol import Protocol
from tests.contract.test_hostile_http import BODY, GOOD, HEAD, answers_in
from tests.contract.test_http import serving

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WRONG = GOOD.replace(b"t-default", b"t-wrong")
PARTS = {
    "good": GOOD,
    "the same length, another body": GOOD.replace(b"Task", b"Tusk"),
    "no JSON": GOOD[: -len(BODY)] + b"x" * len(BODY),
    "another length": HEAD + b"content-length: 2\r\n\r\n{}",
    "an id of its own": GOOD.replace(b"host: x", b"host: x\r\nx-request-id: r-1"),
    "chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "half a head": GOOD[:40],
    "the rest of that head": GOOD[40:],
    "a head": GOOD[: -len(BODY)],
    "a body": BODY,
    "half a body": GOOD[:-9],
    "the rest of that body": GOOD[-9:],
    "two": GOOD + GOOD,
    "one and the begin of another": GOOD + GOOD[:30],
    "the rest of the other": GOOD[30:],
    "an empty line": b"\r\n",
    "an empty line before": b"\r\n" + GOOD,
    "an empty line behind": GOOD + b"\r\n",
    "an offer": GOOD.replace(b"host: x", b"host: x\r\nconnection: upgrade\r\nupgrade: h2c"),
    "what may be an offer": GOOD[:20] + b"\nupgrad",
    "old HTTP": GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "the last": GOOD.replace(b"host: x", b"host: x\r\nconnection: close"),
    "a query": HEAD.replace(b"POST /messageDeliver", b"GET /messageDeliver?msgType=Task&instanceId=i-2") + b"\r\n",
    "a wrong token": WRONG,
    "no HTTP": b"hello\r\n\r\n",
    "asks first": HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
}


class Forgetful(Protocol):
    """Parses every head."""

    def take_known(self, data):
        return False


class Recording(asyncio.Transport):
    """Keeps what is written, and reads no more once it is closed."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self._is_closing = False

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self._is_closing

    def close(self):
        self._is_closing = True

    abort = close

    def pause_reading(self):
        pass

    resume_reading = pause_reading


async def told(http, sequences, monkeypatch):
    """The answers to each sequence on a connection of its own, and what became of them all."""
    monkeypatch.setattr("tests.contract.test_http.Served.http", http)
    async with serving(max_connections=10_000) as served:
        heard = [await fed(served, sequence) for sequence in sequences]
        await asyncio.sleep(0.05)  # a refused credential is held back for a moment
        for connection in [*served.state.connections]:
            connection.connection_lost(None)
        await served.until(lambda: not served.receiver._open_requests)
        answers = [[(status, told["code"]) for status, told in answers_in(raw())] for raw in heard]
        return answers, len(served.publisher.of("events")), served.outcomes()


async def fed(served, sequence):
    """Hand the parts to a connection, one a turn of the event loop; gives what tells what was answered."""
    connection, transport = served.config.http_protocol_class(served.config, served.state, {}), Recording()
    connection.connection_made(transport)
    for part in sequence:
        for _ in range(5):
            await asyncio.sleep(0)
        if not transport.is_closing():
            connection.data_received(part)
    connection.eof_received()
    return lambda: transport.written.replace(CONTINUE, b"")


async def asked(served, *sequence):
    """The answers to one such sequence."""
    heard = await fed(served, sequence)
    await served.until(lambda: not served.receiver._open_requests and answers_in(heard()))
    return [(status, answer["code"]) for status, answer in answers_in(heard())]


async def test_whatever_comes_before_and_behind_it_is_answered_as_if_its_head_were_parsed(monkeypatch):
    """Each pair of parts behind a good request, and longer sequences drawn at random."""
    drawn = random.Random(7)
    names = [*itertools.product(PARTS, repeat=2), *([*drawn.choices([*PARTS], k=6)] for _ in range(150))]
    sequences = [[GOOD, *(PARTS[name] for name in each)] for each in names]

    expected, published, counted = await told(Forgetful, sequences, monkeypatch)
    actual, published_too, counted_too = await told(Protocol, sequences, monkeypatch)

    different = [each for each, one, other in zip(names, expected, actual, strict=True) if one != other]
    assert different == []
    assert (published, counted) == (published_too, counted_too)


async def test_the_second_request_of_a_kind_is_not_parsed(monkeypatch):
    """On its own connection and on another one; each is a message of its own."""
    parsed = []
    begin = Protocol.on_message_begin
    monkeypatch.setattr(Protocol, "on_message_begin", lambda self: (parsed.append(1), begin(self))[1])
    async with serving() as served:
        assert await asked(served, GOOD, GOOD) == [(200, 0)] * 2
        assert await asked(served, GOOD, GOOD) == [(200, 0)] * 2

        assert len(parsed) == 1
        assert len(served.publisher.of("events")) == 4


async def test_a_token_that_counts_no_longer_is_refused_though_its_head_is_known():
    async with serving(tokens={"default": ["t-default"]}) as served:
        assert await asked(served, GOOD) == [(200, 0)]
        served.receiver._authentication.replace({"default": Credentials(tokens=("t-next",))})

        assert await asked(served, GOOD) == [(401, 40100)]


async def test_what_was_not_let_in_is_not_remembered():
    async with serving() as served:
        await asked(served, WRONG)

        assert served.config.http.heads.of(WRONG) is None


async def test_a_head_with_something_of_its_own_is_not_remembered():
    async with serving() as served:
        await asked(served, PARTS["an id of its own"])

        assert served.config.http.heads.of(PARTS["an id of its own"]) is None


def head_of(number, size=0):
    return Head("POST", f"/{number}" + "x" * size, [(b"host", b"x")])


def test_the_memory_is_bounded(monkeypatch):
    """In heads and in the bytes of each; whoever sends ever new ones costs the others a parse now and then."""
    monkeypatch.setattr(head, "MOST_HEADS", 4)
    known = Heads()
    requests = [b"POST /%d HTTP/1.1\r\nhost: x\r\n\r\n" % number for number in range(100)]
    for number, request in enumerate(requests):
        known.keep(request, head_of(number), b"")
    long = b"POST /%s HTTP/1.1\r\nhost: x\r\n\r\n" % (b"x" * head.MOST_HEAD_BYTES)
    known.keep(long, head_of(0, head.MOST_HEAD_BYTES), b"")

    assert 0 < sum(known.of(request) is not None for request in requests) <= 4
    assert known.of(long) is None


@pytest.mark.parametrize("behind", [b"x", b"\r\n", b"POST "], ids=repr)
def test_more_than_the_head_s_body_is_left_to_the_parser(behind):
    known = Heads()
    request = b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    known.keep(request, head_of(0), b"{}")

    assert known.of(request) is not None
    assert known.of(request + behind) is None
    assert known.of(request[:-1]) is None
