"""How a message gets its position in the order of its instance: alone, or agreed among replicas.

A connector with a journal of its own assigns it (:class:`LocalOrder`). Replicas that share a journal agree on it
(`connector.replicas.order`). Everything above this module works with either. The rules of order are in
`connector.delivery.lanes`; `connector.delivery.delivery` enforces them.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from connector.delivery.completion import Completion, Durability
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import DedupState, Duplicates
from connector.delivery.lanes import LaneCounts
from connector.errors import ConnectorError, OutcomeUnknown, Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Note
from connector.values import DedupKey, ProducibleRecord, Request

T = TypeVar("T")


class NewMessage(NamedTuple):
    """A message, or a dead letter, that is new to this connector and is to be admitted.

    Attributes:
        lane: What is kept in order: the instance's id. None for a dead letter, which is ordered with nothing.
        request: What was received.
        records: Its records; of a dead letter, one.
        dedup_key: By which a duplicate of it is recognised, if it has an id.
        in_conflict: Makes the records again, should the same id have come to another replica with other content.
        note: A number that is written in the transaction of the message's row. Not if the message is safe elsewhere:
            the caller writes it then.
    """

    lane: str | None
    request: Request
    records: tuple[ProducibleRecord, ...]
    dedup_key: DedupKey | None = None
    in_conflict: Callable[[], tuple[ProducibleRecord, ...]] | None = None
    note: Note | None = None


class AlreadyDone(ConnectorError):
    """The same work was done meanwhile, and its outcome is not known here."""

    stage = "reprocess"


class Idempotency(Protocol):
    """Keys that may be used once, and work that is done once, among all replicas."""

    def use(self, dedup_key: DedupKey) -> Completion[DedupState]:
        """Begin to use a key that may be used once, such as the id of a signed request.

        Returns:
            ``NEW``: the caller has to :meth:`end_use`. ``SAFE``: it was used before. ``CONFLICT``: it was used with
            other content. Never ``PENDING``: that is waited for, and fails as the first use failed.
        """

    def end_use(self, dedup_key: DedupKey, refusal: ConnectorError | None) -> None:
        """What the key was used for was accepted; or refused, and then the key may be used again."""

    async def run_once(self, note: Note, dedup_key: DedupKey, work: Callable[[], Awaitable[T]]) -> T | None:
        """Run work that ends with a note in the journal, unless another replica has run it.

        Cancelling the caller may leave the work to finish.

        Returns:
            What the work returned; None if it was done before and its dedup key is safe, so that its message is too.

        Raises:
            AlreadyDone: The journal has the note, but the dedup key is not safe: a replica that is gone did the work,
                or an earlier attempt here whose commit was not confirmed. Whether the message was accepted is not
                known, so what is behind it in its lane waits.
            Unavailable: It cannot be found out now.
        """


class Order(Idempotency, Protocol):
    """Admits messages so that those of an instance are published in the order of their admission."""

    def admit(self, message: NewMessage) -> Completion[Durability]:
        """Fix the message's position in its lane and send it on.

        Returns:
            Its errors are ``Unavailable``, and what `NewMessage.in_conflict` fails with.
        """

    async def dead_letters_in_journal(self) -> int:
        """How many dead letters wait in the journal, of all replicas.

        Raises:
            Unavailable: The journal does not answer.
        """


class IdempotencyKeys:
    """Keys that may be used once, as far as this process knows.

    Args:
        duplicates: The memory.
    """

    def __init__(self, duplicates: Duplicates) -> None:
        self._duplicates = duplicates

    def begin(self, dedup_key: DedupKey) -> Completion[DedupState] | None:
        """Begin to use a key; None if that is new here, else what is known of its first use."""
        dedup_state = self._duplicates.dedup_state(dedup_key)
        if dedup_state is DedupState.NEW:
            self._duplicates.begin(dedup_key, Completion())
            return None
        if dedup_state is not DedupState.PENDING:
            return Completion.of(dedup_state)
        joined: Completion[DedupState] = Completion()
        self._duplicates.completion_of(dedup_key).then(partial(_join, joined))
        return joined

    def end(self, dedup_key: DedupKey, refusal: ConnectorError | None) -> None:
        """End a use that was new here, and complete those that joined it."""
        self._duplicates.completion_of(dedup_key).complete(
            Durability.PUBLISHED if refusal is None else _to_retry(refusal)
        )


class LocalOrder:
    """The order that one connector fixes alone.

    Args:
        delivery: Publishes the messages.
        duplicates: What this connector has accepted within the window.
        journaled: The rows that delivery counts.
        next_sequence: The first sequence that is free in the journal.
    """

    def __init__(self, delivery: Delivery, duplicates: Duplicates, journaled: LaneCounts, next_sequence: int) -> None:
        self._delivery = delivery
        self._journaled = journaled
        self._next_sequence = next_sequence
        self._uses = IdempotencyKeys(duplicates)

    def admit(self, message: NewMessage) -> Completion[Durability]:
        """Number the message and publish it, or write it to the journal."""
        sequence = self._next_sequence
        self._next_sequence += 1
        lane = f"{DEAD_LETTER_LANE}{sequence}" if message.lane is None else message.lane
        return self._delivery.admit(Admission(sequence, lane, message.request, message.records, message.note))

    def use(self, dedup_key: DedupKey) -> Completion[DedupState]:
        """Begin to use a key; see `Idempotency`."""
        return self._uses.begin(dedup_key) or Completion.of(DedupState.NEW)

    def end_use(self, dedup_key: DedupKey, refusal: ConnectorError | None) -> None:
        """End a use; see `Idempotency`."""
        self._uses.end(dedup_key, refusal)

    async def run_once(
        self,
        note: Note,  # noqa: ARG002 - there is no elsewhere
        dedup_key: DedupKey,  # noqa: ARG002 - the same
        work: Callable[[], Awaitable[T]],
    ) -> T | None:
        """Run the work, always: no other replica could have done it.

        If the commit of an earlier attempt failed, `SqliteJournal` removes its row and note before it writes this one.
        """
        return await work()

    async def dead_letters_in_journal(self) -> int:
        """How many dead letters wait in the journal."""
        return self._journaled.dead_letters


def _join(joined: Completion[DedupState], result: Durability | ConnectorError) -> None:
    joined.complete(DedupState.SAFE if isinstance(result, Durability) else result)


def _to_retry(refusal: ConnectorError) -> Unavailable:
    """The error of a duplicate whose first was refused."""
    if isinstance(refusal, OutcomeUnknown):
        return OutcomeUnknown(refusal.message)
    return Unavailable("the same request was just refused: send it again")
