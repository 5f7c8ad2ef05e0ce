"""A result that comes later, once: for callbacks on the hot path, and to be awaited everywhere else."""

import asyncio
from collections.abc import Callable, Generator
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

from connector.errors import ConnectorError

T = TypeVar("T")


class Durability(Enum):
    """Why a message survives a crash."""

    PUBLISHED = "published"
    JOURNALED = "journaled"
    ELSEWHERE = "elsewhere"
    """Another replica has the same message."""


class Completion(Generic[T]):
    """The outcome of work that was begun, set once: what came of it, or the error that ended it.

    For one event loop; it costs no task and no iteration of the loop.

    Attributes:
        result: None until it is complete.
    """

    __slots__ = ("_callbacks", "result")

    def __init__(self) -> None:
        self.result: T | ConnectorError | None = None
        self._callbacks: list[Callable[[T | ConnectorError], None]] = []

    @classmethod
    def of(cls, result: T | ConnectorError) -> "Completion[T]":
        """A completion that is complete from the start."""
        completion = cls()
        completion.complete(result)
        return completion

    def then(self, callback: Callable[[T | ConnectorError], None]) -> None:
        """Call ``callback`` with the result: at once if there is one, else from within :meth:`complete`."""
        if self.result is None:
            self._callbacks.append(callback)
        else:
            callback(self.result)

    def complete(self, result: T | ConnectorError) -> None:
        """Set the result and run the callbacks in their order; does nothing if there is a result already."""
        if self.result is not None:
            return
        self.result = result
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(result)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result, or raise the error. Cancelling one waiter affects neither the work nor other waiters."""
        if self.result is None:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.then(partial(_wake, woken))
            yield from woken
        result = self.result
        assert result is not None, "a waiter wakes after the result is set"  # noqa: S101 - for the type checker
        if isinstance(result, ConnectorError):
            raise result
        return result


def _wake(woken: "asyncio.Future[None]", _result: object) -> None:
    if not woken.done():
        woken.set_result(None)
