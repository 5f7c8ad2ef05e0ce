"""The story of one message in five steps: parse, convert, recognise a repeat, encode, deliver.

What cannot become a record is kept as a dead letter before its error is answered; what cannot be kept is refused, so
that the source sends it again. Nothing is answered as accepted that is not safe.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import tzinfo
from enum import Enum
from functools import partial
from hashlib import sha256
from typing import Protocol

import structlog

from connector.delivery.deadlines import Deadline, Deadlines
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import DedupKey, DedupState, Duplicates, dedup_key_of
from connector.delivery.lanes import Completion, Durability
from connector.errors import (
    ConnectorError,
    Defect,
    EmptyBody,
    OutcomeUnknown,
    Overloaded,
    TooLarge,
    Unavailable,
    Unconvertible,
    Unreadable,
)
from connector.intake import dead_letters
from connector.intake.dead_letters import DeadLetter
from connector.journal.sqlite import Note
from connector.message import conversion, typed
from connector.message.conversion import Event, EventSummary
from connector.message.encoding import Framing
from connector.message.ingest_ids import IngestIds
from connector.message.parsing import BodyKind, Message, parse
from connector.message.redact import Privacy
from connector.message.routes import Route, Routes
from connector.replicas.claims import Claims
from connector.values import OVERHEAD_AT_MOST, IngestId, InstanceId, ProducibleRecord, Request

_LOG = structlog.get_logger("connector.pipeline")


class Outcome(Enum):
    """How an accepted request ended."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class Counts(Protocol):
    """Who counts what messages say and what was kept; the metrics in a running connector."""

    def message_accepted(self, source: str, summary: EventSummary, *, conflict: bool) -> None:
        """A message that is no repeat became safe; ``conflict``: its ``msgId`` came before with other content."""

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """A request was kept as a dead letter, or is a repeat of one."""


Result = Outcome | ConnectorError
"""What becomes of a request."""

OnDone = Callable[[Result, EventSummary | None], None]
"""Who is told what became of a request, and the gist of its event if it was accepted."""


class Reader:
    """From the bytes of a request to the event that its records are made of.

    Args:
        zone: The zone of dates that name none.
        privacy: Takes out of messages what must not be published, where that is asked for.
    """

    def __init__(self, zone: tzinfo, privacy: Privacy | None = None) -> None:
        self._zone = zone
        self._privacy = privacy

    def read(self, body: bytes, kind: BodyKind) -> Event:
        """The event.

        Raises:
            EmptyBody: There is nothing in it.
            Unreadable: The bytes hold no message.
            Unconvertible: The message cannot become a record.
        """
        event = typed.read(body, self._zone) if kind is BodyKind.JSON and self._privacy is None else None
        return conversion.convert(self._message(body, kind), self._zone) if event is None else event

    def instance_id(self, body: bytes, kind: BodyKind) -> InstanceId | None:
        """The instance of a message that cannot become a record, where that much can be read."""
        try:
            return conversion.readable_instance_id(self._message(body, kind))
        except Exception:  # noqa: BLE001 - a defect may be here as well, and what was received is kept all the same
            return None

    def _message(self, body: bytes, kind: BodyKind) -> Message:
        """The message, without what must not be published."""
        message = parse(body, kind)
        return message if self._privacy is None else self._privacy.applied(message)


class Pipeline:
    """From the bytes of a request to a message that is safe.

    Args:
        routes: Which records a message becomes, and their topics.
        framing: What stands before a record's bytes.
        delivery: Brings records to Kafka, or keeps them in the journal.
        duplicates: What was seen within the window.
        ingest_ids: Makes ``ingestId``.
        metrics: Who counts.
        reader: Bytes to event.
        max_in_flight: Most messages that may be on their way to safety at once.
        reply_deadline_seconds: When an answer must be out.
        topic_limits: ``max.message.bytes`` of each topic, kept up to date by its owner.
        claims: The way in where other replicas let messages in too.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        framing: Framing,
        delivery: Delivery,
        duplicates: Duplicates,
        ingest_ids: IngestIds,
        metrics: Counts,
        reader: Reader,
        max_in_flight: int,
        reply_deadline_seconds: float,
        topic_limits: Mapping[str, int],
        claims: Claims | None = None,
    ) -> None:
        self._routes = routes
        self._framing = framing
        self._delivery = delivery
        self._duplicates = duplicates
        self._ingest_ids = ingest_ids
        self._metrics = metrics
        self._reader = reader
        self._max_in_flight = max_in_flight
        self._deadlines = Deadlines(reply_deadline_seconds)
        self._topic_limits = topic_limits
        self._claims = claims
        self._in_flight = 0

    def check_room(self) -> None:
        """Refuse a request before its body is read, if too many messages are on their way.

        Raises:
            Overloaded: The in-flight bound is reached.
        """
        if self._in_flight >= self._max_in_flight:
            raise Overloaded("too many messages are on their way (WEDA_RECEIVER__MAX_IN_FLIGHT): send it again")

    def accept(self, request: Request, kind: BodyKind, on_done: OnDone) -> None:
        """Make a request's message safe, and tell once what became of it, now or later.

        Told is `Outcome`, or one of

        - EmptyBody: There is nothing in it.
        - Unreadable, Unconvertible, Defect: It cannot become a record; it is kept as a dead letter.
        - TooLarge: A topic would refuse its record.
        - Unavailable: It cannot be made safe now; nothing of it is kept.
        - OutcomeUnknown: It was not safe in time; whatever is told, the message goes its way.
        """
        pending = _PendingRequest(request, on_done)
        try:
            self._take(pending, kind)
        except ConnectorError as error:
            pending.finish(error)

    def dry_run(self, letter: DeadLetter) -> None:
        """Find out whether a dead letter would become records now; nothing is kept.

        Raises:
            EmptyBody, Unreadable, Unconvertible: It would fail again.
        """
        event = self._reader.read(letter.body, letter.kind)
        self._routes.of(event.message_type, letter.source, event.field("envType"))

    async def replay(self, letter: DeadLetter, now: int) -> Outcome:
        """Make the message of a dead letter safe, or another dead letter in its place, by way of the journal.

        The journal notes the letter in the same transaction, so that whatever happens it is replayed once.

        Args:
            letter: A dead letter of a source that is known here.
            now: Epoch milliseconds.

        Returns:
            ``ACCEPTED``, or ``DUPLICATE`` where the message had been accepted meanwhile: that the caller has to note.

        Raises:
            EmptyBody, Unreadable, Unconvertible: It failed again; a dead letter with one attempt more is kept.
            TooLarge: A topic would refuse its record; the dead letter stays.
            Unavailable: It cannot be made safe now; the dead letter stays.
        """
        request = letter.request(now)
        try:
            outcome, completion = self._replay(letter, request, self._reader.read(letter.body, letter.kind))
        except (EmptyBody, Unreadable, Unconvertible) as error:
            instance_id = self._reader.instance_id(letter.body, letter.kind)
            completion = self._admit_dead_letter(request, error, instance_id, None, letter.note)
            completion.then(partial(self._kept, request.source, error))
            await _decided(completion)
            raise
        durability = await _decided(completion)
        return Outcome.DUPLICATE if durability is Durability.REPEATED else outcome

    def _replay(self, letter: DeadLetter, request: Request, event: Event) -> tuple[Outcome, Completion]:
        # What Kafka refused is known as accepted, and is not in every topic.
        dedup_key = None if letter.streams else self._dedup_key(request, event)
        dedup_state = DedupState.NEW if dedup_key is None else self._duplicates.dedup_state(dedup_key)
        if dedup_key is not None and dedup_state is DedupState.SAFE:
            return Outcome.DUPLICATE, Completion.of(Durability.PUBLISHED)
        if dedup_key is not None and dedup_state is DedupState.PENDING:
            return Outcome.DUPLICATE, self._duplicates.outcome(dedup_key)
        conflict = dedup_state is DedupState.CONFLICT
        encoded = self._encode(request, event, conflict=conflict)
        lacking = tuple(record for record in encoded if not letter.streams or record.stream in letter.streams)
        return Outcome.ACCEPTED, self._admit(request, event, event.summary, lacking, dedup_key, conflict, letter.note)

    def _take(self, pending: "_PendingRequest", kind: BodyKind) -> None:
        try:
            self._deliver(pending, self._reader.read(pending.request.body, kind))
        except (Unreadable, Unconvertible, Defect) as error:
            self._keep(pending, error, kind)
        except ConnectorError:
            raise
        except Exception as defect:  # noqa: BLE001 - whatever it is, what was received is kept
            _LOG.exception("a defect of the connector", error=type(defect).__name__)
            self._keep(pending, Defect("a defect of the connector; the request is kept as a dead letter"), kind)

    def _deliver(self, pending: "_PendingRequest", event: Event) -> None:
        request = pending.request
        pending.summary = summary = event.summary
        dedup_key = self._dedup_key(request, event)
        dedup_state = DedupState.NEW if dedup_key is None else self._duplicates.dedup_state(dedup_key)
        if dedup_key is not None and dedup_state is DedupState.SAFE:
            pending.finish(Outcome.DUPLICATE)
            return
        if dedup_key is not None and dedup_state is DedupState.PENDING:
            pending.follow(self._duplicates.outcome(dedup_key), Outcome.DUPLICATE, self._deadlines)
            return
        conflict = dedup_state is DedupState.CONFLICT
        encoded = self._encode(request, event, conflict=conflict)
        completion = self._admit(request, event, summary, encoded, dedup_key, conflict)
        pending.follow(completion, Outcome.ACCEPTED, self._deadlines)

    def _admit(  # noqa: PLR0917 - by place, for every message
        self,
        request: Request,
        event: Event,
        summary: EventSummary,
        encoded: tuple[ProducibleRecord, ...],
        dedup_key: DedupKey | None,
        conflict: bool,  # noqa: FBT001 - as the standing was
        note: Note | None = None,
    ) -> Completion:
        if self._claims is None:
            completion = self._delivery.admit(event.instance_id, request, encoded, note=note)
        else:
            again = partial(self._encode, request, event, conflict=True)
            completion = self._claims.admit(event.instance_id, request, dedup_key, encoded, again, note=note)
        self._watch(completion, dedup_key, partial(self._landed, request.source, summary, conflict))
        return completion

    def _landed(self, source: str, summary: EventSummary, conflict: bool, result: Durability | Unavailable) -> None:  # noqa: FBT001
        self._in_flight -= 1
        if isinstance(result, Durability) and result is not Durability.REPEATED:
            self._metrics.message_accepted(source, summary, conflict=conflict)

    def _dedup_key(self, request: Request, event: Event) -> DedupKey | None:
        if event.message_id is None:
            return None
        return dedup_key_of("message", request.source, event.message_id, event.message.fingerprint)

    def _encode(self, request: Request, event: Event, *, conflict: bool) -> tuple[ProducibleRecord, ...]:
        ingest_id = self._ingest_ids.next()
        headers = conversion.headers(event, request, ingest_id, conflict=conflict)
        routes = self._routes.of(event.message_type, request.source, event.field("envType"))
        key = event.instance_id.encode()
        encoded = []
        for route in routes:
            value = self._value(route, request, event, ingest_id)
            record = ProducibleRecord(route.stream.name, route.topic, key, value, headers, request.received_at)
            self._check_size(record)
            encoded.append(record)
        return tuple(encoded)

    def _value(self, route: Route, request: Request, event: Event, ingest_id: IngestId) -> bytes | None:
        """The encoded record; null in the stream of states where the instance is deleted."""
        if route.stream.is_state and conversion.is_deletion(event):
            return None
        header = self._framing.header(route.topic, route.schema)
        return event.encoded(route.schema, header, request, ingest_id)

    def _check_size(self, record: ProducibleRecord) -> None:
        limit = self._topic_limits.get(record.topic)
        if limit is not None and len(record.value or b"") + OVERHEAD_AT_MOST > limit and record.size > limit:
            raise TooLarge(
                f"a record of {record.size} bytes is over max.message.bytes={limit} of topic {record.topic}: "
                "raise the topic's limit or send less"
            )

    def _keep(self, pending: "_PendingRequest", error: ConnectorError, kind: BodyKind) -> None:
        """Keep what could not become a record; identical bytes within the window are kept once, and counted again."""
        request = pending.request
        pending.summary = None
        digest = sha256(request.body).digest()[:16]  # in both parts: of one identity only the last few are remembered
        dedup_key = dedup_key_of("dead letter", request.source, f"{request.content_type} {digest.hex()}", digest)
        dedup_state = self._duplicates.dedup_state(dedup_key)
        if dedup_state is DedupState.SAFE:
            self._kept(request.source, error, Durability.PUBLISHED)
            pending.finish(error)
            return
        if dedup_state is DedupState.PENDING:
            completion = self._duplicates.outcome(dedup_key)
        else:
            completion = self._admit_dead_letter(
                request, error, self._reader.instance_id(request.body, kind), dedup_key
            )
        completion.then(partial(self._kept, request.source, error))
        pending.follow(completion, error, self._deadlines)

    def _kept(self, source: str, error: ConnectorError, result: Durability | Unavailable) -> None:
        if isinstance(result, Durability):
            self._metrics.dead_letter_kept(source, error)

    def _admit_dead_letter(
        self,
        request: Request,
        error: ConnectorError,
        instance_id: InstanceId | None,
        dedup_key: DedupKey | None,
        note: Note | None = None,
    ) -> Completion:
        letter = dead_letters.of_error(self._routes.dead_letter_topic(request.source), request, error, instance_id)
        self._check_size(letter)
        if self._claims is None:
            completion = self._delivery.admit_dead_letter(request, letter, note)
        else:
            completion = self._claims.admit_dead_letter(request, dedup_key, letter, note)
        self._watch(completion, dedup_key, self._letter_landed)
        return completion

    def _watch(
        self, completion: Completion, dedup_key: DedupKey | None, landed: Callable[[Durability | Unavailable], None]
    ) -> None:
        """Count what is on its way to safety, answered or not, and remember it once it is safe."""
        self._in_flight += 1
        completion.then(landed)
        if dedup_key is not None:
            self._duplicates.begin(dedup_key, completion)

    def _letter_landed(self, _result: Durability | Unavailable) -> None:
        self._in_flight -= 1


async def _decided(completion: Completion) -> Durability:
    """Why a message is safe, once it is, however long that takes; whoever waits no longer leaves it as it is.

    Raises:
        Unavailable: The message is not safe.
    """
    decided: asyncio.Future[Durability | Unavailable] = asyncio.get_running_loop().create_future()
    completion.then(lambda result: None if decided.done() else decided.set_result(result))
    result = await decided
    if isinstance(result, Unavailable):
        raise result
    return result


class _PendingRequest:
    """One request on its way: told once what became of it, when that is known or when the answer is due.

    Attributes:
        summary: What is said of its event, where it is readable.
    """

    __slots__ = ("_deadline", "_told", "_wanted", "request", "summary")

    def __init__(self, request: Request, on_done: OnDone) -> None:
        self.request = request
        self.summary: EventSummary | None = None
        self._told: OnDone | None = on_done
        self._wanted: Result = Outcome.ACCEPTED
        self._deadline: Deadline | None = None

    def finish(self, result: Result) -> None:
        """Tell it, unless something was told before."""
        on_done, self._told = self._told, None
        if on_done is not None:
            on_done(result, self.summary if isinstance(result, Outcome) else None)

    def follow(self, completion: Completion, wanted: Result, deadlines: Deadlines) -> None:
        """Tell what is wanted once the message is safe; or that it is not."""
        self._wanted = wanted
        self._deadline = deadlines.begin(self._overdue)
        completion.then(self._decided)

    def _decided(self, result: Durability | Unavailable) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        is_repeat = result is Durability.REPEATED and self._wanted is Outcome.ACCEPTED
        wanted = Outcome.DUPLICATE if is_repeat else self._wanted
        self.finish(wanted if isinstance(result, Durability) else result)

    def _overdue(self) -> None:
        self.finish(
            OutcomeUnknown(
                "neither Kafka nor the journal took the message in time; it may be published all the same: "
                "send it again with the same msgId",
                retry_after=1,
            )
        )
