"""The bookkeeping of lanes: what is in memory, what the journal holds, and nothing once a lane is idle."""

import random
import sys

import pytest

from connector.delivery.lanes import LaneCounts, LaneEntry, Lanes, RowState, _slot
from connector.journal.model import Admission
from connector.values import Request


def admission(sequence=1, lane="i-1"):
    return Admission(sequence, lane, Request("default", b"", "", 1), ())


def entry(row=RowState.NONE, *, completion=None):
    return LaneEntry(admission(), row=row, completion=completion, since=0.0)


def twins():
    """Two lanes that share a slot."""
    seen = {}
    for number in range(1_000_000):
        name = f"i-{number}"
        if _slot(name) in seen:
            return seen[_slot(name)], name
        seen[_slot(name)] = name
    raise AssertionError("a million names and no two in one slot")


def test_a_lane_is_journaled_from_its_first_row_to_its_last():
    journaled = LaneCounts({})
    journaled.add("i-1")
    journaled.add("i-1")
    journaled.removed("i-1")
    assert journaled.needs_row("i-1")
    journaled.removed("i-1")

    assert not journaled.needs_row("i-1")
    assert journaled.total == 0


def test_what_the_journal_held_at_the_start_is_journaled():
    journaled = LaneCounts({"i-1": 2, "流程": 1})

    assert journaled.total == 3
    assert journaled.needs_row("i-1")
    assert journaled.needs_row("流程")
    assert not journaled.needs_row("i-2")


def test_lanes_that_share_a_slot_wait_for_each_other_and_are_never_lost():
    one, other = twins()
    journaled = LaneCounts({one: 1})
    assert journaled.needs_row(other)
    journaled.add(other)
    journaled.removed(one)
    assert journaled.needs_row(one)
    journaled.removed(other)

    assert not journaled.needs_row(one)
    assert not journaled.needs_row(other)


def test_occupancy_never_misses_a_row_whatever_comes_and_goes(seed):
    chance = random.Random(seed)
    journaled, rows = LaneCounts({}), {}
    for _ in range(20_000):
        name = f"i-{chance.randrange(200)}"
        if rows.get(name) and chance.random() < 0.5:
            journaled.removed(name)
            rows[name] -= 1
        else:
            journaled.add(name)
            rows[name] = rows.get(name, 0) + 1

    assert journaled.total == sum(rows.values())
    assert all(journaled.needs_row(name) for name, count in rows.items() if count)


def test_occupancy_takes_the_same_memory_however_many_lanes_there_are():
    few, many = LaneCounts({}), LaneCounts({f"i-{number}": 1 for number in range(100_000)})

    assert sys.getsizeof(many._slots) == sys.getsizeof(few._slots) <= 5 * 1024 * 1024


def test_a_lane_is_in_memory_only_while_it_is_busy():
    lanes = Lanes({})
    lane = lanes.get_or_create("i-1")
    lane.head = entry()
    assert lanes.get_or_create("i-1") is lane
    lanes.forget_if_idle("i-1")
    assert lanes.get("i-1") is lane
    lane.head = None
    lanes.forget_if_idle("i-1")

    assert lanes.get("i-1") is None
    assert len(lanes) == 0


def test_forgetting_a_lane_that_is_not_busy_does_nothing():
    lanes = Lanes(LaneCounts({"i-1": 1}))
    lanes.forget_if_idle("i-1")

    assert len(lanes) == 0
    assert lanes.journaled.needs_row("i-1")


@pytest.mark.parametrize("place", ["waiting", "read_ahead"])
def test_a_lane_with_something_behind_is_not_forgotten(place):
    lanes = Lanes(LaneCounts({}))
    getattr(lanes.get_or_create("i-1"), place).append(entry())

    lanes.forget_if_idle("i-1")

    assert lanes.get("i-1") is not None


def test_an_entry_that_was_read_from_the_journal_is_counted_already():
    assert entry(RowState.STORED).is_counted
