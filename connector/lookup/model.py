"""The query of a search, its matches, and the report that says how much was searched."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from json import dumps
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from connector.errors import ConnectorError
from connector.intake.dead_letters import kind_of
from connector.message.parsing import parse
from connector.telemetry.recent import SeenRequest

MAX_FOUND: Final = 1_000
"""Messages that one search may find; it ends there."""

TITLE: Final = "flowTitle"
NEVER_CAME: Final = "never came: the connector has accepted no message of it, and has kept none as a dead letter"
NOT_FOUND: Final = "not found, and not everything was searched"

DEAD_LETTERS: Final = "the dead letters"
TOPICS: Final = "the topics"
"""Names of the places that are searched besides the journal, as a report shows them."""

State = Literal["published", "waiting", "dead letter", "replayed"]
"""The state of a message; ``replayed`` is the users' word for a reprocessed dead letter."""


@dataclass(frozen=True)
class SearchQuery:
    """A query: an ``instanceId``, a ``msgId``, a part of a title, or the id of a request.

    Attributes:
        text: One of the four; the user does not say which, so all are tried.
        since: Find only what was received at this time or later, in epoch milliseconds.
        request: The request of that id, if the connector remembers it. An older one is found by the id in the Kafka
            headers of its records and dead letters.
    """

    text: str
    since: int | None = None
    request: SeenRequest | None = None

    @cached_property
    def name(self) -> str:
        """The instance of the request, if it has one; otherwise the text."""
        instance_id = None if self.request is None else self.request.instance_id
        return instance_id or self.text

    @cached_property
    def key(self) -> bytes:
        """The key that records have if the name is an ``instanceId``."""
        return self.name.encode(errors="replace")

    @cached_property
    def forms(self) -> tuple[bytes, ...]:
        """The bytes by which a body may contain the name: UTF-8, JSON, JSON with escapes, JSON in JSON, form."""
        plain, escaped = dumps(self.name, ensure_ascii=False)[1:-1], dumps(self.name)[1:-1]
        texts = (self.name, plain, escaped, dumps(escaped)[1:-1], quote(self.name, safe=""))
        return tuple(dict.fromkeys(text.encode(errors="replace") for text in texts))

    @property
    def is_nameless(self) -> bool:
        """Whether only the time of the request is known, because it could not become a record."""
        return self.request is not None and self.request.instance_id is None

    def is_in(self, raw: bytes) -> bool:
        """Whether bytes may contain the name: a cheap check that never misses it, but may be wrong otherwise."""
        return any(form in raw for form in self.forms)

    def is_of_body(self, body: bytes, content_type: str) -> bool:
        """Whether a request's body matches: by its fields, or by its bytes if its fields cannot be read."""
        if not self.is_in(body):
            return False
        fields = fields_of(body, content_type)
        # A dead letter may not be parsable at all, and people still search for the id in it.
        if fields is None:
            return any(_is_word(body, form) for form in self.forms)
        return self.is_of(fields.get("instanceId"), fields.get("msgId"), fields.get(TITLE))

    def is_of(self, instance_id: Any, message_id: Any, title: Any) -> bool:
        """Whether the name is the ``instanceId`` or the ``msgId``, or is part of the title."""
        return self.name in {str(instance_id), str(message_id)} or (isinstance(title, str) and self.name in title)

    def is_of_request(self, request_id: str | None) -> bool:
        """Whether the text is this request id."""
        return request_id == self.text

    def matches(self, match: "Match") -> bool:
        """Whether a match is in the time range and, if a request is searched, is that request's own message."""
        if self.since is not None and match.received_at < self.since:
            return False
        if self.request is None:
            return True
        is_same = self.request.message_id is not None and self.request.message_id == match.message_id
        return is_same or self.is_received_with(match.received_at, match.source)

    def is_received_with(self, received_at: int, source: str) -> bool:
        """Whether the searched request was received at this time from this source."""
        request = self.request
        return request is not None and (request.received_at, request.source) == (received_at, source)


@dataclass(frozen=True, slots=True)
class Location:
    """Topic, partition and offset of a record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Match:
    """One message or dead letter that was found.

    Attributes:
        state: ``published``; ``waiting`` in the journal for Kafka; a ``dead letter``, or one that was ``replayed``.
        instance_id: The instance, or None if it was not readable.
        received_at: When it was received, in epoch milliseconds.
        source: The source that sent it.
        message_id: WeDa's ``msgId``.
        what: Kind and action.
        title: The title as published.
        code: The ``code`` of the answer; 0 means accepted.
        places: Where its records are, or where the dead letter is.
        stage: Of a dead letter, the stage that failed.
        reason: Of a dead letter, why it failed.
        fix: Of a dead letter, what to do.
        attempt: How often it was tried.
    """

    state: State
    instance_id: str | None
    received_at: int
    source: str
    message_id: str | None = None
    what: str = ""
    title: str = ""
    code: int = 0
    places: tuple[Location, ...] = ()
    stage: str = ""
    reason: str = ""
    fix: str = ""
    attempt: int = 1


@dataclass
class Coverage:
    """One place that was searched, and how much of it.

    Attributes:
        place: A topic, a journal, or what the connector remembers.
        partitions: The partitions that were read, or None if the place has no partitions.
        of_partitions: How many partitions the topic has.
        records: Records read so far.
        total: Records to read.
        oldest: Timestamp of the oldest record, in epoch milliseconds.
        is_whole: Whether everything that should be read was read.
        note: Why not everything was read, or another remark.
    """

    place: str
    partitions: tuple[int, ...] | None = None
    of_partitions: int | None = None
    records: int = 0
    total: int = 0
    oldest: int | None = None
    is_whole: bool = True
    note: str = ""


@dataclass
class SearchReport:
    """The result of a search.

    Attributes:
        text: The text of the query.
        request: The request of that id, or None.
        found: Messages and dead letters, the oldest first.
        searched: The places that were searched.
    """

    text: str
    request: SeenRequest | None = None
    found: list[Match] = field(default_factory=list)
    searched: list[Coverage] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every place was searched to its end."""
        return all(coverage.is_whole for coverage in self.searched)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.found:
            counts = Counter(match.state for match in self.found)
            return ", ".join(f"{count} {state}" for state, count in counts.items())
        if self.request is not None and self.request.code:
            return f"it was answered with code {self.request.code}, and nothing of it was kept"
        # A message may be in the part that was not searched.
        return NEVER_CAME if self.is_whole else NOT_FOUND

    def add(self, found: Iterable[Match], searched: Iterable[Coverage]) -> None:
        """Add the matches of one place, or of several."""
        self.found += found
        self.searched += searched
        self.found.sort(key=lambda match: match.received_at)

    @contextmanager
    def searching(self, place: str, errors: tuple[type[ConnectorError], ...]) -> Iterator[None]:
        """Catch errors of searching a place and note them in the report: other places may have the message."""
        try:
            yield
        except errors as error:
            self.add([], [unsearched(place, error)])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**msgspec.to_builtins(self), "whole": self.is_whole, "verdict": self.verdict}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SearchReport":
        """Build the report from the values that :meth:`as_dict` returned."""
        return msgspec.convert(values, cls, strict=False)


Found = tuple[list[Match], list[Coverage]]
"""The matches of some places, and how much of each was searched."""


def unsearched(place: str, error: ConnectorError) -> Coverage:
    """Return the coverage of a place that could not be searched."""
    return Coverage(place, is_whole=False, note=error.message)


def fields_of(body: bytes, content_type: str) -> Mapping[str, Any] | None:
    """Return the fields of the message in a request's body, or None if it cannot be parsed."""
    try:
        return parse(body, kind_of(body, content_type)).fields
    except ConnectorError:
        return None


def _is_word(raw: bytes, word: bytes) -> bool:
    at = raw.find(word)
    while at >= 0:
        # Ids are made of these characters: "n-1" must not match within "n-12".
        around = raw[max(at - 1, 0) : at] + raw[at + len(word) : at + len(word) + 1]
        if not any(chr(byte).isalnum() or byte in b"-_." for byte in around):
            return True
        at = raw.find(word, at + 1)
    return False
