"""What there is to see of a demo: its pace, the latest events, and the story of one instance. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from connector.demo.ledger import Ledger
from connector.demo.reader import Event
from connector.simulator import Answer
from connector.simulator.dictionaries import Action

LATEST: Final = 10

_OPENING: Final = frozenset({Action.START, Action.DRAFT})
_RATE_SECONDS: Final = 5.0
_LATENCIES: Final = 1_000
_STRANGERS: Final = 3
_STRANGE_AFTER_SECONDS: Final = 2.0  # an event can be read before its answer has arrived
_UNIDENTIFIED: Final = 10_000
_TOLD_AFTER_SECONDS: Final = 1.0
_LONGEST_STORY: Final = 40
_MOST_NEWS: Final = 100


@dataclass(frozen=True, slots=True)
class News:
    """An event worth a line: a step of the story of that number (from 1), or another sender's (0)."""

    story: int
    event: Event


@dataclass(slots=True)
class Story:
    """One instance that is followed: its events as they came, the last one at ``at`` (seconds)."""

    instance_id: str
    at: float
    steps: deque[Event] = field(default_factory=lambda: deque(maxlen=_LONGEST_STORY))


class Scene:
    """The state that views show; bounded, however long the demo.

    Attributes:
        ledger: What was sent against what appeared.
        latest: The last events, oldest first.
        story: The instance that is followed, None before the first.
        strangers: The last events of other senders, oldest first.
        stories: How many instances have been followed.
        note: What there is to say just now, or nothing.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.latest: deque[Event] = deque(maxlen=LATEST)
        self.story: Story | None = None
        self.strangers: deque[Event] = deque(maxlen=_STRANGERS)
        self.stories = 0
        self.note = ""
        self._news: deque[News] = deque(maxlen=_MOST_NEWS)
        self._unidentified: deque[tuple[float, Event]] = deque(maxlen=_UNIDENTIFIED)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._counts: deque[tuple[float, int, int, int]] = deque()

    def answered(self, answer: Answer) -> None:
        """The outcome of one message is known."""
        self.ledger.answered(answer)
        if answer.status is not None:
            self._latencies.append(answer.latency_seconds)

    def appeared(self, events: Iterable[Event], now: float) -> None:
        """Events were read from the topic, at ``now`` (seconds, any clock that only goes on)."""
        for event in events:
            instance_id = event.value["instanceId"]
            self.ledger.appeared(instance_id, event.value["msgId"] or event.value["ingestId"])
            self.latest.append(event)
            self._tell(instance_id, event, now)
            self._unidentified.append((now, event))

    def tick(self, now: float) -> None:
        """Note where the counts stand at ``now``, and which events turned out to be another sender's."""
        ledger = self.ledger
        self._counts.append((now, ledger.sent, ledger.accepted, ledger.published))
        while now - self._counts[0][0] > _RATE_SECONDS:
            self._counts.popleft()
        while self._unidentified and now - self._unidentified[0][0] > _STRANGE_AFTER_SECONDS:
            _, event = self._unidentified.popleft()
            if not ledger.is_ours(event.value["instanceId"]):
                self.strangers.append(event)
                self._news.append(News(0, event))

    def rates(self) -> dict[str, float]:
        """Messages a second of the last seconds: sent, accepted, published."""
        if not self._counts:
            return dict.fromkeys(("sent", "accepted", "published"), 0.0)
        (since, *before), (until, *after) = self._counts[0], self._counts[-1]
        seconds = max(until - since, 0.001)
        names = ("sent", "accepted", "published")
        return {name: (new - old) / seconds for name, old, new in zip(names, before, after, strict=True)}

    def latency(self, share: float) -> float:
        """Seconds within which that share (0 to 1) of the last answers came; 0 before the first."""
        if not self._latencies:
            return 0.0
        ordered = sorted(self._latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def news(self) -> list[News]:
        """The followed story's and other senders' events since the last call."""
        news = list(self._news)
        self._news.clear()
        return news

    def _tell(self, instance_id: str, event: Event, now: float) -> None:
        if event.value["action"] in _OPENING and self._is_told(now):
            self.story = Story(instance_id, now)
            self.stories += 1
        if self.story is not None and self.story.instance_id == instance_id:
            self.story.at = now
            self.story.steps.append(event)
            self._news.append(News(self.stories, event))

    def _is_told(self, now: float) -> bool:
        """Whether there is no story, or one to which nothing is added any more."""
        story = self.story
        return story is None or (now - story.at > _TOLD_AFTER_SECONDS and not self.ledger.is_open(story.instance_id))
