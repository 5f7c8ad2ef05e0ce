"""The exit codes of every command."""

from enum import IntEnum

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable


class Exit(IntEnum):
    """How a command ended.

    Attributes:
        DONE: Success.
        FAILED: A check failed, something differs, was refused or was not found.
        USAGE: Bad usage or configuration.
        UNREACHABLE: Kafka, the registry or a connector does not answer, or another process holds the journal.
    """

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


def exit_of(error: ConnectorError) -> Exit:
    """Return the exit code for an error."""
    if isinstance(error, ConfigurationError):
        return Exit.USAGE
    return Exit.UNREACHABLE if isinstance(error, OutsideUnreachable) else Exit.FAILED


def failed_if(condition: object) -> Exit:
    """Return FAILED if the condition is true, or a collection is not empty; DONE otherwise."""
    return Exit.FAILED if condition else Exit.DONE
