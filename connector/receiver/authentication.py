"""Finds out which source sent a request: a token, a client certificate or the signature of the body proves it.

A token is looked up by its keyed digest, so that the time of a check does not show how close a wrong token was, and
does not grow with the number of tokens.
"""

import asyncio
import hashlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from connector.endpoints import TOKEN_HEADER
from connector.errors import Forbidden, Unauthenticated
from connector.receiver.client_address import is_within
from connector.receiver.signatures import Signature
from connector.values import Network, SourceName

REJECTION_DELAY_SECONDS: Final = 0.25
"""How long the answer to a wrong credential is delayed."""

MAX_DELAYED_ANSWERS: Final = 256
"""Maximum answers that are delayed at the same time; above it, wrong credentials are answered immediately."""

_TOKEN_HINT: Final = (
    f"send Authorization: Bearer <token> or {TOKEN_HEADER}: <token> with the token that the connector's owner gave"
)
_NO_NAMES: Final[frozenset[str]] = frozenset()
Key = TypeVar("Key", str, bytes)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of one source; there may be several of each, so that they can be rotated.

    Attributes:
        tokens: Tokens that the source sends.
        secrets: Keys that it signs requests with.
        certificates: Names in its client certificate, or ``sha256:<fingerprint>``.
        networks: Networks that its requests may come from; empty means any.
    """

    tokens: tuple[str, ...] = ()
    secrets: tuple[bytes, ...] = ()
    certificates: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @property
    def any_configured(self) -> bool:
        """Whether the source has a credential; a network is not one."""
        return bool(self.tokens or self.secrets or self.certificates)


class Principal(NamedTuple):
    """Who sent a request, as far as its head tells.

    Attributes:
        source: The source that the path names.
        signature: The signature that proves the source together with the body; until it is verified the source is only
            claimed. None if a token or certificate has proven it, or the source needs no credential.
    """

    source: SourceName
    signature: Signature | None


class Authentication:
    """Checks the credential of a request against its source's.

    Args:
        sources: The credentials of each source.
        allow_anonymous: Whether a source without a credential accepts requests from anyone.
    """

    def __init__(self, sources: Mapping[str, Credentials], *, allow_anonymous: bool) -> None:
        self._names = frozenset(sources)
        self._allow_anonymous = allow_anonymous
        self._key = secrets.token_bytes(32)  # nobody else can compute digests, so their lookup time reveals nothing
        self.replace_credentials(sources)

    def replace_credentials(self, sources: Mapping[str, Credentials]) -> None:
        """Use these credentials from now on.

        A source that did not exist at the start stays unknown. Requests of a source that is missing now are rejected,
        even if anonymous requests are allowed.
        """
        self._sources = {name: credentials for name, credentials in sources.items() if name in self._names}
        self._by_token = _owners(
            (self._digest(token), name) for name, credentials in self._sources.items() for token in credentials.tokens
        )
        self._by_certificate = _owners(
            (text, name) for name, credentials in self._sources.items() for text in credentials.certificates
        )

    def authenticate(
        self,
        source: str,
        token: str | None,
        *,
        certificate: frozenset[str] = _NO_NAMES,
        address: Callable[[], str | None] = lambda: None,
        signature: Signature | None = None,
    ) -> Principal:
        """Authenticate a request by its head, or reject it.

        A valid token or certificate is enough; a signature beside it is ignored. A signature alone must be verified by
        `verify_signature` once the body has arrived.

        Args:
            source: The source that the path names.
            token: The request's token, or None.
            certificate: The names in the client's certificate, if the listener has verified one.
            address: Returns the sender's address; called only for a source with networks.
            signature: The request's signature, or None.

        Raises:
            Unauthenticated: The credential is missing or wrong, the source is unknown, or the signature's time is not
                within the window.
            Forbidden: The credential belongs to another source, or the sender is in none of the source's networks.
        """
        credentials = self._sources.get(source)
        if credentials is None:
            raise _unauthenticated(token)
        if self._is_proven(source, credentials, token, certificate):
            signature = None
        elif signature is None or not credentials.secrets:
            raise self._rejection(token, certificate)
        if credentials.networks and not is_within(address(), credentials.networks):
            raise Forbidden("this source does not send from this address", reason="network")
        if signature is not None:
            signature.check_time(time.time())
        return Principal(SourceName(source), signature)

    def verify_signature(self, source: str, signature: Signature, body: bytes) -> None:
        """Reject a body that its source has not signed.

        Raises:
            Unauthenticated: No signature was made with one of the source's secrets.
        """
        credentials = self._sources.get(source)  # a reload may have removed it while the body arrived
        signature.verify(body, () if credentials is None else credentials.secrets)

    def _is_proven(self, source: str, credentials: Credentials, token: str | None, certificate: frozenset[str]) -> bool:
        """Whether the token or certificate belongs to the source, or the source needs none."""
        if token is not None and source in self._by_token.get(self._digest(token), _NO_NAMES):
            return True
        if certificate and not certificate.isdisjoint(credentials.certificates):
            return True
        return self._allow_anonymous and not credentials.any_configured

    def _rejection(self, token: str | None, certificate: frozenset[str]) -> Unauthenticated | Forbidden:
        is_foreign = token is not None and self._digest(token) in self._by_token
        if is_foreign or not certificate.isdisjoint(self._by_certificate):
            return Forbidden(
                "the credential is good for another source, not for the one in the path", reason="other_source"
            )
        return _unauthenticated(token)

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode(errors="surrogateescape"), key=self._key, digest_size=16).digest()


class RejectionDelay:
    """Delays the answers to wrong credentials, up to `MAX_DELAYED_ANSWERS` at once."""

    def __init__(self, seconds: float = REJECTION_DELAY_SECONDS) -> None:
        self._seconds = seconds
        self._delayed = 0

    def delay(self, answer: Callable[[], None]) -> None:
        """Call ``answer`` after the delay, or immediately if too many wait already."""
        # Otherwise somebody who guesses tokens could fill the memory with answers.
        if self._delayed >= MAX_DELAYED_ANSWERS:
            answer()
            return
        self._delayed += 1
        asyncio.get_running_loop().call_later(self._seconds, self._end_delay, answer)

    def _end_delay(self, answer: Callable[[], None]) -> None:
        self._delayed -= 1
        answer()


def _unauthenticated(token: str | None) -> Unauthenticated:
    if token is None:
        return Unauthenticated(f"no credential that this source has: {_TOKEN_HINT}", reason="missing")
    return Unauthenticated(f"the credential is not known: {_TOKEN_HINT}", reason="unknown")


def _owners(pairs: Iterable[tuple[Key, str]]) -> dict[Key, frozenset[str]]:
    """Credential → its sources: several may share one."""
    owners: defaultdict[Key, set[str]] = defaultdict(set)
    for key, name in pairs:
        owners[key].add(name)
    return {key: frozenset(names) for key, names in owners.items()}
