"""The journal whose file is deleted, moved, replaced or overwritten while it is open: nothing that it holds is lost."""

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from connector.delivery.duplicates import Duplicates, DuplicatesFile, dedup_key_of
from connector.errors import Unavailable
from connector.journal import sqlite as journal_module
from connector.journal.model import Admission
from connector.journal.sqlite import SqliteJournal
from connector.values import Request
from tests.integration.test_log_sink import serve  # noqa: F401 - a fixture
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS, until

MAX_BYTES = 64 * 1024 * 1024


def admission(sequence: int) -> Admission:
    return Admission(sequence, f"lane-{sequence}", Request("default", b"body", "application/json", 1), ())


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


async def filled(path: Path, tmp_path: Path, vfs: str | None = None) -> tuple[SqliteJournal, Path]:
    """An open journal with ten rows, and a copy of when it had five."""
    journal = SqliteJournal(path, max_bytes=MAX_BYTES, vfs=vfs)
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


@pytest.fixture
def impatient(monkeypatch) -> None:
    """The journal is written to its path again after a moment."""
    monkeypatch.setattr(journal_module, "RESTORE_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("harm", HARMS, ids=lambda one: one.__name__)
async def test_a_journal_that_is_no_longer_at_its_path_takes_nothing_and_comes_back_whole(harm, path, tmp_path):
    journal, older = await filled(path, tmp_path)
    harm(path, older)
    with pytest.raises(Unavailable, match="no longer at its path"):
        await journal.store(admission(11))
    state = await journal.state()
    await journal.remove(1)  # published meanwhile
    await until(journal.state, lambda now: not now.lost_reason)
    await journal.store(admission(12))
    await journal.close()

    assert "is written to its path again" in state.lost_reason or "cannot be written there again" in state.lost_reason
    assert await found(path) == {*range(2, 11), 12}
    aside = {one.name.partition(".found-")[0] for one in path.parent.glob("*.found-*")}
    assert aside == ({"journal.db"} if harm is replace else set()), "what somebody put there is kept"


# Not `overwrite`: a connection whose commit failed reads anew, and finds what the other program wrote.
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed before", "not noticed"])
@pytest.mark.parametrize("harm", [harm for harm in HARMS if harm is not overwrite], ids=lambda one: one.__name__)
async def test_a_journal_whose_disk_fails_while_it_is_lost_comes_back_whole(harm, is_noticed, path, tmp_path, disk):
    journal, older = await filled(path, tmp_path, disk.name)
    harm(path, older)
    if is_noticed:
        assert (await journal.state()).lost_reason
        await journal.remove(1)
    disk.failing.add("sync")
    removals = [asyncio.create_task(journal.remove(sequence)) for sequence in (1, 2)]
    await until(lambda: disk.failures > 0)
    disk.failing.clear()
    await asyncio.gather(*removals)
    await until(journal.state, lambda now: not now.lost_reason)
    await journal.close()

    assert await found(path) == set(range(3, 11)), "an older copy would bring back what is published"


@pytest.mark.parametrize("harm", [delete, delete_log, replace, overwrite], ids=lambda one: one.__name__)
async def test_what_a_lost_journal_held_is_there_after_the_process_has_died(harm, path, tmp_path):
    journal, older = await filled(path, tmp_path)
    harm(path, older)
    assert (await journal.state()).lost_reason
    journal._give_lock_back()  # as the kernel does; the thread asks for nothing any more

    assert await found(path) == set(range(1, 11))
    journal._file = None
    await journal.close()


async def test_a_journal_that_is_closed_while_it_is_lost_is_written_to_its_path(path, tmp_path):
    journal, older = await filled(path, tmp_path)
    rename_folder(path, older)
    assert (await journal.state()).lost_reason
    await journal.close()

    assert await found(path) == set(range(1, 11))


async def test_a_journal_that_is_put_back_goes_on_and_leaves_no_older_copy(path, tmp_path):
    journal, _ = await filled(path, tmp_path)
    path.rename(tmp_path / "elsewhere")
    assert (await journal.state()).lost_reason
    (tmp_path / "elsewhere").rename(path)
    assert not (await journal.state()).lost_reason
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
