"""The journal on a real disk: durable, ordered, bounded, held by one, and honest when the disk fails."""

import asyncio
import contextlib
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from connector.errors import OutsideUnreachable, Unavailable
from connector.journal.model import Account, Admission
from connector.journal.offline import detached
from connector.journal.sqlite import SqliteJournal
from connector.values import ProducibleRecord, Request
from tests.waiting import PATIENCE_SECONDS

LIMIT = 64 * 1024 * 1024


def admission(sequence: int, lane: str = "i", *, size: int = 10, source: str = "default") -> Admission:
    request = Request(source, b"b" * size, "application/json", 1_763_000_000_000 + sequence)
    record = ProducibleRecord("events", "t", lane.encode(), b"v", (("h", b"1"),), request.received_at)
    return Admission(sequence, lane, request, (record,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "journal.db"


@contextlib.asynccontextmanager
async def opened(path: Path, *, max_bytes: int = LIMIT, vfs: str | None = None) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(path, max_bytes=max_bytes, vfs=vfs)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


async def test_what_was_admitted_is_there_after_a_restart_in_order_per_lane(path):
    async with opened(path) as journal:
        rows = [admission(1, "b"), admission(2, "a"), admission(3, "b", source="other"), admission(4, "c")]
        await asyncio.gather(*(journal.store(one) for one in reversed(rows)))

    journal = SqliteJournal(path, max_bytes=LIMIT)
    contents = await journal.open()
    first_rows = await journal.first_rows("", lanes=10, depth=10)
    await journal.close()

    assert (contents.lanes, contents.sources) == ({"a": 1, "b": 2, "c": 1}, {"default": 3, "other": 1})
    assert contents.next_sequence == 5
    assert first_rows == [[rows[1]], [rows[0], rows[2]], [rows[3]]]


async def test_heads_go_round_lanes_and_read_ahead_only_so_far(path):
    async with opened(path) as journal:
        for number in range(6):
            await journal.store(admission(number, "ab"[number % 2]))

        first = await journal.first_rows("", lanes=1, depth=2)
        second = await journal.first_rows("a", lanes=5, depth=2)

        assert [[one.sequence for one in lane] for lane in first] == [[0, 2]]
        assert [[one.sequence for one in lane] for lane in second] == [[1, 3]]
        assert await journal.first_rows("b", lanes=5, depth=2) == []


async def test_removed_rows_are_gone_and_amended_rows_are_replaced(path):
    async with opened(path) as journal:
        await journal.store(admission(1))
        await journal.store(admission(2))
        await journal.remove(1)
        await journal.amend(admission(2, "another lane"))
        await journal.amend(admission(3, "a row that was refused"))

        assert await journal.first_rows("", lanes=5, depth=5) == [[admission(2, "another lane")]]


async def test_the_state_tells_size_and_the_oldest(path):
    async with opened(path) as journal:
        assert (await journal.state()).oldest is None
        await journal.store(admission(7))
        await journal.store(admission(8))

        state = await journal.state()
        assert state.oldest == (7, admission(7).request.received_at)
        assert state.size_bytes > 0


async def test_the_oldest_of_reprocessed_dead_letters_waits_since_it_was_reprocessed(path):
    """An operator who reprocesses a letter of three weeks ago in an outage has not had three weeks of outage."""
    once = admission(7)
    again = msgspec.structs.replace(once.request, attempt=2, reprocessed_at=once.request.received_at + 1_814_400_000)
    async with opened(path) as journal:
        await journal.store(msgspec.structs.replace(once, request=again))
        assert (await journal.state()).oldest == (7, again.reprocessed_at)

    with detached(path) as left:
        assert left.backlog().oldest_waits_since == again.reprocessed_at


async def test_notes_are_kept(path):
    async with opened(path) as journal:
        assert await journal.read_note("floor") == 0
        await journal.write_note("floor", 12)
    async with opened(path) as journal:
        assert await journal.read_note("floor") == 12


async def test_the_ledger_goes_with_the_rows(path):
    """accepted = published + dead-lettered + rows, per source, in one transaction with the rows."""
    async with opened(path) as journal:
        await asyncio.gather(*(journal.store(admission(number, source="a")) for number in range(1, 6)))
        await journal.store(admission(6, source="b"))
        await journal.remove(1)
        await journal.remove(1)  # removed twice, counted once
        await journal.remove(99)
        await journal.amend(admission(2, "dead-letter/2", source="a"))
        await journal.amend(admission(3, size=3, source="a"))
        await journal.add_direct({"a": 10, "c": 1})

    journal = SqliteJournal(path, max_bytes=LIMIT)
    contents = await journal.open()
    await journal.close()

    assert contents.sources == {"a": 4, "b": 1}
    assert contents.accounts == {"a": Account(16, 11, 1), "b": Account(1), "c": Account(1, 1)}


async def test_the_files_are_readable_by_their_owner_only(path):
    async with opened(path) as journal:
        await journal.store(admission(1))
        modes = {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}

    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_one_process_owns_the_journal(path):
    """The error of a second owner says who holds the file."""
    async with opened(path):
        with pytest.raises(OutsideUnreachable, match="held by another process"):
            await SqliteJournal(path, max_bytes=LIMIT).open()
    async with opened(path):
        pass


@pytest.mark.parametrize("limit", [1024 * 1024, 12 * 1024 * 1024])
async def test_a_full_journal_refuses_and_can_still_be_emptied(path, limit):
    """P7: the bound counts database and log, and keeps room for deletions."""
    async with opened(path, max_bytes=limit) as journal:
        admitted = []

        async def fill() -> None:
            for number in range(10_000):
                await journal.store(admission(number, size=20_000))
                admitted.append(number)

        with pytest.raises(Unavailable, match="full") as refusal:
            await fill()
        assert refusal.value.retry_after > 0
        assert sum(one.stat().st_size for one in path.parent.iterdir()) <= limit

        for number in admitted:
            await journal.remove(number)

        assert await journal.first_rows("", lanes=1, depth=1) == []
        assert sum(one.stat().st_size for one in path.parent.iterdir()) <= limit
        await journal.store(admission(99_999, size=20_000))


@pytest.mark.parametrize("what", ["sync", "write"])
async def test_a_failing_disk_refuses_and_the_refused_do_not_come_back(path, disk, what):
    """After a failed commit the file is reopened and verified before it is written again."""
    async with opened(path, vfs=disk.name) as journal:
        await journal.store(admission(1))
        disk.failing.add(what)
        with pytest.raises(Unavailable, match="disk failed"):
            await journal.store(admission(2))
        disk.failing.clear()

        await journal.store(admission(3))

        assert [[one.sequence for one in lane] for lane in await journal.first_rows("", 5, 5)] == [[1, 3]]

    journal = SqliteJournal(path, max_bytes=LIMIT)
    assert (await journal.open()).accounts == {"default": Account(accepted=2)}
    await journal.close()


STORE_ON_A_FAILING_DISK = """
import asyncio, os, signal, sys
from pathlib import Path
from connector.errors import OutcomeUnknown
from tests.failing_disk import FailingDisk
from tests.integration.test_journal import SqliteJournal, admission, LIMIT

async def main():
    disk = FailingDisk()
    journal = SqliteJournal(Path(sys.argv[1]), max_bytes=LIMIT, vfs=disk.name)
    await journal.open()
    disk.failing.add("sync")
    try:
        await journal.store(admission(1))
    except OutcomeUnknown:
        sys.stdout.write("unknown")
    except Exception as error:
        sys.stdout.write(type(error).__name__)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_outcome_of_a_failed_commit_is_unknown_because_a_kill_may_leave_the_row(path):
    """The frame of the commit is in the log, only its sync failed: the next start finds it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STORE_ON_A_FAILING_DISK, str(path), stdout=subprocess.PIPE
    )
    printed, _ = await child.communicate()
    async with opened(path) as journal:
        rows = await journal.first_rows("", 5, 5)

    assert (child.returncode, printed.splitlines()[-1]) == (-signal.SIGKILL, b"unknown")
    assert rows == [[admission(1)]]


async def test_a_removal_waits_until_the_disk_takes_it(path, disk):
    async with opened(path, vfs=disk.name) as journal:
        await journal.store(admission(1))
        disk.failing.add("sync")
        remove = asyncio.create_task(journal.remove(1))
        await asyncio.sleep(0.3)  # it does not end
        assert not remove.done()
        disk.failing.clear()

        await asyncio.wait_for(remove, PATIENCE_SECONDS)
        assert await journal.first_rows("", 5, 5) == []


ADMIT_FOREVER = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_journal import SqliteJournal, admission, LIMIT

async def main():
    journal = SqliteJournal(Path(sys.argv[1]), max_bytes=LIMIT)
    await journal.open()
    async def one(number):
        await journal.store(admission(number, f"lane-{number % 7}"))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    for base in range(0, 1_000_000, 20):
        await asyncio.gather(*(one(base + number) for number in range(20)))

asyncio.run(main())
"""


async def test_what_was_reported_as_safe_survives_a_kill(path):
    """P1: every admission that returned is there after a SIGKILL, and opens again without help."""
    reported: set[int] = set()
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", ADMIT_FOREVER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        lines = [child.stdout.readline() for _ in range(150)]
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
        reported = {int(line) for line in [*lines, *rest.split("\n")[:-1]]}

        async with opened(path) as journal:
            found = {one.sequence for lane in await journal.first_rows("", 10, 100_000) for one in lane}
            assert reported <= found
            for sequence in found:
                await journal.remove(sequence)
    assert len(reported) >= 150
