"""Redaction: removes fields of a message, and replaces texts by keyed pseudonyms.

It applies to a parsed message before conversion, so that records, headers and fingerprint hold nothing of what was
removed. A pseudonym is ``~<key>.<digest>``: eight hex digits that identify the key, and 32 of HMAC-SHA256 over the
text. With the same key, equal texts have equal pseudonyms in all fields. The member names of a map that tell a person's
id from the name (`connector.message.weda.PERSON`) stay readable.
"""

import hmac
import json
from collections.abc import Iterable
from typing import Any, Final

from connector.errors import Unreadable
from connector.message import weda
from connector.message.parsing import Message, load_json
from connector.message.schemas import WORKFLOW_EVENT, kinds, load

_MAPS: Final = frozenset(name for name, kind in kinds(load(WORKFLOW_EVENT)).items() if kind == "maps")
# Pseudonyms of these would hide which text is the id, and consumers could not find the persons.
_KEPT_KEYS: Final = frozenset(name for pair in weda.PERSON for name in pair)
_KEY_DIGITS: Final = 8
_DIGEST_DIGITS: Final = 32


class Redaction:
    """Removes from messages what must not be published.

    Args:
        redact: The fields to remove.
        pseudonyms: The fields whose texts are replaced.
        key: The key of the pseudonyms; None without pseudonyms.
    """

    def __init__(self, redact: Iterable[str], pseudonyms: Iterable[str], key: str | None) -> None:
        self._redact = frozenset(redact)
        self._pseudonyms = frozenset(pseudonyms) - self._redact
        self.replace_key(key)

    def replace_key(self, key: str | None) -> None:
        """Use another key from now on, which gives the same text another pseudonym."""
        self._key = (key or "").encode()
        self._prefix = f"~{hmac.digest(self._key, b'weda-connector key', 'sha256').hex()[:_KEY_DIGITS]}."

    def apply(self, message: Message) -> Message:
        """Return the message without those fields and texts, with the fingerprint of the remaining ones.

        Raises:
            Unconvertible: A text cannot be encoded in UTF-8, even one that would be removed.
        """
        # First, so that a message is rejected for the same reason with redaction and without.
        message.check_text()
        kept = {name: value for name, value in message.fields.items() if name not in self._redact}
        replaced = {
            name: self._replace(name, value, message)
            for name, value in kept.items()
            if name in self._pseudonyms and value is not None
        }
        raw_json = {name: json.dumps(value) for name, value in replaced.items()}
        return message.with_fields({**kept, **replaced}, raw_json)

    def pseudonym(self, text: str) -> str:
        """Return the pseudonym of a text; the empty text reveals nothing, and stays."""
        if not text:
            return text
        # JSON text inside a field can hold half of a surrogate pair, which `Message.check_text` does not see.
        return (
            self._prefix + hmac.digest(self._key, text.encode(errors="surrogatepass"), "sha256").hex()[:_DIGEST_DIGITS]
        )

    def _replace(self, name: str, value: Any, message: Message) -> Any:
        """Return a field's maps with pseudonyms, or the pseudonym of its text; a number's text is as it was sent."""
        if name in _MAPS:
            return self._replace_in_maps(_parse_maps(value))
        return self.pseudonym(value if isinstance(value, str) else message.raw_json(name))

    def _replace_in_maps(self, value: Any) -> Any:
        """Replace every key but `_KEPT_KEYS`, and every value, in maps of either shape."""
        if isinstance(value, dict):
            return {
                key if key in _KEPT_KEYS else self.pseudonym(key): self._replace_in_maps(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self._replace_in_maps(inner) for inner in value]
        if value is None or isinstance(value, str):
            return value and self.pseudonym(value)
        return self.pseudonym(json.dumps(value))


def _parse_maps(value: Any) -> Any:
    """Parse maps in JSON text; other text stays, and conversion rejects it."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return load_json(value)
    except Unreadable:
        return value
