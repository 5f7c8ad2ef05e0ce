"""The errors that the connector raises on purpose. A module may define further ones, derived from these.

The tree::

    ConnectorError
    ├── ConfigurationError        the start stops with one line that names the setting (exit code 2)
    ├── OutsideUnreachable        a command could not reach Kafka or a running connector (exit code 3)
    ├── Rejected                  the request is wrong; nothing of it is kept
    │   ├── Malformed             400
    │   ├── WrongCredential
    │   │   ├── Unauthenticated   401
    │   │   └── Forbidden         403
    │   ├── WrongPath             404
    │   ├── WrongMethod           405
    │   ├── TooSlow               408
    │   ├── TooLarge              413
    │   ├── WrongMediaType        415
    │   └── HeadTooLarge          431
    ├── EmptyBody                 400, there is nothing to keep
    ├── Unreadable                400, kept as a dead letter
    ├── Unconvertible             422, kept as a dead letter
    ├── Refused                   not now; the source should send it again
    │   ├── Overloaded            429
    │   └── Unavailable           503
    │       └── OutcomeUnknown    503, but the message may still be published
    └── Defect                    500, kept as a dead letter once the message is read

Each class has a ``code`` (for the source, in the answer), a ``stage`` (the step that failed) and ``retriable`` (whether
sending the same bytes again can help). Messages say what failed and how to mend it. They never contain a credential or
a value that a source sent.
"""

from typing import ClassVar, Final


class ConnectorError(Exception):
    """The base class of all errors of the connector."""

    stage: ClassVar[str] = "connector"
    retriable: ClassVar[bool] = False
    code: int = 50000

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ConfigurationError(ConnectorError):
    """A setting is unknown, missing or contradicts another; the message names it."""

    stage = "settings"


def missing_extra(what: str, extra: str) -> ConfigurationError:
    """The error of a package that is installed only on demand.

    Args:
        what: Who needs it, and what it is: "WEDA_JOURNAL__URL: the client of PostgreSQL".
        extra: The extra of the distribution that has it.
    """
    return ConfigurationError(
        f"{what} is not installed: add the extra `{extra}` (pip install '.[{extra}]' in the checkout)"
    )


class OutsideUnreachable(ConnectorError):
    """Kafka, or a running connector, did not answer a command in time."""

    stage = "outside"
    retriable = True


class Rejected(ConnectorError):
    """The listener rejects the request: it is counted and not kept."""

    stage = "receive"


class Malformed(Rejected):
    """The bytes are not HTTP, or are ambiguous HTTP."""

    code = 40090


class WrongCredential(Rejected):
    """The credential is missing, unknown or insufficient.

    Attributes:
        reason: One of :data:`CREDENTIAL_REASONS`, a label of metrics.
    """

    stage = "authenticate"

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unauthenticated(WrongCredential):
    """There is no credential, no source has it, or a signature is wrong, too old or used before."""

    code = 40100


class Forbidden(WrongCredential):
    """The credential belongs to another source, or is not valid from this network."""

    code = 40300


CREDENTIAL_REASONS: Final = ("missing", "unknown", "other_source", "network", "signature", "timestamp", "replayed")
"""Why a credential was rejected; ``replayed``: the id of a signed request came before with another body."""


class WrongPath(Rejected):
    """There is nothing at this path."""

    code = 40400


class WrongMethod(Rejected):
    """The path does not take this method."""

    code = 40500


class TooSlow(Rejected):
    """The head or the body did not arrive in time."""

    code = 40800
    retriable = True


class TooLarge(Rejected):
    """The body or the URL is over its limit, or a record is over its topic's ``max.message.bytes``."""

    code = 41300


class WrongMediaType(Rejected):
    """No body shape has this media type, charset or content encoding."""

    code = 41500


class HeadTooLarge(Rejected):
    """The request's head has too many bytes or header fields."""

    code = 43100


class EmptyBody(ConnectorError):
    """The body has no content, so there is nothing to keep."""

    stage = "parse"
    code = 40000


class Unreadable(ConnectorError):
    """The body has none of the known shapes (codes 40001-40089)."""

    stage = "parse"
    code = 40001


class Unconvertible(ConnectorError):
    """The message can be read but not converted to a record (codes 42200-42299)."""

    stage = "convert"
    code = 42200


class Refused(ConnectorError):
    """The connector cannot accept the message now; the source should send it again after ``retry_after`` seconds.

    Attributes:
        outcome: The value of the HTTP header ``X-WeDa-Outcome``: ``refused`` (nothing of the message is kept) or
            ``unknown`` (it may be published).
    """

    stage = "receive"
    retriable = True
    outcome: ClassVar[str] = "refused"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Refused):
    """The source exceeds its rate, or too many messages are in flight."""

    code = 42900


class Unavailable(Refused):
    """No durable storage is available now, or the connector is shutting down."""

    stage = "publish"
    code = 50300


class OutcomeUnknown(Unavailable):
    """It is not known in time whether the message is safe; it may still be published."""

    code = 50301
    outcome = "unknown"


class Defect(ConnectorError):
    """A defect of the connector itself."""

    stage = "connector"
    retriable = True
    code = 50000
