"""Logging: one JSON line an event on standard error, or readable lines on a terminal; never a message's content.

Whatever is logged on behalf of a request carries its ``request_id``, and its ``trace_id`` where it is traced.
Tracebacks are written as places, without the exceptions' own words: those can quote what a source sent.

No call here raises or waits, whatever has become of standard error: a thread of its own writes (`Sink`).
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
"""How long a line may wait for others, to be written together with them."""

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Lines that may wait to be written; more are dropped."""

FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for its last lines."""

STALLED_SECONDS: Final = 3.0
"""How long a write may take before the log's reader counts as one that does not read."""

_BLOCKED_MILLISECONDS: Final = 1000
_STANDARD_ERROR: Final = 2
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_REQUESTS: Final = structlog.get_logger()
_LOG: Final = structlog.get_logger()

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Id of the request on whose behalf the code runs; what it sets going later carries it on."""

TRACE_ID: Final[ContextVar[str | None]] = ContextVar("trace_id", default=None)
"""Id of its trace, or None."""


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
    global _sink, _writes_requests  # noqa: PLW0603 - as structlog's own configuration, they are the process's
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
        cache_logger_on_first_use=False,  # modules make theirs on import, before this configuration
    )
    logging.basicConfig(handlers=[_Bridge()], level=max(LEVELS[level], logging.WARNING), force=True)
    logging.captureWarnings(capture=True)


def take_uncaught() -> None:
    """Log what nobody catches, in threads and finalizers; Python itself would wait for standard error's reader."""
    sys.unraisablehook = lambda one: _uncaught(one.exc_type, one.exc_value, one.exc_traceback)
    threading.excepthook = lambda one: _uncaught(one.exc_type, one.exc_value, one.exc_traceback)


def request(line: dict[str, Any]) -> None:
    """Write the canonical line of one request, at level info.

    It goes around structlog's chain, which costs as much as everything else that is done for a message; what is written
    is the same.
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
    """Wait until every line so far is written or dropped, for at most this many seconds."""
    if _sink is not None:
        _sink.flush(seconds)


def dropped_lines() -> int:
    """How many lines this process could not write."""
    return 0 if _sink is None else _sink.dropped


def problem() -> str:
    """Why lines are dropped now, and what to do; nothing while they are written."""
    return "" if _sink is None else _sink.problem


def _now() -> str:
    """The time as structlog's stamp writes it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


class Sink:
    """Lines on their way to a file: adding one neither waits nor raises; a thread writes them.

    The file may be on a full disk, or a pipe that nobody reads. What does not fit into the bound meanwhile, or cannot
    be written, is dropped and counted.

    Args:
        write: Writes bytes, however long that takes; returns what it could not write, and why.
    """

    def __init__(self, write: Callable[[bytes], tuple[bytes, str]]) -> None:
        self._write = write
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._bytes = 0  # since lines were taken last; threads that add at once may miscount by a line
        self._not_taken = 0
        self._unwritten = 0
        self._reported = 0
        self._error = ""
        self._writing_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def add(self, line: bytes) -> None:
        """Write a line soon: at once if none was written within `LINES_SECONDS`."""
        if self._bytes > MAX_WAITING_BYTES:
            self._not_taken += 1
            return
        self._bytes += len(line)
        self._lines.put(line)  # the one queue that may be used by what interrupts its own `put`, a finalizer

    def drop(self) -> None:
        """Count a line that could not be made."""
        self._not_taken += 1

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._not_taken + self._unwritten

    @property
    def problem(self) -> str:
        """Why lines are dropped now, and what to do."""
        since = self._writing_since
        if since is not None and time.monotonic() - since > STALLED_SECONDS:
            return "the reader of standard error does not read: lines of the log are dropped; restart the log's reader"
        return f"standard error cannot be written ({self._error}): lines of the log are dropped" if self._error else ""

    def flush(self, seconds: float) -> None:
        """Wait until what was added is written or dropped, for at most this many seconds."""
        done = threading.Event()
        self._lines.put(done)
        done.wait(seconds)

    def close(self, seconds: float) -> None:
        """Write what is queued, and end the thread."""
        self._lines.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        """The thread: take what is there, write it, rest, so that under load many lines are one write."""
        while True:
            taken = [self._lines.get()]
            self._bytes = 0
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._lines.get_nowait())
            self._write_down([one for one in taken if isinstance(one, bytes)])
            for one in taken:
                if isinstance(one, threading.Event):
                    one.set()
            if None in taken:
                return
            time.sleep(LINES_SECONDS)

    def _write_down(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self._writing_since = time.monotonic()
        try:
            left, self._error = self._write(b"\n".join((*lines, b"")))
            self._unwritten += left.count(b"\n")
        except Exception as error:  # noqa: BLE001 - without this thread there would be no log
            self._error = type(error).__name__
            self._unwritten += len(lines)
        self._writing_since = None
        if not self._error and self.dropped > self._reported:
            count, self._reported = self.dropped - self._reported, self.dropped
            _LOG.warning("lines of the log were dropped", lines=count)


def _writer_to(file: Any) -> Callable[[bytes], tuple[bytes, str]]:
    """What writes to a stream: past its buffer where it is the process's own, else as the stream does it."""
    if isinstance(file, io.TextIOWrapper) and file.fileno() == _STANDARD_ERROR:
        return _Descriptor(_STANDARD_ERROR).write
    return partial(_write_stream, file)


class _Descriptor:
    """Writes to a file descriptor, also one that says that it would block."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._is_torn = False

    def write(self, text: bytes) -> tuple[bytes, str]:
        """Write; a line that was broken off before is ended first."""
        whole = b"\n" + text if self._is_torn else text
        left = memoryview(whole)
        try:
            while left:
                left = left[self._some(left) :]
        except OSError as error:
            written = len(whole) - len(left)
            self._is_torn = self._is_torn if not written else whole[written - 1] != ord("\n")
            return bytes(left)[-len(text) :], error.strerror or type(error).__name__
        self._is_torn = False
        return b"", ""

    def _some(self, left: memoryview) -> int:
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
    """What structlog hands rendered lines to."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, line: bytes | str) -> None:
        """Write a line."""
        self._sink.add(line.encode(errors="backslashreplace") if isinstance(line, str) else line)

    debug = info = warning = error = critical = log = msg


def _never_raising(level: int) -> type[Any]:
    """Structlog's filtering logger; a line that cannot be made is dropped and counted."""

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
    """Hands the standard library's log records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's words that do not fit its arguments
            text = str(record.msg)
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, text, logger=record.name, exc_info=record.exc_info)


class _Sampling:
    """Lets the first few of equal warnings through in a while, then one a while with the number of those left out.

    Equal are warnings with the same event and the same error. What libraries log comes with the name of their logger,
    and with values in its text: there the same logger and the same first word are enough.
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
        if len(self._seen) >= _MAX_KEYS:
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
        if isinstance(value, str):
            event[name] = escaped(value)
    return event


def _render(_logger: Any, _method: str, event: EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


_sink: Sink | None = None
"""Where lines go once the log is configured."""

_writes_requests = False
"""Whether the lines of requests go there straight."""
