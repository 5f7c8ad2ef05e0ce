"""The last requests of each source as they arrived, and the last events: in memory, bounded, for people who look.

Kept are the bytes of bodies, of large ones their beginning; an event is read again when somebody looks.
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
"""Accepted requests of each source."""

MAX_FAILURES: Final = 50
"""Requests of each source that were not accepted: they are kept apart, so that accepted ones do not displace them."""

MAX_EVENTS: Final = 200

MAX_SEEN: Final = 20_000
"""Requests of which only the identifiers are kept, of all sources together: some 10 MiB."""

MAX_BODY_BYTES: Final = 16 * 1024
"""Of one body; of larger messages no event is kept."""


class RecentRequest(NamedTuple):
    """One request.

    Attributes:
        received_at: Epoch milliseconds.
        method: ``GET``, ``POST`` or ``PUT``.
        content_type: The media type as received.
        body: The bytes as received, or their beginning; of a GET, its query string.
        size: Bytes of the whole body.
        code: The ``code`` of the answer.
        error: Why it was not accepted.
        instance_id: The instance, where the request was accepted.
        message_id: WeDa's ``msgId``, where the request was accepted.
        request_id: As in the log and in the answer's ``X-Request-Id``.
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
        """How the body is written."""
        return BodyKind.QUERY if self.method == "GET" else BodyKind.of(self.content_type)


class SeenRequest(msgspec.Struct, frozen=True, gc=False):
    """The identifiers of one request, and what it was answered.

    Attributes:
        request_id: As in the log and in the answer's ``X-Request-Id``.
        received_at: Epoch milliseconds.
        source: Who sent it.
        code: The ``code`` of its answer; 0: accepted.
        instance_id: The instance, where the request was accepted.
        message_id: WeDa's ``msgId``, where the request was accepted.
    """

    request_id: str
    received_at: int
    source: str
    code: int
    instance_id: str | None
    message_id: str | None


class RecentEvent(NamedTuple):
    """One message that was accepted, or repeats one."""

    received_at: int
    source: str
    instance_id: str
    fields: Mapping[str, Any]


class Recent:
    """What arrived last.

    Args:
        sources: Names of the configured sources.
        read: Reads the event of a body again, for who looks at it.
    """

    def __init__(self, sources: Iterable[str], read: Callable[[bytes, BodyKind], Event]) -> None:
        self._read = read
        self._accepted: dict[str, deque[RecentRequest]] = {name: deque(maxlen=MAX_REQUESTS) for name in sources}
        self._failed: dict[str, deque[RecentRequest]] = {name: deque(maxlen=MAX_FAILURES) for name in self._accepted}
        self._events: deque[tuple[str, RecentRequest]] = deque(maxlen=MAX_EVENTS)
        self._seen: deque[SeenRequest] = deque(maxlen=MAX_SEEN)

    def came(self, source: str, request: RecentRequest) -> None:
        """A request of a known source was answered."""
        identifiers = request.code, request.instance_id, request.message_id
        self._seen.append(SeenRequest(request.request_id, request.received_at, source, *identifiers))
        if request.size > MAX_BODY_BYTES:
            request = request._replace(body=request.body[:MAX_BODY_BYTES], instance_id=None)
        (self._failed if request.code else self._accepted)[source].append(request)
        if request.instance_id is not None:
            self._events.append((source, request))

    def seen(self, request_id: str) -> SeenRequest | None:
        """The latest request of an id, if it is among those that are kept."""
        return next((one for one in reversed(self._seen) if one.request_id == request_id), None)

    def requests(self, source: str, *, only_failed: bool = False) -> list[RecentRequest]:
        """The last requests of a source, newest first."""
        accepted = () if only_failed else reversed(self._accepted.get(source, ()))
        return sorted((*reversed(self._failed.get(source, ())), *accepted), key=lambda one: -one.received_at)

    def latest(self, limit: int = MAX_EVENTS) -> list[tuple[str, RecentRequest]]:
        """The last requests of which an event is kept, each with its source, newest first."""
        return list(islice(reversed(self._events), limit))

    def read(self, latest: Iterable[tuple[str, RecentRequest]]) -> list[RecentEvent]:
        """Their events, but for those that cannot be read any more as the settings are now; any thread may ask."""
        found = []
        for source, request in latest:
            with suppress(ConnectorError):
                event = self._read(request.body, request.kind)
                found.append(RecentEvent(request.received_at, source, event.instance_id, event.fields))
        return found

    def events(self, limit: int = MAX_EVENTS) -> list[RecentEvent]:
        """The last events, newest first."""
        return self.read(self.latest(limit))
