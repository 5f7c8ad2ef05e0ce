"""What is executed together in the database of replicas."""

import asyncio

import msgspec

from connector.journal.model import Admission
from connector.replicas.batch import Batch, BatchResult, Change, Claim, NewRow
from connector.values import Request

NOTHING = BatchResult([], has_more=False, dedup_states=[], sequences=[], is_owner=[], rows_in_lane=[])


def new_row(sequence: int, size: int) -> NewRow:
    admission = Admission(sequence, "i-1", Request("default", b"", "", 0), ())
    return NewRow(admission, bytes(size), is_appended=False, done=asyncio.get_running_loop().create_future())


async def test_a_batch_has_few_requests_of_each_kind_and_the_rest_follows_in_order():
    """What takes longer than a statement may is rolled back: a retry of all of it would never end."""
    keys = [(bytes([number]), b"f") for number in range(5)]
    removals = {number: Change(None, []) for number in range(5)}
    left = Batch(removals=dict(removals), safe=list(keys), released={"a", "b", "c"})
    parts = []
    while not left.is_empty:
        part, left = left.split(2, 1_000)
        parts.append(part)

    assert max(len(part.removals) for part in parts) == 2
    assert [sequence for part in parts for sequence in part.removals] == [*removals]
    assert [key for part in parts for key in part.safe] == keys
    assert set().union(*(part.released for part in parts)) == {"a", "b", "c"}


async def test_rows_of_a_batch_have_few_bytes_and_a_large_one_is_alone():
    left = Batch(rows=[new_row(number, size) for number, size in enumerate((400, 500, 2_000, 10, 10))])
    parts = []
    while not left.is_empty:
        part, left = left.split(10, 1_000)
        parts.append([row.admission.sequence for row in part.rows])

    assert parts == [[0, 1], [2], [3, 4]]


async def test_a_change_does_not_overtake_its_row_and_large_ones_are_divided():
    """The database finds no such row, and says that it is done: the row would come behind it, as it was before."""
    rows = [new_row(number, 600) for number in (1, 2)]
    amended = Admission(2, "i-1", Request("default", bytes(600), "", 0), ())
    amends = {number: Change(msgspec.structs.replace(amended, sequence=number), []) for number in (2, 7, 8)}

    first, rest = Batch(rows=rows, amends=amends, removals={2: Change(None, []), 9: Change(None, [])}).split(10, 1_000)
    second, third = rest.split(10, 1_000)

    assert [[row.admission.sequence for row in part.rows] for part in (first, second)] == [[1], [2]]
    assert [[*part.amends] for part in (first, second, third)] == [[7], [2], [8]]
    assert [[*part.removals] for part in (first, second)] == [[9], [2]]


async def test_claims_wait_until_every_key_that_was_refused_is_void():
    """Voided later, a key would be taken from the message that has claimed it since."""
    claim = Claim("i-1", (b"k", b"f"), asyncio.get_running_loop().create_future())
    void = [(bytes([number]), b"f") for number in range(3)]

    first, rest = Batch(claims=[claim], void=void).split(2, 1_000)
    second, nothing = rest.split(2, 1_000)

    assert (first.claims, second.claims) == ([], [claim])
    assert [*first.void, *second.void] == void
    assert nothing.is_empty


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
