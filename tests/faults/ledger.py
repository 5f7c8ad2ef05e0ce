"""What the sender writes down, and what else happened during a run. All times are monotonic seconds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.faults.messages import Message

Outcome = Literal["accepted", "refused", "unknown"]


@dataclass(frozen=True)
class Attempt:
    """One request that left the sender."""

    sent: float
    ended: float
    """When the answer had been read, or when the sender gave up waiting for it."""
    outcome: Outcome
    code: int | None = None
    """The answer's ``code``; None without an answer, -1 for an answer that has none."""
    said: str = ""
    """What a refusal said."""


@dataclass
class Issued:
    """A message and every request that carried it, all with the same bytes."""

    message: Message
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def first_sent(self) -> float:
        """When the message left for the first time; infinity when it never did."""
        return min((attempt.sent for attempt in self.attempts), default=float("inf"))

    @property
    def accepted_at(self) -> float:
        """When the first acceptance had been read; infinity without one."""
        times = (attempt.ended for attempt in self.attempts if attempt.outcome == "accepted")
        return min(times, default=float("inf"))

    @property
    def accepted(self) -> bool:
        """Whether the sender ever read ``{"code":0}``."""
        return self.accepted_at < float("inf")

    @property
    def outcome(self) -> Outcome:
        """The best that happened to the message: accepted, else unknown, else refused."""
        if self.accepted:
            return "accepted"
        return "unknown" if any(attempt.outcome == "unknown" for attempt in self.attempts) else "refused"


@dataclass(frozen=True)
class Disturbance:
    """Something that a scenario broke; ``ended`` is when it was whole again."""

    name: str
    began: float
    ended: float
    closes_door: bool = False
    """Whether the connector itself was gone, and answered nobody."""

    def overlaps(self, began: float, ended: float) -> bool:
        """Whether the two stretches of time touch."""
        return self.began <= ended and began <= self.ended


@dataclass
class Ledger:
    """Everything that the sender issued; a message is entered when its first request leaves."""

    issued: dict[str, Issued] = field(default_factory=dict)
    """By the message's identity, per instance in the order of sending."""
    never_sent: int = 0
    """Tries that found no connection; no byte of the message left."""

    def attempts(self) -> Iterator[Attempt]:
        """Every request."""
        return (attempt for issued in self.issued.values() for attempt in issued.attempts)

    def count(self, outcome: Outcome) -> int:
        """Messages with this outcome."""
        return sum(issued.outcome == outcome for issued in self.issued.values())
