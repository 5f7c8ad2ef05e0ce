"""Kafka and the journal in memory, and encoded records, for tests of the connector and of code that uses it.

`InMemoryPublisher` and `InMemoryJournal` replace `connector.kafka.publisher.KafkaPublisher` and
`connector.journal.sqlite.SqliteJournal`. Tests can make them fail in the same ways: reports fail or do not arrive, the
journal is full. Both belong to one event loop, and nothing outlives them.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import groupby
from typing import Any, Final

from fastavro import schemaless_writer

from connector.journal.model import FULL, Account, Admission, Contents, JournalState, Oldest, refusal
from connector.kafka.publisher import Failure, FailureKind, Failures
from connector.message.encoding import MAGIC, read
from connector.message.events import Event
from connector.message.schemas import Schema
from connector.values import IngestId, ProducibleRecord, Request

TIMED_OUT: Final = Failure(FailureKind.UNCERTAIN, "_MSG_TIMED_OUT", "no report came in time")
"""A failure after which the record may or may not be in Kafka."""

TOO_LARGE: Final = Failure(FailureKind.REJECTED, "MSG_SIZE_TOO_LARGE", "the topic takes no record of this size")
"""A failure that the record itself causes."""

_CLOSED: Final = Failure(FailureKind.UNCERTAIN, "_CLOSED", "the publisher is closed")
_STOPPED: Final = Failure(FailureKind.UNCERTAIN, "_STOPPED", "the publisher was stopped")


@dataclass(frozen=True, slots=True)
class _PendingMessage:
    """A published message whose delivery report is due: the callback, and the failure of each record."""

    report: Callable[[Failures], None]
    failures: Failures

    def notify(self) -> None:
        """Report on the event loop."""
        # Never within `publish`: the protocol promises that a report comes after the call.
        asyncio.get_running_loop().call_soon(self.report, self.failures)


def encode(schema: Schema, value: Mapping[str, Any]) -> bytes:
    """Encode a record in the single-object encoding, as the connector does without a registry.

    Raises:
        ValueError, TypeError: The value does not fit the schema.
    """
    out = BytesIO(MAGIC + schema.fingerprint)
    out.seek(0, 2)  # to the end: a new BytesIO writes over the bytes that it was given
    schemaless_writer(out, schema.parsed, value, strict=True, disable_tuple_notation=True)
    return out.getvalue()


def record_value(event: Event, schema: Schema, request: Request, ingest_id: IngestId) -> dict[str, Any]:
    """Encode an event's record and decode it as a consumer does; times are epoch milliseconds.

    Raises:
        Unconvertible: A field that the record does not have cannot be encoded in UTF-8.
    """
    return read(schema, event.encode(schema, b"", request, ingest_id))


class InMemoryPublisher:
    """A publisher whose topics are a list.

    Attributes:
        published: The records in Kafka, in the order of their arrival.
        is_open: Whether the publisher takes records.
    """

    def __init__(self) -> None:
        self.published: list[ProducibleRecord] = []
        self.is_open = True
        self._failures: list[tuple[Failure, str | None]] = []
        self._held: list[_PendingMessage] | None = None

    def of(self, stream: str) -> list[ProducibleRecord]:
        """Return the records of one stream that are in Kafka."""
        return [record for record in self.published if record.stream == stream]

    def fail_next(self, count: int, failure: Failure = TIMED_OUT, stream: str | None = None) -> None:
        """Report the next ``count`` messages as failed; their failed records do not get into Kafka.

        Args:
            count: The number of messages.
            failure: The reason.
            stream: The stream whose records fail; None: every record.
        """
        self._failures += [(failure, stream)] * count

    def hold(self) -> None:
        """Hold every report back from now on; records still get into Kafka."""
        self._held = self._held or []

    def release(self) -> None:
        """Hand over the reports that were held back, in order, and hold no more."""
        held, self._held = self._held or [], None
        for pending in held:
            pending.notify()

    def close(self) -> None:
        """Take no records until `reopen`, like a producer that is being rebuilt."""
        self.is_open = False

    def reopen(self) -> None:
        """Take records again."""
        self.is_open = True

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        """Publish the records of one message; see `connector.kafka.publisher.Publisher`."""
        failure, stream = self._next_failure()
        failures = tuple(failure if stream in {None, record.stream} else None for record in records)
        self.published += [record for record, failed in zip(records, failures, strict=True) if failed is None]
        pending = _PendingMessage(report, failures)
        # A publisher that takes no records fails at once: such a report is not a broker's, and cannot be delayed.
        if self._held is None or not self.is_open:
            pending.notify()
        else:
            self._held.append(pending)

    async def start(self) -> None:
        """Take records from now on."""
        self.is_open = True

    async def stop(self, deadline_seconds: float) -> None:  # noqa: ARG002 - memory needs no time to flush
        """Take no more records, and report as failed the messages whose reports are held back."""
        self.is_open = False
        # Their records are in Kafka, but without a report the caller cannot know that.
        self._held = [replace(pending, failures=(_STOPPED,) * len(pending.failures)) for pending in self._held or []]
        self.release()
        await asyncio.sleep(0)  # one iteration of the loop, in which the reports arrive

    def _next_failure(self) -> tuple[Failure | None, str | None]:
        if not self.is_open:
            return _CLOSED, None
        return self._failures.pop(0) if self._failures else (None, None)


class InMemoryJournal:
    """A journal that is a dict; it can be closed and opened again, as after a restart.

    Args:
        rows: The rows that an earlier run left.

    Attributes:
        rows: Sequence → admission.
        accounts: The ledger of each source.
        is_full: Whether `store` refuses every row.
    """

    def __init__(self, rows: Iterable[Admission] = ()) -> None:
        self.rows = {row.sequence: row for row in rows}
        self.accounts: dict[str, Account] = {}
        self.is_full = False
        for row in self.rows.values():
            self._count(row.request.source, accepted=1)
        self._remembered: dict[str, int] = {}

    async def open(self) -> Contents:
        """Return what the journal holds."""
        rows = self.rows.values()
        return Contents(
            lanes=_counted(row.lane for row in rows),
            sources=_counted(row.request.source for row in rows),
            next_sequence=max(self.rows, default=0) + 1,
            accounts=dict(self.accounts),
        )

    async def close(self) -> None:
        """Keep the rows for the next `open`."""

    @property
    def lost_reason(self) -> str:
        """Empty: there is no file."""
        return ""

    async def store(self, admission: Admission) -> None:
        """Keep a row.

        Raises:
            Unavailable: The journal is full.
        """
        # The real journal answers in a later iteration of the loop, and races show only if this one does too.
        await asyncio.sleep(0)
        if self.is_full:
            raise refusal(FULL)
        self.rows[admission.sequence] = admission
        if admission.note is not None:
            self._remembered[admission.note.name] = admission.note.value
        self._count(admission.request.source, accepted=1)

    async def remove(self, sequence: int) -> None:
        """Remove a row."""
        await asyncio.sleep(0)
        removed = self.rows.pop(sequence, None)
        if removed is not None:
            self._count(removed.request.source, published=1)

    async def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
        """Return those of the next rows that hold one of the texts, and the sequence to continue after, or None."""
        await asyncio.sleep(0)
        part = [self.rows[sequence] for sequence in sorted(self.rows) if sequence > after][:limit]
        matches = [row for row in part if any(text in row.content for text in texts)]
        return matches, part[-1].sequence if len(part) == limit else None

    async def amend(self, admission: Admission) -> None:
        """Replace the row of the same sequence, if there is one."""
        await asyncio.sleep(0)
        before = self.rows.get(admission.sequence)
        if before is None:
            return
        self.rows[admission.sequence] = admission
        if before.lane != admission.lane:
            self._count(admission.request.source, accepted=1, dead_lettered=1)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """Return the first ``depth`` rows of each of the next ``lanes`` lanes after a lane, in order of name."""
        await asyncio.sleep(0)
        ordered = sorted(
            (row for row in self.rows.values() if row.lane > after and row.lane not in skip), key=_lane_and_sequence
        )
        by_lane = [list(rows) for _, rows in groupby(ordered, key=lambda row: row.lane)]
        return [rows[:depth] for rows in by_lane[:lanes]]

    async def state(self) -> JournalState:
        """Return the bytes of the records that wait, and since when the oldest one does."""
        size = sum(record.size for row in self.rows.values() for record in row.records)
        first = self.rows[min(self.rows)] if self.rows else None
        return JournalState(size, None if first is None else Oldest(first.sequence, first.request.waits_since))

    async def add_direct(self, published: Mapping[str, int]) -> None:
        """Add messages that were published without the journal to the ledger."""
        for source, count in published.items():
            self._count(source, accepted=count, published=count)

    async def write_note(self, name: str, value: int) -> None:
        """Write a note."""
        self._remembered[name] = value

    async def read_note(self, name: str) -> int:
        """Return the number of a note, or 0."""
        return self._remembered.get(name, 0)

    async def read_notes(self, prefix: str) -> dict[str, int]:
        """Return every note whose name starts with a prefix."""
        return {name: value for name, value in self._remembered.items() if name.startswith(prefix)}

    async def delete_notes(self, names: Sequence[str]) -> None:
        """Delete the notes of these names."""
        for name in names:
            self._remembered.pop(name, None)

    def _count(self, source: str, *, accepted: int = 0, published: int = 0, dead_lettered: int = 0) -> None:
        before = self.accounts.get(source, Account())
        self.accounts[source] = before.plus(accepted=accepted, published=published, dead_lettered=dead_lettered)


def _lane_and_sequence(row: Admission) -> tuple[str, int]:
    return row.lane, row.sequence


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
