"""The database that replicas share, whatever its client: a connection, its errors, and whether the database answers."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

import structlog

LEASE_LOST: Final = "WL001"
"""The SQLSTATE by which the functions of the database say that a replica's lease has run out."""

_LOG = structlog.get_logger()


class DatabaseError(Exception):
    """A statement has no result; the text is for operators.

    Attributes:
        public: What a source may read of it, as a clause: not where the database is.
    """

    public: ClassVar[str]


class StatementError(DatabaseError):
    """The database has refused a statement: it is rolled back.

    Attributes:
        sqlstate: Its five letters for the reason.
    """

    public = "its database refuses"

    def __init__(self, reason: str, sqlstate: str | None) -> None:
        super().__init__(f"the database refuses: {reason} ({sqlstate})")
        self.sqlstate = sqlstate


class DatabaseUnreachable(DatabaseError):
    """The database did not answer in time; the statement may be done or not, or be done later."""

    public = "its database does not answer"


class Connection(Protocol):
    """One connection to the database, made again after it broke."""

    async def execute(self, sql: str, parameters: Mapping[str, Any], *, seconds: float) -> list[tuple[Any, ...]]:
        """Run one statement, a transaction of its own.

        Raises:
            StatementError: It is rolled back.
            DatabaseUnreachable: There was no answer in time.
        """

    def close(self) -> None:
        """Close it; the next statement makes it again."""


class DatabaseHealth:
    """Whether the database answers, for probes and the log.

    Attributes:
        problem: Why it does not, or nothing.
    """

    def __init__(self) -> None:
        self.problem = ""

    def record_error(self, error: DatabaseError) -> None:
        """A statement has failed."""
        problem = str(error)
        if problem != self.problem:
            _LOG.warning("the shared journal", problem=problem)
        self.problem = problem

    def record_success(self) -> None:
        """What replicas write has been written."""
        self.problem = ""
