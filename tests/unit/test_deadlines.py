"""What comes due, comes due in order and once; what was cancelled does not."""

import asyncio

from connector.delivery.deadlines import Deadlines

SOON = 0.02


async def test_what_is_not_cancelled_comes_due_in_order():
    deadlines, seen = Deadlines(SOON), []
    for number in range(5):
        wait = deadlines.begin(lambda number=number: seen.append(number))
        if number == 2:
            wait.cancel()
    assert seen == []
    await asyncio.sleep(10 * SOON)

    assert seen == [0, 1, 3, 4]


async def test_one_that_raises_keeps_none_of_the_others_back():
    deadlines, seen = Deadlines(SOON), []
    deadlines.begin(lambda: 1 / 0)
    deadlines.begin(lambda: seen.append("later"))
    await asyncio.sleep(10 * SOON)

    assert seen == ["later"]


async def test_one_that_begins_another_has_it_come_due_too():
    deadlines, seen = Deadlines(SOON), []
    deadlines.begin(lambda: deadlines.begin(lambda: seen.append("second")))
    await asyncio.sleep(20 * SOON)

    assert seen == ["second"]


async def test_what_was_cancelled_holds_on_to_nothing():
    """A body of half a megabyte must not stay in memory for as long as it might have had to wait."""
    wait = Deadlines(60).begin(print)
    wait.cancel()

    assert wait.act is None
