"""The story of one message in five steps: parse, convert, recognise a repeat, encode, deliver.

What cannot become a record is kept as a dead letter before its error is answered; what cannot be kept is refused, so
that the source sends it again. Nothing is answered as accepted that is not safe.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import tzinfo
from enum import Enum
from hashlib import sha256

import structlog

from connector import dead_letters, records, typed_messages
from connector.delivery import Delivery
from connector.encoding import Encoder
from connector.errors import ConnectorError, Defect, Overloaded, TooLarge, Unavailable, Unconvertible, Unreadable
from connector.ingest import IngestIds
from connector.lanes import Safety
from connector.messages import BodyKind, Message, parse
from connector.metrics import Metrics
from connector.records import Event
from connector.repeats import Mark, Repeats, Standing, mark
from connector.streams import Route, Routes
from connector.values import IngestId, InstanceId, ProducibleRecord, Request

_LOG = structlog.get_logger("connector.pipeline")


class Outcome(Enum):
    """How an accepted request ended."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class Pipeline:
    """From the bytes of a request to a message that is safe.

    Args:
        routes: Which records a message becomes, and their topics.
        encoder: Record to bytes.
        delivery: Brings records to Kafka, or keeps them in the journal.
        repeats: What was seen within the window.
        ingest_ids: Makes ``ingestId``.
        metrics: Who counts.
        zone: The zone of dates that name none.
        max_in_flight: Most messages that may be on their way to safety at once.
        reply_deadline_seconds: When an answer must be out.
        topic_limits: ``max.message.bytes`` of each topic, kept up to date by its owner.
    """

    def __init__(
        self,
        *,
        routes: Routes,
        encoder: Encoder,
        delivery: Delivery,
        repeats: Repeats,
        ingest_ids: IngestIds,
        metrics: Metrics,
        zone: tzinfo,
        max_in_flight: int,
        reply_deadline_seconds: float,
        topic_limits: Mapping[str, int],
    ) -> None:
        self._routes = routes
        self._encoder = encoder
        self._delivery = delivery
        self._repeats = repeats
        self._ingest_ids = ingest_ids
        self._metrics = metrics
        self._zone = zone
        self._max_in_flight = max_in_flight
        self._deadline = reply_deadline_seconds
        self._topic_limits = topic_limits
        self._in_flight = 0

    def check_room(self) -> None:
        """Refuse a request before its body is read, if too many messages are on their way.

        Raises:
            Overloaded: The in-flight bound is reached.
        """
        if self._in_flight >= self._max_in_flight:
            raise Overloaded("too many messages are on their way (WEDA_RECEIVER__MAX_IN_FLIGHT): send it again")

    async def accept(self, request: Request, kind: BodyKind) -> tuple[Outcome, Event]:
        """Make a request's message safe.

        Returns:
            Whether it is new or a repeat, and the event it told.

        Raises:
            EmptyBody: There is nothing in it.
            Unreadable, Unconvertible, Defect: It cannot become a record; it is kept as a dead letter.
            TooLarge: A topic would refuse its record.
            Unavailable: It cannot be made safe now.
        """
        message: Message | None = None
        try:
            event = typed_messages.read(request.body, self._zone) if kind is BodyKind.JSON else None
            if event is None:
                message = parse(request.body, kind)
                event = records.convert(message, self._zone)
            message = event.message
            return await self._deliver(request, event), event
        except (Unreadable, Unconvertible, Defect) as error:
            await self._keep(request, error, message)
            raise
        except ConnectorError:
            raise
        except Exception as defect:
            _LOG.exception("a defect of the connector", error=type(defect).__name__)
            answer = Defect("a defect of the connector; the request is kept as a dead letter")
            await self._keep(request, answer, message)
            raise answer from defect

    async def _deliver(self, request: Request, event: Event) -> Outcome:
        seen = self._mark(request, event)
        standing = Standing.NEW if seen is None else self._repeats.standing(seen)
        if seen is not None and standing is Standing.SAFE:
            return Outcome.DUPLICATE
        if seen is not None and standing is Standing.PENDING:
            await self._in_time(self._repeats.outcome(seen))
            return Outcome.DUPLICATE
        conflict = standing is Standing.CONFLICT
        encoded = self._encode(request, event, conflict=conflict)
        safe = self._delivery.admit(event.instance_id, request, encoded)
        self._watch(safe, seen)
        safe.add_done_callback(
            _when_safe(lambda: self._metrics.message_accepted(request.source, event, conflict=conflict))
        )
        await self._in_time(safe)
        return Outcome.ACCEPTED

    def _mark(self, request: Request, event: Event) -> Mark | None:
        if event.message_id is None:
            return None
        return mark("message", request.source, event.message_id, event.message.fingerprint)

    def _encode(self, request: Request, event: Event, *, conflict: bool) -> tuple[ProducibleRecord, ...]:
        ingest_id = self._ingest_ids.next()
        headers = records.headers(event, request, ingest_id, conflict=conflict)
        routes = self._routes.of(event.message_type, request.source, event.fields["envType"])
        encoded = tuple(
            ProducibleRecord(
                stream=route.stream.name,
                topic=route.topic,
                key=event.instance_id.encode(),
                value=self._value(route, request, event, ingest_id),
                headers=headers,
                timestamp=request.received_at,
            )
            for route in routes
        )
        for record in encoded:
            self._check_size(record)
        return encoded

    def _value(self, route: Route, request: Request, event: Event, ingest_id: IngestId) -> bytes | None:
        """The encoded record; null in the stream of states where the instance is deleted."""
        if route.stream.is_state and records.is_deletion(event):
            return None
        fields = records.record_value(event, route.schema, request, ingest_id)
        return self._encoder.encode(route.topic, route.schema, fields)

    def _check_size(self, record: ProducibleRecord) -> None:
        limit = self._topic_limits.get(record.topic)
        if limit is not None and record.size > limit:
            raise TooLarge(
                f"a record of {record.size} bytes is over max.message.bytes={limit} of topic {record.topic}: "
                "raise the topic's limit or send less"
            )

    async def _keep(self, request: Request, error: ConnectorError, message: Message | None) -> None:
        """Keep what could not become a record; identical bytes within the window are kept once, and counted again."""
        instance_id = None if message is None else records.readable_instance_id(message)
        seen = mark("dead letter", request.source, request.content_type, sha256(request.body).digest()[:16])
        standing = self._repeats.standing(seen)
        if standing is Standing.PENDING:
            await self._in_time(self._repeats.outcome(seen))
        elif standing is not Standing.SAFE:
            await self._in_time(self._bury(request, error, instance_id, seen))
        self._metrics.dead_letter_kept(request.source, error)

    def _bury(
        self, request: Request, error: ConnectorError, instance_id: InstanceId | None, seen: Mark
    ) -> asyncio.Future[Safety]:
        letter = dead_letters.of_error(self._routes.dead_letter_topic(request.source), request, error, instance_id)
        self._check_size(letter)
        safe = self._delivery.admit_dead_letter(request, letter)
        self._watch(safe, seen)
        return safe

    def _watch(self, safe: asyncio.Future[Safety], seen: Mark | None) -> None:
        """Count what is on its way to safety, answered or not, and remember it once it is safe."""
        self._in_flight += 1
        safe.add_done_callback(self._landed)
        if seen is not None:
            self._repeats.begin(seen, safe)

    def _landed(self, safe: asyncio.Future[Safety]) -> None:
        self._in_flight -= 1
        if not safe.cancelled():
            safe.exception()  # taken, so that asyncio does not complain of a refusal whose request is gone

    async def _in_time(self, safe: asyncio.Future[Safety]) -> None:
        """Wait for safety as long as an answer may take; whatever becomes of the request, the message goes its way."""
        done, _ = await asyncio.wait((safe,), timeout=self._deadline)
        if not done:
            raise Unavailable("neither Kafka nor the journal took the message in time: send it again", retry_after=1)
        await safe


def _when_safe(act: Callable[[], None]) -> Callable[[asyncio.Future[Safety]], None]:
    def landed(safe: asyncio.Future[Safety]) -> None:
        if not safe.cancelled() and safe.exception() is None:
            act()

    return landed
