"""The log: one line an event, nothing of what a source sent, and no floods."""

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import structlog

from connector import logs


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


TOLD = {"source": "default", "outcome": "accepted", "status": 200, "instanceId": "默认", "reason": None}


def test_the_line_of_a_request_is_what_structlog_would_write(capfdbinary):
    logs.configure("info", "json")
    structlog.get_logger().info("request", **TOLD)
    logs.request(dict(TOLD))

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
