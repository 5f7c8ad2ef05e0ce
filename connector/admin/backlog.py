"""Counts, exports and publishes the backlog of a journal without the connector that accepted it."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from connector import supervision
from connector.delivery.delivery import Delivery
from connector.errors import ConfigurationError, ConnectorError
from connector.intake import dead_letters
from connector.journal.file import DamagedFile
from connector.journal.model import Admission
from connector.journal.offline import Backlog, DetachedJournal, detached
from connector.journal.sqlite import SqliteJournal
from connector.kafka.limits import TopicLimits
from connector.kafka.publisher import Failure, KafkaPublisher, producer_properties
from connector.kafka.topics import TopicAdmin, TopicState, routes_of
from connector.message.headers import as_text, error_of, timestamp_text
from connector.message.routes import Routes
from connector.settings import DEFAULT_SOURCE, Settings
from connector.telemetry.metrics import Metrics
from connector.text import text_or_base64
from connector.values import ProducibleRecord, Request

_ADMIN_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.2
_FLUSH_SECONDS: Final = 10.0
_STUCK_FLUSH_SECONDS: Final = 1.0  # a drain that is stuck has waited long enough for Kafka already
_GRACE_SECONDS: Final = 5.0

OnProgress = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of an export or a drain.

    Attributes:
        done: Messages and dead letters written or published so far; for an export, including those of earlier runs.
        left: Messages and dead letters still to do.
        seconds: Seconds since the start.
        before: How many of ``done`` are from earlier runs.
    """

    done: int
    left: int
    seconds: float
    before: int = 0

    @property
    def rate(self) -> float:
        """Messages per second in this run."""
        return (self.done - self.before) / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes at this rate, or None while the rate is 0."""
        return self.left / self.rate if self.rate else None


# --- status ---


def status_of_file(path: Path) -> dict[str, Any]:
    """Return the backlog of a journal that no process holds; if it is damaged, only that and why.

    Raises:
        OutsideUnreachable: Another process holds the journal.
        ConfigurationError: There is no journal, or it cannot be read.
    """
    try:
        with detached(path) as journal:
            journal.verify()
            backlog = journal.backlog()
    except DamagedFile as damage:
        return {"journal": str(path), "damaged": str(damage)}
    oldest = backlog.oldest_waits_since
    return {
        "journal": str(path),
        "damaged": None,
        "journal_messages": backlog.messages,
        "journal_messages_by_source": backlog.by_source,
        "journal_messages_by_stream": backlog.by_stream,
        "lanes": backlog.lanes,
        "publish_rate": 0.0,
        "catch_up_seconds": None if backlog.messages else 0.0,
        "journal_bytes": backlog.size_bytes,
        "oldest_waiting_seconds": 0.0 if oldest is None else round(max(time.time() - oldest / 1000, 0), 3),
        "accounts": _accounts(backlog),
    }


def _accounts(backlog: Backlog) -> dict[str, dict[str, int]]:
    status = {}
    for source, account in backlog.accounts.items():
        waiting = backlog.by_source.get(source, 0)
        status[source] = {
            "accepted": account.accepted,
            "published": account.published,
            "dead_lettered": account.dead_lettered,
            "waiting": waiting,
            "lost": account.lost,
            "imbalance": account.imbalance(waiting),
        }
    return status


# --- export ---


def export(path: Path, to: Path, *, on_progress: OnProgress) -> int:
    """Write every waiting message to a file as JSON Lines, in the order of acceptance; returns how many there are.

    A partial export in ``<to>.part`` is continued. The journal is not changed.

    Raises:
        OutsideUnreachable: Another process holds the journal.
        ConfigurationError: There is no journal, the file exists, or it cannot be written.
        ConnectorError: The journal is damaged.
    """
    _check_free(to)
    part = to.with_name(f"{to.name}.part")
    try:
        with detached(path) as journal:
            journal.verify()
            done = _write(journal, part, on_progress)
            # Again: the file may have appeared during a long export, and `rename` would replace it.
            _check_free(to)
            part.rename(to)
    except DamagedFile as damage:
        raise _damaged(path, damage) from damage
    except OSError as error:
        raise ConfigurationError(f"--to: {part} cannot be written ({error.strerror})") from error
    return done


def _check_free(to: Path) -> None:
    if to.exists():
        raise ConfigurationError(f"--to: {to} exists; give another name")


def _write(journal: DetachedJournal, part: Path, on_progress: OnProgress) -> int:
    began, total = time.monotonic(), journal.count()
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        os.fchmod(descriptor, 0o600)  # an existing file keeps its mode at `open`
        before, last_sequence = _end_of(file, part, journal)
        done = before
        for done, admission in enumerate(journal.admissions(after=last_sequence), start=before + 1):
            file.write(_line(admission))
            on_progress(Progress(done, total - done, time.monotonic() - began, before))
        # Before the rename gives it its name: the next step may be to delete the journal.
        file.flush()
        os.fsync(descriptor)
    return done


def _end_of(file: BinaryIO, part: Path, journal: DetachedJournal) -> tuple[int, int]:
    """Seek to the end of an earlier export's last complete line.

    Returns:
        The number of lines, and the last line's sequence.
    """
    lines, end, last_line = 0, 0, b""
    for line in file:
        if line.endswith(b"\n"):
            lines, end, last_line = lines + 1, end + len(line), line
    sequence = _sequence_of(last_line)
    if lines and (sequence is None or not _is_continued(journal, lines, sequence, last_line)):
        raise ConfigurationError(f"--to: {part} holds other messages than the journal; remove it, or give another name")
    file.seek(end)
    file.truncate()
    return lines, -1 if sequence is None else sequence


def _is_continued(journal: DetachedJournal, lines: int, sequence: int, last_line: bytes) -> bool:
    # The same last line, and as many rows up to it: none of the exported rows was published and removed since.
    last = next(journal.admissions(after=sequence - 1), None)
    return last is not None and _line(last) == last_line and journal.count(through=sequence) == lines


def _sequence_of(line: bytes) -> int | None:
    try:
        return msgspec.json.decode(line, type=_Numbered).sequence
    except msgspec.MsgspecError:
        return None


class _Numbered(msgspec.Struct):
    """The field of an exported line that holds its position."""

    sequence: int


def _line(admission: Admission) -> bytes:
    request = admission.request
    body, is_base64 = text_or_base64(request.body)
    status = {
        "sequence": admission.sequence,
        "instanceId": _instance_of(admission),
        "source": request.source,
        "receivedAt": timestamp_text(request.received_at),
        "receivedAtMs": request.received_at,
        "contentType": request.content_type,
        "body": body,
        "bodyIsBase64": is_base64,
        "openStreams": [{"stream": record.stream, "topic": record.topic} for record in admission.records],
        "deadLetter": _reason_of(admission),
    }
    return msgspec.json.encode(status) + b"\n"


def _instance_of(admission: Admission) -> str | None:
    """Return the ``instanceId``, or None for a dead letter whose instance was not readable."""
    if not admission.is_dead_letter:
        return admission.lane
    # A dead letter's lane is its own; the instance is the key of its record.
    key = admission.records[0].key
    return None if key is None else key.decode(errors="replace")


def _reason_of(admission: Admission) -> dict[str, str] | None:
    """Return why a dead letter failed, or None for a message."""
    if not admission.is_dead_letter:
        return None
    error = error_of(as_text(admission.records[0].headers))
    return {"code": str(error.code), "stage": error.stage, "message": error.message}


# --- drain ---


class DrainEnd(Enum):
    """Why a drain ended."""

    EMPTY = "empty"
    STOPPED = "stopped"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class DrainResult:
    """The result of a drain.

    Attributes:
        end: Why it ended.
        published: Messages and dead letters that are in Kafka and were removed from the journal.
        left: Messages and dead letters that are still in the journal.
        dead_lettered: Messages that Kafka rejected; each became a dead letter.
        seconds: How long it took.
    """

    end: DrainEnd
    published: int
    left: int
    dead_lettered: int
    seconds: float


def dry_run(settings: Settings, servers: str) -> Backlog:
    """Check whether a drain could publish the backlog now; writes nothing, neither to Kafka nor to the journal.

    Raises:
        OutsideUnreachable: Another process holds the journal, or no broker answers.
        ConfigurationError: There is no journal, or Kafka rejects the client.
        ConnectorError: The journal is damaged, or a topic is missing.
    """
    path = settings.journal.path
    try:
        with detached(path) as journal:
            backlog = journal.backlog()
    except DamagedFile as damage:
        raise _damaged(path, damage) from damage
    if backlog.messages:
        _check_topics(TopicAdmin(servers, settings.kafka.properties), backlog, routes_of(settings))
    return backlog


async def drain(
    settings: Settings, servers: str, *, give_up_seconds: float, stop: asyncio.Event, on_progress: OnProgress
) -> DrainResult:
    """Publish everything that waits in a detached journal, in order, and remove it from there.

    A damaged journal is salvaged first, as a connector does it. A drain can always be run again: what it has not
    published is still in the journal.

    Args:
        settings: The settings of the journal's connector.
        servers: Brokers as ``host:port``, comma-separated.
        give_up_seconds: How long to go on without any message being published.
        stop: Set it to stop the drain.
        on_progress: Called several times a second.

    Raises:
        OutsideUnreachable: Another process holds the journal, or no broker answers.
        ConfigurationError: There is no journal, or Kafka rejects the client.
        ConnectorError: A topic is missing, or the journal was found damaged while it was read.
    """
    began = time.monotonic()
    topics = await _prepared(settings, TopicAdmin(servers, settings.kafka.properties))
    if not topics:
        return DrainResult(DrainEnd.EMPTY, 0, 0, 0, time.monotonic() - began)
    return await _Draining(settings, servers, topics, stop, on_progress).run(give_up_seconds)


async def _prepared(settings: Settings, admin: TopicAdmin) -> Collection[TopicState]:
    """Return the topics of the messages to publish; salvages a damaged journal."""
    path = settings.journal.path
    try:
        backlog = await asyncio.to_thread(_backlog_of, path)
    except DamagedFile:
        # A wrong address should fail before anything on disk changes. Opening the journal is what salvages it.
        await asyncio.to_thread(admin.brokers, _ADMIN_SECONDS)
        journal = _journal(settings)
        await journal.open()
        await journal.close()
        backlog = await asyncio.to_thread(_backlog_of, path)
    if not backlog.messages:
        return ()
    return await asyncio.to_thread(_check_topics, admin, backlog, routes_of(settings))


def _backlog_of(path: Path) -> Backlog:
    with detached(path) as journal:
        return journal.backlog()


def _check_topics(admin: TopicAdmin, backlog: Backlog, routes: Routes) -> Collection[TopicState]:
    """Check the topics stored in the records, and the dead-letter topics that belong to them."""
    admin.brokers(_ADMIN_SECONDS)
    # Records keep the topic that they were accepted for: the settings of the drain may have another prefix.
    topics = {topic for _, topic in backlog.topics}
    derived = {_dead_letter_topic(stream, topic) for stream, topic in backlog.topics if topic not in routes.topics}
    configured = routes.dead_letter_topics if not topics.isdisjoint(routes.topics) else ()
    names = sorted({*topics, *derived, *configured})
    existing = admin.describe(names, _ADMIN_SECONDS)
    missing = [name for name in names if name not in existing]
    if missing:
        raise ConnectorError(
            f"missing in Kafka: {', '.join(missing)}; create them with `weda-connector topics apply` "
            "under the WEDA_TOPICS__PREFIX of the connector whose journal it is"
        )
    return existing.values()


def _journal(settings: Settings, on_damage: Callable[[], None] = lambda: None) -> SqliteJournal:
    """Return the journal, with a limit of at least twice its size: its connector may have had a larger limit."""
    path = settings.journal.path
    size = path.stat().st_size if path.exists() else 0
    return SqliteJournal(path, max_bytes=max(settings.journal.max_bytes, 2 * size), on_damage=on_damage)


class _Draining:
    """One run of a drain."""

    def __init__(
        self,
        settings: Settings,
        servers: str,
        topics: Collection[TopicState],
        stop: asyncio.Event,
        on_progress: OnProgress,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._routes = routes_of(settings)
        self._servers = servers
        self._stop = stop
        self._on_progress = on_progress
        self._damaged = asyncio.Event()
        self._began = time.monotonic()
        self._dead_lettered = 0

    async def run(self, give_up_seconds: float) -> DrainResult:
        settings = self._settings
        journal = _journal(settings, self._damaged.set)
        contents = await journal.open()
        try:
            publisher = KafkaPublisher(producer_properties(self._servers, settings.kafka.properties))
            ledger = Metrics(version="", sources=settings.sources, streams=settings.streams)
            ledger.recovered(contents)
            limits = TopicLimits(ledger.timestamp_replaced)
            for topic in self._topics:
                limits.record(topic)
            await publisher.start()
            delivery = Delivery(
                publisher,
                journal,
                contents,
                ledger=ledger,
                make_dead_letter=self._dead_letter_of_rejection,
                restamp=limits.restamp,
                publish_wait_seconds=settings.kafka.publish_wait_seconds,
            )
            delivery.start_publishing()
            end = await self._watch(delivery, give_up_seconds)
            await self._end(delivery, _STUCK_FLUSH_SECONDS if end is DrainEnd.STUCK else _FLUSH_SECONDS)
        finally:
            await journal.close()
        if self._damaged.is_set():
            raise _damaged(settings.journal.path, DamagedFile("it was found damaged while reading"))
        left = delivery.waiting_rows
        seconds = time.monotonic() - self._began
        self._on_progress(Progress(delivery.removed, left, seconds))
        return DrainResult(DrainEnd.EMPTY if not left else end, delivery.removed, left, self._dead_lettered, seconds)

    async def _watch(self, delivery: Delivery, give_up_seconds: float) -> DrainEnd:
        """Wait until the journal is empty, the drain is stopped, or nothing was published for too long."""
        # Removals count, not acknowledgements: a row that is published and still there would be published again.
        removed, progressed_at = -1, 0.0
        while delivery.waiting_rows and not self._damaged.is_set():
            now = time.monotonic()
            if delivery.removed != removed:
                removed, progressed_at = delivery.removed, now
            if self._stop.is_set():
                return DrainEnd.STOPPED
            if now - progressed_at >= give_up_seconds:
                return DrainEnd.STUCK
            self._on_progress(Progress(removed, delivery.waiting_rows, now - self._began))
            await supervision.is_set_within(self._stop, _WATCH_SECONDS)
        return DrainEnd.EMPTY

    async def _end(self, delivery: Delivery, flush_seconds: float) -> None:
        # Removals wait for a failing disk without end; closing the journal, which comes next, ends them.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(flush_seconds + _GRACE_SECONDS):
                await delivery.stop(flush_seconds)

    def _dead_letter_of_rejection(
        self, request: Request, records: tuple[ProducibleRecord, ...], failure: Failure
    ) -> ProducibleRecord:
        self._dead_lettered += 1
        topic = self._dead_letter_topic(request.source, records[0])
        return dead_letters.for_rejection(topic, request, records, failure)

    def _dead_letter_topic(self, source: str, record: ProducibleRecord) -> str:
        """Return the dead-letter topic that belongs to a record's topic."""
        if record.topic in self._routes.topics:
            return self._routes.dead_letter_topic(source)
        return _dead_letter_topic(record.stream, record.topic)


def _dead_letter_topic(stream: str, topic: str) -> str:
    """Return the dead-letter topic with the prefix of a topic, which is not the prefix in the settings."""
    return Routes((), topic.removesuffix(f".{stream}")).dead_letter_topic(DEFAULT_SOURCE)


def _damaged(path: Path, damage: DamagedFile) -> ConnectorError:
    return ConnectorError(
        f"the journal {path} is damaged ({damage}): `weda-connector journal drain`, or the next start of its "
        "connector, saves what can be read of it"
    )
