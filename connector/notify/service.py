"""The notifier: reads the topic into the outbox, and sends from there in a second thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from connector.consuming import PREFIX, Event, Events, PartitionsLost, SqliteStore
from connector.errors import ConnectorError, OutsideUnreachable
from connector.message.routes import STREAMS, Routes
from connector.notify.delivery import Delivery
from connector.notify.matching import drafts_of, ended_by
from connector.notify.metrics import Metrics
from connector.notify.outbox import MAX_NOTIFICATIONS, Draft, Outbox, locked
from connector.notify.progress import CatchUp
from connector.notify.rules import Rules
from connector.notify.sending import Send
from connector.notify.templates import Unrenderable

BATCH: Final = 200
_BATCH_SECONDS: Final = 0.5
_FULL_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 10.0
_LOG = structlog.get_logger()


class SendingEnded(ConnectorError):
    """An error has ended the sending thread."""

    stage = "notify"


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Where and how the events are read.

    Attributes:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        reading: Further arguments of `Events`: prefix, registry, properties.
        group: The consumer group; also the name of its only member, because the outbox is on one disk.
        since: Where the first start begins to read.
    """

    bootstrap_servers: str
    reading: dict[str, Any]
    group: str
    since: datetime


class Notifier:
    """One notifier; `run` returns after `stop`.

    Args:
        options: Where and how the events are read.
        rules: The rules.
        state: The outbox's file.
        send: Sends one text.
        metrics: The notifier's metrics.
    """

    def __init__(self, options: ConsumerOptions, rules: Rules, state: Path, send: Send, metrics: Metrics) -> None:
        self._options, self._rules, self._state, self._metrics = options, rules, state, metrics
        self._is_stopped = threading.Event()
        self._may_remind = threading.Event()
        flags = {"is_stopped": self._is_stopped.is_set, "may_remind": self._may_remind.is_set}
        self._delivery = Delivery(state, rules, send, metrics, **flags)
        self._problem: BaseException | None = None
        self._events: Events | None = None
        self._lag_noted_at = 0.0
        self._reminders_checked_at = float("-inf")

    def stop(self) -> None:
        """Stop soon; attempts under way are finished."""
        self._is_stopped.set()
        if self._events is not None:
            self._events.stop()

    def run(self) -> None:
        """Read and send until stopped.

        Raises:
            ConfigurationError: The outbox is in use or cannot be opened, or Kafka rejects the client.
            SendingEnded: Sending has failed, for example because the outbox cannot be read.
        """
        with locked(self._state), closing(Outbox(self._state)) as outbox:
            since = outbox.first_start(self._options.since.timestamp())
            sender = threading.Thread(target=self._deliver, name="weda-notify-delivery")
            sender.start()
            try:
                self._read(outbox, datetime.fromtimestamp(since, UTC))
            finally:
                self.stop()
                sender.join()
            if self._problem is not None:
                raise SendingEnded(f"sending has ended: {self._problem}") from self._problem

    def _deliver(self) -> None:
        try:
            self._delivery.run()
        except BaseException as error:  # noqa: BLE001 - it ends the process, by the other thread
            self._problem = error
            self.stop()

    def _read(self, outbox: Outbox, since: datetime) -> None:
        options = self._options
        store = SqliteStore(outbox.database)
        consumer: dict[str, Any] = {
            "group": options.group,
            "member": options.group,  # a member with a name gets its partitions back at once after a restart
            "since": since,
            "auto_commit": False,  # `_take` commits, once the outbox has the batch
        }
        with Events(options.bootstrap_servers, store=store, **consumer, **options.reading) as events:
            self._events = events
            if self._is_stopped.is_set():  # `stop` came before there were events to stop
                events.stop()
            catch_up = _catch_up(options, since)
            self._check_reminders(catch_up)
            # An idle batch is empty: it is there for the lag, which would otherwise stand still without events, and to
            # commit the offsets of duplicates, which are in no batch.
            for batch in events.batches(BATCH, seconds=_BATCH_SECONDS, idle=_LAG_SECONDS):
                self._take(outbox, events, batch)
                self._check_reminders(catch_up)
                self._note_lag(events)
                # `events.sleep` keeps the group's membership alive, unlike a plain sleep.
                while _is_full(outbox) and not self._is_stopped.is_set():
                    # It may be full of reminders, which would wait for reading, and reading for them.
                    self._may_remind.set()
                    events.sleep(_FULL_SECONDS)
                    self._note_lag(events)

    def _take(self, outbox: Outbox, events: Events, batch: list[Event]) -> None:
        now = datetime.now(self._rules.zone)
        for event in batch:
            try:
                # All of them before any is added: an event is parked as a whole.
                drafts = list(drafts_of(event, self._rules, now))
            except Unrenderable as error:
                events.park(event, str(error))
                _LOG.error("event parked", instanceId=event.instance_id, offset=event.offset, error=_cause_type(error))
                self._metrics.events_parked.inc()
                continue
            # First: afterwards it would also remove a reminder that this very event has just added.
            self._cancel(outbox, event)
            self._add(outbox, drafts)
        try:
            events.commit()
        except (OutsideUnreachable, PartitionsLost) as error:
            _LOG.warning("commit later", reason=error.message)  # the store is committed, and recognises the events
        self._metrics.events.inc(len(batch))

    def _cancel(self, outbox: Outbox, event: Event) -> None:
        ended = ended_by(event)
        if ended is not None:
            self._metrics.cancelled.inc(outbox.cancel(ended.instance, ended.node, ended.persons))

    def _add(self, outbox: Outbox, drafts: list[tuple[Draft, str | None]]) -> None:
        for draft, missing in drafts:
            if missing is None:
                outbox.add([draft])
            else:
                outbox.park_draft(draft, missing)
                self._metrics.notifications.labels(draft.target, "parked").inc()

    def _check_reminders(self, catch_up: CatchUp) -> None:
        """Let reminders be sent once those that ended while the notifier was stopped are cancelled."""
        # Not after every batch: it takes a connection of its own.
        if self._may_remind.is_set() or time.monotonic() - self._reminders_checked_at < _LAG_SECONDS:
            return
        self._reminders_checked_at = time.monotonic()
        try:
            if catch_up.is_done():
                self._may_remind.set()
        except ConnectorError as error:  # asked again after a later batch: only reading may end the notifier
            _LOG.warning("reminders wait", reason=error.message)

    def _note_lag(self, events: Events) -> None:
        if time.monotonic() - self._lag_noted_at >= _LAG_SECONDS:
            self._lag_noted_at = time.monotonic()
            try:
                self._metrics.lag.set(events.lag())
            except ConnectorError as error:  # a deleted topic too: only reading may end the notifier
                _LOG.warning("lag unknown", reason=error.message)


def _cause_type(error: Unrenderable) -> str:
    """Return the type of the cause for the log; the error's text may quote the event, which logs must not."""
    return type(error.__cause__ or error).__name__


def _catch_up(options: ConsumerOptions, since: datetime) -> CatchUp:
    topic = Routes(STREAMS, options.reading.get("prefix", PREFIX)).topic("events")
    properties = options.reading.get("properties", {})
    return CatchUp(options.bootstrap_servers, properties, topic, options.group, since)


def _is_full(outbox: Outbox) -> bool:
    counts = outbox.counts()
    return counts.waiting + counts.parked >= MAX_NOTIFICATIONS


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of an event.

    Attributes:
        event: The event.
        drafts: Its notifications, each with the reason why it would be parked, or None.
        parked: Why the event would be parked, without any notification; or None.
    """

    event: Event
    drafts: list[tuple[Draft, str | None]]
    parked: str | None


def dry_run(options: ConsumerOptions, rules: Rules) -> Iterator[Preview]:
    """Yield what would become of each event so far by the rules, without a group; nothing is sent or stored.

    Raises:
        OutsideUnreachable: Kafka does not answer.
    """
    now = datetime.now(rules.zone)
    with Events(options.bootstrap_servers, since=options.since, until_end=True, **options.reading) as events:
        for event in events:
            try:
                yield Preview(event, list(drafts_of(event, rules, now)), None)
            except Unrenderable as error:
                yield Preview(event, [], str(error))
