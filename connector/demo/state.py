"""The state of a demo: its counts and pace, and the events to show, of one instance at a time. Pure."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from connector.demo.ledger import Ledger
from connector.demo.reader import Event
from connector.simulator import Answer
from connector.simulator.dictionaries import Action

_OPENING: Final = frozenset({Action.START, Action.DRAFT})
_RATE_SECONDS: Final = 5.0
_MAX_LATENCIES: Final = 1_000
_OTHER_SENDER_AFTER_SECONDS: Final = 2.0  # an event can be read before its answer has arrived
_MAX_UNIDENTIFIED: Final = 10_000
_QUIET_SECONDS: Final = 1.0
_MAX_NEW: Final = 100


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to show; ``is_own`` says that it is of the followed instance, and not of another sender."""

    event: Event
    is_own: bool


class DemoState:
    """The state that is shown; its size is bounded, however long the demo runs.

    Attributes:
        ledger: The counts of what was sent and what appeared.
        note: A sentence to show, or an empty text.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.note = ""
        self._followed = ""
        self._followed_at = 0.0
        self._new: deque[NewEvent] = deque(maxlen=_MAX_NEW)
        self._unidentified: deque[tuple[float, Event]] = deque(maxlen=_MAX_UNIDENTIFIED)
        self._latencies: deque[float] = deque(maxlen=_MAX_LATENCIES)
        self._published: deque[tuple[float, int]] = deque()

    def answered(self, answer: Answer) -> None:
        """Take the outcome of a message."""
        self.ledger.answered(answer)
        if answer.status is not None:
            self._latencies.append(answer.latency_seconds)

    def appeared(self, event: Event, now: float) -> None:
        """Take an event that was read from the topic at ``now`` (seconds of a monotonic clock)."""
        instance_id = event.value["instanceId"]
        # The simulator's messages have a msgId; other senders' may have none.
        self.ledger.appeared(instance_id, event.value["msgId"] or event.value["ingestId"])
        self._follow(instance_id, event, now)
        self._unidentified.append((now, event))

    def tick(self, now: float) -> None:
        """Record the count of published messages at ``now``, and pick out the events of other senders."""
        self._published.append((now, self.ledger.published))
        while now - self._published[0][0] > _RATE_SECONDS:
            self._published.popleft()
        while self._unidentified and now - self._unidentified[0][0] > _OTHER_SENDER_AFTER_SECONDS:
            _, event = self._unidentified.popleft()
            if not self.ledger.is_ours(event.value["instanceId"]):
                self._new.append(NewEvent(event, is_own=False))

    def rate(self) -> float:
        """Return the published messages a second, over the last seconds."""
        if not self._published:
            return 0.0
        (since, before), (until, after) = self._published[0], self._published[-1]
        return (after - before) / max(until - since, 0.001)

    def latency(self, share: float) -> float:
        """Return the seconds within which a share (0 to 1) of the last answers came; 0 before the first."""
        if not self._latencies:
            return 0.0
        ordered = sorted(self._latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def new_events(self) -> list[NewEvent]:
        """Return the events of followed instances and of other senders since the last call."""
        new = list(self._new)
        self._new.clear()
        return new

    def _follow(self, instance_id: str, event: Event, now: float) -> None:
        if event.value["action"] in _OPENING and self._can_follow_another(now):
            self._followed = instance_id
        if self._followed == instance_id:
            self._followed_at = now
            self._new.append(NewEvent(event, is_own=True))

    def _can_follow_another(self, now: float) -> bool:
        is_over = now - self._followed_at > _QUIET_SECONDS and not self.ledger.is_open(self._followed)
        return not self._followed or is_over
