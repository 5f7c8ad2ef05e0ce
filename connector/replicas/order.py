"""The order that replicas agree on: a message's position is claimed in the shared journal before it is published.

Each message costs one request to the database: is it a duplicate, which replica owns its lane, are there rows before
it? If this replica owns the lane, `connector.delivery` publishes the message as usual. If another replica owns it, the
message becomes a row behind the lane's other rows, for the owner to publish, which is a second request. So of two
messages of an instance, the later one is published later, whichever replicas received them. ADR 0036 has the whole
picture.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from connector.delivery.completion import Completion, Durability
from connector.delivery.delivery import Delivery, Ledger
from connector.delivery.duplicates import DedupState, Duplicates
from connector.delivery.order import AlreadyDone, IdempotencyKeys, NewMessage
from connector.errors import ConnectorError, Defect, OutcomeUnknown, Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Note
from connector.replicas.batch import ClaimResult
from connector.replicas.journal import SharedJournal
from connector.supervision import BackgroundTasks
from connector.values import DedupKey

_POLL_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 3.0
_MAX_LANE_BYTES: Final = 512
_LOG = structlog.get_logger()

T = TypeVar("T")


class SharedOrder:
    """Orders the messages of a replica among those of others.

    Args:
        journal: The shared journal.
        delivery: Publishes the messages of the lanes that this replica owns.
        duplicates: Dedup keys that this replica has accepted within the window, checked before the database.
        ledger: Counts messages.
        reply_deadline_seconds: How long a duplicate waits for the outcome of the first message.
    """

    def __init__(
        self,
        journal: SharedJournal,
        delivery: Delivery,
        duplicates: Duplicates,
        ledger: Ledger,
        *,
        reply_deadline_seconds: float,
    ) -> None:
        self._journal = journal
        self._delivery = delivery
        self._uses = IdempotencyKeys(duplicates)
        self._ledger = ledger
        self._reply_deadline = reply_deadline_seconds
        self._background = BackgroundTasks()
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def stop(self) -> None:
        """Wait for admissions under way, for some seconds: closing the journal ends the others. Stop delivery first."""
        await self._background.wait(_STOP_SECONDS)

    async def dead_letters_in_journal(self) -> int:
        """Return how many dead letters of all replicas wait in the journal."""
        return await self._journal.count_dead_letters()

    # --- messages ---

    def admit(self, message: NewMessage) -> Completion[Durability]:
        """Claim the message's position, then publish it or write it behind the rows of its lane."""
        completion: Completion[Durability] = Completion()
        lane = f"{DEAD_LETTER_LANE}{secrets.token_hex(16)}" if message.lane is None else _lane_name(message.lane)
        # Before the claim: a pinned lane is not released, and replay takes no rows of it.
        self._journal.lanes.pin(lane)
        self._background.start(self._complete_admission(completion, lane, message))
        return completion

    async def _complete_admission(self, completion: Completion[Durability], lane: str, message: NewMessage) -> None:
        result: Durability | ConnectorError = OutcomeUnknown(
            "a defect of the connector: send it again with the same msgId"
        )
        try:
            result = await self._claim_and_admit(lane, message)
        except ConnectorError as error:  # also if the records for a conflict are too large
            result = error
        except Exception:  # noqa: BLE001 - the sender gets an answer, whatever it was
            _LOG.exception("a message could not be admitted")
        finally:
            self._journal.lanes.unpin(lane)
            completion.complete(result)

    async def _claim_and_admit(self, lane: str, message: NewMessage) -> Durability:
        dedup_key = message.dedup_key
        result = await self._claim(lane, dedup_key)
        if result.dedup_state is DedupState.SAFE:
            return Durability.ELSEWHERE
        try:
            records = message.records
            if result.dedup_state is DedupState.CONFLICT and message.in_conflict is not None:
                records = message.in_conflict()
            admission = Admission(result.sequence, lane, message.request, records, message.note, dedup_key)
            return await self._admit_claimed(admission, result)
        except Exception:
            # If the row was committed all the same, its key has no owner any more, and voiding it does nothing.
            if dedup_key is not None:
                self._journal.set_key_void(dedup_key)
            raise

    async def _claim(self, lane: str, dedup_key: DedupKey | None) -> ClaimResult:
        """Claim a position; while another replica has a message of the same key under way, wait for its outcome."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._reply_deadline
        while True:
            result = await self._journal.claim(lane, dedup_key)
            if result.dedup_state is not DedupState.PENDING:
                return result
            if loop.time() >= deadline:
                raise OutcomeUnknown("another replica has the same message under way: send it again", retry_after=1)
            await asyncio.sleep(_POLL_SECONDS)

    async def _admit_claimed(self, admission: Admission, result: ClaimResult) -> Durability:
        if not result.is_owner:  # under a new sequence: rows may have come since the claim
            await self._journal.append(admission)
            self._ledger.accepted(admission, is_journaled=True)
            self._ledger.journaled(admission)
            return Durability.JOURNALED
        durability = await self._delivery.admit(admission, lane_has_rows=result.lane_has_rows)
        # Of a message that has become a row the key is safe since the row's transaction.
        if admission.dedup_key is not None and durability is Durability.PUBLISHED:
            self._journal.set_key_safe(admission.dedup_key)
        return durability

    # --- what may be done once ---

    def use(self, dedup_key: DedupKey) -> Completion[DedupState]:
        """Begin to use a key that no replica has used; see `connector.delivery.order.Idempotency`."""
        earlier = self._uses.begin(dedup_key)
        if earlier is not None:
            return earlier
        begun: Completion[DedupState] = Completion()
        self._background.start(self._use(dedup_key, begun))
        return begun

    async def _use(self, dedup_key: DedupKey, begun: Completion[DedupState]) -> None:
        outcome: DedupState | ConnectorError = Defect("a defect of the connector")
        try:
            outcome = await self._claim_key(dedup_key)
        except Unavailable as refusal:
            outcome = refusal
        except Exception:  # noqa: BLE001 - the sender gets an answer, whatever it was
            _LOG.exception("a signed request could not be admitted")
        if outcome is DedupState.CONFLICT:
            # The claim stored the other content under a key of its own, which nothing will ever use.
            self._journal.set_key_void(dedup_key)
            self._uses.end(dedup_key, Unavailable("the key was used with other content"))
        elif outcome is not DedupState.NEW:
            self._uses.end(dedup_key, outcome if isinstance(outcome, ConnectorError) else None)
        begun.complete(outcome)

    def end_use(self, dedup_key: DedupKey, refusal: ConnectorError | None) -> None:
        """End a use: here at once, for other replicas with the next batch."""
        self._settle_key(dedup_key, is_safe=refusal is None)
        self._uses.end(dedup_key, refusal)

    async def run_once(self, note: Note, dedup_key: DedupKey, work: Callable[[], Awaitable[T]]) -> T | None:
        """Run work that no other replica has run; see `connector.delivery.order.Idempotency`."""
        running = self._running.get(note.name)
        if running is not None:  # an earlier caller was cancelled, and left it to finish
            await asyncio.shield(running)
            return None
        # Shielded: the claim must be ended even if nobody waits for the result any more.
        running = self._running[note.name] = asyncio.create_task(self._run_claimed(note, dedup_key, work))
        running.add_done_callback(partial(self._ran, note.name))
        result: T | None = await asyncio.shield(running)
        return result

    async def _run_claimed(self, note: Note, dedup_key: DedupKey, work: Callable[[], Awaitable[T]]) -> T | None:
        if await self._claim_key(dedup_key) is DedupState.SAFE:
            return None
        # A key may be forgotten, or void, although the work was done; the note is not.
        try:
            await self._check_not_noted(note)
            result = await work()
        except Exception:
            self._settle_key(dedup_key, is_safe=False)  # if the work was done nevertheless, its note says so
            raise
        self._settle_key(dedup_key, is_safe=True)
        return result

    async def _check_not_noted(self, note: Note) -> None:
        if await self._journal.read_note(note.name) == note.value:
            raise AlreadyDone(
                "it was reprocessed meanwhile, with an outcome that is not known here: what is behind it waits"
            )

    def _ran(self, name: str, running: asyncio.Task[Any]) -> None:
        del self._running[name]
        if not running.cancelled():
            running.exception()  # retrieved, or asyncio would log it if the caller is gone

    async def _claim_key(self, dedup_key: DedupKey) -> DedupState:
        """Claim a key that belongs to no message; the caller has to settle NEW and CONFLICT.

        Raises:
            Unavailable: The database does not answer, or another replica holds the key for too long.
        """
        # A claim takes a lane, also one without a message. Nothing is published in this one; the unpin releases it.
        lane = f"dedup-key/{dedup_key[0].hex()}"
        self._journal.lanes.pin(lane)
        try:
            return (await self._claim(lane, dedup_key)).dedup_state
        finally:
            self._journal.lanes.unpin(lane)

    def _settle_key(self, dedup_key: DedupKey, *, is_safe: bool) -> None:
        (self._journal.set_key_safe if is_safe else self._journal.set_key_void)(dedup_key)


def _lane_name(instance_id: str) -> str:
    """The lane of an instance: its id, or the hash of a long one, which PostgreSQL could not index."""
    name = instance_id.encode()
    return instance_id if len(name) <= _MAX_LANE_BYTES else f"long/{hashlib.blake2b(name, digest_size=16).hexdigest()}"
