"""Redaction: fields of a message that are left out, and texts that are replaced by keyed pseudonyms.

It applies to a parsed message before it is converted, so that record, headers and fingerprint hold nothing of what was
taken out. A pseudonym is ``~<key>.<digest>``: eight hex digits that identify the key, and 32 of HMAC-SHA256 over the
text. While the key stays, equal texts have equal pseudonyms, in all fields. The names by which a map says which text is
a person's id and which the name (`connector.message.weda.PERSON`) stay.
"""

import hmac
import json
from collections.abc import Iterable
from typing import Any, Final

from connector.errors import Unreadable
from connector.message import weda
from connector.message.parsing import Message, load
from connector.message.schemas import WORKFLOW_EVENT, kinds
from connector.message.schemas import load as load_schema

_MAPS: Final = frozenset(name for name, kind in kinds(load_schema(WORKFLOW_EVENT)).items() if kind == "maps")
_STAY: Final = frozenset(name for pair in weda.PERSON for name in pair)
_KEY_DIGITS: Final = 8
_DIGEST_DIGITS: Final = 32


class Redaction:
    """Removes from messages what must not be published.

    Args:
        redact: Fields that are left out.
        pseudonyms: Fields whose texts are replaced.
        key: The pseudonyms' key; None where there are none.
    """

    def __init__(self, redact: Iterable[str], pseudonyms: Iterable[str], key: str | None) -> None:
        self._redact = frozenset(redact)
        self._pseudonyms = frozenset(pseudonyms) - self._redact
        self.replace_key(key)

    def replace_key(self, key: str | None) -> None:
        """Use another key from now on; the same text gets another pseudonym."""
        self._key = (key or "").encode()
        self._prefix = f"~{hmac.digest(self._key, b'weda-connector key', 'sha256').hex()[:_KEY_DIGITS]}."

    def apply(self, message: Message) -> Message:
        """The message without those fields and texts, and with the fingerprint of what is left.

        Raises:
            Unconvertible: Some text, of a field that is taken out too, has no UTF-8 form.
        """
        message.check_text()
        kept = {name: value for name, value in message.fields.items() if name not in self._redact}
        replaced = {
            name: self._replaced(name, value, message)
            for name, value in kept.items()
            if name in self._pseudonyms and value is not None
        }
        raw_json = {name: json.dumps(value) for name, value in replaced.items()}
        return message.with_fields({**kept, **replaced}, raw_json)

    def pseudonym(self, text: str) -> str:
        """The pseudonym of a text; the empty text says nothing, and stays."""
        if not text:
            return text
        return (
            self._prefix + hmac.digest(self._key, text.encode(errors="surrogatepass"), "sha256").hex()[:_DIGEST_DIGITS]
        )

    def _replaced(self, name: str, value: Any, message: Message) -> Any:
        """What a field becomes: maps of pseudonyms, or one for its text; a number's text is as it was sent."""
        if name in _MAPS:
            return self._within(_opened(value))
        return self.pseudonym(value if isinstance(value, str) else message.raw_json(name))

    def _within(self, value: Any) -> Any:
        """A value of maps with every key that is no name of ours and every text in it replaced, in the same shape."""
        if isinstance(value, dict):
            return {key if key in _STAY else self.pseudonym(key): self._within(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._within(inner) for inner in value]
        if value is None or isinstance(value, str):
            return value and self.pseudonym(value)
        return self.pseudonym(json.dumps(value))


def _opened(value: Any) -> Any:
    """The maps in JSON text; text that is no JSON stays, and the conversion rejects it."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return load(value)
    except Unreadable:
        return value
