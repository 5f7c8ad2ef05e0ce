"""The exit codes of every command."""

from enum import IntEnum

from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable


class Exit(IntEnum):
    """How a command ended.

    DONE: as asked. FAILED: a check failed, something differs, was refused or was not found. USAGE: bad usage or
    configuration. UNREACHABLE: something outside (Kafka, the registry, a connector) does not answer or is held by
    another process.
    """

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


def exit_of(error: ConnectorError) -> Exit:
    """The code with which an error ends a command."""
    if isinstance(error, ConfigurationError):
        return Exit.USAGE
    return Exit.UNREACHABLE if isinstance(error, OutsideUnreachable) else Exit.FAILED


def failed_if(found: object) -> Exit:
    """FAILED if there is anything, DONE otherwise."""
    return Exit.FAILED if found else Exit.DONE
