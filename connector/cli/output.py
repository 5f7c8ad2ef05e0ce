"""Standard output and standard error of every command: handles any encoding, broken pipes and full disks."""

import codecs
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from connector.errors import ConnectorError
from connector.text import visible

_JSON_ESCAPES: Final = "weda-connector-json"
_UTF_8: Final = "utf-8"


class StdoutClosed(Exception):
    """The reader of standard output is gone, as after ``| head``: the command ends without a message."""


class Unwritable(ConnectorError):
    """Standard output cannot be written."""

    stage = "output"


class _Output(io.TextIOWrapper):
    """Standard output; a write error ends the command with a message."""

    def write(self, text: str) -> int:
        """Write a text; an empty one touches nothing."""
        # Typer probes the stream with an empty text, which must not raise on a broken pipe.
        if text == "":
            return 0
        with self._translated():
            return super().write(text)

    def flush(self) -> None:
        """Write the buffer."""
        with self._translated():
            super().flush()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _silence(self)
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise StdoutClosed from None
        raise Unwritable(f"standard output cannot be written: {error.strerror}") from None


class _Errors(_Output):
    """Standard error; a write error is ignored, since there is nowhere to report it."""

    def _failed(self, error: OSError) -> None:
        pass


def prepare() -> None:
    """Replace sys.stdout and sys.stderr with streams that handle their errors."""
    sys.stdout = _prepared(sys.stdout, _Output)
    sys.stderr = _prepared(sys.stderr, _Errors)


def is_unicode() -> bool:
    """Whether standard output can encode every character."""
    return codecs.lookup(sys.stdout.encoding or _UTF_8).name == _UTF_8


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON, and flush it.

    Control characters are escaped on a terminal; characters that the encoding lacks are always escaped.
    """
    # ensure_ascii would escape all Chinese; the handler below escapes, as JSON does, only what cannot be encoded.
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if sys.stdout.isatty():
        text = visible(text)
    encoding = sys.stdout.encoding or _UTF_8
    print(text.encode(encoding, _JSON_ESCAPES).decode(encoding), flush=True)


def _prepared(stream: TextIO | None, kind: type[_Output]) -> TextIO:
    if stream is None:  # closed before the start, and not reopened
        return Path(os.devnull).open("w", encoding=_UTF_8)
    if not isinstance(stream, io.TextIOWrapper):  # replaced, such as by a test
        return stream
    # After `detach` the old stream cannot be asked any more.
    how = {"encoding": stream.encoding, "errors": "backslashreplace"}
    is_lines, is_through = stream.line_buffering, stream.write_through
    return kind(stream.detach(), **how, line_buffering=is_lines, write_through=is_through)


def _silence(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, so that the flush at exit does not fail again."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_JSON_ESCAPES, _escape)
