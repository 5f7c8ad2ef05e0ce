"""Let a message in where others may let in the next one: its place is claimed before it is brought on its way.

One question of the database a message: is it a repeat, whose is its lane, do rows stand before it? A message whose lane
is this replica's goes the way of every message (`connector.delivery`); one whose lane is another's is written behind
what is there. So of two messages of an instance, whoever received them, the later one is published later.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from connector.delivery.delivery import Delivery, Ledger, Reservation
from connector.delivery.duplicates import DedupKey, DedupState
from connector.delivery.lanes import Completion, Durability
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal.sqlite import Admission, Note
from connector.replicas.journal import SharedJournal, Verdict
from connector.values import ProducibleRecord, Request

_LOOK_AGAIN_SECONDS: Final = 0.05
_LOG = structlog.get_logger("connector.claims")


Encode = Callable[[], tuple[ProducibleRecord, ...]]
"""Makes the records of a message whose id came before, elsewhere, with other content."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A message that is to be let in."""

    lane: str
    request: Request
    dedup_key: DedupKey | None
    records: tuple[ProducibleRecord, ...]
    in_conflict: Encode | None
    note: Note | None


class Claims:
    """The way in, for a replica among others.

    Args:
        journal: What the replicas share.
        delivery: Brings messages of this replica's lanes to Kafka.
        ledger: Who counts.
        reply_deadline_seconds: For how long a repeat waits for what becomes of the first of its kind.
    """

    def __init__(
        self, journal: SharedJournal, delivery: Delivery, ledger: Ledger, *, reply_deadline_seconds: float
    ) -> None:
        self._journal = journal
        self._delivery = delivery
        self._ledger = ledger
        self._patience = reply_deadline_seconds
        self._under_way: set[asyncio.Task[None]] = set()

    def admit(
        self,
        lane: str,
        request: Request,
        dedup_key: DedupKey | None,
        records: tuple[ProducibleRecord, ...],
        in_conflict: Encode | None = None,
        *,
        note: Note | None = None,
    ) -> Completion:
        """Claim a message's place in its lane, and bring it on its way.

        Args:
            lane: What is kept in order: the instance's id.
            request: What was received.
            dedup_key: The message's mark, if it has an id.
            records: Its records.
            in_conflict: Makes them once more, should the message be in conflict with one of another replica.
            note: A number to be kept if, and only if, the message is safe; it becomes a row for that.

        Returns:
            Why the message is safe; or :class:`~connector.errors.Unavailable` if it is not.
        """
        completion = Completion()
        self._journal.hold(lane)
        self.under_way(self._bring(completion, _Arrival(lane, request, dedup_key, records, in_conflict, note)))
        return completion

    def admit_dead_letter(
        self, request: Request, dedup_key: DedupKey | None, letter: ProducibleRecord, note: Note | None = None
    ) -> Completion:
        """The same for a dead letter, which waits for nothing and holds nothing up."""
        return self.admit(f"dead-letter/{secrets.token_hex(16)}", request, dedup_key, (letter,), note=note)

    def under_way(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin work that has to be waited for at the end."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def see(self, dedup_key: DedupKey) -> DedupState:
        """What all replicas know of a mark that stands for no message; new and in conflict it is to be settled.

        Raises:
            Unavailable: Nobody knows, or not in time.
        """
        lane = f"mark/{dedup_key[0].hex()}"
        self._journal.hold(lane)
        try:
            return (await self._claim(lane, dedup_key)).dedup_state
        finally:
            self._journal.let_go(lane)

    def settle(self, dedup_key: DedupKey, *, is_safe: bool) -> None:
        """What such a mark stands for was accepted, or was not; written behind."""
        (self._journal.mark_published if is_safe else self._journal.mark_void)(dedup_key)

    async def stop(self) -> None:
        """Wait for what is under way; delivery has to be stopped before, so that none of it stays open."""
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _bring(self, completion: Completion, arrival: _Arrival) -> None:
        result: Durability | Unavailable = OutcomeUnknown(
            "a defect of the connector: send it again with the same msgId"
        )
        try:
            result = await self._durability(arrival)
        except Unavailable as refusal:
            result = refusal
        except Exception:  # noqa: BLE001 - who waits is told, whatever it was
            _LOG.exception("a message could not be let in")
        finally:
            self._journal.let_go(arrival.lane)
            completion.decide(result)

    async def _durability(self, arrival: _Arrival) -> Durability:
        dedup_key = arrival.dedup_key
        verdict = await self._claim(arrival.lane, dedup_key)
        if verdict.dedup_state is DedupState.SAFE:
            return Durability.REPEATED
        try:
            records = arrival.records
            if verdict.dedup_state is DedupState.CONFLICT and arrival.in_conflict is not None:
                records = arrival.in_conflict()
            return await self._admitted(
                Admission(verdict.sequence, arrival.lane, arrival.request, records, arrival.note), dedup_key, verdict
            )
        except Exception:
            if dedup_key is not None:
                self._journal.mark_void(dedup_key)
            raise

    async def _claim(self, lane: str, dedup_key: DedupKey | None) -> Verdict:
        """The verdict; while the first of its kind is on its way elsewhere, wait for what becomes of it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            verdict = await self._journal.claim(lane, dedup_key)
            if verdict.dedup_state is not DedupState.PENDING:
                return verdict
            if loop.time() >= deadline:
                raise OutcomeUnknown("another replica has the same message under way: send it again", retry_after=1)
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _admitted(self, admission: Admission, dedup_key: DedupKey | None, verdict: Verdict) -> Durability:
        if not verdict.is_mine:
            await self._journal.append(admission, dedup_key)
            self._ledger.accepted(admission)
            self._ledger.journaled(admission)
            return Durability.JOURNALED
        if dedup_key is not None:
            self._journal.note_key(admission.sequence, dedup_key)
        try:
            durability = await self._delivered(admission, verdict)
        finally:
            self._journal.drop_key(admission.sequence)
        if dedup_key is not None and durability is Durability.PUBLISHED:
            self._journal.mark_published(dedup_key)
        return durability

    async def _delivered(self, admission: Admission, verdict: Verdict) -> Durability:
        reservation = Reservation(admission.sequence, is_behind_rows=verdict.has_backlog)
        decided: asyncio.Future[Durability | Unavailable] = asyncio.get_running_loop().create_future()
        completion = self._delivery.admit(
            admission.lane, admission.request, admission.records, note=admission.note, reservation=reservation
        )
        completion.then(decided.set_result)
        result = await decided
        if isinstance(result, Unavailable):
            raise result
        return result
