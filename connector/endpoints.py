"""The receiver's HTTP interface, as senders see it: paths, methods, and the headers that are its own. Pure.

The receiver, the console and the commands need it, so it is below their packages. WeDa's vocabulary inside a request is
in `connector.message.weda`.
"""

from typing import Final

DELIVER_PATH: Final = "/messageDeliver"
"""Where the default source sends its messages. WeDa gives the method that calls it this name."""

SOURCES_PATH: Final = "/sources/"
"""What begins the path of any source; see `path_of`."""

METHODS: Final = ("GET", "POST", "PUT")
"""The methods with which a message may be sent."""

TOKEN_HEADER: Final = "X-WeDa-Token"  # noqa: S105 - a name
"""The HTTP header of the credential, where the sender cannot set ``Authorization``."""

OUTCOME_HEADER: Final = "X-WeDa-Outcome"
"""The HTTP header that says whether a message that was not accepted may be published all the same."""


def path_of(source: str) -> str:
    """The path to which a source sends its messages; the default source has `DELIVER_PATH` beside it."""
    return f"{SOURCES_PATH}{source}{DELIVER_PATH}"
