"""The latest requests of each source as they arrived, and the latest events: in memory, limited, for the console.

Bodies are kept as bytes, and large ones only in part; an event is parsed again when somebody looks at it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from connector.errors import ConnectorError
from connector.message.events import Event
from connector.message.parsing import BodyKind

MAX_REQUESTS: Final = 20
"""Maximum accepted requests of each source."""

MAX_FAILURES: Final = 50
"""Maximum requests of each source that were not accepted; kept apart, so that accepted ones do not displace them."""

MAX_EVENTS: Final = 200

MAX_SEEN: Final = 20_000
"""Maximum requests, of all sources together, of which only the identifiers are kept: some 10 MiB."""

MAX_BODY_BYTES: Final = 16 * 1024
"""Maximum bytes of a body; a larger message has no event here."""


class RecentRequest(NamedTuple):
    """A request that was answered.

    Attributes:
        received_at: Epoch milliseconds.
        method: ``GET``, ``POST`` or ``PUT``.
        content_type: The media type as received.
        body: The body as received, or its beginning; for a GET, the query string.
        size: Bytes of the whole body.
        code: The ``code`` of the answer.
        error: Why the request was not accepted, or None.
        instance_id: The instance, if the request was accepted.
        message_id: WeDa's ``msgId``, if the request was accepted.
        request_id: The id in the log and in the answer's ``X-Request-Id``.
    """

    received_at: int
    method: str
    content_type: str
    body: bytes
    size: int
    code: int
    error: ConnectorError | None
    instance_id: str | None = None
    message_id: str | None = None
    request_id: str = ""

    @property
    def kind(self) -> BodyKind:
        """The format of the body."""
        return BodyKind.QUERY if self.method == "GET" else BodyKind.of(self.content_type)


class SeenRequest(msgspec.Struct, frozen=True, gc=False):
    """The identifiers and the outcome of a request.

    Attributes:
        request_id: The id in the log and in the answer's ``X-Request-Id``.
        received_at: Epoch milliseconds.
        source: The source that sent the request.
        code: The ``code`` of the answer; 0 means accepted.
        instance_id: The instance, if the request was accepted.
        message_id: WeDa's ``msgId``, if the request was accepted.
    """

    request_id: str
    received_at: int
    source: str
    code: int
    instance_id: str | None
    message_id: str | None


class RecentEvent(NamedTuple):
    """An accepted message, or a duplicate of one."""

    received_at: int
    source: str
    instance_id: str
    fields: Mapping[str, Any]


class Recent:
    """The latest requests and events.

    Args:
        sources: Names of the configured sources.
        read: Parses a body's event again when somebody looks at it.
    """

    def __init__(self, sources: Iterable[str], read: Callable[[bytes, BodyKind], Event]) -> None:
        self._read = read
        self._accepted: dict[str, deque[RecentRequest]] = {name: deque(maxlen=MAX_REQUESTS) for name in sources}
        self._failed: dict[str, deque[RecentRequest]] = {name: deque(maxlen=MAX_FAILURES) for name in self._accepted}
        self._events: deque[tuple[str, RecentRequest]] = deque(maxlen=MAX_EVENTS)
        self._seen: deque[SeenRequest] = deque(maxlen=MAX_SEEN)

    def came(self, source: str, request: RecentRequest) -> None:
        """Record a request of a known source that was answered."""
        identifiers = request.code, request.instance_id, request.message_id
        self._seen.append(SeenRequest(request.request_id, request.received_at, source, *identifiers))
        if request.size > MAX_BODY_BYTES:
            # Without the instance the request is not among the events: a part of a body cannot be parsed.
            request = request._replace(body=request.body[:MAX_BODY_BYTES], instance_id=None)
        (self._failed if request.code else self._accepted)[source].append(request)
        if request.instance_id is not None:
            self._events.append((source, request))

    def seen(self, request_id: str) -> SeenRequest | None:
        """The latest request with this id, or None if it is not kept."""
        return next((request for request in reversed(self._seen) if request.request_id == request_id), None)

    def requests(self, source: str, *, only_failed: bool = False) -> list[RecentRequest]:
        """The latest requests of a source, newest first."""
        accepted = () if only_failed else reversed(self._accepted.get(source, ()))
        requests = (*reversed(self._failed.get(source, ())), *accepted)
        return sorted(requests, key=lambda request: -request.received_at)

    def latest(self, limit: int = MAX_EVENTS) -> list[tuple[str, RecentRequest]]:
        """The latest requests that have an event, each with its source, newest first."""
        return list(islice(reversed(self._events), limit))

    def read(self, latest: Iterable[tuple[str, RecentRequest]]) -> list[RecentEvent]:
        """Parse the events of requests, and skip those that the current settings cannot parse; for any thread."""
        events = []
        for source, request in latest:
            with suppress(ConnectorError):
                event = self._read(request.body, request.kind)
                events.append(RecentEvent(request.received_at, source, event.instance_id, event.fields))
        return events

    def events(self, limit: int = MAX_EVENTS) -> list[RecentEvent]:
        """The latest events, newest first."""
        return self.read(self.latest(limit))
