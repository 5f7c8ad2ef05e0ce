"""The local journal: messages that are accepted and not yet published; durable, bounded, in order.

It has one SQLite file, one connection and one thread. Every call is a command on that thread. Commands that arrive
while a transaction is being synced share the next one (group commit), and a call returns when its transaction is on
disk (``synchronous=FULL``). One process holds the file under an exclusive lock. After a failed commit the file is not
written again until it is reopened and verified; until then every call fails. A file that is no longer at its path takes
no new rows, and stays open until it is written to its path again: nobody could open it again. A damaged file is
salvaged when it is opened. If damage is found while the file is open, it is abandoned and ``on_damage`` is called: the
connector restarts in its process, and opens the file again.
"""

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from connector import supervision
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable, Unavailable
from connector.journal.file import DamagedFile, JournalFile, StoredRow, lock
from connector.journal.model import Admission, Contents, JournalState, Oldest, outcome_unknown, refusal
from connector.journal.open_files import OpenFiles, sync
from connector.journal.paths import LOCK_SUFFIX, RESCUING_SUFFIX, WAL_SUFFIX, sibling
from connector.journal.recovery import salvage

_MAX_BATCH: Final = 2_000
_MAX_PART: Final = 5_000
"""Notes that one command reads or deletes: messages are written between two commands, so none waits longer."""

_REOPEN_SECONDS: Final = 1.0
RESTORE_SECONDS: Final = 10.0
"""How long the journal's path is left to a person who moves files there, before the journal is written to it again."""

_LOG = structlog.get_logger()


class _Command:
    """Work for the journal's thread; ``critical`` work is retried until the disk takes it."""

    __slots__ = ("adds", "critical", "done", "run", "writes")

    def __init__(
        self, run: Callable[[JournalFile], Any], *, writes: bool, critical: bool = False, adds: Admission | None = None
    ) -> None:
        self.run = run
        self.writes = writes
        self.critical = critical
        self.adds = adds
        self.done: Future[Any] = Future()


class SqliteJournal:
    """The journal on the local disk.

    Args:
        path: The database file; created with mode 0600, its folder with 0700.
        max_bytes: Limit of database and write-ahead log together.
        vfs: Name of SQLite's file system layer, for fault injection.
        on_damage: Called on the event loop, once, when the open file is found damaged; every call fails from then on,
            and readable rows are saved when the journal is opened again.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, vfs: str | None = None, on_damage: Callable[[], None] = lambda: None
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._vfs = vfs
        self._on_damage = on_damage
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._file: JournalFile | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: int | None = None
        self._to_undo: list[Admission] = []
        self._failed_file: JournalFile | None = None
        self._is_damaged = False
        self._lock_file = OpenFiles()
        self._lost_reason = ""
        self._restore_at = 0.0
        self._restore_problem = ""

    @property
    def is_alive(self) -> bool:
        """Whether its thread lives; without it no call is answered."""
        return self._thread.is_alive()

    async def open(self) -> Contents:
        """Take the lock, verify the file, salvage it if it is damaged, and return what it holds.

        Raises:
            OutsideUnreachable: Another process holds the journal.
            ConfigurationError: The path cannot be used, or the file is of a newer format or not a journal.
        """
        self._loop = asyncio.get_running_loop()
        self._hold(_take_lock(self._path))
        try:
            self._file = await asyncio.to_thread(self._open_whole)
        except BaseException:
            self._give_lock_back()
            raise
        self._thread.start()
        contents: Contents = await self._ask(_contents, writes=False)
        return contents

    async def close(self) -> None:
        """Finish pending calls, checkpoint, and release the lock."""
        if self._thread.is_alive():
            self._commands.put(None)
            await asyncio.to_thread(self._thread.join)
        self._give_lock_back()

    async def store(self, admission: Admission) -> None:
        """Add a row; returns when it is on disk. See :class:`Journal`."""
        row, note = StoredRow.of(admission), admission.note
        await self._ask(lambda file: file.insert(row, note), writes=True, adds=admission)

    async def remove(self, sequence: int) -> None:
        """Remove a row; returns when the removal is on disk."""
        await self._ask(lambda file: file.delete(sequence), writes=True, critical=True)

    async def amend(self, admission: Admission) -> None:
        """Replace a row; returns when the replacement is on disk."""
        row = StoredRow.of(admission)
        await self._ask(lambda file: file.replace(row), writes=True, critical=True)

    async def first_rows(
        self, after: str, lanes: int, depth: int, skip: frozenset[str] = frozenset()
    ) -> list[list[Admission]]:
        """Return the first rows of the next lanes; see :class:`Journal`."""
        rows: list[list[Admission]] = await self._ask(
            lambda file: [[row.admission() for row in lane] for lane in file.first_rows(after, lanes, depth, skip)],
            writes=False,
        )
        return rows

    async def search(self, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
        """Search rows for texts; see :class:`Journal`."""
        return await self._ask(partial(_search, texts=texts, after=after, limit=limit), writes=False)  # type: ignore[no-any-return]

    @property
    def lost_reason(self) -> str:
        """Why the open file is no longer the one at its path, and what to do; empty if it is."""
        if not self._lost_reason:
            return ""
        outlook = self._restore_problem or "is written to its path again within seconds; leave the files there alone"
        return (
            f"the journal's file is no longer at its path: {self._lost_reason}. Nothing is accepted; what it holds is "
            f"published from the open file, and {outlook}"
        )

    async def state(self) -> JournalState:
        """Return how much is in the journal, and since when."""
        state: JournalState = await self._ask(self._state, writes=False)
        return state

    async def add_direct(self, published: Mapping[str, int]) -> None:
        """Add messages to the ledger that were published without having been in the journal."""
        for source, count in published.items():
            await self._ask(partial(JournalFile.add_direct, source=source, published=count), writes=True)

    async def write_note(self, name: str, value: int) -> None:
        """Write a note durably."""
        await self._ask(lambda file: file.write_note(name, value), writes=True)

    async def read_note(self, name: str) -> int:
        """Return the number of a note, or 0."""
        value: int = await self._ask(lambda file: file.read_note(name), writes=False)
        return value

    async def read_notes(self, prefix: str) -> dict[str, int]:
        """Return the notes whose names have a prefix."""
        notes: dict[str, int] = {}
        after = ""
        while True:  # in parts, between which messages are written
            part = await self._ask(
                partial(JournalFile.read_notes, prefix=prefix, after=after, limit=_MAX_PART), writes=False
            )
            notes |= part
            if len(part) < _MAX_PART:
                return notes
            after = next(reversed(part))

    async def delete_notes(self, names: Sequence[str]) -> None:
        """Delete notes by name."""
        for begin in range(0, len(names), _MAX_PART):
            part = names[begin : begin + _MAX_PART]
            await self._ask(partial(JournalFile.delete_notes, names=part), writes=True)

    async def _ask(
        self, run: Callable[[JournalFile], Any], *, writes: bool, critical: bool = False, adds: Admission | None = None
    ) -> Any:
        command = _Command(run, writes=writes, critical=critical, adds=adds)
        if not self._thread.is_alive():
            raise refusal("its thread has ended")
        self._commands.put(command)
        return await asyncio.wrap_future(command.done)

    def _open_whole(self) -> JournalFile:
        """Open the file, after a salvage if it is damaged."""
        salvage.finish(self._path)
        try:
            file = self._open_verified()
        except DamagedFile as damage:
            _LOG.error("the journal is damaged; saving what can be read", damage=str(damage))
            salvage.salvage(self._path, self._max_bytes)
            file = self._open_verified()
        # Operators delete the damaged files once they have dealt with the losses.
        if not salvage.set_aside_files(self._path):
            file.transact([JournalFile.forget_losses])
        return file

    def _open_verified(self) -> JournalFile:
        file = JournalFile(self._path, self._max_bytes, self._vfs)
        try:
            file.verify()
        except BaseException:  # a connection that is only dropped moves its log into the database, and deletes it
            file.abandon()
            raise
        return file

    def _hold(self, lock: int) -> None:
        self._lock = lock
        self._lock_file = OpenFiles(sibling(self._path, LOCK_SUFFIX))

    def _give_lock_back(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- on the journal's thread ---

    def _serve(self) -> None:
        """Run the thread; however it ends, no caller is left waiting."""
        try:
            self._work()
        finally:
            with contextlib.suppress(DamagedFile, apsw.Error, OSError):  # the next start saves what can be read
                self._leave()
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None:
                    _fail([command], refusal("its thread has ended"))

    def _work(self) -> None:
        """Gather commands and run them in one transaction, until `close`."""
        ending = False
        retained: list[_Command] = []
        # None in the queue is the request to end; commands that came after it are still run.
        while not (ending and self._commands.empty()):
            gathered = self._gather(retained)
            ending = ending or None in gathered
            retained = self._run([command for command in gathered if command is not None])
            if retained and ending:
                _fail(retained, refusal("the connector stopped while the disk refused"))
                retained = []

    def _leave(self) -> None:
        """Write a file that is lost to its path, without a pause: it ends with this process; then close it."""
        if self._file is None:
            return
        try:
            self._look(self._file)
            if self._lost_reason:
                self._restore(self._file)
        finally:
            self._file.close()

    def _gather(self, retained: list[_Command]) -> list[_Command | None]:
        gathered: list[_Command | None] = list(retained)
        if not gathered:
            gathered.append(self._commands.get())
        while len(gathered) < _MAX_BATCH and not self._commands.empty():
            gathered.append(self._commands.get())
        return gathered

    def _run(self, commands: list[_Command]) -> list[_Command]:
        """Run commands in one transaction; returns those that must be tried again."""
        if not commands:
            return []
        if self._is_damaged:
            _fail(commands, refusal("it is damaged"))
            return []
        is_begun = False
        try:
            if self._file is None:
                self._file = self._reopen()
            self._look_after(self._file)
            if self._failed_file is not None and not self._why_lost(self._file):  # it failed while lost, and is back
                self._abandon()
                self._file = self._reopen()
                self._look(self._file)
            commands = self._without_additions(commands) if self._lost_reason else commands
            is_begun = True
            outcomes = _outcomes(self._file, commands)
        except DamagedFile as damage:
            self._give_up(damage)
            _fail_transaction(commands, refusal("it is damaged"), is_begun=is_begun)
            return []
        except (apsw.Error, OSError, ConfigurationError) as error:
            _LOG.exception("the journal's disk failed", error=type(error).__name__)
            return self._recover(commands, is_begun=is_begun)
        except BaseException as defect:  # noqa: BLE001 - without this thread no call would ever be answered again
            supervision.record_failure("journal", defect)
            self._rescue_before_it_ends()
            self._give_up(DamagedFile(f"its thread met a defect: {type(defect).__name__}"))
            _fail_transaction(commands, refusal("of a defect of the connector"), is_begun=is_begun)
            return []
        for command, outcome in zip(commands, outcomes, strict=True):
            _complete(command, outcome)
        # After the answers: no caller waits for a checkpoint.
        self._checkpoint()
        return []

    # --- its place ---

    def _look_after(self, file: JournalFile) -> None:
        """Check whether the open file is still the one at its path; after a pause, write it there again."""
        self._look(file)
        if self._lost_reason and time.monotonic() >= self._restore_at:
            self._restore_at = time.monotonic() + RESTORE_SECONDS
            self._restore(file)

    def _look(self, file: JournalFile) -> None:
        lost = self._why_lost(file)
        if lost and not self._lost_reason:
            _LOG.error("the journal's file is no longer at its path; nothing is taken into it", lost=lost)
            self._lost_reason = lost
            self._rescue(file)
            self._restore_at = time.monotonic() + RESTORE_SECONDS
        elif lost:
            self._lost_reason = lost
        # Not while a refused row may be in the file: messages would go straight to Kafka in front of it.
        elif self._lost_reason and self._failed_file is None:
            salvage.rescued(self._path).unlink(missing_ok=True)  # or the next start would use it instead
            sync(self._path.parent)
            self._lost_reason = ""
            _LOG.warning("the journal's file is at its path again")

    def _why_lost(self, file: JournalFile) -> str:
        return file.lost_reason() or self._lock_file.lost_reason()

    def _rescue(self, file: JournalFile) -> None:
        """Write the open file's content beside its path: if this process ends now, the next start uses it.

        Raises:
            DamagedFile: The open file does not contain what was written into it.
        """
        self._restore_problem = ""
        # Under another name until it is complete and synced: the next start takes whatever has the final name.
        draft = sibling(self._path, RESCUING_SUFFIX)
        try:
            file.verify()
            file.write_out(draft)
            draft.replace(salvage.rescued(self._path))
            sync(self._path.parent)
        except (apsw.Error, OSError) as error:
            self._restore_problem = f"cannot be written there again ({error})"
            _LOG.error("the journal could not be written beside its path", error=str(error))

    def _state(self, file: JournalFile) -> JournalState:
        oldest = file.oldest()
        return JournalState(file.used(), None if oldest is None else Oldest(*oldest))

    @staticmethod
    def _without_additions(commands: list[_Command]) -> list[_Command]:
        """Refuse new rows, which would be gone after a restart; other commands continue in the open file."""
        _fail(
            [command for command in commands if command.adds is not None], refusal("its file is no longer at its path")
        )
        return [command for command in commands if command.adds is None]

    def _restore(self, file: JournalFile) -> None:
        """Set aside the files at the path, write the open file's content there, and continue with the new file.

        Raises:
            DamagedFile: The open file does not contain what was written into it.
        """
        self._restore_problem = ""
        try:
            # The lock at the path first: while ours is on a lock file that is gone, another process could take it.
            if self._lock_file.lost_reason():
                lock = _take_lock(self._path)
                self._give_lock_back()
                self._hold(lock)
            self._rescue(file)
            if self._restore_problem:
                return
            aside = salvage.set_aside(self._path, file.others())
            sibling(self._path, WAL_SUFFIX).unlink(missing_ok=True)
            salvage.rescued(self._path).replace(self._path)
            sync(self._path.parent)
            self._file = self._open_or_take_back()
        except (apsw.Error, OSError, ConnectorError) as error:
            self._restore_problem = f"cannot be written there again ({error})"
            _LOG.error("the journal could not be written to its path again", error=str(error))
            return
        # No checkpoint of the old file: its log's path now has the log of the new one.
        file.abandon()
        self._failed_file = None
        self._lost_reason = ""
        _LOG.warning("the journal was written to its path again", set_aside=aside)

    def _checkpoint(self) -> None:
        """Keep the write-ahead log small. Its content is committed, so a failure here refuses nothing."""
        if self._file is None:
            return
        try:
            self._file.checkpoint()
        except (apsw.Error, OSError):
            _LOG.exception("the journal's disk failed at a checkpoint")
            self._recover([], is_begun=False)

    def _open_or_take_back(self) -> JournalFile:
        """Open what was written to the path; if that fails, make it the copy beside the path again."""
        # Otherwise every further attempt would set it aside, as if somebody had put it there.
        try:
            return self._open_undone()
        except BaseException:
            self._path.replace(salvage.rescued(self._path))
            raise

    def _reopen(self) -> JournalFile:
        """Open the file again that was closed because its disk failed.

        Raises:
            DamagedFile: The file at the path is another one, or not what it was when it was closed.
        """
        failed = self._failed_file
        assert failed is not None, "only a file that failed is closed"  # noqa: S101 - for the type checker
        if lost := failed.lost_reason():
            raise DamagedFile(f"while it was closed because its disk had failed: {lost}")
        try:
            file = self._open_undone()
        except BaseException:
            failed.remember()  # opening writes, too
            raise
        if failed.others():
            file.abandon()
            raise DamagedFile("it was replaced while it was opened again")
        self._failed_file = None
        return file

    def _open_undone(self) -> JournalFile:
        """Open and verify the file, and remove refused rows that reached the disk nevertheless."""
        file = self._open_verified()
        try:
            file.transact(
                [
                    partial(JournalFile.undo_insert, sequence=admission.sequence, note=admission.note)
                    for admission in self._to_undo
                ]
            )
        except BaseException:
            file.abandon()
            raise
        self._to_undo = []
        return file

    def _recover(self, commands: list[_Command], *, is_begun: bool) -> list[_Command]:
        """Handle a failed transaction: abandon the file, refuse what may be refused, return the rest for a retry."""
        if self._file is not None:
            self._failed_file = self._file
            if not self._is_lost(self._file):
                self._abandon()
        # Rows of a transaction that was never begun cannot be in the file.
        if is_begun:
            self._to_undo += [command.adds for command in commands if command.adds is not None]
        not_critical = [command for command in commands if not command.critical]
        _fail_transaction(not_critical, refusal("its disk failed"), is_begun=is_begun)
        threading.Event().wait(_REOPEN_SECONDS)
        return [command for command in commands if command.critical]

    def _is_lost(self, file: JournalFile) -> bool:
        with contextlib.suppress(DamagedFile, OSError):  # what is written to its path again is verified once more
            self._look(file)
        return bool(self._lost_reason)

    def _rescue_before_it_ends(self) -> None:
        """Write a lost file beside its path, before a defect ends it."""
        if self._file is None or not self._lost_reason:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rescue(self._file)
        except Exception as error:  # noqa: BLE001 - it may be the defect
            _LOG.error("the journal could not be written beside its path", error=type(error).__name__)

    def _give_up(self, damage: DamagedFile) -> None:
        """Stop using a damaged file, and call ``on_damage``."""
        _LOG.error("the open journal turned out to be damaged", damage=str(damage))
        self._abandon()
        self._is_damaged = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_damage)

    def _abandon(self) -> None:
        if self._file is not None:
            self._file.abandon()
            self._file = None


def _outcomes(file: JournalFile, commands: Sequence[_Command]) -> list[Any]:
    if any(command.writes for command in commands):
        return file.transact([command.run for command in commands])
    return [file.read(command.run) for command in commands]


def _contents(file: JournalFile) -> Contents:
    return Contents(file.lanes(), file.sources(), file.next_sequence(), file.accounts())


def _search(file: JournalFile, texts: Sequence[bytes], after: int, limit: int) -> tuple[list[Admission], int | None]:
    rows, last = file.search(texts, after, limit)
    return [row.admission() for row in rows], last


def _take_lock(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(sibling(path, LOCK_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"WEDA_JOURNAL__PATH: {path} cannot be written ({error.strerror})") from error
    try:
        lock(descriptor, path, "stop it, or give WEDA_JOURNAL__PATH another file")
    except OutsideUnreachable:
        os.close(descriptor)
        raise
    return descriptor


def _fail_transaction(commands: Iterable[_Command], error: Unavailable, *, is_begun: bool) -> None:
    """Fail the commands of a transaction whose commit failed.

    SQLite writes the commit's frame before it syncs the log. If that sync fails, the frame can still be read until the
    power fails: the next process to open the file finds the rows, unless `SqliteJournal._open_undone` removed them.
    """
    for command in commands:
        is_row = is_begun and command.adds is not None
        _complete(command, outcome_unknown(error) if is_row else error)


def _fail(commands: Iterable[_Command], error: Unavailable) -> None:
    for command in commands:
        _complete(command, error)


def _complete(command: _Command, outcome: Any) -> None:
    if not command.done.set_running_or_notify_cancel():
        return  # the caller was cancelled; the command was run nevertheless
    if isinstance(outcome, Exception):
        command.done.set_exception(outcome)
    else:
        command.done.set_result(outcome)
