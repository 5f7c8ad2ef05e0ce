"""The notifier: reads the topic into the outbox, and sends from there in a thread beside it."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from connector.consuming import Event, Events, PartitionsLost, SqliteStore
from connector.errors import ConnectorError, OutsideUnreachable
from connector.notify.delivery import Delivery
from connector.notify.matching import drafts_of, ended_by
from connector.notify.metrics import Metrics
from connector.notify.outbox import MOST, Draft, Outbox, locked
from connector.notify.rules import Rules
from connector.notify.sending import Send
from connector.notify.templates import Unrenderable

BATCH: Final = 200
_BATCH_SECONDS: Final = 0.5
_FULL_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 10.0
_LOG = structlog.get_logger()


class SendingEnded(ConnectorError):
    """The thread that sends has ended by an error."""

    stage = "notify"


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Where the events are, and as whom they are read.

    Attributes:
        bootstrap_servers: Brokers.
        reading: What `Events` takes beside: prefix, registry, properties.
        group: The consumer group; also the name of its one member, since the outbox is on one disk.
        since: Where a first start begins.
    """

    bootstrap_servers: str
    reading: dict[str, Any]
    group: str
    since: datetime


class Notifier:
    """One notifier; `run` ends after `stop`.

    Args:
        options: Where the events are.
        rules: The rules.
        state: The outbox's file.
        send: Sends one text.
        metrics: Where it counts.
    """

    def __init__(self, options: ConsumerOptions, rules: Rules, state: Path, send: Send, metrics: Metrics) -> None:
        self._options, self._rules, self._state, self._metrics = options, rules, state, metrics
        self._is_stopped = threading.Event()
        self._delivery = Delivery(state, rules, send, metrics, self._is_stopped.is_set)
        self._problem: BaseException | None = None
        self._events: Events | None = None
        self._asked = 0.0

    def stop(self) -> None:
        """End soon: what is being sent is finished."""
        self._is_stopped.set()
        if self._events is not None:
            self._events.stop()

    def run(self) -> None:
        """Read and send until stopped.

        Raises:
            ConfigurationError: The state is in use or cannot be opened, or Kafka rejects.
            SendingEnded: The outbox cannot be read any more.
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
        how: dict[str, Any] = {
            "group": options.group,
            "member": options.group,
            "since": since,
            "auto_commit": False,
        }
        with Events(options.bootstrap_servers, store=store, **how, **options.reading) as events:
            self._events = events
            if self._is_stopped.is_set():  # before there was anything to stop
                events.stop()
            for batch in events.batches(BATCH, seconds=_BATCH_SECONDS, idle=_LAG_SECONDS):
                if batch:
                    self._take(outbox, events, batch)
                self._note_lag(events)
                while _is_full(outbox) and not self._is_stopped.is_set():
                    events.sleep(_FULL_SECONDS)
                    self._note_lag(events)

    def _take(self, outbox: Outbox, events: Events, batch: list[Event]) -> None:
        now = datetime.now(self._rules.zone)
        for event in batch:
            try:
                made = list(drafts_of(event, self._rules, now))
            except Unrenderable as error:
                events.park(event, str(error))
                _LOG.error("event parked", instanceId=event.instance_id, offset=event.offset, error=_kind(error))
                self._metrics.events_parked.inc()
                continue
            self._cancel(outbox, event)
            self._add(outbox, made)
        try:
            events.commit()
        except (OutsideUnreachable, PartitionsLost) as error:
            _LOG.warning("commit later", reason=error.message)  # the outbox has it all
        self._metrics.events.inc(len(batch))

    def _cancel(self, outbox: Outbox, event: Event) -> None:
        ended = ended_by(event)
        if ended is not None:
            self._metrics.cancelled.inc(outbox.cancel(ended.instance, ended.node, ended.persons))

    def _add(self, outbox: Outbox, made: list[tuple[Draft, str | None]]) -> None:
        for draft, missing in made:
            if missing is None:
                outbox.add([draft])
            else:
                outbox.park_draft(draft, missing)
                self._metrics.notifications.labels(draft.target, "parked").inc()

    def _note_lag(self, events: Events) -> None:
        if time.monotonic() - self._asked >= _LAG_SECONDS:
            self._asked = time.monotonic()
            try:
                self._metrics.lag.set(events.lag())
            except ConnectorError as error:  # a deleted topic too: only reading may end the notifier
                _LOG.warning("lag unknown", reason=error.message)


def _kind(error: Unrenderable) -> str:
    """What went wrong, without a text of the event, which the error's own text may hold."""
    return type(error.__cause__ or error).__name__


def _is_full(outbox: Outbox) -> bool:
    counts = outbox.counts()
    return counts.waiting + counts.parked >= MOST


def dry_run(options: ConsumerOptions, rules: Rules) -> Iterator[tuple[Event, Draft, str | None]]:
    """What the rules make of the events so far, without a group; nothing is sent or remembered.

    Raises:
        OutsideUnreachable: Kafka does not answer.
        Unrenderable: A template cannot be rendered.
    """
    now = datetime.now(rules.zone)
    with Events(options.bootstrap_servers, since=options.since, until_end=True, **options.reading) as events:
        for event in events:
            for draft, missing in drafts_of(event, rules, now):
                yield event, draft, missing
