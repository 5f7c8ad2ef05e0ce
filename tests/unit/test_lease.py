"""How long a replica may act on its lanes."""

import asyncio
import time

import pytest

from connector.replicas.lease import GRANT_SECONDS, LEASE_SECONDS, MESSAGE_TIMEOUT_SECONDS, Lease, LeasedPublisher
from connector.testing import InMemoryPublisher
from connector.values import ProducibleRecord

RECORD = ProducibleRecord("events", "t", b"k", b"v", (), 0)


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, which stands still until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_lease_nothing_may_be_done():
    lease = Lease()

    assert (lease.is_held, lease.may_publish, lease.is_lost) == (False, False, False)


def test_a_lease_counts_from_before_it_was_asked_for(clock):
    lease = Lease()
    asked_at, clock[0] = clock[0], clock[0] + 3

    lease.renewed(asked_at)
    clock[0] = asked_at + LEASE_SECONDS

    assert (lease.is_held, lease.is_lost) == (False, True)


def test_what_is_published_last_is_out_of_the_queue_when_the_lease_ends(clock):
    lease = Lease()
    lease.renewed(clock[0])
    began = clock[0]
    assert lease.failure_now() is None
    while lease.may_publish:
        clock[0] += 0.1

    assert lease.failure_now() is not None
    assert clock[0] > began
    assert clock[0] + MESSAGE_TIMEOUT_SECONDS < began + LEASE_SECONDS
    assert lease.is_held


def test_the_database_may_step_its_clock_by_five_seconds():
    assert GRANT_SECONDS - LEASE_SECONDS >= 5


def test_a_lost_lease_is_not_renewed(clock):
    lease = Lease()
    lease.renewed(clock[0])
    lease.revoke()

    lease.renewed(clock[0])

    assert (lease.is_held, lease.may_publish, lease.is_lost) == (False, False, True)


def test_a_lease_that_has_run_out_is_not_renewed_by_a_late_answer(clock):
    lease = Lease()
    lease.renewed(clock[0])
    clock[0] += LEASE_SECONDS - 1
    asked_at, clock[0] = clock[0], clock[0] + 1.5

    lease.renewed(asked_at)

    assert (lease.is_held, lease.may_publish, lease.is_lost) == (False, False, True)


async def test_a_publisher_without_a_lease_reports_a_failure_and_publishes_nothing():
    kafka, reports = InMemoryPublisher(), []
    publisher = LeasedPublisher(kafka, Lease())

    publisher.publish([RECORD], reports.append)
    await asyncio.sleep(0)

    assert (publisher.is_open, kafka.published) == (False, [])
    assert [failure.name for report in reports for failure in report] == ["_NO_LEASE"]
