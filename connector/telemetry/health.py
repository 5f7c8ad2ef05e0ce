"""The connector's state, as probes and gauges show it."""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from connector.journal.file import headroom
from connector.supervision import Watchdog

MIN_ROOM_BYTES: Final = 64 * 1024
"""Bytes of room below which the journal counts as full: about what a large message takes."""

MIN_RATE: Final = 0.1
"""Messages a second below which the journal does not count as emptying."""

_LOG = structlog.get_logger()


@dataclass
class Health:
    """What was last seen of the outside.

    Attributes:
        journal_limit_bytes: Bound of the journal.
        kafka: State of Kafka: ``connecting``, ``up``, ``stalled`` or ``down``.
        journal_bytes: Bytes of the journal in use, or None while its disk does not answer.
        backlog: Messages in the journal.
        waiting: Messages in the journal by source.
        dead_letters: Dead letters that nobody has reprocessed yet, or None before they were counted.
        leaving_rate: Messages a second that leave the journal, averaged over about half a minute.
        waiting_since: When the oldest message that is not in Kafka began to wait, on the monotonic clock, or None.
        is_open: The public listener listens.
        is_closing: The connector is shutting down.
        is_isolated: Kafka does not answer this replica and does answer another one, which should be asked.
        needs_journal: Nothing can be accepted without the journal, brokers or not.
        is_journal_lost: The journal's file is no longer at its path: what goes into it would be gone after a restart.
        reload_failing: Changed files that could not be read; their previous contents are in effect.
        restart_needed: Settings that have changed and are in effect only after a restart.
        watchdog: What has to live.
        problems: What is wrong, in words, by what it is about.
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
        """Parts that have ended though the connector runs."""
        return self.watchdog.ended if self.is_open and not self.is_closing else []

    @property
    def journal(self) -> str:
        """``ok``, ``full`` or ``failing``."""
        if self.journal_bytes is None:
            return "failing"
        return "full" if self.journal_room_bytes < MIN_ROOM_BYTES else "ok"

    @property
    def journal_room_bytes(self) -> int:
        """Bytes that the journal still takes: its limit, less what it holds and what only deletions may use."""
        if self.journal_bytes is None:
            return 0
        return max(self.journal_limit_bytes - headroom(self.journal_limit_bytes) - self.journal_bytes, 0)

    @property
    def is_ready(self) -> bool:
        """Whether a message can be accepted durably: by the brokers, or by the journal."""
        if not self.is_open or self.is_closing or self.is_isolated or self.is_journal_lost or self.ended:
            return False
        if self.needs_journal and self.journal == "failing":
            return False
        return self.journal == "ok" or self.kafka == "up"

    @property
    def oldest_age_seconds(self) -> float:
        """Age of the oldest message that is not in Kafka."""
        return 0.0 if self.waiting_since is None else time.monotonic() - self.waiting_since

    @property
    def catch_up_seconds(self) -> float | None:
        """How long the journal takes to empty at the current rate; None while nothing leaves it."""
        if not self.backlog:
            return 0.0
        if self.kafka != "up":  # the rate is an average, which outlives the last acknowledgement
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
