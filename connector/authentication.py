"""Which source sent a request: known by its credential, compared in constant time."""

import hmac
from collections.abc import Iterable, Mapping

from connector.errors import Forbidden, Unauthenticated
from connector.values import SourceName

_WAY_OUT = "send Authorization: Bearer <token> or X-WeDa-Token: <token> with the token that the connector's owner gave"


class Authentication:
    """Checks the credential of a request against its source's.

    Args:
        tokens: The tokens of each source; several, so that they can be rotated.
        open_without: Whether a source that has no credential takes requests from anyone.
    """

    def __init__(self, tokens: Mapping[str, Iterable[str]], *, open_without: bool) -> None:
        self._tokens = {name: tuple(one.encode() for one in some) for name, some in tokens.items()}
        self._open_without = open_without

    def check(self, source: str, presented: str | None) -> SourceName:
        """Give the source back as a name of ours, or refuse.

        Args:
            source: The source that the path names.
            presented: The token of the request, or None.

        Raises:
            Unauthenticated: No credential, a wrong one, or no such source.
            Forbidden: The credential is another source's.
        """
        expected = self._tokens.get(source)
        if expected is not None and not expected and self._open_without:
            return SourceName(source)
        if presented is None:
            raise Unauthenticated(f"no credential: {_WAY_OUT}")
        if expected is not None and _is_one_of(presented, expected):
            return SourceName(source)
        everyone = [token for tokens in self._tokens.values() for token in tokens]
        if expected is not None and _is_one_of(presented, everyone):
            raise Forbidden("the credential is good for another source, not for the one in the path")
        raise Unauthenticated(f"the credential is not known: {_WAY_OUT}")


def _is_one_of(presented: str, tokens: Iterable[bytes]) -> bool:
    """Compare with every token, so that the time tells nothing about which one came near."""
    given = presented.encode(errors="surrogateescape")
    return any([hmac.compare_digest(given, token) for token in tokens])  # noqa: C419 - no early end
