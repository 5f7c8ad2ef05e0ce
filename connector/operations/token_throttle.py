"""Wrong operations tokens: each is counted, logged and answered late, and all of them together at a bounded rate."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

MOST_A_SECOND: Final = 10
LEAST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 10.0
"""How long the answer to one guess may be held back: connections are bounded, and so is what waits."""

_LOG = structlog.get_logger()


class TokenThrottle:
    """The wrong tokens of one listener; a right one is never held back.

    Args:
        count: Called with ``missing`` or ``unknown`` for each request that was rejected for want of the token.
    """

    def __init__(self, count: Callable[[str], None] = lambda _reason: None) -> None:
        self._count = count
        self._next = 0.0

    def missing(self) -> None:
        """Count a request without a token; no delay."""
        self._count("missing")

    async def wrong(self, peer: str) -> None:
        """A wrong token came; returns when it may be answered."""
        self._count("unknown")
        _LOG.warning("a wrong operations token was refused", peer=peer)
        now = asyncio.get_running_loop().time()
        self._next = min(max(self._next, now) + 1 / MOST_A_SECOND, now + MOST_SECONDS)
        await asyncio.sleep(max(self._next - now, LEAST_SECONDS))
