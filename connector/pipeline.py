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

from connector import dead_letters, records, typed_messages
from connector.claims import Claims
from connector.dead_letters import DeadLetter
from connector.deadlines import Deadline, Deadlines
from connector.delivery import Delivery
from connector.encoding import Framing
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
from connector.ingest import IngestIds
from connector.journal import Note
from connector.lanes import Fate, Safety
from connector.messages import BodyKind, parse
from connector.privacy import Privacy
from connector.records import Event, Gist
from connector.repeats import Mark, Repeats, Standing, mark
from connector.streams import Route, Routes
from connector.values import OVERHEAD_AT_MOST, IngestId, InstanceId, ProducibleRecord, Request

_LOG = structlog.get_logger("connector.pipeline")


class Outcome(Enum):
    """How an accepted request ended."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class Counts(Protocol):
    """Who counts what messages say and what was kept; the metrics in a running connector."""

    def message_accepted(self, source: str, gist: Gist, *, conflict: bool) -> None:
        """A message that is no repeat became safe; ``conflict``: its ``msgId`` came before with other content."""

    def dead_letter_kept(self, source: str, error: ConnectorError) -> None:
        """A request was kept as a dead letter, or is a repeat of one."""


Result = Outcome | ConnectorError
"""What becomes of a request."""

Told = Callable[[Result, Gist | None], None]
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
        if self._privacy is not None:
            body, kind = self._privacy.applied(body, kind)
        event = typed_messages.read(body, self._zone) if kind is BodyKind.JSON else None
        return records.convert(parse(body, kind), self._zone) if event is None else event

    def instance_id(self, body: bytes, kind: BodyKind) -> InstanceId | None:
        """The instance of a message that cannot become a record, where that much can be read."""
        try:
            if self._privacy is not None:
                body, kind = self._privacy.applied(body, kind)
            return records.readable_instance_id(parse(body, kind))
        except Exception:  # noqa: BLE001 - a defect may be here as well, and what was received is kept all the same
            return None


class Pipeline:
    """From the bytes of a request to a message that is safe.

    Args:
        routes: Which records a message becomes, and their topics.
        framing: What stands before a record's bytes.
        delivery: Brings records to Kafka, or keeps them in the journal.
        repeats: What was seen within the window.
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
        repeats: Repeats,
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
        self._repeats = repeats
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

    def accept(self, request: Request, kind: BodyKind, told: Told) -> None:
        """Make a request's message safe, and tell once what became of it, now or later.

        Told is `Outcome`, or one of

        - EmptyBody: There is nothing in it.
        - Unreadable, Unconvertible, Defect: It cannot become a record; it is kept as a dead letter.
        - TooLarge: A topic would refuse its record.
        - Unavailable: It cannot be made safe now; nothing of it is kept.
        - OutcomeUnknown: It was not safe in time; whatever is told, the message goes its way.
        """
        passage = _Passage(request, told)
        try:
            self._take(passage, kind)
        except ConnectorError as error:
            passage.tell(error)

    def rehearse(self, letter: DeadLetter) -> None:
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
            outcome, fate = self._replay(letter, request, self._reader.read(letter.body, letter.kind))
        except (EmptyBody, Unreadable, Unconvertible) as error:
            instance_id = self._reader.instance_id(letter.body, letter.kind)
            fate = self._bury(request, error, instance_id, None, letter.note)
            fate.then(partial(self._kept, request.source, error))
            await _decided(fate)
            raise
        safety = await _decided(fate)
        return Outcome.DUPLICATE if safety is Safety.REPEATED else outcome

    def _replay(self, letter: DeadLetter, request: Request, event: Event) -> tuple[Outcome, Fate]:
        # What Kafka refused is known as accepted, and is not in every topic.
        seen = None if letter.streams else self._mark(request, event)
        standing = Standing.NEW if seen is None else self._repeats.standing(seen)
        if seen is not None and standing is Standing.SAFE:
            return Outcome.DUPLICATE, Fate.of(Safety.PUBLISHED)
        if seen is not None and standing is Standing.PENDING:
            return Outcome.DUPLICATE, self._repeats.outcome(seen)
        conflict = standing is Standing.CONFLICT
        encoded = self._encode(request, event, conflict=conflict)
        lacking = tuple(record for record in encoded if not letter.streams or record.stream in letter.streams)
        return Outcome.ACCEPTED, self._admit(request, event, event.gist, lacking, seen, conflict, letter.note)

    def _take(self, passage: "_Passage", kind: BodyKind) -> None:
        try:
            self._deliver(passage, self._reader.read(passage.request.body, kind))
        except (Unreadable, Unconvertible, Defect) as error:
            self._keep(passage, error, kind)
        except ConnectorError:
            raise
        except Exception as defect:  # noqa: BLE001 - whatever it is, what was received is kept
            _LOG.exception("a defect of the connector", error=type(defect).__name__)
            self._keep(passage, Defect("a defect of the connector; the request is kept as a dead letter"), kind)

    def _deliver(self, passage: "_Passage", event: Event) -> None:
        request = passage.request
        passage.gist = gist = event.gist
        seen = self._mark(request, event)
        standing = Standing.NEW if seen is None else self._repeats.standing(seen)
        if seen is not None and standing is Standing.SAFE:
            passage.tell(Outcome.DUPLICATE)
            return
        if seen is not None and standing is Standing.PENDING:
            passage.follow(self._repeats.outcome(seen), Outcome.DUPLICATE, self._deadlines)
            return
        conflict = standing is Standing.CONFLICT
        encoded = self._encode(request, event, conflict=conflict)
        fate = self._admit(request, event, gist, encoded, seen, conflict)
        passage.follow(fate, Outcome.ACCEPTED, self._deadlines)

    def _admit(  # noqa: PLR0917 - by place, for every message
        self,
        request: Request,
        event: Event,
        gist: Gist,
        encoded: tuple[ProducibleRecord, ...],
        seen: Mark | None,
        conflict: bool,  # noqa: FBT001 - as the standing was
        note: Note | None = None,
    ) -> Fate:
        if self._claims is None:
            fate = self._delivery.admit(event.instance_id, request, encoded, note=note)
        else:
            again = partial(self._encode, request, event, conflict=True)
            fate = self._claims.admit(event.instance_id, request, seen, encoded, again, note=note)
        self._watch(fate, seen, partial(self._landed, request.source, gist, conflict))
        return fate

    def _landed(self, source: str, gist: Gist, conflict: bool, result: Safety | Unavailable) -> None:  # noqa: FBT001
        self._in_flight -= 1
        if isinstance(result, Safety) and result is not Safety.REPEATED:
            self._metrics.message_accepted(source, gist, conflict=conflict)

    def _mark(self, request: Request, event: Event) -> Mark | None:
        if event.message_id is None:
            return None
        return mark("message", request.source, event.message_id, event.message.fingerprint)

    def _encode(self, request: Request, event: Event, *, conflict: bool) -> tuple[ProducibleRecord, ...]:
        ingest_id = self._ingest_ids.next()
        headers = records.headers(event, request, ingest_id, conflict=conflict)
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
        if route.stream.is_state and records.is_deletion(event):
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

    def _keep(self, passage: "_Passage", error: ConnectorError, kind: BodyKind) -> None:
        """Keep what could not become a record; identical bytes within the window are kept once, and counted again."""
        request = passage.request
        passage.gist = None
        digest = sha256(request.body).digest()[:16]  # in both parts: of one identity only the last few are remembered
        seen = mark("dead letter", request.source, f"{request.content_type} {digest.hex()}", digest)
        standing = self._repeats.standing(seen)
        if standing is Standing.SAFE:
            self._kept(request.source, error, Safety.PUBLISHED)
            passage.tell(error)
            return
        if standing is Standing.PENDING:
            fate = self._repeats.outcome(seen)
        else:
            fate = self._bury(request, error, self._reader.instance_id(request.body, kind), seen)
        fate.then(partial(self._kept, request.source, error))
        passage.follow(fate, error, self._deadlines)

    def _kept(self, source: str, error: ConnectorError, result: Safety | Unavailable) -> None:
        if isinstance(result, Safety):
            self._metrics.dead_letter_kept(source, error)

    def _bury(
        self,
        request: Request,
        error: ConnectorError,
        instance_id: InstanceId | None,
        seen: Mark | None,
        note: Note | None = None,
    ) -> Fate:
        letter = dead_letters.of_error(self._routes.dead_letter_topic(request.source), request, error, instance_id)
        self._check_size(letter)
        if self._claims is None:
            fate = self._delivery.admit_dead_letter(request, letter, note)
        else:
            fate = self._claims.admit_dead_letter(request, seen, letter, note)
        self._watch(fate, seen, self._letter_landed)
        return fate

    def _watch(self, fate: Fate, seen: Mark | None, landed: Callable[[Safety | Unavailable], None]) -> None:
        """Count what is on its way to safety, answered or not, and remember it once it is safe."""
        self._in_flight += 1
        fate.then(landed)
        if seen is not None:
            self._repeats.begin(seen, fate)

    def _letter_landed(self, _result: Safety | Unavailable) -> None:
        self._in_flight -= 1


async def _decided(fate: Fate) -> Safety:
    """Why a message is safe, once it is, however long that takes; whoever waits no longer leaves it as it is.

    Raises:
        Unavailable: The message is not safe.
    """
    decided: asyncio.Future[Safety | Unavailable] = asyncio.get_running_loop().create_future()
    fate.then(lambda result: None if decided.done() else decided.set_result(result))
    result = await decided
    if isinstance(result, Unavailable):
        raise result
    return result


class _Passage:
    """One request on its way: told once what became of it, when that is known or when the answer is due.

    Attributes:
        gist: What is said of its event, where it is readable.
    """

    __slots__ = ("_deadline", "_told", "_wanted", "gist", "request")

    def __init__(self, request: Request, told: Told) -> None:
        self.request = request
        self.gist: Gist | None = None
        self._told: Told | None = told
        self._wanted: Result = Outcome.ACCEPTED
        self._deadline: Deadline | None = None

    def tell(self, result: Result) -> None:
        """Tell it, unless something was told before."""
        told, self._told = self._told, None
        if told is not None:
            told(result, self.gist if isinstance(result, Outcome) else None)

    def follow(self, fate: Fate, wanted: Result, deadlines: Deadlines) -> None:
        """Tell what is wanted once the message is safe; or that it is not."""
        self._wanted = wanted
        self._deadline = deadlines.begin(self._overdue)
        fate.then(self._decided)

    def _decided(self, result: Safety | Unavailable) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        is_repeat = result is Safety.REPEATED and self._wanted is Outcome.ACCEPTED
        wanted = Outcome.DUPLICATE if is_repeat else self._wanted
        self.tell(wanted if isinstance(result, Safety) else result)

    def _overdue(self) -> None:
        self.tell(
            OutcomeUnknown(
                "neither Kafka nor the journal took the message in time; it may be published all the same: "
                "send it again with the same msgId",
                retry_after=1,
            )
        )
