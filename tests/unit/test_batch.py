"""What is executed together in the database of replicas."""

import asyncio

from connector.journal.model import Admission
from connector.replicas.batch import Batch, BatchResult, Change
from connector.values import Request

NOTHING = BatchResult([], has_more=False, dedup_states=[], sequences=[], is_owner=[], rows_in_lane=[])


async def test_all_who_wait_for_changes_of_a_row_are_notified_of_the_latest_one():
    """A batch that failed goes into the next one, where the same row may be changed again."""
    first, second, removed = (asyncio.get_running_loop().create_future() for _ in range(3))
    before, after = (Admission(7, "i-1", Request(source, b"", "", 0), ()) for source in ("before", "after"))
    failed = Batch(amends={7: Change(before, [first])}, removals={8: Change(None, [removed])})

    both = failed.followed_by(Batch(amends={7: Change(after, [second])}))
    both.complete(NOTHING)

    assert both.amends[7].admission is after
    assert first.done()
    assert second.done()
    assert removed.done()
