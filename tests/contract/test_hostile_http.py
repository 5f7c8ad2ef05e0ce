"""Hostile HTTP: whatever comes over the wire gets the contract's JSON or a closed connection, and costs little."""

import asyncio
import gc
import json
import socket
import time
from functools import partial

import pytest

from connector.receiver import connection as bounds
from tests.contract.test_http import _both_ways, message, serving  # noqa: F401 - autouse
from tests.waiting import PATIENCE_SECONDS, until

HEAD = b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t-default\r\n"
BODY = message()
GOOD = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
KNOWN = message(msgId="m-1")
REPEAT = HEAD + b"content-length: %d\r\n\r\n" % len(KNOWN) + KNOWN


@pytest.fixture
async def served():
    async with serving() as one:
        yield one


async def exchange(served, *parts, pause=0.0):
    """Write, and read until the connector hangs up; gives statuses and answers' bodies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return answers_in(await reader.read())
    except ConnectionError:
        return []
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def answers_in(raw):
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = int(dict(line.split(b": ", 1) for line in lines[1:])[b"content-length"])
        found.append((int(lines[0].split()[1]), json.loads(rest[:length])))
        raw = rest[length:]
    return found


def answered(served, count):
    return served.outcomes().get("rejected") == count


def refused(served, reason):
    return served.metrics.connections_refused.labels(reason)._value.get()


MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00hello\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space in the URL": b"GET /message Deliver HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "both lengths": HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, turned round": HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "a length twice": HEAD + b"content-length: 4\r\ncontent-length: 4\r\n\r\nabcd",
    "a negative length": HEAD + b"content-length: -1\r\n\r\n",
    "a huge length": HEAD + b"content-length: 99999999999999999999999\r\n\r\n",
    "a length in words": HEAD + b"content-length: 0x4\r\n\r\nabcd",
    "a length with a sign": HEAD + b"content-length: +4\r\n\r\nabcd",
    "chunked twice removed": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in disguise": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"content-length : 4\r\n\r\nabcd",
    "a folded header": HEAD + b"x-a: 1\r\n content-length: 4\r\n\r\nabcd",
    "a bare line feed": HEAD.replace(b"\r\n", b"\n") + b"transfer-encoding:\n chunked\n\n0\n\n",
    "NUL in a header": HEAD + b"x-a: \x00\r\n\r\n",
    "a chunk of no size": HEAD + b"transfer-encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk of a huge size": HEAD + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
    "another coding before the chunks": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks by HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /messageDeliver?msgContext={}\r\n\r\n",
    "HTTP/2.0 in HTTP/1.1's words": GOOD.replace(b"1.1", b"2.0"),
    "no host": GOOD.replace(b"host: x\r\n", b""),
    "a fragment": GOOD.replace(b"Deliver", b"Deliver#here"),
    "a URL beyond ASCII": GOOD.replace(b"/message", b"/\xc3\xbcmessage"),
    "a URL beyond ASCII without a body": b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    "a URL beyond ASCII in pieces": HEAD.replace(b"/message", b"/\xffmessage") + b"transfer-encoding: chunked\r\n\r\n",
    "a URL with an empty host": GOOD.replace(b"POST /", b"POST http:///"),
    "a URL with half a host": GOOD.replace(b"POST /", b"POST http://[::1/"),
    "a URL with a port that is none": GOOD.replace(b"POST /", b"POST http://x:99999/"),
    "a chunk that is longer than it says": HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_can_be_read_in_two_ways_or_none_is_400_and_hung_up_on(served, name, caplog):
    answers = await exchange(served, MALFORMED[name])

    assert [(status, fields["code"]) for status, fields in answers] == [(400, 40090)]
    assert {*answers[0][1]} == {"code", "message", "stage", "retriable"}
    assert served.publisher.published == []
    assert refused(served, "malformed") == 1
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "request_", [MALFORMED["no host"], MALFORMED["no HTTP"], HEAD + b"a: b\r\n" * (bounds.MAX_HEADERS + 1) + b"\r\n"]
)
async def test_nothing_is_left_of_a_connection_that_was_refused(served, request_):
    for _ in range(3):
        await exchange(served, request_)
    await until(lambda: not served.state.connections)
    gc.collect()

    assert [one for one in gc.get_objects() if isinstance(one, bounds.Connection)] == []


CHUNKED = b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n%x\r\n%b\r\n0\r\n%b\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["at once", "in pieces"])
async def test_what_stands_behind_a_body_is_not_read_as_a_header(served, pause):
    """A proxy may pass on trailers of a stranger which it would not let through, or would add to, as headers."""
    start = b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\n"
    credential = start + CHUNKED % (len(BODY), BODY, b"authorization: Bearer t-default\r\n")
    encoding = HEAD + CHUNKED % (len(BODY), BODY, b"content-encoding: gzip\r\ncontent-type: text/xml\r\nhost: y\r\n")
    cut = (len(credential) - 40, len(encoding) - 30)

    answers = [
        (await exchange(served, request[:at], request[at:], pause=pause))[0][0]
        for request, at in zip((credential, encoding), cut, strict=True)
    ]

    assert answers == [401, 200]
    assert len(served.values()) == 1


async def test_a_connection_that_breaks_while_requests_wait_is_not_written_to(served, caplog):
    """uvloop minds a write to a connection that is gone, and the request would not be counted."""
    served.publisher.hold()
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(GOOD * 2)
    await until(lambda: served.publisher.published)
    (connection,) = served.state.connections
    written = []
    connection.transport.write = written.append
    connection.transport.abort()
    await until(lambda: not served.state.connections)
    served.publisher.release()
    await until(lambda: served.outcomes() == {"accepted": 1})

    assert written == []
    assert len(served.values()) == 1
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []
    writer.close()


async def test_a_flood_of_trailers_ends_the_connection(served):
    trailers = b"a: b\r\n" * (bounds.MAX_HEADERS + 1)
    await exchange(served, HEAD + CHUNKED % (len(BODY), BODY, trailers))

    assert refused(served, "head") == 1
    assert (await served.ask(message(msgId="m-2"))).code == 0


async def test_a_request_behind_one_that_is_malformed_is_not_read(served):
    answers = await exchange(served, HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + GOOD)

    assert [status for status, _ in answers] == [400]
    assert served.publisher.published == []


async def test_what_comes_behind_a_good_request_takes_nothing_from_its_answer(served):
    answers = await exchange(served, GOOD + b"garbage\r\n\r\n")

    assert answers == [(200, {"code": 0})]
    assert len(served.values()) == 1


async def test_requests_that_come_at_once_are_answered_in_their_order(served):
    answers = await exchange(
        served, GOOD * 3 + b"DELETE /messageDeliver HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )

    assert [status for status, _ in answers] == [200, 200, 200, 405]


async def test_too_many_requests_at_once_end_the_connection(served):
    await exchange(served, GOOD * 200)

    assert refused(served, "malformed") == 1
    assert (await served.ask(message(msgId="m-2"))).code == 0


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (431, b"x-a: %s\r\n" % (b"x" * bounds.MAX_HEAD_BYTES)),
        (431, b"x-a: %s\r\n" % (b"x" * 1_000_000)),
        (431, b"a: b\r\n" * (bounds.MAX_HEADERS + 1)),
        (431, b"a: b\r\n" * 100_000),
    ],
    ids=["a long header", "a very long header", "many headers", "very many headers"],
)
async def test_a_flood_of_headers_is_431(served, status, head):
    answers = await exchange(served, HEAD + head + b"\r\n")

    assert answers == [] or [(each, fields["code"]) for each, fields in answers] == [(status, status * 100)]
    assert refused(served, "head") == 1
    assert served.publisher.published == []


async def test_an_endless_url_is_413(served):
    answers = await exchange(served, b"GET /messageDeliver?" + b"a" * 100_000)

    assert [(status, fields["code"]) for status, fields in answers] == [(413, 41300)]


@pytest.mark.parametrize(
    "part",
    [b"", b"POST", b"POST /messageDeliver HTTP/1.1\r\nx-a: 1", b"\r\n\r\n"],
    ids=["nothing", "a word", "half", "lines"],
)
async def test_a_slow_head_is_408_and_does_not_keep_its_connection(served, part):
    asked = asyncio.create_task(exchange(served, part))
    await until(lambda: served.state.connections)
    await asyncio.sleep(0.05)
    (connection,) = served.state.connections
    connection.end_if_late(connection._late_at - 0.01)
    assert not asked.done()
    connection.end_if_late(connection._late_at + 0.01)

    assert [(status, fields["code"]) for status, fields in await asked] == [(408, 40800)]
    assert refused(served, "slow") == 1


async def test_a_slow_head_behind_an_answer_is_hung_up_on_too(served):
    asked = asyncio.create_task(exchange(served, GOOD, b"\r\n", pause=0.2))
    await until(lambda: served.state.connections)
    (connection,) = served.state.connections
    await until(lambda: connection._late_at is not None and connection.cycle is not None)
    bounds.sweep(served.state.connections)
    connection.end_if_late(connection._late_at + 0.01)

    assert [status for status, _ in await asked] == [200, 408]


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (200, REPEAT),
        (404, GOOD.replace(b"Deliver ", b" ")),
        (413, HEAD + b"content-length: 600000\r\n\r\n" + b"x" * 600_000),
    ],
    ids=["a repeat", "elsewhere", "too large"],
)
async def test_a_connection_that_rests_after_an_answer_at_once_is_not_answered_that_it_is_late(
    served, status, request_
):
    """Ten seconds later it read 408, which a sender that has just sent its next message takes for the answer."""
    await exchange(served, REPEAT.replace(b"host: x", b"host: x\r\nconnection: close"))
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request_)
    assert b"HTTP/1.1 %d " % status in await reader.readuntil(b"\r\n\r\n")
    (connection,) = served.state.connections
    await until(lambda: connection._late_at is None)
    await asyncio.sleep(0.05)

    assert connection._late_at is None
    writer.close()


async def test_dribbled_bytes_do_not_move_the_deadline_of_a_head(served):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(HEAD)
    await until(lambda: served.state.connections)
    (connection,) = served.state.connections
    await until(lambda: connection.headers)
    before = connection._late_at
    for letter in b"x-a: 1":
        writer.write(bytes([letter]))
        await asyncio.sleep(0.01)

    assert connection._late_at == before
    writer.close()


async def test_who_does_not_read_its_answers_does_not_keep_its_connection(served):
    """No credential is needed for an answer, and nothing else ends such a connection."""
    loop, sender = asyncio.get_running_loop(), socket.socket()
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sender.settimeout(0)
    await loop.sock_connect(sender, ("127.0.0.1", served.port))
    await until(lambda: served.state.connections)
    (connection,) = served.state.connections
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    asked = 0
    while not connection.transport.get_write_buffer_size():
        asked += 1
        await loop.sock_sendall(sender, b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        await until(partial(answered, served, asked))
    now = time.monotonic()
    connection.end_if_late(now)
    connection.end_if_late(now + bounds.ANSWER_SECONDS - 0.01)
    assert connection in served.state.connections
    connection.end_if_late(now + bounds.ANSWER_SECONDS + 0.01)
    await until(lambda: not served.state.connections)

    assert refused(served, "slow") == 1
    sender.close()


async def test_a_body_that_goes_on_after_its_answer_is_cut_off(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t-new\r\ncontent-length: 99999999\r\n\r\n"
    )
    assert b" 413 " in await reader.readuntil(b"\r\n\r\n")
    (connection,) = served.state.connections

    assert await taken(reader, writer, 100_000_000) < 60_000_000
    assert connection not in served.state.connections
    writer.close()


async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> int:
    """Send up to this many bytes; returns how many went before the connection was closed."""
    sent = 0
    while not reader.at_eof() and sent < size:
        try:
            writer.write(b"x" * 65_536)
            await writer.drain()
        except ConnectionError:
            break
        sent += 65_536
    return sent


@pytest.mark.parametrize("what", ["trailer", "extension"])
async def test_a_body_that_brings_no_body_is_cut_off(served, what):
    start = HEAD + b"transfer-encoding: chunked\r\n\r\n" + (b"0\r\nx-t: " if what == "trailer" else b"1;")
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(start)

    assert await taken(reader, writer, 50_000_000) < 40_000_000
    assert refused(served, "head") == 1
    writer.close()


async def test_one_connection_too_many_is_503():
    async with serving(max_connections=2) as served:
        kept = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        await until(lambda: len(served.state.connections) == 2)
        answers = await exchange(served)
        for _, writer in kept:
            writer.close()
        await until(lambda: not served.state.connections)
        after = await served.ask(BODY)

    assert [(status, fields["code"], fields["retriable"]) for status, fields in answers] == [(503, 50300, True)]
    assert after.code == 0


@pytest.mark.parametrize("offer", ["h2c", "websocket", "TLS/1.3"])
async def test_an_offer_of_another_protocol_is_left_and_the_request_answered(served, offer):
    answer = await served.ask(BODY, upgrade=offer, connection="Upgrade")

    assert answer.code == 0


OFFERED = (
    HEAD
    + b"upgrade: h2c\r\nconnection: Upgrade, close\r\nx-upgrade: pgrade\r\ncontent-length: %d\r\n\r\n" % (len(BODY) + 2)
    + BODY
    + b"\n\n"
)


@pytest.mark.parametrize("name", [b"upgrade", b"Upgrade", b"UPGRADE"])
@pytest.mark.parametrize("cut", [*range(OFFERED.index(b"upgrade") - 3, OFFERED.index(b"h2c")), -len(BODY) - 3, -1])
async def test_an_offer_of_another_protocol_is_left_wherever_its_head_is_cut(served, name, cut):
    """A head in two packets, cut within the word, was answered with 400, as if its body were empty."""
    request = OFFERED.replace(b"upgrade", name, 1)

    assert [status for status, _ in await exchange(served, request[:cut], request[cut:], pause=0.01)] == [200]


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_an_offer_may_come_byte_by_byte(served, size):
    pieces = [OFFERED[at : at + size] for at in range(0, len(OFFERED), size)]

    assert [status for status, _ in await exchange(served, *pieces, pause=0.001)] == [200]


async def test_a_word_of_the_url_is_no_offer_wherever_it_is_cut(served):
    query = b"?msgContext=%s" % BODY.replace(b"i-1", b"upgrade:x").replace(b" ", b"")
    request = HEAD.replace(b"POST /messageDeliver", b"GET /messageDeliver" + query) + b"connection: close\r\n\r\n"
    cut = request.index(b"upgrade:")

    assert [status for status, _ in await exchange(served, request[:cut], request[cut:], pause=0.01)] == [200]
    assert [value["instanceId"] for value in served.values()] == ["upgrade:x"]


async def test_an_offer_behind_another_request_ends_the_connection(served):
    """llhttp reads no body behind it: it was answered as if it were empty, and what came next never."""
    answers = await exchange(served, GOOD + OFFERED + GOOD)

    assert [status for status, _ in answers] == [200]
    assert refused(served, "malformed") == 1
    assert served.letters == []


async def test_a_thousand_open_bodies_take_bounded_memory():
    part = HEAD + b"content-length: 500000\r\n\r\n" + b"x" * 400_000
    async with serving(max_connections=1000, max_in_flight=1000) as served:
        writers = []
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(part)
            writers.append(writer)
        await asyncio.gather(*(writer.drain() for writer in writers), return_exceptions=True)
        await until(lambda: served.outcomes().get("refused"))
        held = served.receiver._body_memory._taken
        for writer in writers:
            writer.transport.abort()
        await until(lambda: served.receiver._body_memory._taken == 0)

        assert 0 < held <= served.receiver._body_memory._max_bytes
        assert (await served.ask(BODY)).code == 0
