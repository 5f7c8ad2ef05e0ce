"""Signed requests count once: what was accepted under a ``webhook-id`` is not accepted again.

The same id with the same body is the sender's own second attempt, or somebody's replay of it: either is told what came
of the first, and nothing of it goes further. The same id with another body is refused. What was refused is forgotten,
so that it can be sent again. The memory is the index of repeats: bounded, and kept across restarts.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256

from connector.errors import Unauthenticated, Unavailable
from connector.lanes import Fate, Safety
from connector.pipeline import Outcome, Result, Told
from connector.records import Gist
from connector.repeats import Repeats, Standing, mark
from connector.signatures import Signature


class SingleUse:
    """Lets each signed request through once.

    Args:
        repeats: The memory.
    """

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def once(self, source: str, signature: Signature, body: bytes, accept: Callable[[Told], None], told: Told) -> None:
        """Accept a request whose signature is verified, unless it was accepted before; tell once what became of it.

        Raises:
            Unauthenticated: Its id came before with another body.
        """
        seen = mark("webhook", source, signature.identity, sha256(body).digest()[:16])
        standing = self._repeats.standing(seen)
        if standing is Standing.CONFLICT:
            raise Unauthenticated("the webhook-id came before with another body: each needs its own", reason="replayed")
        if standing is Standing.SAFE:
            told(Outcome.DUPLICATE, None)
        elif standing is Standing.PENDING:
            self._repeats.outcome(seen).then(partial(_tell_of_the_first, told))
        else:
            fate = Fate()
            self._repeats.begin(seen, fate)
            accept(partial(_decide, fate, told))


def _decide(fate: Fate, told: Told, result: Result, gist: Gist | None) -> None:
    accepted = isinstance(result, Outcome)
    fate.decide(Safety.PUBLISHED if accepted else Unavailable("the same request was just refused: send it again"))
    told(result, gist)


def _tell_of_the_first(told: Told, result: Safety | Unavailable) -> None:
    told(Outcome.DUPLICATE if isinstance(result, Safety) else result, None)
