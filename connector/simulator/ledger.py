"""The ledger of a simulation: every message sent and its answers, as one JSON object a line."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP call.

    Times are epoch seconds on a clock that never steps back within one run. ``sent_at`` is read before the call and
    ``answered_at`` after the whole answer: A was answered before B was sent if A's ``answered_at`` is the smaller.
    ``message`` is the answer's, or None; ``error`` (connect, timeout, reset, stopped) says why no answer came;
    ``repeat`` marks the second sending of an accepted message; ``retry_after`` is in seconds.
    """

    sent_at: float
    answered_at: float | None = None
    status: int | None = None
    code: int | None = None
    message: str | None = None
    error: str | None = None
    retry_after: float | None = None
    repeat: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename={"instance_id": "instanceId", "msg_id": "msgId"}):
    """One message of the ledger; ``seq`` counts from 0 in its instance, ``outcome`` is a value of ``Outcome``."""

    instance_id: str
    seq: int
    msg_id: str
    outcome: str
    attempts: list[Attempt]
    message: dict[str, Any]


class Ledger:
    """Appends entries to a file, flushing each one; without a path it writes nothing.

    Raises ``OSError`` if the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("wb") if path else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def write(self, entry: Entry) -> None:
        """Append one line."""
        if self._file:
            self._file.write(msgspec.json.encode(entry) + b"\n")
            # A simulation may be killed, and what it has sent must be in the ledger then.
            self._file.flush()
