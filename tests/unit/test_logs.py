"""The log: one line an event, nothing of what a source sent, and no floods."""

import asyncio
import json
import logging
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import structlog

from connector.telemetry import logs
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before, sink_before, fast_before = structlog.get_config(), logs._sink, logs._writes_requests
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    logs._sink, logs._writes_requests = sink_before, fast_before
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(capfdbinary) -> list[dict[str, object]]:
    logs.flush()
    return [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]


def test_an_event_is_one_json_line(capfdbinary):
    logs.configure("info", "json")
    structlog.get_logger().info("request", source="默认", code=0)

    (line,) = lines(capfdbinary)
    assert (line["event"], line["source"], line["code"], line["level"]) == ("request", "默认", 0, "info")


def test_what_a_source_sent_gives_a_terminal_no_orders(capfdbinary):
    logs.configure("info", "console")
    sent = {"instanceId": "\x1b]0;title\x07\x1b[31m", "msgId": "a\x9b2J\u2028b", "processKey": "请假"}
    logs.request({"source": "hr", **sent})
    logs.flush()

    written = capfdbinary.readouterr().err
    (line,) = written.decode().splitlines()
    assert line.isprintable()
    assert r"\x1b]0;title\x07\x1b[31m" in line
    assert "请假" in line


def test_below_the_level_nothing_is_written(capfdbinary):
    logs.configure("error", "json")
    structlog.get_logger().warning("not this")

    assert lines(capfdbinary) == []


def test_an_exceptions_words_are_not_written_only_its_places(capfdbinary):
    """P9: they may quote what a source sent."""
    logs.configure("info", "json")
    for log in (structlog.get_logger().exception, logging.getLogger("uvicorn.error").exception):
        try:
            raise ValueError("a secret of the message")  # noqa: TRY301 - it is what is logged
        except ValueError:
            log("failed")

    written = lines(capfdbinary)
    assert [line["exception"] for line in written] == ["ValueError"] * 2
    assert all("test_logs.py" in str(line["at"]) for line in written)
    assert "secret" not in json.dumps(written)


def test_a_flood_of_equal_warnings_is_sampled_and_counted(capfdbinary, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    logs.configure("info", "json")
    for number in range(100):
        structlog.get_logger().warning("a delivery failed", error="_PURGED", topic=number)
    structlog.get_logger().warning("a delivery failed", error="another")
    now[0] = logs.SAMPLING_SECONDS
    structlog.get_logger().warning("a delivery failed", error="_PURGED")

    written = lines(capfdbinary)
    assert len(written) == logs.SAMPLING_FIRST + 2
    assert written[-1]["left_out"] == 100 - logs.SAMPLING_FIRST


FIELDS = {"source": "default", "outcome": "accepted", "status": 200, "instanceId": "默认", "reason": None}


def test_the_line_of_a_request_is_what_structlog_would_write(capfdbinary):
    logs.configure("info", "json")
    structlog.get_logger().info("request", **FIELDS)
    logs.request(dict(FIELDS))

    plain, fast = lines(capfdbinary)
    stamps = [datetime.fromisoformat(str(line.pop("time"))) for line in (plain, fast)]
    assert plain == fast
    assert timedelta(0) <= stamps[1] - stamps[0] < timedelta(seconds=60)


def test_the_lines_of_requests_stand_in_their_order_among_the_others(capfdbinary):
    logs.configure("info", "json")
    logs.request({"number": 1})
    structlog.get_logger().info("other")
    logs.request({"number": 2})

    assert [(line["event"], line.get("number")) for line in lines(capfdbinary)] == [
        ("request", 1),
        ("other", None),
        ("request", 2),
    ]


def test_below_the_level_no_line_of_a_request_is_written(capfdbinary):
    logs.configure("warning", "json")
    logs.request({"number": 1})

    assert lines(capfdbinary) == []


def test_on_a_terminal_the_line_of_a_request_is_as_readable_as_the_others(capfdbinary):
    logs.configure("info", "console")
    logs.request({"number": 1})
    logs.flush()

    assert b"number" in capfdbinary.readouterr().err


async def test_lines_of_several_threads_are_each_written_once(capfdbinary):
    logs.configure("info", "json")

    def work(thread: int) -> None:
        for number in range(200):
            structlog.get_logger().info("other", thread=thread, number=number)

    working = [asyncio.create_task(asyncio.to_thread(work, thread)) for thread in range(3)]
    for number in range(200):
        logs.request({"thread": 3, "number": number})
        await asyncio.sleep(0)
    await asyncio.gather(*working)

    written = [(line["thread"], line["number"]) for line in lines(capfdbinary)]
    assert sorted(written) == [(thread, number) for thread in range(4) for number in range(200)]


def test_requests_are_never_sampled(capfdbinary):
    logs.configure("info", "json")
    for _ in range(50):
        structlog.get_logger().info("request")

    assert len(lines(capfdbinary)) == 50


def test_a_log_line_that_cannot_be_made_raises_nothing_and_is_counted(capfdbinary):
    logs.configure("info", "json")
    before = logs.dropped_lines()
    half = "\ud800"  # half a character, as the name of a file may hold one
    structlog.get_logger().info("a file", path=half)
    logs.request({"msgId": half})
    logging.getLogger("a library").warning("%d things", "no number")

    assert [line["event"] for line in lines(capfdbinary)] == ["%d things"]
    assert logs.dropped_lines() - before == 2


def written_to(number: int) -> logs.Sink:
    return logs.Sink(logs._Descriptor(number).write)


def test_lines_that_a_full_disk_does_not_take_are_dropped_and_counted():
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = written_to(full.fileno())
        for number in range(100):
            sink.add(b"%d" % number)
        sink.close(5)

    assert sink.dropped == 100
    assert "No space left on device" in sink.problem


def test_a_log_whose_reader_has_gone_raises_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    sink = written_to(writer)
    sink.add(b"line")
    sink.close(5)
    os.close(writer)

    assert (sink.dropped, "Broken pipe" in sink.problem) == (1, True)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_reader_that_stands_still_holds_nobody_up_and_what_it_reads_later_is_whole(blocks, monkeypatch):
    monkeypatch.setattr(logs, "STALLED_SECONDS", 0.1)
    reader, writer = os.pipe()
    os.set_blocking(writer, blocks)
    sink = written_to(writer)
    began = time.monotonic()
    for number in range(20_000):
        sink.add(b'{"number":%d,"more":"%s"}' % (number, b"x" * 1000))
    took = time.monotonic() - began
    problem, dropped = wait_until(lambda: sink.problem, lambda problem: "does not read" in problem), sink.dropped
    found = b""
    closing = threading.Thread(target=sink.close, args=(PATIENCE_SECONDS,))
    closing.start()
    os.set_blocking(reader, False)
    while closing.is_alive() or select.select([reader], [], [], 0.5)[0]:
        if select.select([reader], [], [], 0.1)[0]:
            found += os.read(reader, 1 << 20)
    os.close(reader)
    os.close(writer)

    numbers = [json.loads(line)["number"] for line in found.splitlines()]
    assert took < 10, "a write that blocks would not end"
    assert "does not read" in problem
    assert dropped > 0
    assert numbers == sorted(numbers)
    assert len(numbers) + sink.dropped == 20_000


def test_a_line_that_was_broken_off_does_not_run_into_the_next(tmp_path):
    """A disk that is full in the middle of a line."""
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        descriptor = logs._Descriptor(file.fileno())
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (7, before[1]))
            left, error = descriptor.write(b"one\ntwo two\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        descriptor.write(b"three\n")

    assert (left.count(b"\n"), error) == (1, "File too large")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
