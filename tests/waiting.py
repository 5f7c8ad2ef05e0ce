"""Waiting for what happens by itself: no longer than it takes, and as long as a slow machine needs."""

import asyncio
import inspect
import operator
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar, cast

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 120.0
"""More than anything needs that happens at all, on a machine with much other work; less than pytest gives a test."""

LONGEST_PAUSE_SECONDS = 0.1


class NotInTime(AssertionError):
    """What was waited for did not happen."""


async def until(
    read: Callable[[], Answer | Awaitable[Answer]],
    fits: Callable[[Answer], object] = bool,
    *,
    seconds: float = PATIENCE_SECONDS,
) -> Answer:
    """Ask again and again until the answer fits, by default until it is true; gives that answer.

    Raises:
        NotInTime: It never did; the message has the last answer.
    """
    last: object = "never came"
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            for pause in _pauses():
                answer = read()
                if inspect.isawaitable(answer):
                    answer = await answer
                last = answer
                if fits(cast("Answer", answer)):
                    return cast("Answer", answer)
                await asyncio.sleep(pause)
    except TimeoutError:
        if not limit.expired():
            raise  # of what was asked
    raise NotInTime(_said(read, fits, last, seconds))


def wait_until(
    read: Callable[[], Answer], fits: Callable[[Answer], object] = bool, *, seconds: float = PATIENCE_SECONDS
) -> Answer:
    """The same for who may block."""
    deadline = time.monotonic() + seconds
    pauses = _pauses()
    while not fits(answer := read()):
        if time.monotonic() > deadline:
            raise NotInTime(_said(read, fits, answer, seconds))
        time.sleep(next(pauses))
    return answer


def equals(wanted: object) -> Callable[[object], bool]:
    """An answer fits that is equal."""
    return partial(operator.eq, wanted)


def at_least(least: float) -> Callable[[float], bool]:
    """An answer fits that is not less."""
    return partial(operator.le, least)


def _pauses() -> Iterator[float]:
    """Short ones first: most of what is waited for is there at once."""
    pause = 0.001
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _said(read: Callable[..., object], fits: Callable[..., object], last: object, seconds: float) -> str:
    wanted = "" if fits is bool else f" with {_source_of(fits)}"
    return f"not within {seconds:g} s: {_source_of(read)}{wanted}; the last answer: {last!r}"


def _source_of(function: Callable[..., object]) -> str:
    """A name, or the line in which a lambda stands."""
    name = getattr(function, "__qualname__", repr(function))
    if name.endswith("<lambda>"):
        with suppress(OSError):
            return " ".join(inspect.getsource(function).split())
    return str(name)
