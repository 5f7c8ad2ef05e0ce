"""The errors that the connector raises on purpose; those of one module alone stand there, and derive from these.

The tree::

    ConnectorError
    ├── ConfigurationError        the start stops with one line that names the setting (exit code 2)
    ├── OutsideUnreachable        a command could not reach Kafka or a running connector (exit code 3)
    ├── Rejected                  at the listener; nothing of the request is kept
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
    ├── EmptyBody                 400, nothing to keep
    ├── Unreadable                400, kept as a dead letter
    ├── Unconvertible             422, kept as a dead letter
    ├── Refused                   not now; the source may send it again
    │   ├── Overloaded            429
    │   └── Unavailable           503
    │       └── OutcomeUnknown    503, and the message may be published all the same
    └── Defect                    500, kept as a dead letter

Each class has ``code`` (what the source reads in the answer), ``stage`` (where on the way it happened) and
``retriable`` (whether sending the same bytes again can help). A message names what failed and the way out; it never
holds a credential or a value that a source sent.
"""

from typing import ClassVar, Final


class ConnectorError(Exception):
    """Root of the tree."""

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


class OutsideUnreachable(ConnectorError):
    """Kafka, or a running connector, did not answer a command in time."""

    stage = "outside"
    retriable = True


class Rejected(ConnectorError):
    """Rejected at the listener: counted, never stored."""

    stage = "receive"


class Malformed(Rejected):
    """No HTTP, or HTTP that can be read in two ways."""

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
    """No credential, or one that no source has."""

    code = 40100


class Forbidden(WrongCredential):
    """A credential that is good for another source, or that is sent from a place where it is not."""

    code = 40300


CREDENTIAL_REASONS: Final = ("missing", "unknown", "other_source", "network", "signature", "timestamp", "replayed")
"""Why a credential was not enough; ``replayed``: what a replay attack would do, an id that came with another body."""


class WrongPath(Rejected):
    """No such address."""

    code = 40400


class WrongMethod(Rejected):
    """The address exists, the method does not."""

    code = 40500


class TooSlow(Rejected):
    """The body did not arrive in time."""

    code = 40800
    retriable = True


class TooLarge(Rejected):
    """The body is over the limit, or a record is over its topic's ``max.message.bytes``."""

    code = 41300


class WrongMediaType(Rejected):
    """A media type, charset or content encoding that no body shape has."""

    code = 41500


class HeadTooLarge(Rejected):
    """The request's head has too many bytes or header fields."""

    code = 43100


class EmptyBody(ConnectorError):
    """No body at all: there is nothing to keep."""

    stage = "parse"
    code = 40000


class Unreadable(ConnectorError):
    """The bytes are not readable as any body shape (codes 40001-40099)."""

    stage = "parse"
    code = 40001


class Unconvertible(ConnectorError):
    """The message is readable, but no record can be made of it (codes 42200-42299)."""

    stage = "convert"
    code = 42200


class Refused(ConnectorError):
    """Not accepted now; the source may send it again after ``retry_after`` seconds.

    Attributes:
        outcome: What became of the message, as the answer's HTTP header ``X-WeDa-Outcome`` says: ``refused`` (nothing
            of it is kept) or ``unknown`` (it may be published).
    """

    stage = "receive"
    retriable = True
    outcome: ClassVar[str] = "refused"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Refused):
    """Over the source's rate or the in-flight bound."""

    code = 42900


class Unavailable(Refused):
    """No durable storage is available now, or the connector is shutting down."""

    stage = "publish"
    code = 50300


class OutcomeUnknown(Unavailable):
    """Nobody knows in time whether the message is safe: it goes on its way, and may be published."""

    code = 50301
    outcome = "unknown"


class Defect(ConnectorError):
    """A defect of the connector itself."""

    stage = "connector"
    retriable = True
    code = 50000
