"""From the bytes of a request to the event that they state: parse, redact, convert."""

from datetime import tzinfo

from connector.message import events
from connector.message.events import Event
from connector.message.parsing import BodyKind, Message, parse
from connector.message.redact import Redaction
from connector.values import InstanceId


class MessageDecoder:
    """From the bytes of a request to the event that its records are made of.

    Args:
        zone: The time zone of dates without one.
        privacy: Removes or pseudonymises fields that must not be published; None publishes all.
    """

    def __init__(self, zone: tzinfo, privacy: Redaction | None = None) -> None:
        self._zone = zone
        self._privacy = privacy

    def decode(self, body: bytes, kind: BodyKind) -> Event:
        """Parse, redact and convert a body.

        Raises:
            EmptyBody: The body has no content.
            Unreadable: The bytes hold no message.
            Unconvertible: The message cannot become a record.
        """
        return events.convert(self._message(body, kind), self._zone)

    def instance_id(self, body: bytes, kind: BodyKind) -> InstanceId | None:
        """The instance of a message that cannot become a record, or None if not even that is readable."""
        try:
            return events.readable_instance_id(self._message(body, kind))
        except Exception:  # noqa: BLE001 - the defect may be here, and the request is kept all the same
            return None

    def _message(self, body: bytes, kind: BodyKind) -> Message:
        """Parse a body and apply the redaction."""
        message = parse(body, kind)
        return message if self._privacy is None else self._privacy.apply(message)
