"""The ledger of a simulation: what was sent, and what was answered, one JSON object a line."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP call.

    Times are epoch seconds on a clock that never steps back within one run: ``sent_at`` was read before the call
    and ``answered_at`` after the whole answer, so A was answered before B was sent where A's is the smaller.
    ``message`` is the answer's, if any; ``error`` (connect, timeout, reset, stopped) is set where no answer came;
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
    """Appends entries to a file, each flushed as it is written; without a path it writes nothing.

    Raises ``OSError`` where the file cannot be written.
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
            self._file.flush()
