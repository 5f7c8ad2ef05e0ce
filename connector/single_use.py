"""Signed requests count once: what was accepted under a ``webhook-id`` is not accepted again.

The same id with the same body is the sender's own second attempt, or somebody's replay of it: either is told what came
of the first, and nothing of it goes further. The same id with another body is refused. What was refused is forgotten,
so that it can be sent again. The memory is the index of repeats, or that of all replicas: bounded, and kept across
restarts.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256

import structlog

from connector.claims import Claims
from connector.errors import Defect, OutcomeUnknown, Unauthenticated, Unavailable
from connector.lanes import Fate, Safety
from connector.pipeline import Outcome, Result, Told
from connector.records import Gist
from connector.repeats import Mark, Repeats, Standing, mark
from connector.signatures import Signature

_LOG = structlog.get_logger("connector.receiver")

Accept = Callable[[Told], None]
"""Brings a request further, and has it told once what became of it."""


class SingleUse:
    """Lets each signed request through once.

    Args:
        repeats: The memory of this connector.
        claims: The way to that of all replicas, where there are others: it is asked for what is new here.
    """

    def __init__(self, repeats: Repeats, claims: Claims | None = None) -> None:
        self._repeats = repeats
        self._claims = claims

    def once(self, source: str, signature: Signature, body: bytes, accept: Accept, told: Told) -> None:
        """Accept a request whose signature is verified, unless it was accepted before; tell once what became of it.

        Raises:
            Unauthenticated: Its id came before with another body; told where another replica knows that.
        """
        seen = mark("webhook", source, signature.identity, sha256(body).digest()[:16])
        standing = self._repeats.standing(seen)
        if standing is Standing.CONFLICT:
            raise _replayed()
        if standing is Standing.SAFE:
            told(Outcome.DUPLICATE, None)
        elif standing is Standing.PENDING:
            self._repeats.outcome(seen).then(partial(_tell_of_the_first, told))
        else:
            fate = Fate()
            self._repeats.begin(seen, fate)
            decide = partial(_decide, fate, told)
            if self._claims is None:
                accept(decide)
            else:
                self._claims.under_way(_once_of_all(self._claims, seen, accept, decide))


async def _once_of_all(claims: Claims, seen: Mark, accept: Accept, told: Told) -> None:
    try:
        standing = await claims.see(seen)
    except Unavailable as refusal:
        told(refusal, None)
    except Exception:  # noqa: BLE001 - who waits is told, whatever it was
        _LOG.exception("a signed request could not be let in")
        told(Defect("a defect of the connector"), None)
    else:
        _let_in(claims, seen, standing, accept, told)


def _let_in(claims: Claims, seen: Mark, standing: Standing, accept: Accept, told: Told) -> None:
    if standing is Standing.SAFE:
        told(Outcome.DUPLICATE, None)
    elif standing is Standing.CONFLICT:
        claims.settle(seen, is_safe=False)
        told(_replayed(), None)
    else:
        accept(partial(_settle, claims, seen, told))


def _settle(claims: Claims, seen: Mark, told: Told, result: Result, gist: Gist | None) -> None:
    claims.settle(seen, is_safe=isinstance(result, Outcome))
    told(result, gist)


def _replayed() -> Unauthenticated:
    return Unauthenticated("the webhook-id came before with another body: each needs its own", reason="replayed")


def _decide(fate: Fate, told: Told, result: Result, gist: Gist | None) -> None:
    accepted = isinstance(result, Outcome)
    refusal = Unavailable("the same request was just refused: send it again")
    if isinstance(result, OutcomeUnknown):
        refusal = OutcomeUnknown(result.message)
    fate.decide(Safety.PUBLISHED if accepted else refusal)
    told(result, gist)


def _tell_of_the_first(told: Told, result: Safety | Unavailable) -> None:
    told(Outcome.DUPLICATE if isinstance(result, Safety) else result, None)
