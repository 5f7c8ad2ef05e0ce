"""The database that replicas share, independent of its client: connections, errors, and whether it answers."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

import structlog

LEASE_LOST: Final = "WL001"
"""The SQLSTATE with which the database's functions report that a replica's lease has run out."""

_LOG = structlog.get_logger()


class DatabaseError(Exception):
    """A statement has failed; the text is for operators.

    Attributes:
        public: The part that a source may read, as a clause; it does not name the database's address.
    """

    public: ClassVar[str]


class StatementError(DatabaseError):
    """The database refused a statement, and rolled it back.

    Attributes:
        sqlstate: The SQLSTATE, five characters that identify the reason.
    """

    public = "its database refuses"

    def __init__(self, reason: str, sqlstate: str | None) -> None:
        super().__init__(f"the database refuses: {reason} ({sqlstate})")
        self.sqlstate = sqlstate


class DatabaseUnreachable(DatabaseError):
    """The database did not answer in time; the statement may have been executed, or may be executed later."""

    public = "its database does not answer"


class Connection(Protocol):
    """A connection to the database that reconnects after an error."""

    async def execute(self, sql: str, parameters: Mapping[str, Any], *, seconds: float) -> list[tuple[Any, ...]]:
        """Run one statement as a transaction, within a number of seconds.

        Raises:
            StatementError: The statement was rolled back.
            DatabaseUnreachable: No answer came in time.
        """

    def close(self) -> None:
        """Close the connection; the next statement reconnects."""


class DatabaseHealth:
    """Whether the database answers, for probes and the log.

    Attributes:
        problem: Why it does not answer; empty if it does.
    """

    def __init__(self) -> None:
        self.problem = ""

    def record_error(self, error: DatabaseError) -> None:
        """Record that a statement failed."""
        problem = str(error)
        # Statements run every second: the log gets a line when the problem changes.
        if problem != self.problem:
            _LOG.warning("the shared journal", problem=problem)
        self.problem = problem

    def record_success(self) -> None:
        """Record that a statement that writes has succeeded."""
        self.problem = ""
