"""Who has shown the token in a browser: a signed cookie, and a mark in each form against forged ones.

The cookie holds nothing but when it ends and chance; it is signed with a key that is made of the token, so that another
token ends every session. Where no token is set, forms are marked with a key of this process.
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
        self.renew(token)

    def renew(self, token: str | None) -> None:
        """Another token from now on; the sessions of the one before end, if it is another one."""
        self._token = token
        secret = secrets.token_bytes(32) if token is None else token.encode()
        self._key = hashlib.sha256(b"weda console session\x00" + secret).digest()

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

    def holds(self, cookie: str | None) -> bool:
        """Whether a cookie is of a session that has not ended."""
        if not self.are_needed:
            return True
        content, _, signature = (cookie or "").rpartition(".")
        ends, _, _ = content.partition(".")
        is_ours = hmac.compare_digest(signature.encode(), self._sign(content).encode())
        return is_ours and ends.isdecimal() and int(ends) > time.time()

    def mark(self, cookie: str | None) -> str:
        """What a form of this session carries."""
        return self._sign(f"form {cookie if self.are_needed else ''}")

    def is_mark(self, cookie: str | None, mark: str) -> bool:
        """Whether a form is of this session."""
        return hmac.compare_digest(mark.encode(), self.mark(cookie).encode())

    def _sign(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()
