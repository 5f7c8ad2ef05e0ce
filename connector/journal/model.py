"""The values that a journal stores, and the protocol of every journal.

A journal works with lanes: :meth:`Journal.store` a message, read the :meth:`Journal.first_rows` of lanes,
:meth:`Journal.remove` what is published. Within a lane, rows are in the order of ``sequence``.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import msgspec

from connector.errors import OutcomeUnknown, Unavailable
from connector.message.routes import DEAD_LETTERS
from connector.values import DedupKey, ProducibleRecord, Request

DEAD_LETTER_LANE: Final = "dead-letter/"
"""Prefix of the names of dead letters' lanes; each dead letter has a lane of its own."""

FULL: Final = "it is full (WEDA_JOURNAL__MAX_BYTES)"
"""The reason, for `refusal`, of a journal that has reached its limit."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Request, tuple[ProducibleRecord, ...]])


class Note(NamedTuple):
    """A named number in the journal.

    The note of an admission is the idempotency marker of a reprocessed dead letter. It is written in the transaction of
    the row, so that after a crash both exist or neither.
    """

    name: str
    value: int


class Admission(msgspec.Struct, array_like=True):
    """One message or dead letter to publish, with its position in the order.

    Attributes:
        sequence: The position, fixed at admission; not reused while the row is in the journal.
        lane: The queue that is kept in order: the instance's id; for a dead letter, a name of its own.
        request: The request; metrics use its source, and a dead letter is made from it if Kafka rejects the records.
        records: The records that Kafka has not acknowledged yet.
        note: A note to write in the transaction of the row, or None; it is not part of the row.
        dedup_key: The key that becomes safe in that transaction; set among replicas, where it is in the journal.
    """

    sequence: int
    lane: str
    request: Request
    records: tuple[ProducibleRecord, ...]
    note: Note | None = None
    dedup_key: DedupKey | None = None

    @classmethod
    def of_content(cls, sequence: int, lane: str, content: bytes) -> "Admission":
        """Decode a stored admission; see :attr:`content`.

        Raises:
            msgspec.MsgspecError: The content is not readable.
        """
        request, records = _DECODER.decode(content)
        return cls(sequence, lane, request, records)

    @property
    def content(self) -> bytes:
        """The bytes that a journal stores besides sequence and lane: request and open records, as MessagePack."""
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
        published: Accepted messages and dead letters that are in Kafka.
        dead_lettered: Accepted messages whose records Kafka rejected; the file's column is ``buried``.
        lost: Rows that could not be read from a damaged file.
    """

    accepted: int = 0
    published: int = 0
    dead_lettered: int = 0
    lost: int = 0

    def plus(self, *, accepted: int = 0, published: int = 0, dead_lettered: int = 0) -> "Account":
        """Return the account with the counts added."""
        return self._replace(
            accepted=self.accepted + accepted,
            published=self.published + published,
            dead_lettered=self.dead_lettered + dead_lettered,
        )

    def imbalance(self, waiting: int) -> int:
        """Return accepted minus all that is accounted for, given the rows in the journal; 0 if nothing is lost."""
        return self.accepted - self.published - self.dead_lettered - waiting

    def checksum(self, source: str) -> int:
        """Return the CRC-32 of the columns of the source's row."""
        return zlib.crc32("\x00".join((source, *map(str, self))).encode())


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a journal when it is opened.

    Attributes:
        lanes: Lane → number of its rows.
        sources: Source → number of its rows.
        next_sequence: The first free sequence; None if the journal is shared, and assigns sequences itself.
        accounts: Source → its ledger since the journal's creation.
    """

    lanes: dict[str, int]
    sources: dict[str, int]
    next_sequence: int | None
    accounts: dict[str, Account] = field(default_factory=dict)


class Oldest(NamedTuple):
    """The first row in the order: its position, and since when it waits (epoch milliseconds)."""

    sequence: int
    waits_since: int


def refusal(why: str) -> Unavailable:
    """Return the error of a journal that cannot take a message now; ``why`` is a clause."""
    return Unavailable(f"the journal cannot take the message: {why}", retry_after=5)


def outcome_unknown(error: Unavailable, why: str = "it may be published all the same") -> OutcomeUnknown:
    """Return the error for a message that was refused but may be published.

    Args:
        error: The refusal.
        why: Why that is not certain, as a clause; by default, as for a row whose commit failed but may be on disk.
    """
    return OutcomeUnknown(f"{error.message}; {why}", retry_after=error.retry_after)


@dataclass(frozen=True, slots=True)
class JournalState:
    """How much is in the journal, and since when.

    Attributes:
        size_bytes: Bytes in use by database and write-ahead log.
        oldest: The first row in the order, or None if the journal is empty.
    """

    size_bytes: int
    oldest: Oldest | None


class Journal(Protocol):
    """A durable, ordered, bounded store of admissions."""

    @property
    def lost_reason(self) -> str:
        """Why an open file is no longer the one at its path, and what to do; empty if it is, or if there is no file."""

    async def open(self) -> Contents:
        """Take ownership, and return the contents."""

    async def close(self) -> None:
        """Finish pending calls and give up ownership."""

    async def store(self, admission: Admission) -> None:
        """Add a row; returns when it is on disk.

        Raises:
            Unavailable: The journal is full or failing, and the row is not kept.
            OutcomeUnknown: The commit failed; after a kill the row may still be in the journal.
        """

    async def remove(self, sequence: int) -> None:
        """Remove a row; returns when the removal is on disk, however long the disk fails.

        Raises:
            Unavailable: The journal has failed for good; its next owner publishes the row again.
        """

    async def amend(self, admission: Admission) -> None:
        """Replace the row of the same sequence, if it exists, by one with other records or by its dead letter.

        Raises:
            Unavailable: The journal has failed for good; its next owner publishes the row as it was.
        """

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """Return the first rows of the lanes that follow a lane in name order.

        Args:
            after: The lane to begin behind.
            lanes: How many lanes to read; fewer are returned at the end.
            depth: How many rows to read of each lane.
            skip: Lanes to leave out.
        """

    async def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
        """Search the next ``limit`` rows behind a sequence for texts.

        Returns:
            The rows that contain one of the texts, and the sequence to continue behind, or None at the end.
        """

    async def state(self) -> JournalState:
        """Return how much is in the journal, and since when."""

    async def write_note(self, name: str, value: int) -> None:
        """Write a `Note` durably, such as the latest time that ids may have used."""

    async def read_note(self, name: str) -> int:
        """Return the number of a note, or 0."""

    async def read_notes(self, prefix: str) -> dict[str, int]:
        """Return the notes whose names have a prefix."""

    async def delete_notes(self, names: Sequence[str]) -> None:
        """Delete notes by name."""
