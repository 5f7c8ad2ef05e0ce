"""Logging: one JSON line an event on standard error, or readable lines on a terminal; never a message's content.

Whatever is logged on behalf of a request carries its ``request_id``, and its ``trace_id`` where it is traced.
Tracebacks are written as places, without the exceptions' own words: those can quote what a source sent.
"""

import asyncio
import contextlib
import logging
import sys
import time
import traceback
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor

SAMPLING_SECONDS: Final = 10.0
SAMPLING_FIRST: Final = 5
_MOST_KEYS: Final = 1_000
LINES_SECONDS: Final = 0.1
"""How long the line of a request may wait for others, to be written together with them."""

_MOST_LINES: Final = 256
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_REQUESTS: Final = structlog.get_logger("connector.receiver")

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Id of the request on whose behalf the code runs; what it sets going later carries it on."""

TRACE_ID: Final[ContextVar[str | None]] = ContextVar("trace_id", default=None)
"""Id of its trace, where there is one."""


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
        _identified,
        _Sampling(),
    ]
    global _lines  # noqa: PLW0603 - as structlog's own configuration, it is the process's
    _lines = _Lines(sys.stderr.buffer) if is_json and LEVELS[level] <= LEVELS["info"] else None
    file: Any = sys.stderr.buffer if _lines is None else _lines
    factory: Any = structlog.BytesLoggerFactory(file) if is_json else structlog.PrintLoggerFactory(sys.stderr)
    renderer: Any = _render if is_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, *([] if is_json else [_printable]), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(capture=True)


def request(told: dict[str, Any]) -> None:
    """Write the canonical line of one request, at level info.

    It goes around structlog's chain, which costs as much as everything else that is done for a message; what is written
    is the same, at most `LINES_SECONDS` later.
    """
    if _lines is None:
        _REQUESTS.info("request", **told)
        return
    told["event"] = "request"
    told["level"] = "info"
    told["time"] = _now()
    _lines.add(msgspec.json.encode(told))


def _now() -> str:
    """The time as structlog's stamp writes it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


class _Lines:
    """A file of lines: those of requests are gathered for a moment, any other takes them along at once.

    Lines are added by the event loop, flushed by whichever thread logs: each line is one element, taken by one of them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: deque[bytes] = deque()
        self._is_due = False

    def add(self, line: bytes) -> None:
        """Write a line soon."""
        self._waiting.append(line + b"\n")
        if len(self._waiting) >= _MOST_LINES:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._flush_later()

    def write(self, line: bytes) -> None:
        """Write a line at the next `flush`; as structlog's loggers call it."""
        self._waiting.append(line)

    def flush(self) -> None:
        """Write what has gathered."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._waiting.popleft())
        self._file.write(b"".join(lines))
        self._file.flush()

    def _flush_later(self) -> None:
        try:
            asyncio.get_running_loop().call_later(LINES_SECONDS, self._flush_gathered)
        except RuntimeError:  # no event loop: nobody would come back
            self._flush_gathered()

    def _flush_gathered(self) -> None:
        self._is_due = False
        self.flush()


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


def _identified(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for about in (REQUEST_ID, TRACE_ID):
        known = about.get()
        if known is not None:
            event.setdefault(about.name, known)
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


def _printable(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Texts as a terminal may show them: what a source sent as its ids can hold codes that terminals obey."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in value)
    return event


def _render(_logger: Any, _method: str, event: EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


_lines: _Lines | None = None
"""Where the lines of requests go once JSON is configured; none else."""
