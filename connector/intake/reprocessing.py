"""Lists the dead letters of a running connector, and reprocesses them through its own pipeline.

There is one run at a time. The letters of an instance are reprocessed one after the other, in the order in which they
were received; one that fails again or is refused holds back those behind it. The journal has a note of each letter that
is done (see `Pipeline.reprocess`), so a run that was interrupted can be started again: it skips them.

Users know it as replay: the command ``dead-letters replay``, the path ``/api/replays`` and the field ``replayed``.
"""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, Final

import structlog

from connector import supervision
from connector.clock import now_ms
from connector.delivery.duplicates import dedup_key_of
from connector.delivery.order import AlreadyDone, Idempotency
from connector.errors import (
    ConnectorError,
    EmptyBody,
    OutsideUnreachable,
    TooLarge,
    Unavailable,
    Unconvertible,
    Unreadable,
)
from connector.intake.dead_letters import (
    NOTE_PREFIX,
    DeadLetter,
    ReadTopic,
    Selection,
    from_record,
    without_position,
)
from connector.intake.listing import Listing, list_letters
from connector.intake.pipeline import Outcome, Pipeline
from connector.journal.model import Journal
from connector.kafka.reader import Readers

MAX_ATTEMPTS: Final = 5
"""How often a message is tried by default, including the first time."""

_MAX_GROUPS_AT_ONCE: Final = 64
_BATCH_BYTES: Final = 64 * 1024 * 1024
_JOURNAL_TIMEOUT_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.5
_LETTER_BYTES: Final = 512
_LOG = structlog.get_logger()

CountInJournal = Callable[[], Awaitable[int]]
"""Returns how many dead letters wait in the journal, of all replicas."""


class AlreadyRunning(ConnectorError):
    """Another run is under way."""

    stage = "reprocess"
    retriable = True


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        total: Letters that it is to reprocess.
        accepted: Messages that are safe now.
        repeats: Duplicates: messages that had been accepted already, as they were sent again or by an earlier run.
        failed: Letters that failed again; each became a new dead letter with one attempt more.
        refused: Letters that were left alone: their source is not configured, they are too large for a topic, they
            were reprocessed meanwhile with an outcome that is not known, or the connector has a defect.
        held_back: Letters behind one of the same instance that failed or was refused.
        exhausted: Letters that were tried as often as allowed.
        again: Why letters failed again or were refused, with their number.
        state: ``running``, ``ended``, ``stopped`` or ``broken``.
        message: Why the run is broken.
        seconds: How long the run has taken.
        dry_run: Nothing was changed: the figures say what a run would do.
        in_journal: Dead letters that waited in the journal when the run began; the run leaves them out.
        unreachable: The run is broken because Kafka did not answer.
    """

    total: int = 0
    accepted: int = 0
    repeats: int = 0
    failed: int = 0
    refused: int = 0
    held_back: int = 0
    exhausted: int = 0
    again: Counter[str] = field(default_factory=Counter)
    state: str = "running"
    message: str = ""
    seconds: float = 0.0
    dry_run: bool = False
    in_journal: int = 0
    unreachable: bool = False

    @property
    def done(self) -> int:
        """Letters that the run is finished with."""
        return self.accepted + self.repeats + self.failed + self.refused + self.held_back + self.exhausted

    def as_dict(self) -> dict[str, Any]:
        """The progress as JSON values."""
        return {**asdict(self), "again": dict(self.again), "done": self.done, "seconds": round(self.seconds, 3)}


class DeadLetterReprocessor:
    """Lists the dead letters of one connector, and reprocesses them.

    Args:
        pipeline: Reprocesses one letter.
        journal: Has the notes of the letters that were reprocessed.
        idempotency: Makes sure that only one replica reprocesses a letter.
        count_in_journal: Returns how many dead letters wait in the journal, of all replicas.
        sources: Names of the configured sources.
        read: Reads the topics of dead letters.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        journal: Journal,
        idempotency: Idempotency,
        *,
        count_in_journal: CountInJournal,
        sources: Iterable[str],
        read: ReadTopic,
    ) -> None:
        self._journal = journal
        self._count_in_journal = count_in_journal
        self._read = read
        self._run = partial(
            _Run, pipeline, journal, idempotency, count_in_journal=count_in_journal, sources=frozenset(sources)
        )
        self._readers = Readers()
        self._task: asyncio.Task[None] | None = None
        self.progress: Progress | None = None

    async def listed(self, selection: Selection, limit: int, *, only_waiting: bool = False) -> Listing:
        """Count the letters of a selection by reason, and list the latest.

        Args:
            selection: Which letters.
            limit: How many are listed.
            only_waiting: Leave out those that were reprocessed, in the counts too.

        Raises:
            OutsideUnreachable, ConfigurationError: Kafka cannot be read.
        """
        async with self._readers.slot():
            noted = await self._journal.read_notes(NOTE_PREFIX)
            in_journal = await self._count_in_journal()
            listing = await asyncio.to_thread(
                list_letters, self._read, noted, selection, limit, only_waiting=only_waiting
            )
            return replace(listing, in_journal=in_journal)

    async def is_reprocessed(self, letter: DeadLetter) -> bool:
        """Whether the letter was reprocessed."""
        return await self._journal.read_note(letter.note.name) == letter.note.value

    async def dry_run(self, selection: Selection, max_attempts: int) -> Progress:
        """What a run would do, as far as parsing and conversion tell; nothing is changed."""
        run = self._run(max_attempts=max_attempts)
        progress, began = Progress(dry_run=True), time.monotonic()
        async with self._readers.slot():
            async for batch in run.batches(self._read, selection, progress):
                await asyncio.to_thread(run.dry_run, batch, progress)
        progress.state, progress.seconds = "ended", time.monotonic() - began
        return progress

    def start(self, selection: Selection, max_attempts: int) -> Progress:
        """Start a run; :attr:`progress` follows it.

        Raises:
            AlreadyRunning: One is running.
        """
        if self._task is not None and not self._task.done():
            raise AlreadyRunning("a replay is running: wait for its end, or stop it")
        self.progress = Progress()
        run = self._run(max_attempts=max_attempts)
        self._task = asyncio.create_task(_drive(run, self._read, selection, self.progress))
        return self.progress

    async def stop(self) -> None:
        """End the run, if there is one. Letters that were admitted still become safe."""
        if self._task is not None:
            await supervision.cancel([self._task])


async def _drive(run: "_Run", read: ReadTopic, selection: Selection, progress: Progress) -> None:
    began = time.monotonic()
    try:
        async for batch in run.batches(read, selection, progress):
            await run.reprocess(batch, progress)
        progress.state = "ended"
    except asyncio.CancelledError:
        progress.state = "stopped"
        raise
    except ConnectorError as error:
        progress.state, progress.message = "broken", error.message
        progress.unreachable = isinstance(error, OutsideUnreachable)
    except Exception:  # noqa: BLE001 - the progress has to say so
        progress.state, progress.message = "broken", "a defect of the connector; its log says more"
        _LOG.exception("reprocessing failed")
    finally:
        progress.seconds = time.monotonic() - began
        _LOG.info("reprocessing of dead letters ended", **{**progress.as_dict(), "message": progress.message or None})


class _Run:
    """One run, with the letters that it has tried and the instances that it holds back."""

    def __init__(
        self,
        pipeline: Pipeline,
        journal: Journal,
        idempotency: Idempotency,
        *,
        count_in_journal: CountInJournal,
        sources: frozenset[str],
        max_attempts: int,
    ) -> None:
        self._pipeline = pipeline
        self._journal = journal
        self._idempotency = idempotency
        self._count_in_journal = count_in_journal
        self._sources = sources
        self._max_attempts = max_attempts
        self._held: set[str] = set()
        self._handed_out: set[str] = set()
        self._ends: dict[tuple[str, int], int] = {}

    async def batches(
        self, read: ReadTopic, selection: Selection, progress: Progress
    ) -> AsyncIterator[list[DeadLetter]]:
        """The letters to reprocess, oldest first, in batches that fit in memory.

        Letters that come after the run began are left out.
        """
        is_first = True
        while True:
            noted = await self._journal.read_notes(NOTE_PREFIX)
            waiting = await asyncio.to_thread(self._find_waiting, read, noted, selection)
            if is_first:
                progress.total, is_first = waiting.total, False
                progress.in_journal = await self._count_in_journal()
                if not progress.dry_run:
                    await self._journal.delete_notes(waiting.expired)
            if not waiting.letters:
                return
            yield waiting.letters
            if len(waiting.letters) == waiting.total:
                return

    async def reprocess(self, letters: Iterable[DeadLetter], progress: Progress) -> None:
        """Reprocess letters: those of one instance in order, several instances at a time."""
        groups = await asyncio.to_thread(_by_group, letters)
        has_room = asyncio.Semaphore(_MAX_GROUPS_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in groups.values():
                    await has_room.acquire()
                    task = tasks.create_task(self._reprocess_group(group, progress))
                    task.add_done_callback(lambda _: has_room.release())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    def dry_run(self, letters: Iterable[DeadLetter], progress: Progress) -> None:
        """Count what would become of letters; blocking."""
        for letter in letters:
            if self._count_if_skipped(letter, progress):
                continue
            try:
                self._pipeline.dry_run(letter)
                progress.accepted += 1
            except (EmptyBody, Unreadable, Unconvertible) as error:
                self._failed(letter, error, progress)

    async def _reprocess_group(self, letters: list[DeadLetter], progress: Progress) -> None:
        for letter in letters:
            if not self._count_if_skipped(letter, progress):
                await self._reprocess_one(letter, progress)

    def _count_if_skipped(self, letter: DeadLetter, progress: Progress) -> bool:
        """Count a letter that must not be tried; returns whether that is so."""
        if letter.attempt >= self._max_attempts:
            progress.exhausted += 1
        elif _group_of(letter) in self._held:
            progress.held_back += 1
        elif letter.source not in self._sources:
            self._refused(letter, f"the source {letter.source} is not configured (WEDA_SOURCES)", progress)
        else:
            return False
        return True

    async def _reprocess_one(self, letter: DeadLetter, progress: Progress) -> None:
        try:
            outcome = await self._try(letter)
        except (TooLarge, AlreadyDone) as error:
            self._refused(letter, error.message, progress)
        except (EmptyBody, Unreadable, Unconvertible) as error:
            self._failed(letter, error, progress)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - one letter must not keep back the others
            _LOG.exception("a defect of the connector; the dead letter stays", note=letter.note.name)
            self._refused(letter, "a defect of the connector; its log says more", progress)
        else:
            progress.accepted += outcome is Outcome.ACCEPTED
            progress.repeats += outcome is Outcome.DUPLICATE

    async def _try(self, letter: DeadLetter) -> Outcome:
        """Bring it through the pipeline, once among all replicas; a full or failing journal is waited for a while.

        Raises:
            AlreadyDone: It was reprocessed meanwhile, and what became of the message is not known here.
        """
        note = letter.note
        # "replay" is in the keys that replicas of other versions share
        dedup_key = dedup_key_of("replay", letter.source, note.name, bytes.fromhex(note.name.removeprefix(NOTE_PREFIX)))
        gives_up_at = time.monotonic() + _JOURNAL_TIMEOUT_SECONDS
        while True:
            work = partial(self._pipeline.reprocess, letter, now_ms())
            try:
                outcome = await self._idempotency.run_once(note, dedup_key, work)
            except Unavailable:
                if time.monotonic() >= gives_up_at:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return Outcome.DUPLICATE if outcome is None else outcome

    def _failed(self, letter: DeadLetter, error: ConnectorError, progress: Progress) -> None:
        progress.failed += 1
        progress.again[f"{error.code} {without_position(error.message)}"] += 1
        self._held.add(_group_of(letter))

    def _refused(self, letter: DeadLetter, why: str, progress: Progress) -> None:
        progress.refused += 1
        progress.again[why] += 1
        self._held.add(_group_of(letter))

    def _find_waiting(self, read: ReadTopic, noted: Mapping[str, int], selection: Selection) -> "_WaitingLetters":
        """Read the topics to where they ended when the run began; keep the oldest letters that fit in memory."""
        waiting, bounds = _WaitingLetters(), dict(self._ends)
        for letter in map(from_record, read()):
            partition = letter.topic, letter.partition
            if bounds and letter.offset > bounds.get(partition, -1):
                continue
            self._ends[partition] = max(letter.offset, self._ends.get(partition, -1))
            waiting.oldest = min(waiting.oldest, letter.received_at)
            name = letter.note.name
            if name not in noted and name not in self._handed_out and selection.matches(letter):
                waiting.add(letter)
        waiting.letters.sort(key=attrgetter("received_order"))
        waiting.expired = [name for name, received_at in noted.items() if received_at < waiting.oldest < math.inf]
        self._handed_out.update(one.note.name for one in waiting.letters)
        return waiting


@dataclass
class _WaitingLetters:
    """The oldest waiting letters of the topics, and how many there are in all.

    Attributes:
        expired: Notes of letters that retention has deleted: older than every letter in the topics.
    """

    letters: list[DeadLetter] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    oldest: float = math.inf
    size: int = 0
    expired: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.names)

    def add(self, letter: DeadLetter) -> None:
        if letter.note.name in self.names:
            return  # the connector was killed between publishing it and removing its row
        self.names.add(letter.note.name)
        self.letters.append(letter)
        self.size += _size(letter)
        if self.size > 2 * _BATCH_BYTES:
            self._keep_the_oldest()

    def _keep_the_oldest(self) -> None:
        self.letters.sort(key=attrgetter("received_order"))
        while self.size > _BATCH_BYTES:
            self.size -= _size(self.letters.pop())


def _by_group(letters: Iterable[DeadLetter]) -> dict[str, list[DeadLetter]]:
    groups: defaultdict[str, list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        groups[_group_of(letter)].append(letter)
    return groups


def _group_of(letter: DeadLetter) -> str:
    """What is reprocessed in order: the letters of an instance; one without a readable instance is alone."""
    if letter.instance_id is not None:
        return f"instance/{letter.instance_id}"
    return f"letter/{letter.topic}/{letter.partition}/{letter.offset}"


def _size(letter: DeadLetter) -> int:
    return len(letter.body) + _LETTER_BYTES
