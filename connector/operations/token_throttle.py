"""Slows down guessing of the operations token.

Each wrong token is counted, logged and answered with a delay; all of them together are answered at a bounded rate.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

MAX_ANSWERS_PER_SECOND: Final = 10
MIN_DELAY_SECONDS: Final = 0.5
MAX_DELAY_SECONDS: Final = 10.0
"""How long the answer to one guess may be held back: each occupies one of a bounded number of connections."""

_LOG = structlog.get_logger()


class TokenThrottle:
    """The wrong tokens of one listener; a right one is never delayed.

    Args:
        count: Called with ``missing`` or ``unknown`` for each request rejected because of its token.
    """

    def __init__(self, count: Callable[[str], None] = lambda _reason: None) -> None:
        self._count = count
        self._next_answer_at = 0.0

    def missing(self) -> None:
        """Count a request without a token; it is not delayed, since it guesses nothing."""
        self._count("missing")

    async def wrong(self, peer: str) -> None:
        """Count and log a wrong token; returns when it may be answered."""
        self._count("unknown")
        _LOG.warning("a wrong operations token was refused", peer=peer)
        now = asyncio.get_running_loop().time()
        # One schedule for all peers: a guesser may have many addresses.
        self._next_answer_at = min(max(self._next_answer_at, now) + 1 / MAX_ANSWERS_PER_SECOND, now + MAX_DELAY_SECONDS)
        await asyncio.sleep(max(self._next_answer_at - now, MIN_DELAY_SECONDS))
