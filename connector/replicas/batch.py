"""A batch: requests of a replica that the database executes together, and their outcomes.

A batch is one statement and one transaction, a call of a database function (``migrations/``), so no transaction ever
waits for a network.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple

from connector.delivery.duplicates import DedupState
from connector.errors import Unavailable
from connector.journal.model import Admission, outcome_unknown, refusal
from connector.values import DedupKey

APPLY: Final = """
    SELECT refused, has_more, dedup_states, sequences, is_owner, rows_in_lane FROM weda_apply_batch(
        replica => %(replica)s,
        batch_number => %(batch_number)s,
        dedup_window => make_interval(secs => %(dedup_window)s),
        safe_keys => %(safe_keys)s::bytea[],
        safe_fingerprints => %(safe_fingerprints)s::bytea[],
        void_keys => %(void_keys)s::bytea[],
        void_fingerprints => %(void_fingerprints)s::bytea[],
        released_lanes => %(released_lanes)s::bytea[],
        removed_sequences => %(removed_sequences)s::bigint[],
        amended_sequences => %(amended_sequences)s::bigint[],
        amended_lanes => %(amended_lanes)s::bytea[],
        amended_contents => %(amended_contents)s::bytea[],
        stored_sequences => %(stored_sequences)s::bigint[],
        stored_lanes => %(stored_lanes)s::bytea[],
        stored_id_keys => %(stored_id_keys)s::bytea[],
        stored_content_keys => %(stored_content_keys)s::bytea[],
        stored_fingerprints => %(stored_fingerprints)s::bytea[],
        stored_sources => %(stored_sources)s::text[],
        stored_waits_since => %(stored_waits_since)s::bigint[],
        stored_contents => %(stored_contents)s::bytea[],
        note_names => %(note_names)s::text[],
        note_values => %(note_values)s::bigint[],
        claimed_lanes => %(claimed_lanes)s::bytea[],
        claimed_id_keys => %(claimed_id_keys)s::bytea[],
        claimed_content_keys => %(claimed_content_keys)s::bytea[],
        claimed_fingerprints => %(claimed_fingerprints)s::bytea[]
    )
"""
"""The statement of every batch; :meth:`Batch.parameters` returns its parameters, :class:`BatchResult` is its row."""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The database's answer to a claim.

    Attributes:
        dedup_state: The state of the message's dedup key: new, in conflict, pending at another replica, or safe.
        sequence: The message's position in the order.
        is_owner: Whether this replica owns the lane.
        lane_has_rows: Whether the lane has rows, all of them before the message.
    """

    dedup_state: DedupState
    sequence: int
    is_owner: bool
    lane_has_rows: bool


class BatchResult(NamedTuple):
    """The row that the database returns for a batch.

    Attributes:
        refused: Rows that were not stored because another replica owns their lane now, by position in the batch; SQL
            counts from 1.
        has_more: Whether a lane of the batch that this replica owns has rows left.
        dedup_states: The state of each claim's dedup key, in the order of the claims.
        sequences: The position of each claim.
        is_owner: Whether this replica owns each claim's lane, or None if the claim took no lane.
        rows_in_lane: The number of rows in each claim's lane, all of them before the claim, or None as well.
    """

    refused: list[int]
    has_more: bool
    dedup_states: list[str]
    sequences: list[int]
    is_owner: list[bool | None]
    rows_in_lane: list[int | None]


@dataclass(slots=True)
class Claim:
    """A request for a message's position in the order."""

    lane: str
    dedup_key: DedupKey | None
    result: asyncio.Future[ClaimResult]


@dataclass(slots=True)
class NewRow:
    """A row to store: under the sequence that was claimed, or `is_appended` to another replica's lane."""

    admission: Admission
    content: bytes
    is_appended: bool
    done: asyncio.Future[None]


@dataclass(slots=True)
class Change:
    """The removal of a row, or the admission that replaces it, and the futures of those who wait for it."""

    admission: Admission | None = None
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def complete(self, error: Unavailable | None) -> None:
        """Complete the futures, with an error if the change failed."""
        for done in self.waiting:
            _complete(done, error)


@dataclass(slots=True)
class Batch:
    """Requests to execute together.

    Attributes:
        claims: Positions to claim.
        rows: Rows to store.
        removals: Rows to remove, by sequence.
        amends: Rows to replace, by sequence.
        safe: Dedup keys of published messages.
        void: Dedup keys of refused messages.
        released: Lanes to release.
    """

    claims: list[Claim] = field(default_factory=list)
    rows: list[NewRow] = field(default_factory=list)
    removals: dict[int, Change] = field(default_factory=dict)
    amends: dict[int, Change] = field(default_factory=dict)
    safe: list[DedupKey] = field(default_factory=list)
    void: list[DedupKey] = field(default_factory=list)
    released: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to execute."""
        return not (self.claims or self.rows or self.removals or self.amends or self.safe or self.void or self.released)

    def split(self, most: int, most_bytes: int) -> tuple["Batch", "Batch"]:
        """Return what fits into one statement, and the rest, in order.

        Args:
            most: Maximum requests of each kind.
            most_bytes: Maximum bytes of the rows, and of those that replace others; one always fits.
        """
        rows = _that_fit([len(row.content) for row in self.rows[:most]], most_bytes)
        # A change comes after the row itself.
        late = {row.admission.sequence for row in self.rows[rows:]}
        # Voiding a key comes before a new claim of it, so that claims wait until no key is left to void.
        claims = most if len(self.void) <= most else 0
        removals, later_removals = _divided(self.removals, late, most, most_bytes)
        amends, later_amends = _divided(self.amends, late, most, most_bytes)
        released = [*self.released]
        first = Batch(
            self.claims[:claims],
            self.rows[:rows],
            removals,
            amends,
            self.safe[:most],
            self.void[:most],
            set(released[:most]),
        )
        rest = Batch(
            self.claims[claims:],
            self.rows[rows:],
            later_removals,
            later_amends,
            self.safe[most:],
            self.void[most:],
            set(released[most:]),
        )
        return first, rest

    def followed_by(self, later: "Batch") -> "Batch":
        """Return this batch with another one appended, in order."""
        return Batch(
            claims=[*self.claims, *later.claims],
            rows=[*self.rows, *later.rows],
            removals=_both(self.removals, later.removals),
            amends=_both(self.amends, later.amends),
            safe=[*self.safe, *later.safe],
            void=[*self.void, *later.void],
            released=self.released | later.released,
        )

    def parameters(self, replica: uuid.UUID, number: int, dedup_window_seconds: float) -> dict[str, Any]:
        """Return the parameters of `APPLY`.

        Args:
            replica: The replica's id.
            number: The batch's number, higher than that of every earlier batch.
            dedup_window_seconds: How long a dedup key is remembered.
        """
        rows, claims = self.rows, self.claims
        safe, void = [*_possible_keys(self.safe)], [*_possible_keys(self.void)]
        amends = [
            (sequence, change.admission) for sequence, change in self.amends.items() if change.admission is not None
        ]
        notes = [row.admission.note for row in rows]
        notes = notes if any(notes) else []  # the function skips the insert of notes if there are none
        return {
            "replica": replica,
            "batch_number": number,
            "dedup_window": dedup_window_seconds,
            "safe_keys": [key for key, _ in safe],
            "safe_fingerprints": [fingerprint for _, fingerprint in safe],
            "void_keys": [key for key, _ in void],
            "void_fingerprints": [fingerprint for _, fingerprint in void],
            "released_lanes": [lane.encode() for lane in self.released],
            "removed_sequences": [*self.removals],
            "amended_sequences": [sequence for sequence, _ in amends],
            "amended_lanes": [admission.lane.encode() for _, admission in amends],
            "amended_contents": [admission.content for _, admission in amends],
            "stored_sequences": [None if row.is_appended else row.admission.sequence for row in rows],
            "stored_lanes": [row.admission.lane.encode() for row in rows],
            **_dedup_columns("stored", [row.admission.dedup_key for row in rows]),
            "stored_sources": [row.admission.request.source for row in rows],
            "stored_waits_since": [row.admission.request.waits_since for row in rows],
            "stored_contents": [row.content for row in rows],
            "note_names": [None if note is None else note.name for note in notes],
            "note_values": [None if note is None else note.value for note in notes],
            "claimed_lanes": [claim.lane.encode() for claim in claims],
            **_dedup_columns("claimed", [claim.dedup_key for claim in claims]),
        }

    def complete(self, result: BatchResult) -> None:
        """Complete all requests of a committed batch."""
        for change in (*self.removals.values(), *self.amends.values()):
            change.complete(None)
        for number, row in enumerate(self.rows, start=1):
            is_refused = number in result.refused
            _complete(row.done, refusal("its lane is another replica's now") if is_refused else None)
        for claim, dedup_state, sequence, is_owner, rows_in_lane in zip(
            self.claims, result.dedup_states, result.sequences, result.is_owner, result.rows_in_lane, strict=True
        ):
            _complete(claim.result, ClaimResult(DedupState(dedup_state), sequence, bool(is_owner), bool(rows_in_lane)))

    def fail(self, error: Unavailable) -> None:
        """Fail all requests of a batch that is not executed again, rolled back or of unknown outcome."""
        self.fail_claims(error)
        for row in self.rows:
            _complete(row.done, outcome_unknown(error))
        for change in (*self.removals.values(), *self.amends.values()):
            change.complete(error)

    def fail_claims(self, error: Unavailable) -> None:
        """Refuse the claims, so that no source waits for a database that does not answer."""
        claims, self.claims = self.claims, []
        for claim in claims:
            _complete(claim.result, error)

    def fail_non_idempotent(self, error: Unavailable) -> None:
        """Refuse the requests that must not be executed twice; the others do no harm if they were executed already."""
        # If the claims were committed, nothing would ever settle their keys, and other replicas would wait for them.
        self.void += [claim.dedup_key for claim in self.claims if claim.dedup_key is not None]
        self.fail_claims(error)
        # A row under a claimed sequence is stored once, however often it is sent. An appended row draws a new sequence
        # each time, and would be published twice.
        appended = [row for row in self.rows if row.is_appended]
        self.rows = [row for row in self.rows if not row.is_appended]
        for row in appended:
            _complete(row.done, outcome_unknown(error))


def _that_fit(sizes: Sequence[int], most_bytes: int) -> int:
    """How many of these sizes together are no more bytes than the maximum; at least one if there is one."""
    return sum(number == 0 or size <= most_bytes for number, size in enumerate(accumulate(sizes)))


def _divided(
    changes: Mapping[int, Change], late: Collection[int], most: int, most_bytes: int
) -> tuple[dict[int, Change], dict[int, Change]]:
    """Divide changes into those of the next statement, without the late ones, and the rest; both in order."""
    ready = [(sequence, change) for sequence, change in changes.items() if sequence not in late][:most]
    sizes = [0 if change.admission is None else len(change.admission.content) for _, change in ready]
    first = dict(ready[: _that_fit(sizes, most_bytes)])
    return first, {sequence: change for sequence, change in changes.items() if sequence not in first}


def _both(earlier: Mapping[int, Change], later: Mapping[int, Change]) -> dict[int, Change]:
    """Merge changes, keeping the latest change of each row."""
    # Who waits for an earlier change waits for the later one: it includes the earlier.
    changes = dict(earlier)
    for sequence, change in later.items():
        before = changes.get(sequence, Change())
        changes[sequence] = Change(change.admission, [*before.waiting, *change.waiting])
    return changes


def _content_key(dedup_key: DedupKey) -> bytes:
    """Return the key under which a second content of the same id is stored."""
    return hashlib.blake2b(dedup_key[0] + dedup_key[1], digest_size=16).digest()


def _possible_keys(dedup_keys: Sequence[DedupKey]) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and fingerprint of every entry that the database may have, under the id or under id and content."""
    # Which of the two was claimed is known to the database only; the fingerprint keeps the other one untouched.
    for dedup_key in dedup_keys:
        yield dedup_key[0], dedup_key[1]
        yield _content_key(dedup_key), dedup_key[1]


def _dedup_columns(name: str, dedup_keys: Sequence[DedupKey | None]) -> dict[str, list[bytes | None]]:
    return {
        f"{name}_id_keys": [None if dedup_key is None else dedup_key[0] for dedup_key in dedup_keys],
        f"{name}_content_keys": [None if dedup_key is None else _content_key(dedup_key) for dedup_key in dedup_keys],
        f"{name}_fingerprints": [None if dedup_key is None else dedup_key[1] for dedup_key in dedup_keys],
    }


def _complete(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()  # retrieved, or asyncio would log it if the caller is gone
    else:
        future.set_result(outcome)
