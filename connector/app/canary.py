"""A message of our own that goes the whole way every few seconds, and is read back from Kafka: does it still come out?

It enters where a source's request has been read and authenticated, and goes through parsing, conversion, encoding, its
lane and Kafka to a topic of its own. One is under way at a time, so an outage leaves one in the journal, not thousands.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from connector.errors import ConnectorError
from connector.intake.pipeline import Pipeline
from connector.kafka.reader import end_offset
from connector.kafka.topics import CANARY_ENVIRONMENT, LOG_NOTHING
from connector.message import weda
from connector.message.conversion import EventSummary
from connector.message.parsing import BodyKind
from connector.values import CANARY_SOURCE, Request

_LISTEN_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 1.0
_LOG = structlog.get_logger("connector.canary")


class Watch(Protocol):
    """Who counts the canaries; the metrics in a running connector."""

    def canary_read(self, seconds: float) -> None:
        """One came back, so many seconds after it was sent."""

    def canary_refused(self) -> None:
        """One was not accepted."""


class Uncounted:
    """In place of the metrics in the canary's pipeline: what it says is no business of anybody."""

    def message_accepted(self, source: str, summary: EventSummary, *, conflict: bool) -> None:
        """Count nothing."""

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """Count nothing; the answer says it."""


class Canary:
    """Sends one message after the other, each when the one before is back.

    Args:
        pipeline: The way of the messages, to the canary's topic.
        topic: That topic; it exists.
        watch: Who counts.
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties; those of producers do no harm.
        interval_seconds: From one to the next.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        topic: str,
        *,
        watch: Watch,
        bootstrap_servers: str,
        properties: Mapping[str, Any],
        interval_seconds: float,
    ) -> None:
        self._pipeline = pipeline
        self._topic = topic
        self._watch = watch
        self._interval = interval_seconds
        self._run = secrets.token_hex(6)
        self._number = 0
        self._configuration = {
            "log_level": LOG_NOTHING,
            **properties,
            "bootstrap.servers": bootstrap_servers,
            "group.id": "weda-connector-canary",  # the client wants one; without commits it never exists
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }

    async def run(self) -> None:
        """Send and read back until cancelled."""
        thread = ThreadPoolExecutor(1, "canary")
        reader = _Reader(self._configuration, self._topic, thread)
        try:
            await reader.open()
            while True:
                began = time.monotonic()
                await self._send_and_wait(reader)
                await asyncio.sleep(max(self._interval - (time.monotonic() - began), 0))
        finally:
            reader.close()
            thread.shutdown(wait=False)  # it may be waiting for a broker, and the event loop has senders to answer

    async def _send_and_wait(self, reader: "_Reader") -> None:
        self._number += 1
        name = f"canary-{self._run}-{self._number}"
        began = time.monotonic()
        try:
            await self._pipeline.accept(_request(name), BodyKind.JSON)
        except ConnectorError as refusal:
            self._watch.canary_refused()
            _LOG.warning("the canary was not accepted", reason=refusal.message)
            return
        while not await reader.sees(name.encode()):
            pass
        self._watch.canary_read(time.monotonic() - began)


class _Reader:
    """A consumer of the canary's topic, from where it ends now; it lives on one thread."""

    def __init__(self, configuration: Mapping[str, Any], topic: str, thread: ThreadPoolExecutor) -> None:
        self._consumer = Consumer(dict(configuration))
        self._topic = topic
        self._thread = thread

    async def open(self) -> None:
        """Find the ends, however long the brokers take to tell them."""
        while not await self._on_thread(self._assign):  # noqa: ASYNC110 - brokers set no event
            await asyncio.sleep(_AGAIN_SECONDS)

    async def sees(self, key: bytes) -> bool:
        """Whether the next record that comes within a moment has this key."""
        return await self._on_thread(lambda: self._next_key() == key)

    def close(self) -> None:
        """Close it, after whatever the thread does now."""
        self._thread.submit(self._consumer.close)

    def _assign(self) -> bool:
        try:
            partitions = self._consumer.list_topics(self._topic, timeout=_AGAIN_SECONDS).topics[self._topic].partitions
            places = [TopicPartition(self._topic, number) for number in partitions]
            for place in places:
                place.offset = end_offset(self._consumer, place, within=_AGAIN_SECONDS)
        except KafkaException:
            return False
        self._consumer.assign(places)
        return bool(places)

    def _next_key(self) -> bytes | None:
        message = self._consumer.poll(_LISTEN_SECONDS)
        return None if message is None or message.error() is not None else message.key()

    async def _on_thread(self, work: Any) -> bool:
        return bool(await asyncio.get_running_loop().run_in_executor(self._thread, work))


def _request(name: str) -> Request:
    message = {"msgType": weda.TASK, "instanceId": name, "envType": CANARY_ENVIRONMENT, "flowTitle": "canary"}
    return Request(CANARY_SOURCE, msgspec.json.encode(message), "application/json", time.time_ns() // 1_000_000)
