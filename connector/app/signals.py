"""Ctrl-C and SIGTERM."""

import asyncio
import signal
from collections.abc import Callable, Collection
from typing import Final

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


def on_interrupt(call: Callable[[], object], more: Collection[signal.Signals] = ()) -> None:
    """Call a function on the running event loop at each SIGINT and SIGTERM.

    Args:
        call: The function.
        more: Other signals that mean the same.
    """
    for number in (*INTERRUPTS, *more):
        asyncio.get_running_loop().add_signal_handler(number, call)
