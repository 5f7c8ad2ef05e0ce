"""The last requests of each source as they arrived, and the last events: in memory, bounded, for people who look.

Kept are the bytes of bodies, of large ones their beginning; an event is read again when somebody looks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

from connector.errors import ConnectorError
from connector.message.conversion import Event
from connector.message.parsing import BodyKind

REQUESTS_KEPT: Final = 20
"""Requests of each source."""

EVENTS_KEPT: Final = 200

BYTES_KEPT: Final = 16 * 1024
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
    """

    received_at: int
    method: str
    content_type: str
    body: bytes
    size: int
    code: int
    error: ConnectorError | None
    instance_id: str | None = None

    @property
    def kind(self) -> BodyKind:
        """How the body is written."""
        return BodyKind.QUERY if self.method == "GET" else BodyKind.of(self.content_type)


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
        self._requests: dict[str, deque[RecentRequest]] = {name: deque(maxlen=REQUESTS_KEPT) for name in sources}
        self._events: deque[tuple[str, RecentRequest]] = deque(maxlen=EVENTS_KEPT)

    def came(self, source: str, request: RecentRequest) -> None:
        """A request of a known source was answered."""
        if request.size > BYTES_KEPT:
            request = request._replace(body=request.body[:BYTES_KEPT], instance_id=None)
        self._requests[source].append(request)
        if request.instance_id is not None:
            self._events.append((source, request))

    def requests(self, source: str) -> list[RecentRequest]:
        """The last requests of a source, newest first."""
        return list(reversed(self._requests.get(source, ())))

    def latest(self, most: int = EVENTS_KEPT) -> list[tuple[str, RecentRequest]]:
        """The last requests of which an event is kept, each with its source, newest first."""
        return list(islice(reversed(self._events), most))

    def read(self, latest: Iterable[tuple[str, RecentRequest]]) -> list[RecentEvent]:
        """Their events, but for those that cannot be read any more as the settings are now; any thread may ask."""
        found = []
        for source, request in latest:
            with suppress(ConnectorError):
                event = self._read(request.body, request.kind)
                found.append(RecentEvent(request.received_at, source, event.instance_id, event.fields))
        return found

    def events(self, most: int = EVENTS_KEPT) -> list[RecentEvent]:
        """The last events, newest first."""
        return self.read(self.latest(most))
