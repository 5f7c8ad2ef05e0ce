"""Logging: one JSON line an event on standard error, or readable lines on a terminal; never a message's content.

Tracebacks are written as places, without the exceptions' own words: those can quote what a source sent.
"""

import logging
import sys
import time
import traceback
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor

SAMPLING_SECONDS: Final = 10.0
SAMPLING_FIRST: Final = 5
_MOST_KEYS: Final = 1_000
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(level: str, log_format: str | None) -> None:
    """Set up structlog, and send what libraries log through it.

    Args:
        level: One of :data:`LEVELS`.
        log_format: ``json``, ``console``, or None: console on a terminal, JSON elsewhere.
    """
    is_json = log_format == "json" or (log_format is None and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _places,
        _Sampling(),
    ]
    factory: Any = (
        structlog.BytesLoggerFactory(sys.stderr.buffer) if is_json else structlog.PrintLoggerFactory(sys.stderr)
    )
    renderer: Any = _render if is_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(capture=True)


class _Bridge(logging.Handler):
    """Hands the standard library's log records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


class _Sampling:
    """Lets the first few of equal warnings through in a while, then one a while with the number of those left out.

    Equal are warnings of one logger with the same event (of libraries: the same first word) and the same error.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def __call__(self, _logger: Any, method: str, event: EventDict) -> EventDict:
        if method not in {"warning", "error"} and event.get("level") not in {"warning", "error"}:
            return event
        words = str(event.get("event", ""))
        key = (
            str(event.get("logger")),
            words.split(" ", maxsplit=1)[0] if "logger" in event else words,
            str(event.get("error")),
        )
        now = time.monotonic()
        since, count = self._seen.get(key, (now, 0))
        if now - since >= SAMPLING_SECONDS:
            self._seen.pop(key, None)
            since, count, left_out = now, 0, max(count - SAMPLING_FIRST, 0)
            if left_out:
                event["left_out"] = left_out
        if len(self._seen) >= _MOST_KEYS:
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        if count >= SAMPLING_FIRST:
            raise structlog.DropEvent
        return event


def _places(_logger: Any, _method: str, event: EventDict) -> EventDict:
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if exc_info and exc_info[0] is not None:
        event["exception"] = exc_info[0].__name__
        frames = traceback.extract_tb(exc_info[2])[-8:]
        event["at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _render(_logger: Any, _method: str, event: EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)
