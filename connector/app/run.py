"""The process of ``serve``: signals, limits, and connectors one after the other until a signal stops it."""

import asyncio
import gc
import resource
import signal
from collections import Counter
from functools import partial
from typing import Final

import structlog

from connector import supervision
from connector.app.connector import Connector
from connector.app.reload import Reload
from connector.app.signals import on_interrupt
from connector.settings import Settings

_RESTART_SECONDS: Final = 5.0
_LOG = structlog.get_logger()


async def run(settings: Settings, reload: Reload | None = None) -> None:
    """Run a connector until SIGTERM, SIGINT or SIGHUP; a new one after each that asked for a restart."""
    _raise_open_files()
    ended = asyncio.Event()
    _handle_signals(ended)
    restarts: Counter[str] = Counter()
    while not ended.is_set():
        settings = await _run_once(settings, ended, reload, restarts)
        await supervision.is_set_within(ended, _RESTART_SECONDS)


def _handle_signals(ended: asyncio.Event) -> None:
    """SIGTERM, SIGINT and SIGHUP shut the connector down gracefully; SIGUSR1 and SIGUSR2 are only logged."""
    loop = asyncio.get_running_loop()
    is_kept_running = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
    on_interrupt(ended.set, () if is_kept_running else (signal.SIGHUP,))
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, partial(_LOG.warning, "ignored signal", signal=number.name))


async def _run_once(
    settings: Settings, ended: asyncio.Event, reload: Reload | None, restarts: Counter[str]
) -> Settings:
    """Run one connector until it ends, and return its last settings: credentials may have been rotated."""
    connector = Connector(settings, reload, restarts)
    try:
        await connector.start()
        _freeze_garbage_collector()
        ends = [asyncio.create_task(event.wait()) for event in (ended, connector.must_restart)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
    finally:
        await connector.stop()
    return connector.settings


def _freeze_garbage_collector() -> None:
    """Keep the garbage collector from traversing again and again what the start has built: it stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _raise_open_files() -> None:
    """Raise the soft limit of open files: our own setting bounds the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
