"""Protection against replay attacks: a signed request is accepted once under its ``webhook-id``.

The same id with the same body is a retry of the sender, or a replay attack: it gets the outcome of the first request,
and is not processed. The same id with another body is rejected. A request that was refused is forgotten, so that it can
be sent again. The ids are kept in the deduplication index, or in that of all replicas, which is bounded and
survives restarts.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from hashlib import sha256

from connector.delivery.completion import Completion
from connector.delivery.duplicates import DedupKey, DedupState, dedup_key_of
from connector.delivery.order import Idempotency
from connector.errors import ConnectorError, OutcomeUnknown, Unauthenticated, Unavailable
from connector.intake.pipeline import Accepted, Outcome
from connector.receiver.signatures import Signature

Accept = Callable[[], Completion[Accepted]]
"""Passes a request on."""


class ReplayProtection:
    """Accepts each signed request once.

    Args:
        idempotency: Knows which ids were used, here and by other replicas.
        reply_deadline_seconds: When an answer must be out.
    """

    def __init__(self, idempotency: Idempotency, *, reply_deadline_seconds: float) -> None:
        self._idempotency = idempotency
        self._reply_deadline = reply_deadline_seconds

    def accept_once(self, source: str, signature: Signature, body: bytes, accept: Accept) -> Completion[Accepted]:
        """Accept a request whose signature is verified, unless it was accepted before.

        Returns:
            Complete at the reply deadline at the latest. Its error is ``Unauthenticated`` if its id came before with
            another body, ``OutcomeUnknown`` at the deadline, else what ``accept`` fails with.
        """
        dedup_key = dedup_key_of("webhook", source, signature.webhook_id, sha256(body).digest()[:16])
        done: Completion[Accepted] = Completion()
        # The pipeline's own deadline begins only when the database has answered, which may take as long again.
        timer = asyncio.get_running_loop().call_later(self._reply_deadline, _expire, done)
        done.then(lambda _: timer.cancel())
        self._idempotency.use(dedup_key).then(partial(self._begin, dedup_key, accept, done))
        return done

    def _begin(
        self, dedup_key: DedupKey, accept: Accept, done: Completion[Accepted], known: DedupState | ConnectorError
    ) -> None:
        if known is DedupState.NEW and done.result is not None:
            # The sender was told to send it again: what it sends then must find the id unused.
            self._idempotency.end_use(dedup_key, Unavailable("the database answered too late: send it again"))
        elif known is DedupState.NEW:
            accept().then(partial(self._end, dedup_key, done))
        elif known is DedupState.SAFE:
            done.complete(Accepted(Outcome.DUPLICATE, None))
        elif isinstance(known, ConnectorError):
            done.complete(known)
        else:
            done.complete(
                Unauthenticated("the webhook-id came before with another body: each needs its own", reason="replayed")
            )

    def _end(self, dedup_key: DedupKey, done: Completion[Accepted], result: Accepted | ConnectorError) -> None:
        self._idempotency.end_use(dedup_key, result if isinstance(result, ConnectorError) else None)
        done.complete(result)


def _expire(done: Completion[Accepted]) -> None:
    done.complete(
        OutcomeUnknown(
            "it is not known in time whether the request is safe; it may be published all the same: send it again with "
            "the same webhook-id",
            retry_after=1,
        )
    )
