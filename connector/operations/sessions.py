"""Who has shown the token in a browser: a signed cookie, and a mark in each form against forged ones.

The cookie contains only its expiry and a random value; it is signed with a key that is made of the token and of a
secret of this process, so that another token and a restart end every session, and a cookie helps nobody to guess the
token. A session that was ended by its owner is remembered until its time is over. Where no token is set, forms are
marked with the same key.
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
        token: Of the listener, or None where everyone who reaches it may look.
    """

    def __init__(self, token: str | None) -> None:
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, int] = {}
        self.replace_token(token)

    def replace_token(self, token: str | None) -> None:
        """Another token from now on; the sessions of the one before end, if it is another one."""
        self._token = token
        self._key = hmac.new(self._secret, b"" if token is None else token.encode(), hashlib.sha256).digest()

    @property
    def are_needed(self) -> bool:
        """Whether one has to log in."""
        return self._token is not None

    def is_token(self, given: bytes) -> bool:
        """Whether it is the token, compared in constant time."""
        return self._token is not None and hmac.compare_digest(given, self._token.encode())

    def begin(self, token: str) -> str | None:
        """The cookie of a new session, or None where the token is a wrong one."""
        if not self.is_token(token.strip().encode()):
            return None
        content = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(16)}"
        return f"{content}.{self._sign(content)}"

    def is_valid(self, cookie: str | None) -> bool:
        """Whether a cookie is of a session that has not ended."""
        if not self.are_needed:
            return True
        content, _, signature = (cookie or "").rpartition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._sign(content).encode())
        return is_ours and _end_of(content) > time.time() and content not in self._ended

    def end(self, cookie: str | None) -> None:
        """End a session: its cookie opens nothing any more, wherever it is kept."""
        if not self.are_needed or not self.is_valid(cookie):
            return
        now = time.time()
        self._ended = {content: ends for content, ends in self._ended.items() if ends > now}
        content = (cookie or "").rpartition(".")[0]
        self._ended[content] = _end_of(content)

    def form_token(self, cookie: str | None) -> str:
        """What a form of this session carries."""
        return self._sign(f"form {cookie if self.are_needed else ''}")

    def is_form_token(self, cookie: str | None, form_token: str) -> bool:
        """Whether a form is of this session."""
        return hmac.compare_digest(form_token.encode(), self.form_token(cookie).encode())

    def _sign(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()


def _end_of(content: str) -> int:
    ends = content.partition(".")[0]
    return int(ends) if ends.isdecimal() else 0
