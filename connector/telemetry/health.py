"""The connector's state, which probes and gauges show."""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from connector.journal.file import headroom
from connector.supervision import Watchdog

MIN_ROOM_BYTES: Final = 64 * 1024
"""Free bytes below which the journal counts as full: about as many as a large message takes."""

MIN_RATE: Final = 0.1
"""Messages per second below which the journal does not count as emptying."""

_LOG = structlog.get_logger()


@dataclass
class Health:
    """The state of the connector, and of Kafka and the journal as last seen.

    Attributes:
        journal_limit_bytes: Maximum bytes of the journal.
        kafka: State of Kafka: ``connecting``, ``up``, ``stalled`` or ``down``.
        journal_bytes: Bytes of the journal in use, or None while its disk does not answer.
        backlog: Messages in the journal.
        waiting: Messages in the journal by source.
        dead_letters: Dead letters that nobody has reprocessed yet, or None before they are first counted.
        leaving_rate: Messages per second that leave the journal, averaged over about half a minute.
        waiting_since: When the oldest message that is not in Kafka began to wait, on the monotonic clock, or None.
        is_open: Whether the public listener is listening.
        is_closing: Whether the connector is shutting down.
        is_isolated: Whether Kafka answers another replica and not this one, so that sources should use the other.
        needs_journal: Whether no message can be accepted without the journal, even if Kafka is up.
        is_journal_lost: Whether the journal's file is no longer at its path, so that its contents would be gone after a
            restart.
        reload_failing: Changed files that could not be read; their previous contents are in effect.
        restart_needed: Settings that have changed and take effect only after a restart.
        watchdog: Checks that the connector's parts are alive.
        problems: Topic of a problem → the problem in words.
    """

    journal_limit_bytes: int
    needs_journal: bool = False
    kafka: str = "connecting"
    journal_bytes: int | None = 0
    backlog: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    dead_letters: int | None = None
    leaving_rate: float = 0.0
    waiting_since: float | None = None
    is_open: bool = False
    is_closing: bool = False
    is_isolated: bool = False
    is_journal_lost: bool = False
    reload_failing: tuple[str, ...] = ()
    restart_needed: str = ""
    watchdog: Watchdog = field(default_factory=Watchdog)
    problems: dict[str, str] = field(default_factory=dict)

    def set_problem(self, about: str, problem: str) -> None:
        """Show a problem, and log it when it is new; an empty text ends it."""
        if problem and self.problems.get(about) != problem:
            _LOG.warning("a problem outside", about=about, problem=problem)
        if problem:
            self.problems[about] = problem
        else:
            self.problems.pop(about, None)

    @property
    def ended(self) -> list[str]:
        """Parts that have ended although the connector runs."""
        return self.watchdog.ended if self.is_open and not self.is_closing else []

    @property
    def journal(self) -> str:
        """``ok``, ``full`` or ``failing``."""
        if self.journal_bytes is None:
            return "failing"
        return "full" if self.journal_room_bytes < MIN_ROOM_BYTES else "ok"

    @property
    def journal_room_bytes(self) -> int:
        """Bytes that the journal can still take: its limit less the used bytes and those reserved for deletions."""
        if self.journal_bytes is None:
            return 0
        return max(self.journal_limit_bytes - headroom(self.journal_limit_bytes) - self.journal_bytes, 0)

    @property
    def is_ready(self) -> bool:
        """Whether a message can be accepted durably, by the brokers or by the journal."""
        if not self.is_open or self.is_closing or self.is_isolated or self.is_journal_lost or self.ended:
            return False
        if self.needs_journal and self.journal == "failing":
            return False
        return self.journal == "ok" or self.kafka == "up"

    @property
    def oldest_age_seconds(self) -> float:
        """Age of the oldest message that is not in Kafka, in seconds."""
        return 0.0 if self.waiting_since is None else time.monotonic() - self.waiting_since

    @property
    def catch_up_seconds(self) -> float | None:
        """Seconds that the journal takes to empty at the current rate; None while nothing leaves it."""
        if not self.backlog:
            return 0.0
        if self.kafka != "up":  # the rate is an average, which stays above 0 for a while after the last message
            return None
        return self.backlog / self.leaving_rate if self.leaving_rate >= MIN_RATE else None

    def as_dict(self) -> dict[str, Any]:
        """The body of ``/readyz``."""
        return {
            "ready": self.is_ready,
            "kafka": self.kafka,
            "journal": self.journal,
            "journal_messages": self.backlog,
            "journal_messages_by_source": self.waiting,
            "publish_rate": round(self.leaving_rate, 1),
            "catch_up_seconds": None if self.catch_up_seconds is None else round(self.catch_up_seconds, 1),
            "journal_bytes": self.journal_bytes,
            "journal_limit_bytes": self.journal_limit_bytes,
            "oldest_waiting_seconds": round(self.oldest_age_seconds, 3),
            "dead_letters_waiting": self.dead_letters,
            "closing": self.is_closing,
            "problems": self.problems,
        }
