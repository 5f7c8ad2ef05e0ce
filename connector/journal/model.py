"""What a journal holds and what it can do: the values, and the protocol of every implementation.

The protocol is that of lanes: :meth:`Journal.admit` a message, read the :meth:`Journal.first_rows` of lanes,
:meth:`Journal.remove` what is published. Order within a lane is the order of ``sequence``.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import msgspec

from connector.errors import OutcomeUnknown, Unavailable
from connector.message.routes import DEAD_LETTERS
from connector.values import ProducibleRecord, Request

DEAD_LETTER_LANE: Final = "dead-letter/"
"""What the names of the lanes of dead letters start with: each has one of its own."""

FULL: Final = "it is full (WEDA_JOURNAL__MAX_BYTES)"
"""Why a journal with a bound takes nothing more; for `refusal`."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Request, tuple[ProducibleRecord, ...]])


class Note(NamedTuple):
    """A named number in the journal.

    That of an admission is written in the same transaction, so that both are there after a crash, or neither: the
    idempotency marker of a dead letter that is reprocessed.
    """

    name: str
    value: int


class Admission(msgspec.Struct, array_like=True):
    """One message (or dead letter) to be published, with its position in the order.

    Attributes:
        sequence: Its position, fixed at admission; not used twice while it is in the journal.
        lane: What is kept in order: the instance's id; of a dead letter, a name of its own.
        request: What was received: the metrics' source and, if Kafka rejects the records, the dead letter.
        records: The records whose streams are open: not yet acknowledged.
        note: What is kept together with the row when it is written; no part of the row.
    """

    sequence: int
    lane: str
    request: Request
    records: tuple[ProducibleRecord, ...]
    note: Note | None = None

    @classmethod
    def of_content(cls, sequence: int, lane: str, content: bytes) -> "Admission":
        """An admission as it was stored; see :attr:`content`.

        Raises:
            msgspec.MsgspecError: The content is not readable.
        """
        request, records = _DECODER.decode(content)
        return cls(sequence, lane, request, records)

    @property
    def content(self) -> bytes:
        """What a journal stores of it besides sequence and lane: MessagePack of request and open records."""
        return _ENCODER.encode((self.request, self.records))

    @property
    def is_dead_letter(self) -> bool:
        """Whether it is a dead letter rather than a message."""
        for record in self.records:  # noqa: SIM110 - for every message, and any() takes three times as long
            if record.stream == DEAD_LETTERS:
                return True
        return False


class Account(NamedTuple):
    """The ledger of one source since the journal's creation: accepted = published + dead-lettered + waiting (+ lost).

    Attributes:
        accepted: Messages and dead letters that were answered as accepted.
        published: How many of the accepted ones are in Kafka.
        dead_lettered: Accepted messages whose record Kafka rejected; the file's column is ``buried``.
        lost: Rows that could not be read back from a damaged file.
    """

    accepted: int = 0
    published: int = 0
    dead_lettered: int = 0
    lost: int = 0

    def plus(self, *, accepted: int = 0, published: int = 0, dead_lettered: int = 0) -> "Account":
        """The account after these many more of each."""
        return self._replace(
            accepted=self.accepted + accepted,
            published=self.published + published,
            dead_lettered=self.dead_lettered + dead_lettered,
        )

    def imbalance(self, waiting: int) -> int:
        """How far the two sides are apart, with so many rows in the journal: what is lost, and 0 if nothing is."""
        return self.accepted - self.published - self.dead_lettered - waiting

    def checksum(self, source: str) -> int:
        """CRC-32 of the columns of the source's row."""
        return zlib.crc32("\x00".join((source, *map(str, self))).encode())


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal held when it was opened.

    Attributes:
        lanes: Rows of each lane that has some.
        sources: Rows of each source that has some.
        next_sequence: The first sequence that is free; 0 where other connectors draw sequences from the same journal.
        accounts: The ledger of each source since the journal's creation.
    """

    lanes: dict[str, int]
    sources: dict[str, int]
    next_sequence: int
    accounts: dict[str, Account] = field(default_factory=dict)


class Oldest(NamedTuple):
    """The row that has waited longest: its position in the order, and since when in epoch milliseconds."""

    sequence: int
    waits_since: int


def refusal(why: str) -> Unavailable:
    """The error of a journal that takes nothing now, with the reason as a clause."""
    return Unavailable(f"the journal cannot take the message: {why}", retry_after=5)


def outcome_unknown(error: Unavailable) -> OutcomeUnknown:
    """The error of a row whose commit failed: it may have been committed all the same."""
    return OutcomeUnknown(f"{error.message}; it may be published all the same", retry_after=error.retry_after)


@dataclass(frozen=True, slots=True)
class JournalState:
    """How full the journal is and since when.

    Attributes:
        size_bytes: Bytes in use: database and write-ahead log.
        oldest: The first row in the order, or None where there is none.
        lost_reason: Why the file that is open is no longer the one at its path, and what to do; nothing while it is.
    """

    size_bytes: int
    oldest: Oldest | None
    lost_reason: str = ""


class Journal(Protocol):
    """A durable, ordered, bounded store of admissions."""

    async def open(self) -> Contents:
        """Take ownership, and return what is there."""

    async def close(self) -> None:
        """Finish what was asked and give up ownership."""

    async def admit(self, admission: Admission) -> None:
        """Return when the admission is on the disk.

        Raises:
            Unavailable: The journal is full or failing, and nothing of it is kept.
            OutcomeUnknown: Its commit failed; after a kill it may be in the journal all the same.
        """

    async def remove(self, sequence: int) -> None:
        """Remove a row; returns when its removal is on the disk, however long the disk fails.

        Raises:
            Unavailable: The journal has failed for good: its next owner publishes the row again.
        """

    async def amend(self, admission: Admission) -> None:
        """Replace the row of the same sequence, if there is one: fewer open streams, or a dead letter in its place.

        Raises:
            Unavailable: The journal has failed for good: its next owner publishes the row as it was.
        """

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """The first ``depth`` rows of each of the next ``lanes`` lanes in name order after a lane, fewer at the end.

        Lanes in ``skip`` are passed over.
        """

    async def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
        """Of the next ``limit`` rows behind a sequence, those that hold one of the texts.

        Returns:
            These, and the sequence to go on behind; None once there are no more rows.
        """

    async def state(self) -> JournalState:
        """How full the journal is and since when."""

    async def write_note(self, name: str, value: int) -> None:
        """Write a `Note` durably, such as the latest time that ids may have used."""

    async def read_note(self, name: str) -> int:
        """The number of a note, or 0."""

    async def read_notes(self, prefix: str) -> dict[str, int]:
        """Every note whose name starts so."""

    async def delete_notes(self, names: Sequence[str]) -> None:
        """Delete the notes of these names."""
