"""Dead letters whose message was accepted meanwhile: noted before anything else is done, also if the process dies."""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import Duplicates
from connector.delivery.lanes import LaneCounts
from connector.delivery.order import LocalOrder
from connector.errors import Unavailable
from connector.intake import dead_letters, reprocessing
from connector.intake.dead_letters import NOTE_PREFIX, Selection
from connector.intake.pipeline import Pipeline
from connector.intake.reprocessing import DeadLetterReprocessor, Progress
from connector.kafka.reader import ConsumerRecord
from connector.message.decoding import MessageDecoder
from connector.message.encoding import SingleObjectFraming
from connector.message.ingest_ids import IngestIds
from connector.message.parsing import BodyKind
from connector.message.routes import DEAD_LETTERS, Routes
from connector.telemetry.metrics import Metrics
from connector.testing import InMemoryJournal, InMemoryPublisher
from connector.values import Request
from tests.waiting import equals, until

TOPIC = "weda.workflow.dead-letters"
EVERYTHING = Selection()


class Journal(InMemoryJournal):
    """A journal that can take rows and no notes of their own: it fails them, or never answers."""

    is_failing = False
    is_silent = False

    async def write_note(self, name: str, value: int) -> None:
        if self.is_failing:
            raise Unavailable("the journal cannot take the note")
        if self.is_silent:
            await asyncio.Event().wait()
        await super().write_note(name, value)


def body(number: int) -> bytes:
    return json.dumps({"msgType": "Instance", "instanceId": "a", "msgId": f"a-{number}", "action": 22}).encode()


def letter(number: int) -> ConsumerRecord:
    headers = {"weda.source": "default", "weda.error.code": "42201", "weda.content-type": "application/json"}
    received_at = 1_763_000_000_000 + number
    return ConsumerRecord(DEAD_LETTERS, TOPIC, 0, number, "a", received_at, headers, body(number))


class Connector:
    """What one process has in memory; the journal and the topics outlive it."""

    def __init__(self, journal: Journal, publisher: InMemoryPublisher, letters: list[ConsumerRecord]) -> None:
        self.journal = journal
        self.publisher = publisher
        self._letters = letters

    async def start(self) -> None:
        contents = await self.journal.open()
        counts = LaneCounts(contents.lanes)
        routes = Routes(("events",), "weda.workflow", {"default": ()})
        metrics = Metrics(version="0", sources=["default"], streams=["events"])
        self.delivery = Delivery(
            self.publisher,
            self.journal,
            contents,
            ledger=metrics,
            make_dead_letter=partial(dead_letters.for_rejection, TOPIC),
            publish_wait_seconds=60,
            journaled=counts,
        )
        duplicates = Duplicates(window_seconds=3600, max_entries=1000)
        order = LocalOrder(self.delivery, duplicates, counts, contents.next_sequence)
        self.pipeline = Pipeline(
            routes=routes,
            framing=SingleObjectFraming(),
            order=order,
            duplicates=duplicates,
            ingest_ids=IngestIds(),
            metrics=metrics,
            decoder=MessageDecoder(ZoneInfo("Asia/Shanghai")),
            max_in_flight=64,
            reply_deadline_seconds=60,
            topic_limits={},
            write_note=self.journal.write_note,
        )
        self.dead_letters = DeadLetterReprocessor(
            self.pipeline,
            self.journal,
            order,
            count_in_journal=order.dead_letters_in_journal,
            sources=["default"],
            read=self._read,
        )
        self.delivery.start_publishing()

    def _read(self) -> Iterator[ConsumerRecord]:
        return iter(self._letters)

    async def accept(self, number: int) -> None:
        await self.pipeline.accept(Request("default", body(number), "application/json", 1), BodyKind.JSON)

    async def run(self) -> Progress:
        progress = self.dead_letters.start(EVERYTHING, 5)
        await until(lambda: progress.state != "running")
        await until(lambda: self.delivery.waiting_rows, equals(0))
        return progress

    async def kill(self) -> None:
        await self.dead_letters.stop()
        await self.delivery.stop(1)
        await self.publisher.start()

    @property
    def published(self) -> list[str]:
        """The message ids of the records, as they stand in their bytes."""
        return [re.findall(r"a-\d", str(record.value))[0] for record in self.publisher.of("events")]


@pytest.fixture
async def connector():
    made = Connector(Journal(), InMemoryPublisher(), [letter(1), letter(2)])
    await made.start()
    yield made
    await made.kill()


async def test_a_note_that_fails_keeps_the_letter_and_those_behind_it(connector, monkeypatch):
    monkeypatch.setattr(reprocessing, "_JOURNAL_TIMEOUT_SECONDS", 0)
    await connector.accept(1)
    connector.journal.is_failing = True

    broken = await connector.run()

    assert (broken.state, broken.done) == ("broken", 0)
    assert connector.published == ["a-1"]

    connector.journal.is_failing = False
    ended = await connector.run()

    assert (ended.state, ended.repeats, ended.accepted) == ("ended", 1, 1)
    assert connector.published == ["a-1", "a-2"]
    assert (await connector.run()).total == 0


async def test_a_process_that_dies_before_the_note_has_done_nothing(connector):
    """After the deduplication window, too: what is published then comes once, and in front of what is behind it."""
    await connector.accept(1)
    connector.journal.is_silent = True
    progress = connector.dead_letters.start(EVERYTHING, 5)
    await asyncio.sleep(0.1)

    assert (progress.state, progress.done) == ("running", 0)
    assert await connector.journal.read_notes(NOTE_PREFIX) == {}

    await connector.kill()
    connector.journal.is_silent = False
    await connector.start()  # what was accepted is not remembered, as after the window
    ended = await connector.run()

    assert (ended.accepted, ended.repeats) == (2, 0)
    assert connector.published == ["a-1", "a-1", "a-2"]
    assert (await connector.run()).total == 0
