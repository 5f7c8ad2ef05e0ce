"""The steps of one message: parse, convert (which also encodes its fields), deduplicate, make records, admit.

A request that cannot become a record is kept as a dead letter before its error is answered. A message that cannot be
kept is refused, so that the source sends it again. Nothing is answered as accepted before it is safe.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import partial
from hashlib import sha256
from typing import NamedTuple, Protocol

import structlog

from connector.delivery.completion import Completion, Durability
from connector.delivery.duplicates import DedupState, Duplicates, dedup_key_of
from connector.delivery.order import NewMessage, Order
from connector.errors import (
    ConnectorError,
    Defect,
    EmptyBody,
    OutcomeUnknown,
    Overloaded,
    TooLarge,
    Unconvertible,
    Unreadable,
)
from connector.intake import dead_letters
from connector.intake.dead_letters import DeadLetter
from connector.journal.model import Note
from connector.message.decoding import MessageDecoder
from connector.message.encoding import Framing
from connector.message.events import Event, check_record_type
from connector.message.headers import headers
from connector.message.ingest_ids import IngestIds
from connector.message.parsing import BodyKind
from connector.message.routes import Route, Routes
from connector.values import MAX_OVERHEAD_BYTES, DedupKey, IngestId, InstanceId, ProducibleRecord, Request

_LOG = structlog.get_logger()


class Outcome(Enum):
    """How an accepted request ended."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class Counts(Protocol):
    """Counts messages and dead letters; in a running connector, the metrics."""

    def message_accepted(self, source: str, event: Event, *, conflict: bool) -> None:
        """A message that is no duplicate is safe; ``conflict``: its ``msgId`` came before with other content."""

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """A request was kept as a dead letter, or is a duplicate of one that was."""


class Accepted(NamedTuple):
    """The result of an accepted request.

    Attributes:
        outcome: Whether the message is new.
        event: What the message says, for the line in the log.
    """

    outcome: Outcome
    event: Event | None


class Pipeline:
    """Turns the bytes of a request into a message that is safe.

    Args:
        routes: Which records a message becomes, and their topics.
        framing: The bytes in front of an encoded record.
        order: Admits messages and publishes them in order.
        duplicates: The messages of the deduplication window.
        ingest_ids: Makes ``ingestId``.
        metrics: Counts messages and dead letters.
        decoder: Turns bytes into an event.
        max_in_flight: Most messages that may be admitted and not yet safe.
        reply_deadline_seconds: How long a request may wait for its answer.
        topic_limits: ``max.message.bytes`` of each topic, kept up to date by its owner.
        write_note: Writes a note to the journal.

    Raises:
        ConfigurationError: Messages cannot be encoded with the schema of a route.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        framing: Framing,
        order: Order,
        duplicates: Duplicates,
        ingest_ids: IngestIds,
        metrics: Counts,
        decoder: MessageDecoder,
        max_in_flight: int,
        reply_deadline_seconds: float,
        topic_limits: Mapping[str, int],
        write_note: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._routes = routes
        self._framing = framing
        self._order = order
        self._duplicates = duplicates
        self._ingest_ids = ingest_ids
        self._metrics = metrics
        self._decoder = decoder
        self._max_in_flight = max_in_flight
        self._reply_deadline = reply_deadline_seconds
        self._topic_limits = topic_limits
        self._write_note = write_note
        self._in_flight = 0
        for route in routes.all:
            check_record_type(route.schema)

    def check_capacity(self) -> None:
        """Refuse a request before its body is read if too many messages are not safe yet.

        Raises:
            Overloaded: The in-flight bound is reached.
        """
        if self._in_flight >= self._max_in_flight:
            raise Overloaded("too many messages are on their way (WEDA_RECEIVER__MAX_IN_FLIGHT): send it again")

    def accept(self, request: Request, kind: BodyKind) -> Completion[Accepted]:
        """Make a request's message safe.

        Returns:
            Complete at the reply deadline at the latest; its errors are

            - EmptyBody: The body has no content.
            - Unreadable, Unconvertible, Defect: It cannot become a record; it is kept as a dead letter.
            - TooLarge: A topic would reject its record.
            - Unavailable: It cannot be made safe now; nothing of it is kept.
            - OutcomeUnknown: It was not safe in time, or Kafka may have some of it: it may still be published.
        """
        pending = _OpenRequest(request)
        try:
            self._process(pending, kind)
        except ConnectorError as error:
            pending.finish(error)
        return pending.done

    def dry_run(self, letter: DeadLetter) -> None:
        """Check whether a dead letter would become records now; nothing is kept.

        Raises:
            EmptyBody, Unreadable, Unconvertible: It would fail again.
        """
        event = self._decoder.decode(letter.body, letter.kind)
        self._routes.of(event.message_type, letter.source, event.environment)

    async def reprocess(self, letter: DeadLetter, now: int) -> Outcome:
        """Make the message of a dead letter safe; if it fails again, keep a new dead letter in its place. Either once.

        The journal then has the letter's note, by which every later run skips it. A message with a note always gets a
        row in the journal, and row and note are one transaction: a crash leaves both or neither. A duplicate gets no
        row; its note is written before this returns.

        Args:
            letter: A dead letter of a source that is known here.
            now: Epoch milliseconds.

        Returns:
            ``ACCEPTED``, or ``DUPLICATE`` where the message had been accepted meanwhile.

        Raises:
            EmptyBody, Unreadable, Unconvertible: It failed again; a dead letter with one attempt more is kept.
            TooLarge: A topic would reject its record; the dead letter stays.
            Unavailable: It cannot be made safe now; the dead letter stays. Of an `OutcomeUnknown` its note tells.
        """
        request = letter.request(now)
        try:
            event = self._decoder.decode(letter.body, letter.kind)
            outcome, completion = self._admit(request, event, note=letter.note, streams=letter.streams)
        except (EmptyBody, Unreadable, Unconvertible) as error:
            instance_id = self._decoder.instance_id(letter.body, letter.kind)
            completion = self._admit_dead_letter(request, error, instance_id, None, letter.note)
            completion.then(partial(self._count_dead_letter, request.source, error))
            await completion
            raise
        durability = await completion
        if durability is Durability.ELSEWHERE or outcome is Outcome.DUPLICATE:
            await self._write_note(*letter.note)
            return Outcome.DUPLICATE
        return outcome

    def _process(self, pending: "_OpenRequest", kind: BodyKind) -> None:
        try:
            pending.event = event = self._decoder.decode(pending.request.body, kind)
            outcome, completion = self._admit(pending.request, event)
            pending.follow(completion, outcome, self._reply_deadline)
        except (Unreadable, Unconvertible, Defect) as error:
            self._keep_dead_letter(pending, error, kind)
        except ConnectorError:
            raise
        except Exception as defect:  # noqa: BLE001 - whatever it is, what was received is kept
            _LOG.exception("a defect of the connector", error=type(defect).__name__)
            self._keep_dead_letter(
                pending, Defect("a defect of the connector; the request is kept as a dead letter"), kind
            )

    def _admit(
        self, request: Request, event: Event, *, note: Note | None = None, streams: tuple[str, ...] = ()
    ) -> tuple[Outcome, Completion[Durability]]:
        """Admit a message that is no duplicate; of a duplicate return what comes, or came, of the first.

        Args:
            request: What was received.
            event: What it says.
            note: Of a dead letter that is reprocessed.
            streams: The only streams that lack the message; none: all.
        """
        # Where only some streams lack the message, it was accepted once: its key would make it a duplicate.
        dedup_key = None if streams else self._dedup_key(request, event)
        dedup_state = DedupState.NEW if dedup_key is None else self._duplicates.dedup_state(dedup_key)
        if dedup_key is not None and dedup_state is DedupState.SAFE:
            return Outcome.DUPLICATE, Completion.of(Durability.PUBLISHED)
        if dedup_key is not None and dedup_state is DedupState.PENDING:
            return Outcome.DUPLICATE, self._duplicates.completion_of(dedup_key)
        conflict = dedup_state is DedupState.CONFLICT
        records = self._make_records(request, event, conflict=conflict)
        if streams:
            records = tuple(record for record in records if record.stream in streams)
        message = _CountedMessage(request.source, event, is_conflict=conflict)
        in_conflict = partial(self._make_records_in_conflict, request, message)
        completion = self._order.admit(NewMessage(event.instance_id, request, records, dedup_key, in_conflict, note))
        self._track(completion, dedup_key, partial(self._count_message, message))
        return Outcome.ACCEPTED, completion

    def _make_records_in_conflict(self, request: Request, message: "_CountedMessage") -> tuple[ProducibleRecord, ...]:
        """The records of a message that is in conflict with one that only another replica has seen."""
        message.is_conflict = True
        return self._make_records(request, message.event, conflict=True)

    def _count_message(self, message: "_CountedMessage", result: Durability | ConnectorError) -> None:
        self._in_flight -= 1
        if isinstance(result, Durability) and result is not Durability.ELSEWHERE:
            self._metrics.message_accepted(message.source, message.event, conflict=message.is_conflict)

    def _dedup_key(self, request: Request, event: Event) -> DedupKey | None:
        if not event.message_id:
            return None
        return dedup_key_of("message", request.source, event.message_id, event.fingerprint)

    def _make_records(self, request: Request, event: Event, *, conflict: bool) -> tuple[ProducibleRecord, ...]:
        ingest_id = self._ingest_ids.next()
        shared = headers(event, request, ingest_id, conflict=conflict)
        routes = self._routes.of(event.message_type, request.source, event.environment)
        key = event.instance_id.encode()
        encoded = []
        for route in routes:
            value = self._value(route, request, event, ingest_id)
            record = ProducibleRecord(route.stream.name, route.topic, key, value, shared, request.received_at)
            self._check_record_size(record)
            encoded.append(record)
        return tuple(encoded)

    def _value(self, route: Route, request: Request, event: Event, ingest_id: IngestId) -> bytes | None:
        """The encoded record, or None (a tombstone) for a deleted instance in a stream of states."""
        if route.stream.is_state and event.is_deletion:
            return None
        header = self._framing.header(route.topic, route.schema)
        return event.encode(route.schema, header, request, ingest_id)

    def _check_record_size(self, record: ProducibleRecord) -> None:
        limit = self._topic_limits.get(record.topic)
        if limit is not None and len(record.value or b"") + MAX_OVERHEAD_BYTES > limit and record.size > limit:
            raise TooLarge(
                f"a record of {record.size} bytes is over max.message.bytes={limit} of topic {record.topic}: "
                "raise the topic's limit or send less"
            )

    def _keep_dead_letter(self, pending: "_OpenRequest", error: ConnectorError, kind: BodyKind) -> None:
        """Keep a request as a dead letter. Identical bytes within the window are kept once and counted each time."""
        request = pending.request
        pending.event = None
        digest = sha256(request.body).digest()[:16]
        # In the id too: `Duplicates` remembers only the last few contents of one id.
        dedup_key = dedup_key_of("dead letter", request.source, f"{request.content_type} {digest.hex()}", digest)
        dedup_state = self._duplicates.dedup_state(dedup_key)
        if dedup_state is DedupState.SAFE:
            self._count_dead_letter(request.source, error, Durability.PUBLISHED)
            pending.finish(error)
            return
        if dedup_state is DedupState.PENDING:
            completion = self._duplicates.completion_of(dedup_key)
        else:
            completion = self._admit_dead_letter(
                request, error, self._decoder.instance_id(request.body, kind), dedup_key
            )
        completion.then(partial(self._count_dead_letter, request.source, error))
        pending.follow(completion, error, self._reply_deadline)

    def _count_dead_letter(self, source: str, error: ConnectorError, result: Durability | ConnectorError) -> None:
        if isinstance(result, Durability):
            self._metrics.dead_letter_kept(source, error)

    def _admit_dead_letter(
        self,
        request: Request,
        error: ConnectorError,
        instance_id: InstanceId | None,
        dedup_key: DedupKey | None,
        note: Note | None = None,
    ) -> Completion[Durability]:
        letter = dead_letters.for_error(self._routes.dead_letter_topic(request.source), request, error, instance_id)
        self._check_record_size(letter)
        completion = self._order.admit(NewMessage(None, request, (letter,), dedup_key, note=note))
        self._track(completion, dedup_key, self._on_dead_letter_completion)
        return completion

    def _track(
        self,
        completion: Completion[Durability],
        dedup_key: DedupKey | None,
        on_completion: Callable[[Durability | ConnectorError], None],
    ) -> None:
        """Count a message as in flight until it completes, and remember its key if it is safe then."""
        self._in_flight += 1
        completion.then(on_completion)
        if dedup_key is not None:
            self._duplicates.begin(dedup_key, completion)

    def _on_dead_letter_completion(self, _result: Durability | ConnectorError) -> None:
        self._in_flight -= 1


class _CountedMessage:
    """What is counted once a message is safe."""

    __slots__ = ("event", "is_conflict", "source")

    def __init__(self, source: str, event: Event, *, is_conflict: bool) -> None:
        self.source = source
        self.event = event
        self.is_conflict = is_conflict


class _OpenRequest:
    """One request that is answered at the deadline at the latest.

    Attributes:
        request: What was received.
        event: What the message says, for the line in the log; None if it is not readable.
        done: Completes once: with the outcome, with an error, or at the deadline.
    """

    __slots__ = ("_result_if_safe", "_timer", "done", "event", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.event: Event | None = None
        self.done: Completion[Accepted] = Completion()
        self._result_if_safe: Outcome | ConnectorError = Outcome.ACCEPTED
        self._timer: asyncio.TimerHandle | None = None

    def finish(self, result: Outcome | ConnectorError) -> None:
        """Complete the request, unless the deadline did already."""
        self.done.complete(Accepted(result, self.event) if isinstance(result, Outcome) else result)

    def follow(
        self, completion: Completion[Durability], result_if_safe: Outcome | ConnectorError, deadline_seconds: float
    ) -> None:
        """Finish with a result once the message is safe, or with the error if it is refused."""
        self._result_if_safe = result_if_safe
        self._timer = asyncio.get_running_loop().call_later(deadline_seconds, self._on_reply_deadline)
        completion.then(self._on_completion)

    def _on_completion(self, result: Durability | ConnectorError) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(result, ConnectorError):
            self.finish(result)
        elif result is Durability.ELSEWHERE and self._result_if_safe is Outcome.ACCEPTED:
            self.finish(Outcome.DUPLICATE)
        else:
            self.finish(self._result_if_safe)

    def _on_reply_deadline(self) -> None:
        self.finish(
            OutcomeUnknown(
                "neither Kafka nor the journal took the message in time; it may be published all the same: "
                "send it again with the same msgId",
                retry_after=1,
            )
        )
