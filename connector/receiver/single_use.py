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

from connector.delivery.duplicates import DedupKey, DedupState, Duplicates, dedup_key_of
from connector.delivery.lanes import Completion, Durability
from connector.errors import Defect, OutcomeUnknown, Unauthenticated, Unavailable
from connector.intake.pipeline import OnDone, Outcome, Result
from connector.message.conversion import EventSummary
from connector.receiver.signatures import Signature
from connector.replicas.claims import Claims

_LOG = structlog.get_logger("connector.receiver")

Accept = Callable[[OnDone], None]
"""Brings a request further, and has it told once what became of it."""


class SingleUse:
    """Lets each signed request through once.

    Args:
        duplicates: The memory of this connector.
        claims: The way to that of all replicas, where there are others: it is asked for what is new here.
    """

    def __init__(self, duplicates: Duplicates, claims: Claims | None = None) -> None:
        self._duplicates = duplicates
        self._claims = claims

    def once(self, source: str, signature: Signature, body: bytes, accept: Accept, on_done: OnDone) -> None:
        """Accept a request whose signature is verified, unless it was accepted before; tell once what became of it.

        Raises:
            Unauthenticated: Its id came before with another body; told where another replica knows that.
        """
        dedup_key = dedup_key_of("webhook", source, signature.identity, sha256(body).digest()[:16])
        dedup_state = self._duplicates.dedup_state(dedup_key)
        if dedup_state is DedupState.CONFLICT:
            raise _replayed()
        if dedup_state is DedupState.SAFE:
            on_done(Outcome.DUPLICATE, None)
        elif dedup_state is DedupState.PENDING:
            self._duplicates.outcome(dedup_key).then(partial(_relay, on_done))
        else:
            completion = Completion()
            self._duplicates.begin(dedup_key, completion)
            decide = partial(_decide, completion, on_done)
            if self._claims is None:
                accept(decide)
            else:
                self._claims.under_way(_once_of_all(self._claims, dedup_key, accept, decide))


async def _once_of_all(claims: Claims, dedup_key: DedupKey, accept: Accept, on_done: OnDone) -> None:
    try:
        dedup_state = await claims.see(dedup_key)
    except Unavailable as refusal:
        on_done(refusal, None)
    except Exception:  # noqa: BLE001 - who waits is told, whatever it was
        _LOG.exception("a signed request could not be let in")
        on_done(Defect("a defect of the connector"), None)
    else:
        _admit(claims, dedup_key, dedup_state, accept, on_done)


def _admit(claims: Claims, dedup_key: DedupKey, dedup_state: DedupState, accept: Accept, on_done: OnDone) -> None:
    if dedup_state is DedupState.SAFE:
        on_done(Outcome.DUPLICATE, None)
    elif dedup_state is DedupState.CONFLICT:
        claims.settle(dedup_key, is_safe=False)
        on_done(_replayed(), None)
    else:
        accept(partial(_settle, claims, dedup_key, on_done))


def _settle(claims: Claims, dedup_key: DedupKey, on_done: OnDone, result: Result, summary: EventSummary | None) -> None:
    claims.settle(dedup_key, is_safe=isinstance(result, Outcome))
    on_done(result, summary)


def _replayed() -> Unauthenticated:
    return Unauthenticated("the webhook-id came before with another body: each needs its own", reason="replayed")


def _decide(completion: Completion, on_done: OnDone, result: Result, summary: EventSummary | None) -> None:
    accepted = isinstance(result, Outcome)
    refusal = Unavailable("the same request was just refused: send it again")
    if isinstance(result, OutcomeUnknown):
        refusal = OutcomeUnknown(result.message)
    completion.decide(Durability.PUBLISHED if accepted else refusal)
    on_done(result, summary)


def _relay(on_done: OnDone, result: Durability | Unavailable) -> None:
    on_done(Outcome.DUPLICATE if isinstance(result, Durability) else result, None)
