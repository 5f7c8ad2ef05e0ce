"""Kafka and the disk in memory, for tests: the connector's own, and those of code that builds on it.

`InMemoryPublisher` and `InMemoryJournal` replace `connector.kafka.publisher.KafkaPublisher` and
`connector.journal.sqlite.SqliteJournal`, and can be made to fail as those can: reports that fail or do not come, a
journal that is full. Both live on one event loop and keep nothing that outlives them.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from connector.errors import Unavailable
from connector.journal.model import Account, Admission, Contents, JournalState, Oldest
from connector.kafka.publisher import Failure, FailureKind, Failures
from connector.values import ProducibleRecord

TIMED_OUT: Final = Failure(FailureKind.UNCERTAIN, "_MSG_TIMED_OUT", "no report came in time")
"""A failure that leaves open whether the record is in Kafka."""

TOO_LARGE: Final = Failure(FailureKind.REFUSED, "MSG_SIZE_TOO_LARGE", "the topic takes no record of this size")
"""A failure that is the record's own fault."""

_CLOSED: Final = Failure(FailureKind.UNCERTAIN, "_CLOSED", "the publisher is closed")
_STOPPED: Final = Failure(FailureKind.UNCERTAIN, "_STOPPED", "the publisher was stopped")


@dataclass(frozen=True, slots=True)
class _Batch:
    """The records of one message, and what will be reported of them."""

    count: int
    report: Callable[[Failures], None]
    failure: Failure | None

    def notify(self) -> None:
        """Report on the event loop, later, as the protocol promises."""
        asyncio.get_running_loop().call_soon(self.report, (self.failure,) * self.count)


class InMemoryPublisher:
    """A publisher whose topics are a list.

    Attributes:
        published: What is in Kafka, in the order in which it got there.
        is_open: Whether records are taken now.
    """

    def __init__(self) -> None:
        self.published: list[ProducibleRecord] = []
        self.is_open = True
        self._failures: list[Failure] = []
        self._held: list[_Batch] | None = None

    def of(self, stream: str) -> list[ProducibleRecord]:
        """What is in Kafka of one stream."""
        return [record for record in self.published if record.stream == stream]

    def fail_next(self, count: int, failure: Failure = TIMED_OUT) -> None:
        """Report the next ``count`` messages as failed, every record of them; they do not get into Kafka."""
        self._failures += [failure] * count

    def hold(self) -> None:
        """Keep every report back from now on; what is published gets into Kafka all the same."""
        self._held = self._held or []

    def release(self) -> None:
        """Hand over what was held back, in order, and hold no more."""
        held, self._held = self._held or [], None
        for batch in held:
            batch.notify()

    def close(self) -> None:
        """Take no records until `reopen`: a producer that is being rebuilt."""
        self.is_open = False

    def reopen(self) -> None:
        """Take records again."""
        self.is_open = True

    def publish(self, records: Sequence[ProducibleRecord], report: Callable[[Failures], None]) -> None:
        """Publish the records of one message; see `connector.publisher.Publisher`."""
        failure = self._next_failure()
        if failure is None:
            self.published += records
        batch = _Batch(len(records), report, failure)
        if self._held is None or not self.is_open:
            batch.notify()
        else:
            self._held.append(batch)

    async def start(self) -> None:
        """Take records from now on."""
        self.is_open = True

    async def stop(self, deadline_seconds: float) -> None:  # noqa: ARG002 - memory needs no time to flush
        """Take no more records, and report as failed what is still held back: nobody knows that it is in Kafka."""
        self.is_open = False
        self._held = [replace(batch, failure=_STOPPED) for batch in self._held or []]
        self.release()
        await asyncio.sleep(0)

    def _next_failure(self) -> Failure | None:
        if not self.is_open:
            return _CLOSED
        return self._failures.pop(0) if self._failures else None


class InMemoryJournal:
    """A journal that is a dict; it can be closed and opened again, as after a restart.

    Args:
        rows: What an earlier run has left.

    Attributes:
        rows: Sequence → admission.
        accounts: The ledger of each source.
        is_full: While true, nothing more is admitted.
    """

    def __init__(self, rows: Iterable[Admission] = ()) -> None:
        self.rows = {row.sequence: row for row in rows}
        self.accounts: dict[str, Account] = {}
        self.is_full = False
        for row in self.rows.values():
            self._count(row.request.source, accepted=1)
        self._remembered: dict[str, int] = {}

    async def open(self) -> Contents:
        """Return what is there."""
        rows = self.rows.values()
        return Contents(
            lanes=_counted(row.lane for row in rows),
            sources=_counted(row.request.source for row in rows),
            next_sequence=max(self.rows, default=0) + 1,
            accounts=dict(self.accounts),
        )

    async def close(self) -> None:
        """Keep the rows for the next `open`."""

    async def admit(self, admission: Admission) -> None:
        """Keep a row.

        Raises:
            Unavailable: The journal is full.
        """
        await asyncio.sleep(0)
        if self.is_full:
            raise Unavailable(
                "the journal cannot take the message: it is full (WEDA_JOURNAL__MAX_BYTES)", retry_after=5
            )
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

    async def amend(self, admission: Admission) -> None:
        """Replace the row of the same sequence, if there is one."""
        await asyncio.sleep(0)
        before = self.rows.get(admission.sequence)
        if before is None:
            return
        self.rows[admission.sequence] = admission
        if before.lane != admission.lane:
            self._count(admission.request.source, accepted=1, buried=1)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """The first ``depth`` rows of the next ``lanes`` lanes in name order after a lane."""
        await asyncio.sleep(0)
        ordered = sorted((row for row in self.rows.values() if row.lane > after and row.lane not in skip), key=_place)
        by_lane = [list(rows) for _, rows in groupby(ordered, key=lambda row: row.lane)]
        return [rows[:depth] for rows in by_lane[:lanes]]

    async def state(self) -> JournalState:
        """Bytes of the records that wait, and since when the oldest does."""
        size = sum(record.size for row in self.rows.values() for record in row.records)
        first = self.rows[min(self.rows)] if self.rows else None
        return JournalState(size, None if first is None else Oldest(first.sequence, first.request.waits_since))

    async def add_direct(self, published: Mapping[str, int]) -> None:
        """Add what was published straight to the ledger."""
        for source, count in published.items():
            self._count(source, accepted=count, published=count)

    async def remember(self, name: str, value: int) -> None:
        """Keep a number."""
        self._remembered[name] = value

    async def recall(self, name: str) -> int:
        """A number that was kept, or 0."""
        return self._remembered.get(name, 0)

    async def recall_all(self, prefix: str) -> dict[str, int]:
        """Every number whose name starts so."""
        return {name: value for name, value in self._remembered.items() if name.startswith(prefix)}

    async def forget(self, names: Sequence[str]) -> None:
        """Keep these numbers no longer."""
        for name in names:
            self._remembered.pop(name, None)

    def _count(self, source: str, *, accepted: int = 0, published: int = 0, buried: int = 0) -> None:
        before = self.accounts.get(source, Account())
        self.accounts[source] = before.plus(accepted=accepted, published=published, buried=buried)


def _place(row: Admission) -> tuple[str, int]:
    return row.lane, row.sequence


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
