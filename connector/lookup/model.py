"""What is looked for, what was found, and how far the search went."""

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
"""Most messages of one search: it ends there."""

TITLE: Final = "flowTitle"
NEVER_CAME: Final = "never came: the connector has accepted no message of it, and has kept none as a dead letter"
NOT_FOUND: Final = "not found, and not everything was searched"

DEAD_LETTERS: Final = "the dead letters"
TOPICS: Final = "the topics"
"""Places of a search, beside the journal."""

State = Literal["published", "waiting", "dead letter", "replayed"]
"""What has become of a message; ``replayed``, as users read it: a dead letter that was reprocessed."""


@dataclass(frozen=True)
class SearchQuery:
    """What is looked for: an ``instanceId``, a ``msgId``, a part of a title, or the id of a request.

    Attributes:
        text: One of the four; which one is found out.
        since: Only what was received at this time or later, in epoch milliseconds.
        request: The request, where the text is the id of one that the connector remembers. An older one is found by the
            id that its records and dead letters carry.
    """

    text: str
    since: int | None = None
    request: SeenRequest | None = None

    @cached_property
    def name(self) -> str:
        """The text, or the instance of the request."""
        instance_id = None if self.request is None else self.request.instance_id
        return instance_id or self.text

    @cached_property
    def key(self) -> bytes:
        """The key of its records, if the name is an ``instanceId``."""
        return self.name.encode(errors="replace")

    @cached_property
    def forms(self) -> tuple[bytes, ...]:
        """The bytes of the name as UTF-8, as JSON, as JSON with escapes, as JSON in JSON, and as a form has it."""
        plain, escaped = dumps(self.name, ensure_ascii=False)[1:-1], dumps(self.name)[1:-1]
        texts = (self.name, plain, escaped, dumps(escaped)[1:-1], quote(self.name, safe=""))
        return tuple(dict.fromkeys(text.encode(errors="replace") for text in texts))

    @property
    def is_nameless(self) -> bool:
        """Whether it is a request of which only the time is known: it could not become a record."""
        return self.request is not None and self.request.instance_id is None

    def is_in(self, raw: bytes) -> bool:
        """Whether some bytes may hold the name; cheap, and False only if they do not."""
        return any(form in raw for form in self.forms)

    def is_of_body(self, body: bytes, content_type: str) -> bool:
        """Whether a request's body is of what is looked for: by its fields, or by its bytes where it has none."""
        if not self.is_in(body):
            return False
        fields = fields_of(body, content_type)
        if fields is None:
            return any(_is_word(body, form) for form in self.forms)
        return self.is_of(fields.get("instanceId"), fields.get("msgId"), fields.get(TITLE))

    def is_of(self, instance_id: Any, message_id: Any, title: Any) -> bool:
        """Whether these are its identifiers, or the name is in its title."""
        return self.name in {str(instance_id), str(message_id)} or (isinstance(title, str) and self.name in title)

    def is_of_request(self, request_id: str | None) -> bool:
        """Whether this is the id of the request that is looked for."""
        return request_id == self.text

    def matches(self, found: "Match") -> bool:
        """Whether it is meant: of a request, its own message alone."""
        if self.since is not None and found.received_at < self.since:
            return False
        if self.request is None:
            return True
        is_same = self.request.message_id is not None and self.request.message_id == found.message_id
        return is_same or self.is_received_with(found.received_at, found.source)

    def is_received_with(self, received_at: int, source: str) -> bool:
        """Whether it is the request that was received then and from there."""
        asked = self.request
        return asked is not None and (asked.received_at, asked.source) == (received_at, source)


@dataclass(frozen=True, slots=True)
class Location:
    """Topic, partition and offset of a record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Match:
    """One message, or one dead letter.

    Attributes:
        state: ``published``; ``waiting`` in the journal for Kafka; a ``dead letter``, or one that was ``replayed``.
        instance_id: The instance, where it is readable.
        received_at: Epoch milliseconds.
        source: Who sent it.
        message_id: WeDa's ``msgId``.
        what: Kind and action.
        title: The title, as it was published.
        code: The ``code`` of its answer; 0: accepted.
        places: Where its records are; of a dead letter, where that is.
        stage: Of a dead letter, where on the way it failed.
        reason: Of a dead letter, why it is one.
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
    """One place that was searched.

    Attributes:
        place: A topic, a journal, or what the connector remembers.
        partitions: Partitions that were read; None where there are none.
        of_partitions: Partitions that there are.
        records: Records that were read.
        total: Records that are to be read.
        oldest: When the oldest of them was received, in epoch milliseconds.
        is_whole: Everything that should be read was.
        note: Why it was not, or what to know.
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
    """What came of a search.

    Attributes:
        text: What was looked for.
        request: The request of that id, where the text is one.
        found: Messages and dead letters, the oldest first.
        searched: Where they were looked for.
    """

    text: str
    request: SeenRequest | None = None
    found: list[Match] = field(default_factory=list)
    searched: list[Coverage] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every place was searched to its end."""
        return all(one.is_whole for one in self.searched)

    @property
    def verdict(self) -> str:
        """What came of it, in a sentence."""
        if self.found:
            counts = Counter(one.state for one in self.found)
            return ", ".join(f"{count} {state}" for state, count in counts.items())
        if self.request is not None and self.request.code:
            return f"it was answered with code {self.request.code}, and nothing of it was kept"
        return NEVER_CAME if self.is_whole else NOT_FOUND

    def add(self, found: Iterable[Match], searched: Iterable[Coverage]) -> None:
        """Take over what was found elsewhere."""
        self.found += found
        self.searched += searched
        self.found.sort(key=lambda one: one.received_at)

    @contextmanager
    def searching(self, place: str, errors: tuple[type[ConnectorError], ...]) -> Iterator[None]:
        """Note in the report that a place cannot be searched now, and go on: other places may have the message."""
        try:
            yield
        except errors as error:
            self.add([], [unsearched(place, error)])

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**msgspec.to_builtins(self), "whole": self.is_whole, "verdict": self.verdict}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SearchReport":
        """The report whose :meth:`as_dict` these are."""
        return msgspec.convert(values, cls, strict=False)


Found = tuple[list[Match], list[Coverage]]
"""What one place has, and how far it was searched."""


def unsearched(place: str, error: ConnectorError) -> Coverage:
    """A place that could not be searched."""
    return Coverage(place, is_whole=False, note=error.message)


def fields_of(body: bytes, content_type: str) -> Mapping[str, Any] | None:
    """The fields of the message in a request's body; None where it holds none that can be read."""
    try:
        return parse(body, kind_of(body, content_type)).fields
    except ConnectorError:
        return None


def _is_word(raw: bytes, word: bytes) -> bool:
    at = raw.find(word)
    while at >= 0:
        around = raw[max(at - 1, 0) : at] + raw[at + len(word) : at + len(word) + 1]
        if not any(chr(one).isalnum() or one in b"-_." for one in around):
            return True
        at = raw.find(word, at + 1)
    return False
