"""Logging: one JSON line per event on standard error, or readable lines on a terminal; never a message's content.

Lines that are logged on behalf of a request carry its ``request_id``, and its ``trace_id`` if it is traced. Tracebacks
are logged as file, line and function, without the exceptions' texts, which can quote what a source sent.

No call here raises or blocks, whatever the state of standard error: a thread of its own writes (`Sink`).
"""

import atexit
import contextlib
import io
import logging
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from connector.text import escaped

SAMPLING_SECONDS: Final = 10.0
SAMPLING_FIRST: Final = 5
_MAX_KEYS: Final = 1_000
LINES_SECONDS: Final = 0.1
"""How long a line may wait to be written together with others."""

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of lines that wait to be written; further lines are dropped."""

FLUSH_SECONDS: Final = 1.0
"""How long the process waits at its end for its last lines."""

STALLED_SECONDS: Final = 3.0
"""How long a write may take before the log's reader counts as stalled."""

_BLOCKED_MILLISECONDS: Final = 1000
_STANDARD_ERROR: Final = 2
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_REQUESTS: Final = structlog.get_logger()
_LOG: Final = structlog.get_logger()

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Id of the request on whose behalf the code runs; tasks and callbacks that the code schedules inherit it."""

TRACE_ID: Final[ContextVar[str | None]] = ContextVar("trace_id", default=None)
"""Id of the request's trace, or None."""


def configure(level: str, log_format: str | None) -> None:
    """Set up structlog, and pass the libraries' log records through it.

    Args:
        level: One of :data:`LEVELS`.
        log_format: ``json`` or ``console``; None means console on a terminal, and JSON elsewhere.
    """
    is_json = log_format == "json" or (log_format is None and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _places,
        _identified,
        _Sampling(),
    ]
    global _sink, _writes_requests  # noqa: PLW0603 - one per process, like structlog's own configuration
    if _sink is None:
        atexit.register(flush)
    else:
        _sink.close(FLUSH_SECONDS)
    _sink = sink = Sink(_writer_to(sys.stderr))
    _writes_requests = is_json and LEVELS[level] <= LEVELS["info"]
    renderer: Any = _render if is_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, *([] if is_json else [_printable]), renderer],
        wrapper_class=_never_raising(LEVELS[level]),
        logger_factory=lambda *_: _Logger(sink),
        cache_logger_on_first_use=False,  # modules make their loggers on import, before this configuration
    )
    logging.basicConfig(handlers=[_Bridge()], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(capture=True)


def take_uncaught() -> None:
    """Log exceptions that nobody catches in threads and finalizers.

    Python itself would write them to standard error, and block if nobody reads it.
    """
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def request(line: dict[str, Any]) -> None:
    """Write the line of a request, at level info.

    It bypasses structlog's processors, which cost as much as all other work for a message; the line is the same.
    """
    if _sink is None or not _writes_requests:
        _REQUESTS.info("request", **line)
        return
    line["event"] = "request"
    line["level"] = "info"
    line["time"] = _now()
    try:
        _sink.add(msgspec.json.encode(line))
    except Exception:  # noqa: BLE001 - a line that cannot be made must not fail its message
        _sink.drop()


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait until all lines so far are written or dropped, for at most this many seconds."""
    if _sink is not None:
        _sink.flush(seconds)


def dropped_lines() -> int:
    """How many lines this process could not write."""
    return 0 if _sink is None else _sink.dropped


def problem() -> str:
    """Why lines are being dropped, and what to do; empty while they are written."""
    return "" if _sink is None else _sink.problem


def _now() -> str:
    """The time in the format of structlog's time stamps."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06}Z"


# Formatting a date is slow, and thousands of lines have the same second.
@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


class Sink:
    """Writes lines to a file on a thread of its own, so that adding a line neither blocks nor raises.

    The file may be on a full disk, or a pipe that nobody reads. Lines that exceed `MAX_WAITING_BYTES` meanwhile, or
    cannot be written, are dropped and counted.

    Args:
        write: Writes bytes, however long that takes; returns the bytes that it could not write, and why.
    """

    def __init__(self, write: Callable[[bytes], tuple[bytes, str]]) -> None:
        self._write = write
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._bytes = 0  # added since lines were last taken; threads that add at the same time may miscount by a line
        self._not_taken = 0
        self._unwritten = 0
        self._reported = 0
        self._error = ""
        self._writing_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def add(self, line: bytes) -> None:
        """Queue a line; it is written immediately if none was written within the last `LINES_SECONDS`."""
        if self._bytes > MAX_WAITING_BYTES:
            self._not_taken += 1
            return
        self._bytes += len(line)
        # `SimpleQueue.put` is reentrant: a finalizer that interrupts it may log, too. `Queue.put` would deadlock.
        self._lines.put(line)

    def drop(self) -> None:
        """Count a line that could not be rendered."""
        self._not_taken += 1

    @property
    def dropped(self) -> int:
        """The number of lines that were not written."""
        return self._not_taken + self._unwritten

    @property
    def problem(self) -> str:
        """Why lines are being dropped, and what to do; empty while they are written."""
        since = self._writing_since
        if since is not None and time.monotonic() - since > STALLED_SECONDS:
            return "the reader of standard error does not read: lines of the log are dropped; restart the log's reader"
        return f"standard error cannot be written ({self._error}): lines of the log are dropped" if self._error else ""

    def flush(self, seconds: float) -> None:
        """Wait until all added lines are written or dropped, for at most this many seconds."""
        done = threading.Event()
        self._lines.put(done)
        done.wait(seconds)

    def close(self, seconds: float) -> None:
        """Write the queued lines, and end the thread."""
        self._lines.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        """Write queued lines on the thread, with a pause after each write, so that many lines share a write."""
        while True:
            entries = [self._lines.get()]
            self._bytes = 0
            with contextlib.suppress(queue.Empty):
                while True:
                    entries.append(self._lines.get_nowait())
            self._write_lines([entry for entry in entries if isinstance(entry, bytes)])
            for entry in entries:
                if isinstance(entry, threading.Event):
                    entry.set()
            if None in entries:
                return
            time.sleep(LINES_SECONDS)

    def _write_lines(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self._writing_since = time.monotonic()
        try:
            left, self._error = self._write(b"\n".join((*lines, b"")))
            self._unwritten += left.count(b"\n")
        except Exception as error:  # noqa: BLE001 - without this thread there is no log
            self._error = type(error).__name__
            self._unwritten += len(lines)
        self._writing_since = None
        if not self._error and self.dropped > self._reported:
            count, self._reported = self.dropped - self._reported, self.dropped
            _LOG.warning("lines of the log were dropped", lines=count)


def _writer_to(file: Any) -> Callable[[bytes], tuple[bytes, str]]:
    """A function that writes to a stream: past its buffer if it is the process's standard error, else with its `write`.

    A buffer would keep lines that could not be written, and write them again later.
    """
    if isinstance(file, io.TextIOWrapper) and file.fileno() == _STANDARD_ERROR:
        return _Descriptor(_STANDARD_ERROR).write
    return partial(_write_stream, file)


class _Descriptor:
    """Writes to a file descriptor, even if it is in non-blocking mode."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_torn = False

    def write(self, text: bytes) -> tuple[bytes, str]:
        """Write text; end a line that an earlier write has broken off first."""
        content = b"\n" + text if self._is_torn else text
        left = memoryview(content)
        try:
            while left:
                left = left[self._write_some(left) :]
        except OSError as error:
            written = len(content) - len(left)
            self._is_torn = self._is_torn if not written else content[written - 1] != ord("\n")
            return bytes(left)[-len(text) :], error.strerror or type(error).__name__
        self._is_torn = False
        return b"", ""

    def _write_some(self, left: memoryview) -> int:
        try:
            return os.write(self._number, left)
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(self._number, select.POLLOUT)
            waiting.poll(_BLOCKED_MILLISECONDS)
            return 0


def _write_stream(file: Any, text: bytes) -> tuple[bytes, str]:
    try:
        file.write(text.decode(errors="backslashreplace"))
        file.flush()
    except (OSError, ValueError) as error:
        return text, getattr(error, "strerror", None) or type(error).__name__
    return b"", ""


class _Logger:
    """The logger to which structlog passes rendered lines."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, line: bytes | str) -> None:
        """Write a line."""
        self._sink.add(line.encode(errors="backslashreplace") if isinstance(line, str) else line)

    debug = info = warning = error = critical = log = msg


def _never_raising(level: int) -> type[Any]:
    """Structlog's filtering logger, but a line that cannot be rendered is dropped and counted."""

    class Logger(structlog.make_filtering_bound_logger(level)):  # type: ignore[misc]  # made by a function
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **about: Any) -> Any:
            try:
                return super()._proxy_to_logger(method_name, event, **about)
            except Exception:  # noqa: BLE001 - the caller is often inside an except of its own
                if _sink is not None:
                    _sink.drop()
                return None

    return Logger


def _uncaught(kind: type[BaseException], error: BaseException | None, at: TracebackType | None) -> None:
    _LOG.error("an exception that nobody caught", exc_info=(kind, error, at))


class _Bridge(logging.Handler):
    """Passes log records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's format that does not fit its arguments
            text = str(record.msg)
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, text, logger=record.name, exc_info=record.exc_info)


class _Sampling:
    """Passes the first few of equal warnings in each period; the first of the next period has the number left out.

    Warnings are equal if they have the same event and the same error. Warnings of libraries have a logger's name, and
    values in their text; they are equal if they have the same logger and the same first word.
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
        if len(self._seen) >= _MAX_KEYS:  # texts that differ each time must not fill the memory
            self._seen.clear()
        self._seen[key] = (since, count + 1)
        if count >= SAMPLING_FIRST:
            raise structlog.DropEvent
        return event


def _identified(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for variable in (REQUEST_ID, TRACE_ID):
        value = variable.get()
        if value is not None:
            event.setdefault(variable.name, value)
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
    """Escape texts for a terminal: the ids that a source sends may contain control codes."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = escaped(value)
    return event


def _render(_logger: Any, _method: str, event: EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


_sink: Sink | None = None
"""The sink of all lines; None until the log is configured."""

_writes_requests = False
"""Whether lines of requests go directly to the sink, and not through structlog."""
