"""The journal whose file is deleted, moved, replaced or overwritten while it is open: nothing that it holds is lost."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw
import pytest

from connector.delivery.duplicates import Duplicates, DuplicatesFile, dedup_key_of
from connector.errors import OutcomeUnknown, Unavailable
from connector.journal import sqlite as journal_module
from connector.journal.file import JournalFile
from connector.journal.model import Admission
from connector.journal.offline import detached
from connector.journal.recovery import salvage
from connector.journal.sqlite import SqliteJournal
from connector.values import Request
from tests.failing_disk import FailingDisk
from tests.integration.test_log_sink import serve  # noqa: F401 - a fixture
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS, until

MAX_BYTES = 64 * 1024 * 1024


def admission(sequence: int) -> Admission:
    return Admission(sequence, f"lane-{sequence}", Request("default", b"body" * 1_000, "application/json", 1), ())


def delete(path: Path, _older: Path) -> None:
    path.unlink()


def delete_folder(path: Path, _older: Path) -> None:
    shutil.rmtree(path.parent)


def delete_log(path: Path, _older: Path) -> None:
    path.with_name("journal.db-wal").unlink()


def delete_lock(path: Path, _older: Path) -> None:
    path.with_name("journal.db.lock").unlink()


def rename_folder(path: Path, _older: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace(path: Path, older: Path) -> None:
    for suffix in ("", "-wal"):
        Path(f"{older}{suffix}").replace(f"{path}{suffix}")


def overwrite(path: Path, older: Path) -> None:
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{older}{suffix}", f"{path}{suffix}")


HARMS: list[Callable[[Path, Path], None]] = [
    *(delete, delete_folder, delete_log, delete_lock),
    *(rename_folder, replace, overwrite),
]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "journal.db"


async def filled(
    path: Path, tmp_path: Path, vfs: str | None = None, on_damage: Callable[[], None] = lambda: None
) -> tuple[SqliteJournal, Path]:
    """An open journal with ten rows, and a copy of when it had five."""
    journal = SqliteJournal(path, max_bytes=MAX_BYTES, vfs=vfs, on_damage=on_damage)
    await journal.open()
    for sequence in range(1, 6):
        await journal.store(admission(sequence))
    older = tmp_path / "older"
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{older}{suffix}")
    for sequence in range(6, 11):
        await journal.store(admission(sequence))
    return journal, older


async def found(path: Path) -> set[int]:
    """The rows that a new start finds."""
    journal = SqliteJournal(path, max_bytes=MAX_BYTES)
    contents = await journal.open()
    await journal.close()
    return {int(lane.removeprefix("lane-")) for lane in contents.lanes}


async def is_at_its_path(journal: SqliteJournal) -> bool:
    with contextlib.suppress(Unavailable):
        await journal.state()  # it looks
    return not journal.lost_reason


async def restored(journal: SqliteJournal) -> None:
    """Wait until it is written to its path, for which it does not wait any more."""
    journal._restore_at = 0.0
    await until(partial(is_at_its_path, journal))


@pytest.mark.parametrize("harm", HARMS, ids=lambda one: one.__name__)
async def test_a_journal_that_is_no_longer_at_its_path_takes_nothing_and_comes_back_whole(harm, path, tmp_path):
    journal, older = await filled(path, tmp_path)
    harm(path, older)
    with pytest.raises(Unavailable, match="no longer at its path"):
        await journal.store(admission(11))
    await journal.remove(1)  # published meanwhile
    assert not await is_at_its_path(journal), "its own commit hides nothing"
    lost = journal.lost_reason
    await restored(journal)
    await journal.store(admission(12))
    await journal.close()

    assert "is written to its path again" in lost or "cannot be written there again" in lost
    assert await found(path) == {*range(2, 11), 12}
    aside = {one.name.partition(".found-")[0] for one in path.parent.glob("*.found-*")}
    assert aside == ({"journal.db"} if harm is replace else set()), "what somebody put there is kept"


async def test_what_cannot_be_removed_beside_the_journal_does_not_keep_it_away(path, tmp_path):
    journal, older = await filled(path, tmp_path)
    path.with_name("journal.db.found-20200101T000000.000Z").mkdir(parents=True)
    for number in range(salvage.MAX_SET_ASIDE + 1):
        older.write_text("of another program")
        older.replace(path)
        await restored(journal)
        await journal.store(admission(11 + number))
    await journal.close()

    assert await found(path) == set(range(1, 11 + salvage.MAX_SET_ASIDE + 1))


async def test_only_so_many_files_that_others_put_at_its_path_are_kept(path, tmp_path):
    journal, older = await filled(path, tmp_path)
    contents = []
    for number in range(salvage.MAX_SET_ASIDE + 2):
        older.write_text(f"of another program, {number}")
        contents.append(older.read_bytes())
        older.replace(path)
        await restored(journal)
        await journal.store(admission(11 + number))
    await journal.close()

    aside = [file for file in path.parent.glob("*.found-*") if not file.name.endswith("-wal")]
    assert [file.read_bytes() for file in sorted(aside)] == contents[-salvage.MAX_SET_ASIDE :]
    assert await found(path) == set(range(1, 11 + salvage.MAX_SET_ASIDE + 2))


def once(act: Callable[[], None]) -> Callable[[], None]:
    left = [act]
    return lambda: left.pop()() if left else None


# Not `overwrite`: a connection whose commit failed reads the file again, and finds what the other program wrote.
@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed before", "found when it fails"])
@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm is not overwrite], ids=lambda one: one.__name__)
async def test_a_journal_whose_disk_fails_while_it_is_lost_comes_back_whole(harm, is_noticed, path, tmp_path, disk):
    journal, older = await filled(path, tmp_path, disk.name)
    if is_noticed:
        harm(path, older)
        assert not await is_at_its_path(journal)
        await journal.remove(1)
    else:
        disk.on_failure = once(partial(harm, path, older))
    disk.failing.add("sync")
    addition, *removals = [
        asyncio.create_task(journal.store(admission(11))),
        *(asyncio.create_task(journal.remove(sequence)) for sequence in (1, 2)),
    ]
    with pytest.raises(Unavailable):
        await addition
    disk.failing.clear()
    await asyncio.gather(*removals)
    assert not await is_at_its_path(journal)
    await restored(journal)
    await journal.store(admission(11))
    await fails_and_recovers(journal, disk)
    await journal.close()

    assert await found(path) == {*range(3, 11), 11}, "an older copy would bring back what is published"


async def fails_and_recovers(journal: SqliteJournal, disk: FailingDisk) -> None:
    """The journal after a commit that failed, and the next one that did not."""
    disk.failing.add("sync")
    with pytest.raises(Unavailable):
        await journal.store(admission(99))
    disk.failing.clear()
    await journal.remove(98)


async def test_what_is_taken_after_it_was_refused_stays_when_the_disk_fails_again(path, tmp_path, disk):
    """The refused row was to be removed at the next opening, which has to come before it is taken."""
    journal, _ = await filled(path, tmp_path, disk.name)
    disk.on_failure = once(partial(path.rename, tmp_path / "elsewhere"))
    disk.failing.add("sync")
    with pytest.raises(OutcomeUnknown):
        await journal.store(admission(11))
    assert not await is_at_its_path(journal)
    disk.failing.clear()
    (tmp_path / "elsewhere").rename(path)
    await until(partial(is_at_its_path, journal))
    await journal.store(admission(11))
    await fails_and_recovers(journal, disk)
    await journal.close()

    assert await found(path) == set(range(1, 12))


@pytest.mark.parametrize("harm", [delete, delete_folder, replace, overwrite], ids=lambda one: one.__name__)
async def test_a_journal_that_is_lost_while_it_is_closed_is_not_opened_in_its_place(harm, path, tmp_path, disk):
    """Delivery counts the rows of a file; it must not go on with another one."""
    damaged = asyncio.Event()
    journal, older = await filled(path, tmp_path, disk.name, damaged.set)
    disk.failing.add("sync")
    with pytest.raises(Unavailable):
        await journal.store(admission(11))
    assert not journal.lost_reason
    harm(path, older)
    disk.failing.clear()
    await asyncio.wait_for(asyncio.gather(damaged.wait(), asked_again(journal)), PATIENCE_SECONDS)
    await journal.close()


async def asked_again(journal: SqliteJournal) -> None:
    """The next call, which opens the file; it fails if the file is another one."""
    with pytest.raises(Unavailable, match="it is damaged"):
        await journal.state()


@pytest.mark.parametrize("what", ["sync", "write"])
async def test_a_disk_that_fails_for_a_while_is_no_damage(what, path, tmp_path, disk, monkeypatch):
    """Every attempt to open the file again writes to it; none of them is another program."""
    monkeypatch.setattr(journal_module, "_REOPEN_SECONDS", 0.05)
    damaged = asyncio.Event()
    journal, _ = await filled(path, tmp_path, disk.name, damaged.set)
    disk.failing.add(what)
    removal = asyncio.create_task(journal.remove(1))
    await until(lambda: disk.failures > 5 or damaged.is_set())
    assert not damaged.is_set()
    disk.failing.clear()
    await removal
    await goes_on(journal, damaged, path)


async def goes_on(journal: SqliteJournal, damaged: asyncio.Event, path: Path) -> None:
    """The journal, of which the first row was removed, takes another and is whole."""
    await journal.store(admission(11))
    await journal.close()

    assert not damaged.is_set()
    assert await found(path) == set(range(2, 12))


async def test_a_disk_that_cannot_read_for_a_while_is_no_damage(path, tmp_path, disk, monkeypatch):
    """A connection that is only dropped would move its log into the database, and delete it."""
    monkeypatch.setattr(journal_module, "_REOPEN_SECONDS", 0.05)
    damaged = asyncio.Event()
    journal, _ = await filled(path, tmp_path, disk.name, damaged.set)
    verify, failures = JournalFile.verify, iter([apsw.IOError("the disk does not read")] * 3)

    def fail(file):
        for failure in failures:
            raise failure
        verify(file)

    monkeypatch.setattr(JournalFile, "verify", fail)
    disk.on_failure = once(disk.failing.clear)
    disk.failing.add("sync")
    await asyncio.wait_for(journal.remove(1), PATIENCE_SECONDS)
    await goes_on(journal, damaged, path)


async def test_a_journal_that_failed_and_was_put_back_is_compared_when_it_is_opened(path, tmp_path, disk, monkeypatch):
    monkeypatch.setattr(journal_module, "_REOPEN_SECONDS", 0.05)
    damaged = asyncio.Event()
    journal, older = await filled(path, tmp_path, disk.name, damaged.set)
    disk.on_failure = once(partial(path.rename, tmp_path / "elsewhere"))
    disk.failing.add("sync")
    with pytest.raises(OutcomeUnknown):
        await journal.store(admission(11))
    (tmp_path / "elsewhere").rename(path)
    failures = disk.failures
    removal = asyncio.create_task(journal.remove(1))
    await until(lambda: disk.failures > failures + 3)  # it is closed, and cannot be opened
    replace(path, older)
    disk.failing.clear()
    with pytest.raises(Unavailable, match="damaged"):
        await removal
    await journal.close()


async def test_a_copy_that_is_whole_is_not_replaced_by_a_file_that_is_not(path, tmp_path, disk):
    """A commit that fails makes SQLite read the file again, which is an older one by now."""
    damaged = asyncio.Event()
    older = tmp_path / "older.db"
    for sequences in (range(1, 6), range(6, 11), ()):
        journal = SqliteJournal(path, max_bytes=MAX_BYTES, vfs=disk.name, on_damage=damaged.set)
        await journal.open()
        for sequence in sequences:  # small ones: SQLite has all of them in memory
            await journal.store(Admission(sequence, f"lane-{sequence}", Request("default", b"b", "", 1), ()))
        if sequences:
            await journal.close()
        if not older.exists():
            shutil.copyfile(path, older)
    shutil.copyfile(older, path)
    assert not await is_at_its_path(journal)
    shutil.copyfile(path.with_name("journal.db.rescued"), tmp_path / "copy.db")
    assert await found(tmp_path / "copy.db") == set(range(1, 11))
    disk.failing.add("sync")
    removal = asyncio.create_task(journal.remove(1))
    await until(lambda: disk.failures > 0)
    disk.failing.clear()
    journal._restore_at = 0.0
    await asyncio.wait_for(damaged.wait(), PATIENCE_SECONDS)
    with contextlib.suppress(Unavailable):
        await removal
    await journal.close()

    assert await found(path) == set(range(1, 11))


async def test_a_defect_of_the_copying_itself_leaves_no_caller_waiting(path, tmp_path, monkeypatch):
    damaged = asyncio.Event()
    journal, _ = await filled(path, tmp_path, on_damage=damaged.set)
    path.rename(tmp_path / "elsewhere")

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(journal._file, "verify", fail)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(journal.remove(1), PATIENCE_SECONDS)
    await asyncio.wait_for(damaged.wait(), PATIENCE_SECONDS)
    await journal.close()


async def test_a_journal_that_is_back_counts_as_lost_until_its_refused_row_is_undone(path, tmp_path, disk, monkeypatch):
    """While the row may be in the log, a crash brings it back behind what went straight to Kafka."""
    monkeypatch.setattr(journal_module, "_REOPEN_SECONDS", 0.05)
    journal, _ = await filled(path, tmp_path, disk.name)
    disk.on_failure = once(partial(path.rename, tmp_path / "elsewhere"))
    disk.failing.add("sync")
    with pytest.raises(OutcomeUnknown):
        await journal.store(admission(11))
    (tmp_path / "elsewhere").rename(path)
    removal = asyncio.create_task(journal.remove(11))
    failures = disk.failures
    await until(lambda: disk.failures > failures + 3)  # it is closed, and cannot be opened
    assert journal.lost_reason
    disk.failing.clear()
    await removal
    assert not journal.lost_reason
    await journal.close()

    assert await found(path) == set(range(1, 11))


async def test_a_defect_while_the_journal_is_lost_ends_no_row(path, tmp_path):
    """The open file ends with it, so what it holds is written beside the path before."""
    journal, _ = await filled(path, tmp_path)
    shutil.rmtree(path.parent)

    def defect(_file):
        raise RuntimeError("a defect")

    with pytest.raises(Unavailable):
        await journal._ask(defect, writes=False)
    await journal.close()

    assert await found(path) == set(range(1, 11))


@pytest.mark.parametrize("harm", [delete, replace, overwrite], ids=lambda one: one.__name__)
async def test_commands_without_a_connector_read_the_copy_of_a_lost_journal(harm, path, tmp_path):
    journal, older = await filled(path, tmp_path)
    harm(path, older)
    assert not await is_at_its_path(journal)
    journal._give_lock_back()  # as the kernel does; the thread asks for nothing any more

    with detached(path) as offline:
        assert {row.sequence for row in offline.admissions()} == set(range(1, 11))
    journal._file = None
    await journal.close()


async def test_a_copy_that_has_no_room_is_not_left_on_the_disk(path, tmp_path, disk):
    journal, _ = await filled(path, tmp_path, disk.name)
    path.rename(tmp_path / "elsewhere")
    disk.failing.add("write")
    assert not await is_at_its_path(journal)
    assert {one.name for one in path.parent.iterdir()} <= {"journal.db-wal", "journal.db.lock"}
    disk.failing.clear()
    (tmp_path / "elsewhere").rename(path)
    await journal.close()
    for name in ("journal.db.rescuing", "journal.db.rescuing-journal"):
        path.with_name(name).write_bytes(b"a copy that was cut short")

    assert await found(path) == set(range(1, 11))
    assert {one.name for one in path.parent.iterdir()} == {"journal.db", "journal.db.lock"}


async def test_of_an_overwritten_log_nothing_is_moved_into_the_database(path, tmp_path):
    journal, _ = await filled(path, tmp_path)
    await journal.close()  # the rows are in the database
    journal = SqliteJournal(path, max_bytes=MAX_BYTES)
    await journal.open()
    await journal.store(admission(11))
    log = path.with_name("journal.db-wal")
    log.write_bytes(bytes(range(256)) * (log.stat().st_size // 256 + 1))
    in_the_way = path.with_name("journal.db.rescuing")
    in_the_way.mkdir()  # so that no copy can be written
    assert not await is_at_its_path(journal)
    await journal.close()
    in_the_way.rmdir()

    assert set(range(1, 11)) <= await found(path)


async def test_the_copy_beside_the_path_is_deleted_before_anything_is_taken(path, tmp_path, monkeypatch):
    """The next start would use it, without what came since."""
    journal, _ = await filled(path, tmp_path)
    path.rename(tmp_path / "elsewhere")
    assert not await is_at_its_path(journal)
    copy = path.with_name("journal.db.rescued")
    unlink, failures = Path.unlink, iter([OSError(30, "Read-only file system")] * 2)

    def fail(file, *, missing_ok=False):
        for failure in failures if file == copy else ():
            raise failure
        unlink(file, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    (tmp_path / "elsewhere").rename(path)
    with pytest.raises(Unavailable):
        await journal.store(admission(11))
    assert copy.exists()
    await until(partial(is_at_its_path, journal))
    await journal.store(admission(11))
    assert not copy.exists()
    await journal.close()

    assert await found(path) == set(range(1, 12))


async def test_a_journal_whose_disk_fails_for_good_can_be_closed(path, tmp_path, monkeypatch):
    journal, _ = await filled(path, tmp_path)
    path.rename(tmp_path / "elsewhere")
    assert not await is_at_its_path(journal)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal_module, "sync", fail)
    (tmp_path / "elsewhere").rename(path)
    removal = asyncio.create_task(journal.remove(1))
    await asyncio.sleep(0)
    await asyncio.wait_for(journal.close(), PATIENCE_SECONDS)

    with pytest.raises(Unavailable):
        await removal


@pytest.mark.parametrize("harm", [delete, delete_log, replace, overwrite], ids=lambda one: one.__name__)
async def test_what_a_lost_journal_held_is_there_after_the_process_has_died(harm, path, tmp_path):
    journal, older = await filled(path, tmp_path)
    harm(path, older)
    assert not await is_at_its_path(journal)
    journal._give_lock_back()  # as the kernel does; the thread asks for nothing any more

    assert await found(path) == set(range(1, 11))
    journal._file = None
    await journal.close()


async def test_a_journal_that_is_closed_while_it_is_lost_is_written_to_its_path(path, tmp_path):
    journal, older = await filled(path, tmp_path)
    rename_folder(path, older)
    assert not await is_at_its_path(journal)
    await journal.close()

    assert await found(path) == set(range(1, 11))


async def test_a_journal_that_is_put_back_goes_on_and_leaves_no_older_copy(path, tmp_path):
    journal, _ = await filled(path, tmp_path)
    path.rename(tmp_path / "elsewhere")
    assert not await is_at_its_path(journal)
    (tmp_path / "elsewhere").rename(path)
    assert await is_at_its_path(journal)
    await journal.store(admission(11))
    await journal.close()

    assert await found(path) == set(range(1, 12))
    assert {one.name for one in path.parent.iterdir()} == {"journal.db", "journal.db.lock"}


async def test_into_a_journal_whose_bytes_another_program_destroyed_nothing_more_is_taken(path, tmp_path):
    journal, _ = await filled(path, tmp_path)
    with path.with_name("journal.db-wal").open("r+b") as log:
        log.truncate(200)
    with pytest.raises(Unavailable):
        await journal.store(admission(11))
    await journal.close()


async def test_a_log_that_is_shorter_than_it_was_is_damage(path, tmp_path):
    """So many rows that SQLite has not all of them in memory: what cannot be read any more can only be salvaged."""
    damaged = asyncio.Event()
    journal, _ = await filled(path, tmp_path, on_damage=damaged.set)
    await asyncio.gather(*(journal.store(admission(sequence)) for sequence in range(1_000, 1_800)))
    with path.with_name("journal.db-wal").open("r+b") as log:
        log.truncate(40_000)
    with pytest.raises(Unavailable):
        await journal.store(admission(11))
    await asyncio.wait_for(damaged.wait(), PATIENCE_SECONDS)
    await journal.close()


async def test_the_index_of_duplicates_is_written_to_its_path_again(tmp_path):
    path, marks = (
        tmp_path / "folder" / "repeats",
        [dedup_key_of("message", "default", str(n), b"f" * 16) for n in range(50)],
    )
    path.parent.mkdir()
    repeats = Duplicates(window_seconds=3600, max_entries=1000)
    file = DuplicatesFile(path, repeats)
    await file.start()
    repeats._unwritten += marks[:25]
    await file._write()
    path.unlink()
    repeats._unwritten += marks[25:]
    await file._write()
    await file.stop()

    again = Duplicates(window_seconds=3600, max_entries=1000)
    known = DuplicatesFile(path, again)
    await known.start()
    await known.stop()
    assert len(again) == 50


def delete_folder(folder: Path) -> None:
    """Delete a folder in which the connector writes meanwhile."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), RuntimeError("a defect")], ids=["race", "defect"]
)
async def test_a_journal_that_fails_while_it_is_lost_is_written_to_its_path_all_the_same(
    error, path, tmp_path, monkeypatch
):
    """What is accepted must not end with the thread that keeps it."""
    journal, older = await filled(path, tmp_path)

    def fail():
        rename_folder(path, older)
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(journal._file, "checkpoint", fail)
    with contextlib.suppress(Unavailable):
        await journal.write_note("a note", 1)  # the thread ends behind this transaction
    await journal.close()

    assert await found(path) == set(range(1, 11))


async def test_a_connector_whose_journal_is_deleted_says_so_refuses_and_recovers_with_every_message(
    serve,  # noqa: F811 - the fixture
    kafka,
    topic_prefix,
    tmp_path,
):
    served = await serve(WEDA_JOURNAL__PATH=str(tmp_path / "folder" / "journal.db"))
    kafka.pause(1)
    try:
        before = [await served.post(number) for number in range(10)]
        delete_folder(tmp_path / "folder")
        await until(partial(served.get, "/readyz"), lambda answer: answer[0] != 200)
        refused, problems = await served.post(100), await served.problems()
        served.process.terminate()
        ended = await asyncio.to_thread(served.process.wait, PATIENCE_SECONDS)
    finally:
        kafka.resume(1)
    await serve(WEDA_JOURNAL__PATH=str(tmp_path / "folder" / "journal.db"))
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 10)

    assert (set(before), refused, ended) == ({0}, 50300, 0)
    assert "was deleted or moved away" in problems["journal"]
    assert {record.key().decode() for record in records} == {f"i-{number}" for number in range(10)}
