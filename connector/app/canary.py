"""The canary: a test message that the connector publishes every few seconds and reads back from Kafka.

It enters behind the receiver's authentication and passes through parsing, conversion, encoding, a lane and Kafka to its
own topic. Only one is in flight at a time, so that an outage leaves one in the journal and not thousands.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog
from confluent_kafka import Message

from connector.clock import now_ms
from connector.errors import ConnectorError
from connector.intake.pipeline import Pipeline
from connector.kafka.reader import TopicReader
from connector.kafka.topics import CANARY_ENVIRONMENT
from connector.message import weda
from connector.message.events import Event
from connector.message.parsing import BodyKind
from connector.values import CANARY_SOURCE, Request

_RETRY_SECONDS: Final = 1.0
_LOG = structlog.get_logger()
_T = TypeVar("_T")

Connection = Callable[[], tuple[str, Mapping[str, Any]]]
"""Returns the brokers and the librdkafka properties."""


class CanaryMetrics(Protocol):
    """Counts canaries; a running connector passes its metrics."""

    def canary_read(self, seconds: float) -> None:
        """Record that a canary was read back, and the seconds since it was sent."""

    def canary_refused(self) -> None:
        """Count a canary that was not accepted."""


class Uncounted:
    """Replaces the metrics in the canary's pipeline: its messages come from no source and are not counted."""

    def message_accepted(self, source: str, event: Event, *, conflict: bool) -> None:
        """Count nothing."""

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """Count nothing; `Canary` sees the error."""


class Canary:
    """Sends messages one after another, each once the previous one was read back.

    Args:
        pipeline: Publishes to the canary's topic.
        topic: The canary's topic; it exists.
        metrics: Counts the messages.
        connection: Returns the current brokers and librdkafka properties: credentials may be rotated.
        interval_seconds: Seconds from one message to the next.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        topic: str,
        *,
        metrics: CanaryMetrics,
        connection: Connection,
        interval_seconds: float,
    ) -> None:
        self._pipeline = pipeline
        self._topic = topic
        self._metrics = metrics
        self._interval = interval_seconds
        self._run = secrets.token_hex(6)  # sets this run's messages apart from those that an earlier run left
        self._number = 0
        self._connection = connection
        self._records: _Records | None = None

    def reconnect(self) -> None:
        """Read back with the current properties, such as new credentials.

        An open reader keeps the properties that it was built with; a broker rejects it when it next asks for them.
        """
        if self._records is not None:
            self._records.expire()

    async def run(self) -> None:
        """Send and read back until cancelled."""
        self._records = records = _Records(self._connection, self._topic)
        try:
            while True:
                await records.open()
                try:
                    await self._keep_sending(records)
                except ConnectorError as error:
                    _LOG.warning("the canary cannot be read back", reason=error.message)
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            records.close()

    async def _keep_sending(self, records: "_Records") -> None:
        while not records.is_expired:
            began = time.monotonic()
            await self._send_and_wait(records)
            await asyncio.sleep(max(self._interval - (time.monotonic() - began), 0))

    async def _send_and_wait(self, records: "_Records") -> None:
        self._number += 1
        name = f"canary-{self._run}-{self._number}"
        began = time.monotonic()  # not the wall clock, which may be set while the message is on its way
        try:
            await self._pipeline.accept(_request(name), BodyKind.JSON)
        except ConnectorError as error:
            self._metrics.canary_refused()
            _LOG.warning("the canary was not accepted", reason=error.message)
            return
        while (message := await records.next()) is not None:
            if message.key() == name.encode():
                self._metrics.canary_read(time.monotonic() - began)
                return


class _Records:
    """Reads the canary's topic from its current end, on a thread of its own."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self._connection = connection
        self._topic = topic
        self.is_expired = False
        self._thread = ThreadPoolExecutor(1, "canary")  # a `TopicReader` must be used by one thread only
        self._is_stopped = False
        self._reader: TopicReader | None = None
        self._messages: Iterator[Message] = iter(())

    async def open(self) -> None:
        """Open a reader at the end of the topic; wait for the brokers, however long they are away."""
        while not await self._on_thread(self._has_opened):  # noqa: ASYNC110 - brokers set no event
            await asyncio.sleep(_RETRY_SECONDS)

    async def next(self) -> Message | None:
        """Return the next record, or None once this is closed or has expired.

        Raises:
            ConnectorError: Kafka rejects the reader.
        """
        return await self._on_thread(self._next)

    def expire(self) -> None:
        """End reading; the next `open` uses the properties that are current then."""
        self.is_expired = True

    def close(self) -> None:
        """Close the reader on its thread, without waiting: the thread may be waiting for a broker."""
        self._is_stopped = True
        self._thread.submit(self._close_reader)
        self._thread.shutdown(wait=False)

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- on the thread ---

    def _has_opened(self) -> bool:
        self._close_reader()
        self.is_expired = False  # before the properties are read: a later change then expires this reader
        self._reader = TopicReader(
            *self._connection(), self._topic, is_stopped=lambda: self._is_stopped or self.is_expired
        )
        try:
            if not self._reader.partitions():
                return False
            self._reader.assign(from_beginning=False, back=0)
        except ConnectorError:
            return False
        self._messages = self._reader.messages(until_end=False)
        return True

    def _next(self) -> Message | None:
        return next(self._messages, None)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _request(name: str) -> Request:
    message = {"msgType": weda.TASK, "instanceId": name, "envType": CANARY_ENVIRONMENT, "flowTitle": "canary"}
    return Request(CANARY_SOURCE, msgspec.json.encode(message), "application/json", now_ms())
