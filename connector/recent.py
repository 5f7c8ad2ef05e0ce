"""The last requests of each source as they arrived, and the last events: in memory, bounded, for people who look.

Nothing is made for that: what is kept are references to what is there anyway, of large bodies their beginning.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from connector.errors import ConnectorError
from connector.records import Event

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
        raw_content_type: As received.
        body: The bytes as received, or their beginning; of a GET, its query string.
        size: Bytes of the whole body.
        code: The ``code`` of the answer.
        error: Why it was not accepted.
        instance_id: The instance, where it was read.
    """

    received_at: int
    method: str
    raw_content_type: bytes
    body: bytes
    size: int
    code: int
    error: ConnectorError | None
    instance_id: str | None = None

    @property
    def content_type(self) -> str:
        """The media type as text."""
        return self.raw_content_type.decode("latin-1")


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
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self._requests: dict[str, deque[tuple[RecentRequest, Event | None]]] = {
            name: deque(maxlen=REQUESTS_KEPT) for name in sources
        }
        self._events: deque[RecentEvent] = deque(maxlen=EVENTS_KEPT)

    def came(self, source: str, request: RecentRequest, event: Event | None) -> None:
        """A request of a known source was answered; ``event`` where it was accepted."""
        if request.size > BYTES_KEPT:
            request, event = request._replace(body=request.body[:BYTES_KEPT]), None
        self._requests[source].append((request, event))
        if event is not None:
            self._events.append(RecentEvent(request.received_at, source, event.instance_id, event.fields))

    def requests(self, source: str) -> list[RecentRequest]:
        """The last requests of a source, newest first."""
        return [
            request._replace(instance_id=None if event is None else event.instance_id)
            for request, event in reversed(self._requests.get(source, ()))
        ]

    def events(self) -> list[RecentEvent]:
        """The last events, newest first."""
        return list(reversed(self._events))
