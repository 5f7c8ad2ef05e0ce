"""The demo from its start to its end: start the parts, let them play, end them in the right order, tell the numbers."""

import asyncio
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from connector import logs
from connector.app import Connector
from connector.demo.ledger import Ledger
from connector.demo.options import Options
from connector.demo.reader import Reader
from connector.demo.scene import Scene
from connector.demo.view import View, introduction, view_of
from connector.errors import OutsideUnreachable
from connector.reading import topic_of
from connector.settings import Settings
from connector.simulator import Plan, Summary, play

EVENTS: Final = "events"

_TICK_SECONDS: Final = 0.2
_IN_FLIGHT_SECONDS: Final = 1.0
_BACKLOG_SECONDS: Final = 10.0
_CATCH_UP_SECONDS: Final = 10.0


async def run(options: Options) -> Ledger:
    """Play a demo until its seconds are over, or SIGINT or SIGTERM; the ledger is complete then.

    Raises:
        ConfigurationError: An option, a port or a Kafka property makes no sense.
        OutsideUnreachable: No broker answers at the start.
    """
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with tempfile.TemporaryDirectory(prefix="weda-demo-") as folder:
        settings = options.settings(Path(folder))
        logs.configure(settings.log.level, settings.log.format)
        async with _started(settings) as connector:
            return await _Demo(options, settings, connector, ended).play()


@asynccontextmanager
async def _started(settings: Settings) -> AsyncIterator[Connector]:
    connector = Connector(settings)
    try:
        await connector.start()
        yield connector
    finally:
        await connector.stop()


class _Demo:
    """The parts that play around a connector that is up."""

    def __init__(self, options: Options, settings: Settings, connector: Connector, ended: asyncio.Event) -> None:
        self._options = options
        self._settings = settings
        self._connector = connector
        self._ended = ended
        self._scene = Scene()

    async def play(self) -> Ledger:
        """Begin, end and sum up; the connector is still up afterwards."""
        plan = self._options.plan(self._connector.url)
        topic = topic_of(EVENTS, self._settings.topics.prefix)
        async with Reader(self._connector.bootstrap_servers, self._settings.kafka.properties, topic) as reader:
            self._introduce()
            with view_of(self._scene) as view:
                logs.configure(self._settings.log.level, self._settings.log.format)  # standard error may be another now
                await self._play(plan, reader, view)
        return self._scene.ledger

    def _introduce(self) -> None:
        connector, options = self._connector, self._options
        broker = connector.bootstrap_servers
        print(
            introduction(
                connector.url, connector.operations_url, broker, options.seed, is_embedded=options.is_embedded
            ),
            flush=True,
        )

    async def _play(self, plan: Plan, reader: Reader, view: View) -> None:
        stop = asyncio.Event()
        following = self._task(reader.follow(lambda events: self._scene.appeared(events, time.monotonic())))
        showing = self._task(self._keep_showing(view))
        playing = self._task(play(plan, on_answer=self._scene.answered, stop=stop))
        playing.add_done_callback(self._say_that_all_ended)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._options.seconds)
        # 1. Nothing new is sent; what is in flight may still be answered.
        await asyncio.wait({playing}, timeout=_IN_FLIGHT_SECONDS)
        stop.set()
        await playing
        # 2. What was accepted is published and read, as far as that takes no longer than people wait.
        self._scene.note = "ending: waiting until everything that was accepted has appeared in Kafka"
        await self._all_appeared()
        # 3. The reader reads to the topic's end: it could hold what should not be there.
        reader.end()
        with suppress(TimeoutError, OutsideUnreachable):  # then the ledger tells what is missing
            await asyncio.wait_for(following, _CATCH_UP_SECONDS)
        showing.cancel()
        await asyncio.wait({showing})
        self._scene.note = "ended"
