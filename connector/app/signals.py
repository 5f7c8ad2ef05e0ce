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
        more: Other signals at which to call it.
    """
    # On the loop, not with `signal.signal`: a handler there would run between any two bytecodes of the main thread.
    for number in (*INTERRUPTS, *more):
        asyncio.get_running_loop().add_signal_handler(number, call)
