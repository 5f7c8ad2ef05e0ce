"""Runs the demo: starts the parts, stops them in order, and returns the counts."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from connector import supervision
from connector.app.connector import Connector
from connector.app.signals import on_interrupt
from connector.demo.options import Options
from connector.demo.reader import Event, Reader
from connector.demo.state import DemoState
from connector.demo.view import View, introduction, print_now
from connector.errors import OutsideUnreachable
from connector.kafka.consumer import REACH_SECONDS
from connector.kafka.topics import TopicAdmin
from connector.lookup.topics import EVENTS
from connector.message.routes import STREAMS, Routes
from connector.settings import Settings
from connector.simulator import Plan, play
from connector.telemetry import logs

_TICK_SECONDS: Final = 0.2
_IN_FLIGHT_SECONDS: Final = 1.0
_BACKLOG_SECONDS: Final = 10.0
_CATCH_UP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05

_T = TypeVar("_T")


async def run(options: Options) -> DemoState:
    """Run a demo until its seconds are over or a SIGINT or SIGTERM arrives, and return its state with the final ledger.

    Raises:
        ConfigurationError: An option, a port or a Kafka property makes no sense.
        OutsideUnreachable: No broker answers at the start.
    """
    ended = asyncio.Event()
    on_interrupt(ended.set)
    with tempfile.TemporaryDirectory(prefix="weda-demo-") as folder:
        settings = options.settings(Path(folder))
        logs.configure(settings.log.level, settings.log.format)
        if not options.is_embedded:
            await _reach(settings)
        async with _started(settings) as connector:
            return await _Demo(options, settings, connector, ended).run()


async def _reach(settings: Settings) -> None:
    """Check that the brokers are reachable; the connector itself would wait for them, and journal."""
    admin = TopicAdmin(settings.kafka.bootstrap_servers or "", settings.kafka.properties)
    await asyncio.to_thread(admin.brokers, REACH_SECONDS)


@asynccontextmanager
async def _started(settings: Settings) -> AsyncIterator[Connector]:
    connector = Connector(settings)
    try:
        await connector.start()
        yield connector
    finally:
        await connector.stop()


class _Demo:
    """The parts that run beside a started connector."""

    def __init__(self, options: Options, settings: Settings, connector: Connector, ended: asyncio.Event) -> None:
        self._options = options
        self._settings = settings
        self._connector = connector
        self._ended = ended
        self._state = DemoState()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> DemoState:
        """Run the demo from the first message to the last event; the connector is still up afterwards."""
        plan = self._options.plan(self._connector.url)
        topic = Routes(STREAMS, self._settings.topics.prefix).topic(EVENTS)
        servers, properties = self._connector.bootstrap_servers, self._settings.kafka.properties
        reader = Reader(servers, properties, topic, self._appeared)
        self._print_introduction()
        try:
            view = View(self._state)
            await self._play(plan, reader, view)
            view.show(self._connector.health.backlog)
        finally:
            reader.end()
            await self._end_tasks()
        return self._state

    def _appeared(self, event: Event) -> None:
        self._state.appeared(event, time.monotonic())

    def _print_introduction(self) -> None:
        connector, options = self._connector, self._options
        addresses = (connector.url, connector.operations_url, connector.bootstrap_servers)
        print_now(introduction(*addresses, options.seed, is_embedded=options.is_embedded))

    async def _play(self, plan: Plan, reader: Reader, view: View) -> None:
        stop = asyncio.Event()
        started = asyncio.Event()
        # The reader is at its position before the first message is sent, and misses none.
        following = self._task(reader.follow(started))
        await self._until_reading(following, started)
        showing = self._task(self._keep_showing(view))
        playing = self._task(play(plan, on_answer=self._state.answered, stop=stop))
        playing.add_done_callback(lambda _: self._note_that_all_ended())
        await supervision.is_set_within(self._ended, self._options.seconds)
        # 1. Send nothing new. When time is up the plan ends by itself, and messages in flight are still answered.
        if not self._ended.is_set():
            await asyncio.wait({playing}, timeout=_IN_FLIGHT_SECONDS)
        stop.set()
        await playing
        # 2. Wait until everything accepted is published and read, but no longer than people would.
        self._state.note = "ending: waiting until everything accepted is in Kafka"
        await self._all_appeared(following)
        # 3. Let the reader reach the topic's end: later records could still be out of order.
        reader.end()
        with suppress(TimeoutError, OutsideUnreachable):  # then the ledger shows what is missing
            await asyncio.wait_for(following, _CATCH_UP_SECONDS)
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing

    @staticmethod
    async def _until_reading(following: "asyncio.Task[None]", started: asyncio.Event) -> None:
        """Wait until the topic is being read; raise the error if reading failed before that."""
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if following.done():
            await following

    async def _all_appeared(self, following: "asyncio.Task[None]") -> None:
        ledger, deadline = self._state.ledger, time.monotonic() + _BACKLOG_SECONDS
        while ledger.lost and not following.done() and time.monotonic() < deadline:  # noqa: ASYNC110 - a pure ledger
            await asyncio.sleep(_POLL_SECONDS)

    async def _keep_showing(self, view: View) -> None:
        while True:
            self._state.tick(time.monotonic())
            view.show(self._connector.health.backlog)
            await asyncio.sleep(_TICK_SECONDS)

    def _note_that_all_ended(self) -> None:
        instances = self._options.instances
        if instances is not None and self._state.ledger.ended >= instances and not self._ended.is_set():
            until = (
                "until Ctrl-C" if self._options.seconds is None else f"until its {self._options.seconds:g} s are over"
            )
            self._state.note = f"all {instances} instances have ended; the connector stays up {until}"

    def _task(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Start a task whose failure ends the demo; awaiting the task raises the error."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._end_on_failure)
        self._tasks.add(task)
        return task

    def _end_on_failure(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._ended.set()

    async def _end_tasks(self) -> None:
        await supervision.cancel(self._tasks)
