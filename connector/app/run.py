"""Runs ``serve``: handles signals, and runs one connector after another until a signal stops the process."""

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
    """Run a connector until SIGTERM, SIGINT or SIGHUP; start a new one whenever the running one asks for a restart."""
    _raise_open_files()
    ended = asyncio.Event()
    _handle_signals(ended)
    restarts: Counter[str] = Counter()
    while not ended.is_set():
        settings = await _run_once(settings, ended, reload, restarts)
        # A pause, which a signal ends: the reason for the restart, such as a lost lease, may last for a while.
        await supervision.is_set_within(ended, _RESTART_SECONDS)


def _handle_signals(ended: asyncio.Event) -> None:
    """Shut down gracefully at SIGTERM, SIGINT and SIGHUP; only log SIGUSR1 and SIGUSR2."""
    loop = asyncio.get_running_loop()
    is_kept_running = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup ignores it before the process starts
    on_interrupt(ended.set, () if is_kept_running else (signal.SIGHUP,))
    # By default they end the process at once, and some tools send SIGUSR1 to have a log file opened again.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, partial(_LOG.warning, "ignored signal", signal=number.name))


async def _run_once(
    settings: Settings, ended: asyncio.Event, reload: Reload | None, restarts: Counter[str]
) -> Settings:
    """Run one connector until it ends, and return its last settings, in which credentials may have been rotated."""
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
    """Exclude what the start has built from garbage collection: it lives as long as the connector."""
    gc.unfreeze()  # what belonged to a connector before this one
    gc.collect()  # first, so that no garbage is frozen
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _raise_open_files() -> None:
    """Raise the soft limit of open files to the hard one: ``receiver.max_connections`` bounds the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
