"""Dead letters: requests that could not become a record, byte for byte, with the reason in Kafka headers."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from connector.errors import ConnectorError, TooLarge, Unconvertible
from connector.journal.model import Note
from connector.kafka.publisher import Failure
from connector.kafka.reader import ConsumerRecord
from connector.message.headers import (
    ATTEMPT,
    ERROR_CODE,
    ERROR_MESSAGE,
    ERROR_STAGE,
    RECEIVED_AT,
    REQUEST_CONTENT_TYPE,
    REQUEST_ID,
    SOURCE,
    error_of,
)
from connector.message.parsing import BodyKind
from connector.message.routes import DEAD_LETTERS
from connector.message.weda import ENVELOPE
from connector.values import InstanceId, ProducibleRecord, Request

_POSITION = re.compile(r" \((?:line \d+, column \d+|byte \d+)[^)]*\)")
"""Where in its body a request went wrong, in a reason."""

_QUERY = re.compile(rb"(?:[^&{\[\"]*&)*" + ENVELOPE.encode() + b"=")
"""The beginning of a query string with the envelope's field in it."""

_PARSER_WORDS = re.compile(r"(?<=^the text is not JSON): (?:Expecting|Invalid|Unterminated|Extra|Illegal)[^:]*$")
"""What dead letters of earlier versions have behind the position."""

NOTE_PREFIX: Final = "replayed/"
"""What the names of the journal's notes about reprocessed dead letters start with; journals on disk have this word."""

_STREAMS: Final = "weda.streams"

ReadTopic = Callable[[], Iterator[ConsumerRecord]]
"""Reads every topic of dead letters from its beginning to where it ends now; blocking."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it was read from its topic.

    Attributes:
        topic: The topic that it was read from.
        partition: The partition's number.
        offset: Its offset in the partition.
        instance_id: The instance, or None if it was not readable.
        body: The request's bytes as received.
        code: The ``code`` of the answer; 0 if the header is missing.
        stage: The step that failed.
        reason: What is wrong and what to do.
        source: Who sent it.
        received_at: Epoch milliseconds.
        content_type: The media type as received.
        attempt: How often it was tried.
        streams: The streams that lack the message; empty if all do.
        request_id: The ``x-request-id`` of its request, if it had one.
    """

    topic: str
    partition: int
    offset: int
    instance_id: str | None
    body: bytes
    code: int
    stage: str
    reason: str
    source: str
    received_at: int
    content_type: str
    attempt: int
    streams: tuple[str, ...]
    request_id: str | None = None

    @property
    def note(self) -> Note:
        """Its entry in the journal once it is reprocessed; the same for each copy of it in the topic (P4).

        If the journal has it, the letter was reprocessed. Its number is the time of receipt, by which the notes of
        letters that retention has deleted are deleted too.
        """
        what = f"{self.topic}\0{self.source}\0{self.content_type}\0{self.received_at}\0{self.attempt}\0{self.code}\0"
        return Note(f"{NOTE_PREFIX}{blake2b(what.encode() + self.body, digest_size=16).hexdigest()}", self.received_at)

    @property
    def received_order(self) -> tuple[int, str, int, int]:
        """Sort key: the order in which the requests were received."""
        return self.received_at, self.topic, self.partition, self.offset

    @property
    def general_reason(self) -> str:
        """The reason without the position in the body: the same mistake in two bodies is one reason."""
        return without_position(self.reason)

    @property
    def kind(self) -> BodyKind:
        """The format of its body."""
        return kind_of(self.body, self.content_type)

    def request(self, now: int) -> Request:
        """The request of the next attempt, with the first one's time of receipt; ``now`` in epoch milliseconds."""
        return Request(
            self.source,
            self.body,
            self.content_type,
            self.received_at,
            attempt=self.attempt + 1,
            reprocessed_at=now,
            request_id=self.request_id,
        )


class Selection(BaseModel):
    """Selects dead letters; members that are not given select all. Queries of the API have these members."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codes: tuple[int, ...] = Field(
        default=(), description="Codes such as 42201, or the HTTP status of a group, as 422."
    )
    stage: str | None = Field(default=None, description="Where on the way they failed.")
    source: str | None = Field(default=None, description="Who sent them.")
    instance: str | None = Field(default=None, description="The instance's id.")
    reason: str | None = Field(default=None, description="Text that the reason holds.")
    since: int | None = Field(default=None, description="Received at this time or later, in epoch milliseconds.")
    until: int | None = Field(default=None, description="Received before this time.")

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter is selected."""
        return (
            (not self.codes or letter.code in self.codes or letter.code // 100 in self.codes)
            and self.stage in (None, letter.stage)
            and self.source in (None, letter.source)
            and self.instance in (None, letter.instance_id)
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.since is None or letter.received_at >= self.since)
            and (self.until is None or letter.received_at < self.until)
        )


def kind_of(body: bytes, content_type: str) -> BodyKind:
    """The format of a kept body.

    The HTTP method is not kept. A query string has no media type, and names the envelope's field before any quote or
    bracket; JSON does not.
    """
    is_query = not content_type and _QUERY.match(body) is not None
    return BodyKind.QUERY if is_query else BodyKind.of(content_type)


def without_position(reason: str) -> str:
    """A reason without the position in the body."""
    return _PARSER_WORDS.sub("", _POSITION.sub("", reason))


def position_in_body(reason: str) -> str:
    """The position in the body that a reason names, or the empty string."""
    found = _POSITION.search(reason)
    return "" if found is None else found[0][2:-1]


def from_record(record: ConsumerRecord) -> DeadLetter:
    """A dead letter from its record. Headers that are missing, because others wrote to the topic, get defaults."""
    headers, error = record.headers, error_of(record.headers)
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        instance_id=record.key,
        body=record.value if isinstance(record.value, bytes) else b"",
        code=error.code,
        stage=error.stage,
        reason=error.message,
        source=headers.get(SOURCE, ""),
        received_at=_number(headers, RECEIVED_AT, record.timestamp),
        content_type=headers.get(REQUEST_CONTENT_TYPE, ""),
        attempt=_number(headers, ATTEMPT, 1),
        streams=tuple(filter(None, headers.get(_STREAMS, "").split(","))),
        request_id=headers.get(REQUEST_ID),
    )


def dead_letter(
    topic: str,
    request: Request,
    *,
    code: int,
    stage: str,
    reason: str,
    instance_id: InstanceId | None,
    streams: tuple[str, ...] = (),
) -> ProducibleRecord:
    """One record of the dead-letter topic.

    Args:
        topic: The dead-letter topic.
        request: What was received.
        code: The ``code`` of the answer.
        stage: Where on the way it failed.
        reason: What is wrong, without contents.
        instance_id: The key, where it is readable.
        streams: The streams that lack the message, where others may have it.
    """
    headers = (
        (ERROR_CODE, str(code)),
        (ERROR_STAGE, stage),
        (ERROR_MESSAGE, reason),
        (SOURCE, request.source),
        (RECEIVED_AT, str(request.received_at)),
        (REQUEST_CONTENT_TYPE, request.content_type),
        (ATTEMPT, str(request.attempt)),
        *(((REQUEST_ID, request.request_id),) if request.request_id is not None else ()),
        *(((_STREAMS, ",".join(streams)),) if streams else ()),
    )
    return ProducibleRecord(
        stream=DEAD_LETTERS,
        topic=topic,
        key=None if instance_id is None else instance_id.encode(),
        value=request.body,
        headers=tuple((name, text.encode(errors="replace")) for name, text in headers),
        timestamp=request.received_at,
    )


def for_error(topic: str, request: Request, error: ConnectorError, instance_id: InstanceId | None) -> ProducibleRecord:
    """The dead letter of a request that an error kept from becoming a record."""
    return dead_letter(
        topic, request, code=error.code, stage=error.stage, reason=error.message, instance_id=instance_id
    )


def for_rejection(
    topic: str, request: Request, records: tuple[ProducibleRecord, ...], failure: Failure
) -> ProducibleRecord:
    """The dead letter of an accepted message whose record Kafka rejected for its own sake.

    Args:
        topic: The dead-letter topic of its source.
        request: What was received.
        records: Those that Kafka lacks.
        failure: Why.
    """
    key = records[0].key
    instance_id = None if key is None else InstanceId(key.decode())
    reason = f"Kafka rejected the record: {failure.name}: {failure.detail}"
    return dead_letter(
        topic,
        request,
        code=TooLarge.code if failure.name == "MSG_SIZE_TOO_LARGE" else Unconvertible.code,
        stage="publish",
        reason=reason,
        instance_id=instance_id,
        streams=tuple(record.stream for record in records),
    )


def _number(headers: Mapping[str, str], name: str, otherwise: int) -> int:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() else otherwise
