"""Waiting ends with the first answer that fits, and says what it waited for when none does."""

from collections.abc import Callable

import pytest

from tests.waiting import NotInTime, at_least, equals, until, wait_until


def counting() -> Callable[[], int]:
    numbers = iter(range(100))
    return lambda: next(numbers)


async def test_the_first_answer_that_fits_is_given():
    async def later() -> int:
        return next(numbers)

    numbers = iter(range(100))
    assert await until(later, at_least(3)) == 3
    assert await until(counting(), equals(2)) == 2
    assert await until(counting()) == 1
    assert wait_until(counting(), equals(2)) == 2


async def test_what_never_fits_is_reported_with_the_last_answer():
    with pytest.raises(NotInTime, match=r"not within 0\.05 s: .*the number seven.* with .*eq.*, 8\); .*: 7"):
        await until(lambda: len("the number seven"[:7]), equals(8), seconds=0.05)
    with pytest.raises(NotInTime, match=r"list; .*: \[\]"):
        wait_until(list, seconds=0.05)


async def test_what_the_question_itself_raises_is_not_hidden():
    async def fail() -> None:
        raise TimeoutError("of the question")

    with pytest.raises(TimeoutError, match="of the question"):
        await until(fail)
