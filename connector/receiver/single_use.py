"""Protection against replay attacks: a signed request is accepted once under its ``webhook-id``.

The same id with the same body is a retry of the sender, or somebody's replay of it: it gets the outcome of the first
request, and is not processed. The same id with another body is refused. A request that was refused is forgotten, so
that it can be sent again. The ids are kept in the deduplication index, or in that of all replicas, which is bounded and
survives restarts.
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
"""Passes a request on, and calls back once with its outcome."""


class SingleUse:
    """Accepts each signed request once.

    Args:
        duplicates: The index of this connector.
        claims: The index of all replicas, if there are others; it is asked for ids that are new here.
    """

    def __init__(self, duplicates: Duplicates, claims: Claims | None = None) -> None:
        self._duplicates = duplicates
        self._claims = claims

    def once(self, source: str, signature: Signature, body: bytes, accept: Accept, on_done: OnDone) -> None:
        """Accept a request whose signature is verified, unless it was accepted before.

        Args:
            source: Whose request it is.
            signature: Holds its ``webhook-id``.
            body: What was signed.
            accept: Called where the request is new.
            on_done: Called once with the outcome.

        Raises:
            Unauthenticated: Its id came before with another body. If only another replica knows that, ``on_done`` gets
                the error.
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
                self._claims.under_way(_once_among_replicas(self._claims, dedup_key, accept, decide))


async def _once_among_replicas(claims: Claims, dedup_key: DedupKey, accept: Accept, on_done: OnDone) -> None:
    try:
        dedup_state = await claims.see(dedup_key)
    except Unavailable as refusal:
        on_done(refusal, None)
    except Exception:  # noqa: BLE001 - the sender gets an answer, whatever it was
        _LOG.exception("a signed request could not be accepted")
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
