"""``ingestId`` is a UUIDv7 that never goes backwards, whatever the clock does."""

import random
import time
import uuid

import pytest

from connector.message import ingest_ids
from connector.message.ingest_ids import IngestIds

NOW = 1_772_415_000_000


class Clock:
    """A wall clock that is set by hand, in milliseconds."""

    def __init__(self, monkeypatch):
        self.milliseconds = NOW
        monkeypatch.setattr(time, "time_ns", lambda: self.milliseconds * 1_000_000)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def millisecond(one):
    return uuid.UUID(one).int >> 80


def test_it_is_a_uuid_of_version_7_and_the_rfc_variant(clock):
    ids = [uuid.UUID(IngestIds().next()) for _ in range(200)]

    assert {one.version for one in ids} == {7}
    assert {one.variant for one in ids} == {uuid.RFC_4122}
    assert {one.int >> 80 for one in ids} == {NOW}


def test_it_is_lower_case_text_of_36_characters(clock):
    one = IngestIds().next()

    assert len(one) == 36
    assert one == one.lower() == str(uuid.UUID(one))


def test_ids_of_one_millisecond_grow(clock):
    ids = IngestIds()
    made = [ids.next() for _ in range(5000)]

    assert made == sorted(set(made))


def test_ids_of_two_connectors_differ(clock):
    assert len({IngestIds().next() for _ in range(1000)}) == 1000


def test_an_id_holds_the_millisecond_of_the_clock(clock):
    ids = IngestIds()
    ids.next()
    clock.milliseconds += 5

    assert millisecond(ids.next()) == NOW + 5


def test_ids_grow_while_the_clock_steps_back(clock):
    ids = IngestIds()
    before = [ids.next() for _ in range(100)]
    clock.milliseconds -= 3_600_000
    after = [ids.next() for _ in range(100)]

    assert before + after == sorted(set(before + after))
    assert {millisecond(one) for one in after} == {NOW}


def test_ids_grow_whatever_the_clock_does(clock, seed):
    chance = random.Random(seed)
    ids = IngestIds()
    made = []
    for _ in range(5000):
        clock.milliseconds += chance.choice([-1000, -1, 0, 0, 0, 1, 1000])
        made.append(ids.next())

    assert made == sorted(set(made))


def test_a_millisecond_goes_over_into_the_next_after_4096_ids(clock):
    ids = IngestIds()
    made = [ids.next() for _ in range(4097)]

    assert millisecond(made[-2]) == NOW
    assert millisecond(made[-1]) == NOW + 1


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_random_bits_leave_time_version_and_variant_alone(clock, monkeypatch, byte):
    monkeypatch.setattr(ingest_ids.secrets, "token_bytes", lambda count: byte * count)
    one = uuid.UUID(IngestIds().next())

    assert (one.version, one.variant, one.int >> 80) == (7, uuid.RFC_4122, NOW)
    assert one.int & (1 << 62) - 1 == int.from_bytes(8 * byte) & (1 << 62) - 1


@pytest.mark.parametrize("back", [0, 1, 5_000, 86_400_000])
def test_after_a_restart_ids_are_above_the_floor_even_if_the_clock_stepped_back(clock, back):
    before = IngestIds()
    made = [before.next() for _ in range(100)]
    clock.milliseconds -= back
    after = IngestIds(before.latest)

    assert after.next() > max(made)
    assert after.latest >= before.latest


def test_after_a_restart_ids_follow_a_clock_that_is_past_the_floor(clock):
    assert millisecond(IngestIds(NOW - 1000).next()) == NOW


def test_the_latest_millisecond_is_that_of_the_last_id(clock):
    ids = IngestIds(NOW + 10_000)

    assert ids.latest == NOW + 10_000
    assert millisecond(ids.next()) == ids.latest == NOW + 10_001
