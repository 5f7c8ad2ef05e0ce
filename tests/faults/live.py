"""The second consumer: it follows the topics from the start of a run, through everything that the run breaks."""

import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Event, Thread
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from tests.faults.consumer import RECORD_TYPE_OF, Record, decode

BATCH = 500
POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
"""How often it looks for partitions that it does not follow yet; the topics may be younger than the consumer."""
CATCH_UP_SECONDS = 90

Partition = tuple[str, int]
"""Stream and number."""


class LiveConsumer:
    """Polls all partitions of the record streams in a thread of its own, and keeps what it saw as it saw it.

    It commits nothing and belongs to no group, so nothing moves it but its own polls: an offset that goes backwards
    or is skipped is the brokers' doing.
    """

    def __init__(self, bootstrap: str, prefix: str, properties: Mapping[str, str] | None = None) -> None:
        self.errors: list[str] = []
        """What the client reported and mended by itself."""
        self._bootstrap = bootstrap
        self._properties = properties or {}
        self._streams = {f"{prefix}.{stream}": stream for stream in RECORD_TYPE_OF}
        self._seen: list[tuple[float, str, KafkaMessage]] = []
        self._next: dict[Partition, int] = {}
        self._followed: set[Partition] = set()
        self._stop = Event()
        self._thread = Thread(target=self._follow, name="live-consumer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self, ends: Mapping[Partition, int], *, seconds: float = CATCH_UP_SECONDS) -> list[tuple[float, Record]]:
        """Poll up to these ends, but no longer than ``seconds``, and stop: each record with when it was seen.

        ``ValueError`` when a value is not what its stream promises.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(self._next.get(each, 0) < end for each, end in ends.items()):
            time.sleep(POLL_SECONDS)
        self._stop.set()
        self._thread.join()
        return [(at, decode(stream, message)) for at, stream, message in self._seen]

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "unused",  # the client wants one; without commits it never exists
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,  # brokers that a scenario breaks are no news
                **self._properties,
            }
        )
        try:
            self._poll(consumer)
        finally:
            consumer.close()

    def _poll(self, consumer: Consumer) -> None:
        look_at = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= look_at:
                with suppress(KafkaException):  # no broker answers just now
                    self._look_for_partitions(consumer)
                look_at = time.monotonic() + LOOK_SECONDS
            if not self._followed:
                self._stop.wait(POLL_SECONDS)
                continue
            for message in consumer.consume(BATCH, POLL_SECONDS):
                self._take(message)

    def _look_for_partitions(self, consumer: Consumer) -> None:
        topics = consumer.list_topics(timeout=1).topics
        there = {(topic, each) for topic in self._streams if topic in topics for each in topics[topic].partitions}
        if new := sorted(there - self._followed):
            consumer.incremental_assign([TopicPartition(topic, each, OFFSET_BEGINNING) for topic, each in new])
            self._followed |= there

    def _take(self, message: KafkaMessage) -> None:
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        if error := message.error():
            self.errors.append(f"{topic}/{partition}: {error.str()}")
            return
        stream = self._streams[topic]
        self._seen.append((time.monotonic(), stream, message))
        self._next[stream, partition] = offset + 1
