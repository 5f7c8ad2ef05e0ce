"""What of a message the topics do not get to see: fields left out, and texts replaced by keyed pseudonyms.

It is done to the message as it was read, before it is converted: the record, its headers and its fingerprint are those
of what is left. A pseudonym is ``~<key>.<digest>``: eight hex digits that tell which key made it, and 32 of HMAC-SHA256
over the text, so that equal texts stay equal while the key stays, in all fields alike.
"""

import hmac
import json
from collections.abc import Iterable
from typing import Any, Final

from connector.errors import Unreadable
from connector.message.parsing import ENVELOPE, BodyKind, load, lone_surrogate, parse
from connector.message.schemas import WORKFLOW_EVENT, kinds
from connector.message.schemas import load as load_schema

_MAPS: Final = frozenset(name for name, kind in kinds(load_schema(WORKFLOW_EVENT)).items() if kind == "maps")
_KEY_DIGITS: Final = 8
_DIGEST_DIGITS: Final = 32


class Privacy:
    """Takes out of messages what must not be published.

    Args:
        redact: Fields that are left out.
        pseudonyms: Fields whose texts are replaced.
        key: Of the pseudonyms; none where there are none.
    """

    def __init__(self, redact: Iterable[str], pseudonyms: Iterable[str], key: str | None) -> None:
        self._redact = frozenset(redact)
        self._pseudonyms = frozenset(pseudonyms) - self._redact
        self.take_key(key)

    def take_key(self, key: str | None) -> None:
        """Use another key from now on; its pseudonyms are other ones."""
        self._key = (key or "").encode()
        self._prefix = f"~{hmac.digest(self._key, b'weda-connector key', 'sha256').hex()[:_KEY_DIGITS]}."

    def applied(self, body: bytes, kind: BodyKind) -> tuple[bytes, BodyKind]:
        """The message of a request with all that taken out, as JSON in the default envelope.

        Raises:
            EmptyBody: There is nothing in it.
            Unreadable: The bytes hold no message.
            Unconvertible: Some text has no UTF-8 form.
        """
        message = parse(body, kind)
        if message.lone_surrogate:
            raise lone_surrogate()
        fields = ",".join(
            f"{json.dumps(name)}:{self._token(name, value, message.token)}"
            for name, value in message.fields.items()
            if name not in self._redact
        )
        return f'{{"{ENVELOPE}":{{{fields}}}}}'.encode(), BodyKind.JSON

    def pseudonym(self, text: str) -> str:
        """What stands for a text; the empty one says nothing and stays."""
        if not text:
            return text
        return (
            self._prefix + hmac.digest(self._key, text.encode(errors="surrogatepass"), "sha256").hex()[:_DIGEST_DIGITS]
        )

    def _token(self, name: str, value: Any, token: Any) -> str:
        """The JSON text of a field: as it was sent, or of its pseudonym."""
        if value is None or name not in self._pseudonyms:
            return str(token(name))
        if name in _MAPS:
            return json.dumps(self._within(_opened(value)))
        return json.dumps(self.pseudonym(value if isinstance(value, str) else token(name)))

    def _within(self, value: Any) -> Any:
        """A value of maps: every key and every text in it is replaced, its shape stays."""
        if isinstance(value, dict):
            return {self.pseudonym(key): self._within(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._within(inner) for inner in value]
        if value is None or isinstance(value, str):
            return value and self.pseudonym(value)
        return self.pseudonym(json.dumps(value))


def _opened(value: Any) -> Any:
    """The maps in JSON text; what is none stays text, and is refused later as what it is."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return load(value)
    except Unreadable:
        return value
