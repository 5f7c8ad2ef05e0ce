"""The log: one line an event, nothing of what a source sent, and no floods."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from connector import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(capfdbinary) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]


def test_an_event_is_one_json_line(capfdbinary):
    logs.configure("info", "json")
    structlog.get_logger().info("request", source="默认", code=0)

    (line,) = lines(capfdbinary)
    assert (line["event"], line["source"], line["code"], line["level"]) == ("request", "默认", 0, "info")


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


def test_requests_are_never_sampled(capfdbinary):
    logs.configure("info", "json")
    for _ in range(50):
        structlog.get_logger().info("request")

    assert len(lines(capfdbinary)) == 50
