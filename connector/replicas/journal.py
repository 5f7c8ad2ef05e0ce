"""The journal that replicas share: a PostgreSQL database, in which each lane has at most one owner.

The replica that is publishing a message of an instance owns the instance's lane, and it alone publishes. A message that
another replica receives meanwhile is written behind the rows there, for the owner to publish. A lane is released when
nothing of it is left, and taken over when its owner's lease has run out. Requests are sent in *batches*: those that
came while the last batch was under way go into the next one, one statement and one transaction (group commit). The
statements are functions of the database (``migrations/``), so that no transaction ever waits for a network.

A replica whose lease has run out does not continue: the connector restarts in its process, under another name.
"""

import asyncio
import contextlib
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from connector import supervision
from connector.delivery.duplicates import DedupKey, DedupState
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal.model import DEAD_LETTER_LANE, Admission, Contents, JournalState, Oldest
from connector.replicas.lease import GRANT_SECONDS, Lease

_BATCH: Final = 500
_BATCH_SECONDS: Final = 2.0
_READ_SECONDS: Final = 5.0
_RENEW_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 0.2
_OPEN_SECONDS: Final = 3.0
_CLOSE_SECONDS: Final = 3.0
_ADOPTS: Final = 1_000
_SPEAKING_SECONDS: Final = 3.0
_FORGETS: Final = 10_000
_FORGET_SECONDS: Final = 10.0
_LOST: Final = "WL001"
_LOG = structlog.get_logger("connector.journal")

_REGISTER: Final = (
    "INSERT INTO weda_replica (owner, lease_until) VALUES (%s, clock_timestamp() + make_interval(secs => %s)) "
    "ON CONFLICT DO NOTHING"
)
_RENEW: Final = "SELECT backlog, bytes FROM weda_renew(%s, make_interval(secs => %s), %s)"
_REACH: Final = (
    "WITH reported AS (UPDATE weda_replica SET reaches_kafka = %(mine)s, "
    "reached_kafka_at = clock_timestamp() - make_interval(secs => %(reached)s) "
    "WHERE owner = %(me)s AND (reaches_kafka OR %(mine)s)) "
    "SELECT EXISTS (SELECT FROM weda_replica WHERE owner <> %(me)s AND reaches_kafka "
    "AND reached_kafka_at > clock_timestamp() - make_interval(secs => %(lost)s) "
    "AND lease_until > clock_timestamp() + make_interval(secs => %(lease)s - %(silence)s))"
)
_LEAVE: Final = "DELETE FROM weda_replica WHERE owner = %s"
_BATCH_STATEMENT: Final = (
    "SELECT refused, idle, has_more, standings, sequences, are_mine, backlogs FROM weda_turn("
    "%s, %s, make_interval(secs => %s), %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bigint[], "
    "%s::bigint[], %s::bytea[], %s::bytea[], "
    "%s::bigint[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::text[], %s::bigint[], %s::bytea[], "
    "%s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[])"
)
_NOTING_STATEMENT: Final = (
    f"{_BATCH_STATEMENT.replace('weda_turn', 'weda_noting_turn').removesuffix(')')}, %s::text[], %s::bigint[])"
)
_HEADS: Final = (
    "SELECT r.lane, r.sequence, r.content FROM ("
    "SELECT lane FROM weda_lane WHERE owner = %s AND lane > %s AND backlog > 0 AND lane <> ALL (%s::bytea[]) "
    "ORDER BY lane LIMIT %s) l, "
    "LATERAL (SELECT * FROM weda_row o WHERE o.lane = l.lane ORDER BY o.sequence LIMIT %s) r ORDER BY 1, 2"
)
_OLDEST: Final = (
    "SELECT (SELECT coalesce(sum(bytes), 0)::bigint FROM weda_lane), "
    "o.sequence, o.received_at FROM (SELECT 1) AS one "
    "LEFT JOIN (SELECT sequence, received_at FROM weda_row ORDER BY sequence LIMIT 1) AS o ON true"
)
_WAITING: Final = (
    "WITH speaking AS (SELECT owner, since FROM weda_replica "
    "WHERE lease_until > clock_timestamp() + make_interval(secs => %(lease)s - %(silence)s)) "
    "SELECT r.source, count(*) FROM weda_row r JOIN weda_lane l USING (lane) WHERE l.owner = %(me)s OR ("
    "%(me)s = (SELECT owner FROM speaking ORDER BY since, owner LIMIT 1) "
    "AND l.owner NOT IN (SELECT owner FROM speaking)) GROUP BY r.source"
)
_BEHIND_LETTERS: Final = f"{DEAD_LETTER_LANE[:-1]}{chr(ord(DEAD_LETTER_LANE[-1]) + 1)}"
_LETTERS: Final = "SELECT count(*) FROM weda_row WHERE lane >= %s AND lane < %s"
_REMEMBER: Final = (
    "INSERT INTO weda_number AS n (name, value) VALUES (%s, %s) "
    "ON CONFLICT (name) DO UPDATE SET value = greatest(n.value, excluded.value)"
)
_RECALL_ALL: Final = "SELECT name, value FROM weda_number WHERE starts_with(name, %s)"
_FORGET_NUMBERS: Final = "DELETE FROM weda_number WHERE name = ANY (%s)"
_RECALL: Final = "SELECT value FROM weda_number WHERE name = %s"
_FORGET: Final = "SELECT weda_forget(make_interval(secs => %s), %s, %s)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The database's answer to a claim.

    Attributes:
        dedup_state: Of the message's key: new, in conflict, pending on another replica, or safe.
        sequence: Its place in the order.
        is_mine: Whether its lane is this replica's.
        has_backlog: Whether its lane has rows in front of it.
    """

    dedup_state: DedupState
    sequence: int
    is_mine: bool
    has_backlog: bool


@dataclass(slots=True)
class _Claim:
    lane: str
    dedup_key: DedupKey | None
    verdict: asyncio.Future[Verdict]


@dataclass(slots=True)
class _Row:
    admission: Admission
    content: bytes
    dedup_key: DedupKey | None
    is_behind: bool
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Change:
    """The removal of a row, or what replaces it."""

    admission: Admission | None
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Batch:
    """What is asked together."""

    claims: list[_Claim] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    removals: dict[int, _Change] = field(default_factory=dict)
    amends: dict[int, _Change] = field(default_factory=dict)
    safe: list[DedupKey] = field(default_factory=list)
    void: list[DedupKey] = field(default_factory=list)
    released: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        return not (self.claims or self.rows or self.removals or self.amends or self.safe or self.void or self.released)


class Unanswered(Exception):
    """The database did not answer in time; what it was asked may be done or not, or be done later."""


class DatabaseRefusal(Exception):
    """The database has refused a statement: it is rolled back.

    Attributes:
        state: Its five letters for the reason (SQLSTATE).
    """

    def __init__(self, reason: str, state: str | None) -> None:
        super().__init__(f"the database refuses: {reason} ({state})")
        self.state = state


class Link(Protocol):
    """One connection to the database, made again after it broke."""

    async def ask(self, sql: str, parameters: Any, *, seconds: float) -> list[tuple[Any, ...]]:
        """Run one statement, a transaction of its own.

        Raises:
            DatabaseRefusal: It is rolled back.
            Unanswered: There was no answer in time.
        """

    def drop(self) -> None:
        """Forget the connection."""


class RemoteLanes:
    """The lanes of which this replica has something in memory, as `connector.delivery.lanes.JournaledLanes`.

    A message's verdict says whether its lane has rows. A verdict cannot know what this replica is about to write, or
    has claimed and not yet admitted.

    Args:
        on_free: Called with a lane of which nothing is left in memory.

    Attributes:
        backlog: Rows of this replica's lanes, as the database last answered.
    """

    def __init__(self, on_free: Callable[[str], None]) -> None:
        self._on_free = on_free
        self._held: Counter[str] = Counter()
        self._about: Counter[str] = Counter()
        self.backlog = 0

    def hold(self, lane: str) -> None:
        """A message of the lane is being claimed, or is in memory."""
        self._held[lane] += 1

    def let_go(self, lane: str) -> None:
        """It is in memory no longer."""
        self._less(self._held, lane)

    def add(self, lane: str) -> None:
        """A row of the lane is about to be written."""
        self._about[lane] += 1

    def written(self, lane: str, *, is_stored: bool) -> None:
        """The write has ended; what was stored is known to verdicts from now on."""
        if is_stored:
            self.backlog = max(self.backlog, 1)
        self._less(self._about, lane)

    def removed(self, lane: str) -> None:  # noqa: ARG002 - verdicts know of which lane
        """A row is gone. The count stays above 0 until the database says so: others may have written more."""
        if self.backlog > 1:
            self.backlog -= 1

    def is_held(self, lane: str) -> bool:
        """Whether something of the lane is in memory."""
        return lane in self._held or lane in self._about

    def may_grow_in_front(self, lane: str) -> bool:
        """Whether a claim of the lane may have been numbered before the rows that were read."""
        return self.is_held(lane)

    @property
    def total(self) -> int:
        """Rows of this replica's lanes, as far as is known: those that others write are counted once a second."""
        return self.backlog + len(self._about)

    def __contains__(self, lane: str) -> bool:
        return lane in self._about

    def _less(self, counts: Counter[str], lane: str) -> None:
        counts[lane] -= 1
        if not counts[lane]:
            del counts[lane]
        if not self.is_held(lane):
            self._on_free(lane)


class SharedJournal:
    """The journal in the database; see `connector.journal.Journal` for what it has in common with the local one.

    Args:
        link: Makes a connection to the database, by a name for it.
        max_bytes: Bound of what waits in it, for all replicas together.
        repeats_within: Seconds for which a message that was seen is remembered.
        most_repeats: Of how many messages that is remembered; beyond it the oldest are forgotten early.
        on_loss: Called on the event loop, once, when the lease has run out; every call fails from then on.

    Attributes:
        lease: On this replica's lanes.
        remote_lanes: Which lanes it has something of.
        problem: Why the database does not answer, or nothing.
    """

    def __init__(
        self,
        link: Callable[[str], Link],
        *,
        max_bytes: int,
        repeats_within: float,
        most_repeats: int,
        on_loss: Callable[[], None],
    ) -> None:
        self._max_bytes = max_bytes
        self._repeats_within = repeats_within
        self._most_repeats = most_repeats
        self._on_loss = on_loss
        self._me = uuid.uuid4()
        self._batches = link("turns")
        self._renewals = link("lease")
        self._reads = link("reads")
        self._number = 0
        self._is_asking = False
        self._is_registered = False
        self._next = _Batch()
        self._asked = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._keys: dict[int, DedupKey] = {}
        self._bytes = 0
        self.lease = Lease()
        self.remote_lanes = RemoteLanes(self._release)
        self._reaches_kafka = False
        self._reached_at: float | None = None
        self._lost_at = time.monotonic()
        self._others_reach_kafka = False
        self.problem = ""

    @property
    def is_isolated(self) -> bool:
        """Whether the brokers answer another replica and not this one: it lets nothing in, so that senders go there."""
        return self._others_reach_kafka and not self._reaches_kafka

    def note_kafka(self, *, answers: bool) -> None:
        """The brokers have answered this replica now, or no longer answer it."""
        now = time.monotonic()
        if answers:
            self._reached_at = now
        elif self._reaches_kafka:
            self._lost_at = now
            self._others_reach_kafka = False  # what they said before is of the time before
        self._reaches_kafka = answers

    @property
    def lives(self) -> bool:
        """Whether its tasks do."""
        return not any(task.done() for task in self._tasks)

    # --- the journal's protocol ---

    async def open(self) -> Contents:
        """Register, if the database answers soon; else that is tried again and again, and nothing is taken."""
        works = {"lease": self._keep_lease, "batches": self._run_batches, "dedup_keys": self._forget_old}
        self._tasks = [asyncio.create_task(supervision.forever(part, work)) for part, work in works.items()]
        deadline = time.monotonic() + _OPEN_SECONDS
        while not self.lease.is_held and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
        return Contents({}, {}, 0)

    async def close(self) -> None:
        """Finish what was asked, as far as the database answers, and leave the lanes to the others."""
        self._closing = True
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._has_work and self.lease.is_held and time.monotonic() < deadline:  # noqa: ASYNC110 - at the end
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse(self._next, _failing("the connector stopped"))
        if self._is_registered:
            with contextlib.suppress(DatabaseRefusal, Unanswered):
                await self._renewals.ask(_LEAVE, (self._me,), seconds=_BATCH_SECONDS)
        for link in (self._batches, self._renewals, self._reads):
            link.drop()

    async def admit(self, admission: Admission) -> None:
        """Return when the row is committed in a lane of this replica's."""
        await self._store(admission, self._keys.get(admission.sequence), is_behind=False)

    async def remove(self, sequence: int) -> None:
        """Return when the row's removal is committed, while its lane is this replica's."""
        await self._change(self._next.removals, sequence, None)

    async def amend(self, admission: Admission) -> None:
        """Return when the row is replaced, while its lane is this replica's."""
        await self._change(self._next.amends, admission.sequence, admission)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """The first rows of the next lanes of this replica's."""
        wanted = (self._me, _name(after), [_name(one) for one in skip], lanes, depth)
        rows = await self._read(_HEADS, wanted)
        found: dict[bytes, list[Admission]] = {}
        for lane, sequence, content in rows:
            found.setdefault(lane, []).append(Admission.of_content(sequence, lane.decode(), content))
        return list(found.values())

    async def state(self) -> JournalState:
        """How full it is, and since when.

        Raises:
            Unavailable: The database does not answer, or gives this replica no lease: it can take nothing.
        """
        self._check_lease()
        [(size, sequence, received_at)] = await self._read(_OLDEST)
        return JournalState(size, None if sequence is None else Oldest(sequence, received_at))

    async def waiting_by_source(self) -> dict[str, int]:
        """How many rows of each source this replica reports; each row is reported by one replica.

        Raises:
            Unavailable: The database does not answer.
        """
        about = {"me": self._me, "lease": GRANT_SECONDS, "silence": _SPEAKING_SECONDS}
        return {str(source): int(count) for source, count in await self._read(_WAITING, about)}

    async def waiting_dead_letters(self) -> int:
        """How many of the rows of all replicas are dead letters.

        Raises:
            Unavailable: The database does not answer.
        """
        [(count,)] = await self._read(_LETTERS, (_name(DEAD_LETTER_LANE), _name(_BEHIND_LETTERS)))
        return int(count)

    async def remember(self, name: str, value: int) -> None:
        """Keep the greatest number of all replicas."""
        await self._read(_REMEMBER, (name, value))

    async def recall(self, name: str) -> int:
        """A number that was kept, or 0.

        Raises:
            Unavailable: The database does not answer.
        """
        found = await self._read(_RECALL, (name,))
        return int(found[0][0]) if found else 0

    async def recall_all(self, prefix: str) -> dict[str, int]:
        """Every number whose name starts so.

        Raises:
            Unavailable: The database does not answer.
        """
        return {str(name): int(value) for name, value in await self._read(_RECALL_ALL, (prefix,))}

    async def forget(self, names: Sequence[str]) -> None:
        """Keep these numbers no longer."""
        await self._read(_FORGET_NUMBERS, ([*names],))

    # --- what replicas need besides ---

    async def claim(self, lane: str, dedup_key: DedupKey | None) -> Verdict:
        """Ask for a message's place; the lane has to be held, and stays so until it is let go.

        Raises:
            Unavailable: The database does not answer, this replica has no lease, or another one should be asked.
        """
        if self.is_isolated:
            raise Unavailable("this replica does not reach Kafka, another one does: send it again", retry_after=1)
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._ask(self._next.claims, _Claim(lane, dedup_key, verdict))
        return await verdict

    async def append(self, admission: Admission, dedup_key: DedupKey | None) -> None:
        """Return when a row is committed behind everything in a lane that is another replica's.

        Raises:
            Unavailable: It is not, or nobody knows.
        """
        await self._store(admission, dedup_key, is_behind=True)

    def note_key(self, sequence: int, dedup_key: DedupKey) -> None:
        """The key of a message: it is safe if the message becomes a row."""
        self._keys[sequence] = dedup_key

    def drop_key(self, sequence: int) -> None:
        """The message is no row and becomes none."""
        self._keys.pop(sequence, None)

    def hold(self, lane: str) -> None:
        """Before a claim."""
        self.remote_lanes.hold(lane)

    def let_go(self, lane: str) -> None:
        """Nothing of one message is left in memory; the lane is given up with the last."""
        self.remote_lanes.let_go(lane)

    def mark_published(self, dedup_key: DedupKey) -> None:
        """A message with the key is published; written behind."""
        self._next.safe.append(dedup_key)
        self._asked.set()

    def mark_void(self, dedup_key: DedupKey) -> None:
        """A message with the key was refused; written behind."""
        self._next.void.append(dedup_key)
        self._asked.set()

    # --- batches ---

    def _release(self, lane: str) -> None:
        self._next.released.add(lane)
        self._asked.set()

    @property
    def _has_work(self) -> bool:
        return self._is_asking or not self._next.is_empty

    def _ask(self, asks: list[Any], ask: Any) -> None:
        self._check_lease()
        asks.append(ask)
        self._asked.set()

    def _check_lease(self) -> None:
        if not self.lease.is_held:
            raise _failing("this replica has no lease on it now")

    async def _store(self, admission: Admission, dedup_key: DedupKey | None, *, is_behind: bool) -> None:
        content = admission.content
        if self._bytes + len(content) > self._max_bytes:
            raise Unavailable("the shared journal is full (WEDA_JOURNAL__MAX_BYTES): send it again", retry_after=5)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask(self._next.rows, _Row(admission, content, dedup_key, is_behind, done))
        self._bytes += len(content)
        await done

    async def _change(self, changes: dict[int, _Change], sequence: int, admission: Admission | None) -> None:
        if self.lease.has_ended:
            raise _failing("the lease has run out")
        change = changes.get(sequence)
        if change is None:
            change = changes[sequence] = _Change(admission, asyncio.get_running_loop().create_future())
        change.admission = admission
        self._asked.set()
        await asyncio.shield(change.done)

    async def _run_batches(self) -> None:
        while True:
            await self._asked.wait()
            if not self.lease.is_held:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            batch = self._gather()
            if not batch.is_empty:
                await self._run_batch(batch)

    def _gather(self) -> _Batch:
        """What goes into the next batch: everything that fits."""
        batch, rest = self._next, _Batch()
        self._next = rest
        batch.claims, rest.claims = batch.claims[:_BATCH], batch.claims[_BATCH:]
        batch.rows, rest.rows = batch.rows[:_BATCH], batch.rows[_BATCH:]
        # Of those that are held again, the last one to let go gives them up.
        batch.released = {lane for lane in batch.released if not self.remote_lanes.is_held(lane)}
        if rest.is_empty:
            self._asked.clear()
        return batch

    async def _run_batch(self, batch: _Batch) -> None:
        self._number += 1
        self._is_asking = True
        try:
            [answer] = await self._batches.ask(*self._statement(batch), seconds=_BATCH_SECONDS)
        except (DatabaseRefusal, Unanswered) as error:
            self._note(str(error))
            if isinstance(error, DatabaseRefusal) and error.state == _LOST:
                self._lose()
            await self._fail(batch, _failing(_why(error)))
        else:
            self.problem = ""
            self._settle(batch, answer)
        finally:
            self._is_asking = False

    def _statement(self, batch: _Batch) -> tuple[str, tuple[Any, ...]]:
        """What is asked, with the notes of its rows where there are some."""
        notes = [row.admission.note for row in batch.rows]
        if not any(notes):
            return _BATCH_STATEMENT, self._parameters(batch)
        names, numbers = ([note and note[part] for note in notes] for part in (0, 1))
        return _NOTING_STATEMENT, (*self._parameters(batch), names, numbers)

    def _parameters(self, batch: _Batch) -> tuple[Any, ...]:
        safe, void = [*_both_keys(batch.safe)], [*_both_keys(batch.void)]
        rows, claims = batch.rows, batch.claims
        amends = [(sequence, one.admission) for sequence, one in batch.amends.items() if one.admission is not None]
        return (
            *(self._me, self._number, self._repeats_within),
            *([key for key, _ in safe], [print_ for _, print_ in safe]),
            *([key for key, _ in void], [print_ for _, print_ in void]),
            [_name(lane) for lane in batch.released],
            [*batch.removals],
            [sequence for sequence, _ in amends],
            [_name(one.lane) for _, one in amends],
            [one.content for _, one in amends],
            [None if row.is_behind else row.admission.sequence for row in rows],
            [_name(row.admission.lane) for row in rows],
            *_keys_of([row.dedup_key for row in rows]),
            [row.admission.request.source for row in rows],
            [row.admission.request.received_at for row in rows],
            [row.content for row in rows],
            [_name(claim.lane) for claim in claims],
            *_keys_of([claim.dedup_key for claim in claims]),
        )

    def _settle(self, batch: _Batch, answer: Sequence[Any]) -> None:
        refused, idle, has_more, dedup_states, sequences, are_mine, backlogs = answer
        for change in (*batch.removals.values(), *batch.amends.values()):
            _set(change.done, None)
        for at, row in enumerate(batch.rows, start=1):
            _set(row.done, _failing("its lane is another replica's now") if at in refused else None)
        for claim, dedup_state, sequence, is_mine, backlog in zip(
            batch.claims, dedup_states, sequences, are_mine, backlogs, strict=True
        ):
            _set(claim.verdict, Verdict(DedupState(dedup_state), sequence, bool(is_mine), bool(backlog)))
        for lane in map(bytes.decode, idle):
            if not self.remote_lanes.is_held(lane):
                self._release(lane)
        if has_more:
            self.remote_lanes.backlog = max(self.remote_lanes.backlog, 1)

    async def _fail(self, batch: _Batch, failing: Unavailable) -> None:
        """A batch was rolled back, or its outcome is unknown: refuse what can be refused, and ask the rest again.

        What is asked again may have been done already; all of it can be done twice.
        """
        for claim in batch.claims:
            _set(claim.verdict, failing)
            if claim.dedup_key is not None:
                batch.void.append(claim.dedup_key)
        behind = [row for row in batch.rows if row.is_behind]
        for row in behind:
            _set(row.done, _in_doubt(failing))
        batch.rows = [row for row in batch.rows if not row.is_behind]
        batch.claims = []
        if self.lease.has_ended:
            self._refuse(batch, failing)
            return
        later = self._next
        self._next = _Batch(
            claims=later.claims,
            rows=[*batch.rows, *later.rows],
            removals={**later.removals, **batch.removals},
            amends={**batch.amends, **later.amends},
            safe=[*batch.safe, *later.safe],
            void=[*batch.void, *later.void],
            released=batch.released | later.released,
        )
        self._asked.set()
        await asyncio.sleep(_AGAIN_SECONDS)
        self._refuse_claims(failing)

    def _refuse_claims(self, failing: Unavailable) -> None:
        """Nobody waits for a database that does not answer."""
        claims, self._next.claims = self._next.claims, []
        for claim in claims:
            _set(claim.verdict, failing)

    @staticmethod
    def _refuse(batch: _Batch, failing: Unavailable) -> None:
        for claim in batch.claims:
            _set(claim.verdict, failing)
        for row in batch.rows:
            _set(row.done, _in_doubt(failing))
        for change in (*batch.removals.values(), *batch.amends.values()):
            _set(change.done, failing)

    # --- the lease ---

    async def _keep_lease(self) -> None:
        while not self.lease.has_ended:
            try:
                await self._renew()
            except (DatabaseRefusal, Unanswered) as error:
                self._note(str(error))
                if isinstance(error, DatabaseRefusal) and error.state == _LOST:
                    break
            await asyncio.sleep(_RENEW_SECONDS if not self.problem else _AGAIN_SECONDS)
        self._lose()

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        if not self._is_registered:
            await self._renewals.ask(_REGISTER, (self._me, GRANT_SECONDS), seconds=_BATCH_SECONDS)
        wanted = self._me, GRANT_SECONDS, 0 if self.is_isolated else _ADOPTS
        [(backlog, size)] = await self._renewals.ask(_RENEW, wanted, seconds=_BATCH_SECONDS)
        self._is_registered = True
        self.lease.renewed(asked_at)
        self.remote_lanes.backlog = backlog
        self._bytes = size
        await self._compare_reach()
        self.problem = ""

    async def _compare_reach(self) -> None:
        """Tell the others when Kafka last answered this replica, and hear whether it has answered one since it did.

        Replicas notice an outage one after the other: what one said before this one noticed it may be of before.
        """
        now, lost_at, mine = time.monotonic(), self._lost_at, self._reaches_kafka
        about = {
            "me": self._me,
            "mine": mine,
            "reached": None if self._reached_at is None else now - self._reached_at,
            "lost": 0.0 if mine else now - lost_at,
            "lease": GRANT_SECONDS,
            "silence": _SPEAKING_SECONDS,
        }
        [(others_do,)] = await self._renewals.ask(_REACH, about, seconds=_BATCH_SECONDS)
        if lost_at == self._lost_at:
            self._others_reach_kafka = others_do

    def _lose(self) -> None:
        if self.lease.is_lost:
            return
        _LOG.error("the lease on the shared journal has run out; restarting in process", reason=self.problem)
        self.lease.is_lost = True
        self._refuse(self._next, _failing("the lease has run out"))
        self._next = _Batch()
        self._on_loss()

    async def _forget_old(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_SECONDS)
            with contextlib.suppress(Unavailable):
                while await self._forget() >= _FORGETS:
                    pass

    async def _forget(self) -> int:
        [(forgotten,)] = await self._read(_FORGET, (self._repeats_within, self._most_repeats, _FORGETS))
        return int(forgotten)

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            _LOG.warning("the shared journal", problem=problem)
        self.problem = problem

    async def _read(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        try:
            return await self._reads.ask(sql, parameters, seconds=_READ_SECONDS)
        except (DatabaseRefusal, Unanswered) as error:
            self._note(str(error))
            raise _failing(_why(error)) from error


def _name(lane: str) -> bytes:
    return lane.encode()


def _second_key(dedup_key: DedupKey) -> bytes:
    """The key of an id's content that is not its first."""
    return hashlib.blake2b(dedup_key[0] + dedup_key[1], digest_size=16).digest()


def _both_keys(keys: Iterable[DedupKey]) -> Iterable[tuple[bytes, bytes]]:
    for dedup_key in keys:
        yield dedup_key[0], dedup_key[1]
        yield _second_key(dedup_key), dedup_key[1]


def _keys_of(dedup_key: Sequence[DedupKey | None]) -> tuple[list[Any], list[Any], list[Any]]:
    """First keys, second keys and fingerprints."""
    return (
        [None if one is None else one[0] for one in dedup_key],
        [None if one is None else _second_key(one) for one in dedup_key],
        [None if one is None else one[1] for one in dedup_key],
    )


def _why(error: DatabaseRefusal | Unanswered) -> str:
    """What a source may read of it; where the database is, is for the log."""
    return "its database refuses" if isinstance(error, DatabaseRefusal) else "its database does not answer"


def _failing(why: str) -> Unavailable:
    return Unavailable(f"the shared journal cannot take the message: {why}", retry_after=5)


def _in_doubt(failing: Unavailable) -> OutcomeUnknown:
    """The same for a row that may have been committed."""
    return OutcomeUnknown(f"{failing.message}; it may be published all the same", retry_after=failing.retry_after)


def _set(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()  # the caller may be gone
    else:
        future.set_result(outcome)
