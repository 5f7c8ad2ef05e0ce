"""Which rows replay hands over, and which have to wait."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connector.delivery import failures
from connector.delivery.failures import BackOff
from connector.delivery.lanes import LaneCounts, Lanes
from connector.delivery.replay import Replay
from connector.journal.model import Admission
from connector.testing import InMemoryJournal
from connector.values import ProducibleRecord, Request
from tests.waiting import equals, until


class Bench:
    """A replay that notes what it hands over, and publishes nothing."""

    def __init__(self) -> None:
        self.now = 100.0
        self.journal = InMemoryJournal([row(1, "a"), row(2, "a"), row(3, "b")])
        self.lanes = Lanes(LaneCounts({"a": 2, "b": 1}))
        self.back_off = BackOff(lambda: self.now)
        self.handed_over: list[list[int]] = []
        self.replay = Replay(
            self.journal, self.lanes, self.back_off, is_open=lambda: True, publish_rows=self._publish_rows
        )

    async def _publish_rows(self, rows: list[Admission]) -> int:
        self.handed_over.append([one.sequence for one in rows])
        self.lanes.get_or_create(rows[0].lane).read_ahead += rows  # busy from now on
        return len(rows)


def row(sequence: int, lane: str) -> Admission:
    record = ProducibleRecord("events", "t", lane.encode(), b"", (), 1)
    return Admission(sequence, lane, Request("default", b"", "", 1), (record,))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.replay.stop()


async def test_the_rows_of_each_lane_are_handed_over_in_order(bench):
    bench.replay.start()

    await until(lambda: sorted(bench.handed_over), equals([[1, 2], [3]]))


async def test_what_is_being_removed_is_not_handed_over_again_and_the_rows_behind_it_are(bench):
    bench.replay.row_published(1)

    bench.replay.start()

    await until(lambda: sorted(bench.handed_over), equals([[2], [3]]))


async def only_the_other_lane_is_handed_over(bench: Bench) -> None:
    bench.replay.start()
    await until(lambda: bench.handed_over, equals([[3]]))
    await asyncio.sleep(0.3)
    assert bench.handed_over == [[3]]


async def test_a_lane_that_failed_waits_for_the_removals_in_front_of_it(bench):
    """Rule 4: a crash that lost the removals would publish those rows behind the tail that appears twice."""
    bench.replay.row_published(1)
    bench.back_off.failed("a")
    bench.now += 60  # the back-off itself is over

    await only_the_other_lane_is_handed_over(bench)

    bench.replay.row_removed(1)
    del bench.journal.rows[1]
    await until(lambda: bench.handed_over, equals([[3], [2]]))


async def test_a_row_that_is_being_amended_waits_and_so_does_one_that_was_read_before(bench, monkeypatch):
    """A shared journal is read over another connection: what was acknowledged would be published again."""
    bench.replay.amend_begun(1)
    await only_the_other_lane_is_handed_over(bench)
    first_rows, read = bench.journal.first_rows, []

    async def amended_behind_the_read(*arguments):
        rows = await first_rows(*arguments)
        if not read:
            bench.replay.amend_ended(1)
        read.append(list(bench.handed_over))
        return rows

    monkeypatch.setattr(bench.journal, "first_rows", amended_behind_the_read)
    await until(lambda: bench.handed_over, equals([[3], [1, 2]]))

    assert read[1] == [[3]], "not by the read that had begun before"


async def test_what_is_written_before_replay_begins_is_not_remembered(bench):
    """Kafka may be away for as long as the journal has room."""
    for number in range(100):
        bench.replay.row_written(f"lane-{number}")

    assert bench.replay._written_since_read == set()
    bench.replay.start()
    await until(lambda: sorted(bench.handed_over), equals([[1, 2], [3]]))


async def test_a_lane_that_failed_waits_for_each_removal_in_front_of_it(bench, monkeypatch):
    """Of a shared journal one may be on the disk between the read and what follows, and the next one not."""
    bench.journal.rows[4] = row(4, "a")
    bench.lanes.journaled.add("a")
    for published in (1, 2):
        bench.replay.row_published(published)
    bench.back_off.failed("a")
    bench.now += 60  # the back-off itself is over
    first_rows = bench.journal.first_rows

    async def read(*arguments):
        rows = await first_rows(*arguments)
        if bench.journal.rows.pop(1, None) is not None:
            bench.replay.row_removed(1)
        return rows

    monkeypatch.setattr(bench.journal, "first_rows", read)
    await only_the_other_lane_is_handed_over(bench)

    bench.replay.row_removed(2)
    del bench.journal.rows[2]
    await until(lambda: bench.handed_over, equals([[3], [4]]))


async def test_more_lanes_than_are_remembered_wait_for_their_removals_too(bench, monkeypatch):
    """Of a failure that had to be forgotten nobody can say that it was not this lane's."""
    monkeypatch.setattr(failures, "_MAX_LANES", 1)
    bench.back_off.failed("b")
    bench.back_off.failed("a")
    bench.now += 60
    bench.back_off.end("b")
    bench.replay.row_published(1)

    bench.replay.start()
    await until(lambda: bench.handed_over, equals([[3]]))
    await asyncio.sleep(0.3)

    assert bench.handed_over == [[3]]
