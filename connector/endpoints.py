"""The receiver's HTTP interface as senders see it: paths, methods and its own headers.

Receiver, console and commands share it, so it is below their packages. What WeDa puts into a request is in
`connector.message.weda`.
"""

from typing import Final

DELIVER_PATH: Final = "/messageDeliver"
"""The path of the default source, named after the method that WeDa calls."""

SOURCES_PATH: Final = "/sources/"
"""The beginning of the paths of all sources; see `path_of`."""

METHODS: Final = ("GET", "POST", "PUT")
"""The HTTP methods by which a message may be sent."""

TOKEN_HEADER: Final = "X-WeDa-Token"  # noqa: S105 - a name
"""The HTTP header of the token, for senders that cannot set ``Authorization``."""

OUTCOME_HEADER: Final = "X-WeDa-Outcome"
"""The HTTP header that says whether a message that was not accepted may still be published."""


def path_of(source: str) -> str:
    """The path to which a source sends its messages. The default source may also use `DELIVER_PATH`."""
    return f"{SOURCES_PATH}{source}{DELIVER_PATH}"
