"""Browser sessions: a signed cookie, and a token in each form against cross-site request forgery.

The cookie contains only its expiry and a random value. The signing key is made of the operations token and a secret of
this process: a new token or a restart ends every session, and nobody can test guesses of the token against a cookie.
A session that its owner ended is remembered until it would have expired. Without an operations token, forms are signed
with the same kind of key.
"""

import hashlib
import hmac
import secrets
import time
from typing import Final

COOKIE: Final = "weda_session"
SESSION_SECONDS: Final = 12 * 3600


class Sessions:
    """The sessions of one listener.

    Args:
        token: The listener's token; None if everyone who reaches it is admitted.
    """

    def __init__(self, token: str | None) -> None:
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, int] = {}  # content of a cookie → its expiry
        self.replace_token(token)

    def replace_token(self, token: str | None) -> None:
        """Replace the token; if it differs, all sessions end."""
        self._token = token
        self._key = hmac.new(self._secret, b"" if token is None else token.encode(), hashlib.sha256).digest()

    @property
    def are_needed(self) -> bool:
        """Whether the console needs a login."""
        return self._token is not None

    def is_token(self, candidate: bytes) -> bool:
        """Whether this is the token; the comparison takes constant time."""
        return self._token is not None and hmac.compare_digest(candidate, self._token.encode())

    def begin(self, token: str) -> str | None:
        """Begin a session and return its cookie; None if the token is wrong."""
        if not self.is_token(token.strip().encode()):
            return None
        content = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(16)}"
        return f"{content}.{self._sign(content)}"

    def is_valid(self, cookie: str | None) -> bool:
        """Whether a cookie belongs to a session that has not ended."""
        if not self.are_needed:
            return True
        content, _, signature = (cookie or "").rpartition(".")
        # As bytes: compare_digest raises TypeError for a str that is not ASCII, and the cookie is the client's.
        is_signed = hmac.compare_digest(signature.encode(), self._sign(content).encode())
        return is_signed and _end_of(content) > time.time() and content not in self._ended

    def end(self, cookie: str | None) -> None:
        """End a session: copies of its cookie are worthless, too."""
        # Only a valid cookie is noted: strangers cannot fill the memory with notes.
        if not self.are_needed or not self.is_valid(cookie):
            return
        now = time.time()
        self._ended = {content: ends for content, ends in self._ended.items() if ends > now}
        content = (cookie or "").rpartition(".")[0]
        self._ended[content] = _end_of(content)

    def form_token(self, cookie: str | None) -> str:
        """Return the token that forms of this session carry."""
        # The prefix keeps the token of a form from being a valid signature of a cookie.
        return self._sign(f"form {cookie if self.are_needed else ''}")

    def is_form_token(self, cookie: str | None, form_token: str) -> bool:
        """Whether a form belongs to this session."""
        return hmac.compare_digest(form_token.encode(), self.form_token(cookie).encode())

    def _sign(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()


def _end_of(content: str) -> int:
    expiry = content.partition(".")[0]
    return int(expiry) if expiry.isdecimal() else 0
