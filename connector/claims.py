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

from connector.delivery import Delivery, Ledger, Place
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal import Admission, Note
from connector.lanes import Fate, Safety
from connector.repeats import Mark, Standing
from connector.shared_journal import SharedJournal, Verdict
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
    seen: Mark | None
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
        seen: Mark | None,
        records: tuple[ProducibleRecord, ...],
        in_conflict: Encode | None = None,
        *,
        note: Note | None = None,
    ) -> Fate:
        """Claim a message's place in its lane, and bring it on its way.

        Args:
            lane: What is kept in order: the instance's id.
            request: What was received.
            seen: The message's mark, if it has an id.
            records: Its records.
            in_conflict: Makes them once more, should the message be in conflict with one of another replica.
            note: A number to be kept if, and only if, the message is safe; it becomes a row for that.

        Returns:
            Why the message is safe; or :class:`~connector.errors.Unavailable` if it is not.
        """
        fate = Fate()
        self._journal.hold(lane)
        self.under_way(self._bring(fate, _Arrival(lane, request, seen, records, in_conflict, note)))
        return fate

    def admit_dead_letter(
        self, request: Request, seen: Mark | None, letter: ProducibleRecord, note: Note | None = None
    ) -> Fate:
        """The same for a dead letter, which waits for nothing and holds nothing up."""
        return self.admit(f"dead-letter/{secrets.token_hex(16)}", request, seen, (letter,), note=note)

    def under_way(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin work that has to be waited for at the end."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def see(self, seen: Mark) -> Standing:
        """What all replicas know of a mark that stands for no message; new and in conflict it is to be settled.

        Raises:
            Unavailable: Nobody knows, or not in time.
        """
        lane = f"mark/{seen[0].hex()}"
        self._journal.hold(lane)
        try:
            return (await self._claim(lane, seen)).standing
        finally:
            self._journal.let_go(lane)

    def settle(self, seen: Mark, *, is_safe: bool) -> None:
        """What such a mark stands for was accepted, or was not; written behind."""
        (self._journal.mark_safe if is_safe else self._journal.mark_void)(seen)

    async def stop(self) -> None:
        """Wait for what is under way; delivery has to be stopped before, so that none of it stays open."""
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _bring(self, fate: Fate, arrival: _Arrival) -> None:
        result: Safety | Unavailable = OutcomeUnknown("a defect of the connector: send it again with the same msgId")
        try:
            result = await self._safety(arrival)
        except Unavailable as refusal:
            result = refusal
        except Exception:  # noqa: BLE001 - who waits is told, whatever it was
            _LOG.exception("a message could not be let in")
        finally:
            self._journal.let_go(arrival.lane)
            fate.decide(result)

    async def _safety(self, arrival: _Arrival) -> Safety:
        seen = arrival.seen
        verdict = await self._claim(arrival.lane, seen)
        if verdict.standing is Standing.SAFE:
            return Safety.REPEATED
        try:
            records = arrival.records
            if verdict.standing is Standing.CONFLICT and arrival.in_conflict is not None:
                records = arrival.in_conflict()
            return await self._admitted(
                Admission(verdict.sequence, arrival.lane, arrival.request, records, arrival.note), seen, verdict
            )
        except Exception:
            if seen is not None:
                self._journal.mark_void(seen)
            raise

    async def _claim(self, lane: str, seen: Mark | None) -> Verdict:
        """The verdict; while the first of its kind is on its way elsewhere, wait for what becomes of it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            verdict = await self._journal.claim(lane, seen)
            if verdict.standing is not Standing.PENDING:
                return verdict
            if loop.time() >= deadline:
                raise OutcomeUnknown("another replica has the same message under way: send it again", retry_after=1)
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def _admitted(self, admission: Admission, seen: Mark | None, verdict: Verdict) -> Safety:
        if not verdict.is_mine:
            await self._journal.append(admission, seen)
            self._ledger.accepted(admission)
            self._ledger.journaled(admission)
            return Safety.JOURNALED
        if seen is not None:
            self._journal.note_mark(admission.sequence, seen)
        try:
            safety = await self._delivered(admission, verdict)
        finally:
            self._journal.drop_mark(admission.sequence)
        if seen is not None and safety is Safety.PUBLISHED:
            self._journal.mark_safe(seen)
        return safety

    async def _delivered(self, admission: Admission, verdict: Verdict) -> Safety:
        place = Place(admission.sequence, is_behind_rows=verdict.has_backlog)
        decided: asyncio.Future[Safety | Unavailable] = asyncio.get_running_loop().create_future()
        fate = self._delivery.admit(
            admission.lane, admission.request, admission.records, note=admission.note, place=place
        )
        fate.then(decided.set_result)
        result = await decided
        if isinstance(result, Unavailable):
            raise result
        return result
