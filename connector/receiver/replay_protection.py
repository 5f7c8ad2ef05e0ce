"""Protection against replay attacks: a signed request is accepted once under its ``webhook-id``.

The same id with the same body is a retry by the sender or a replay attack: it gets the outcome of the first request and
is not processed. The same id with another body is rejected. A refused request is forgotten, so that it can be sent
again. The ids are stored in the deduplication index, or in the one that all replicas share; it is bounded and survives
restarts.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from hashlib import sha256

from connector.delivery.completion import Completion
from connector.delivery.duplicates import DedupState, dedup_key_of
from connector.delivery.order import Idempotency
from connector.errors import ConnectorError, OutcomeUnknown, Unauthenticated, Unavailable
from connector.intake.pipeline import Accepted, Outcome
from connector.receiver.signatures import Signature
from connector.values import DedupKey

Accept = Callable[[], Completion[Accepted]]
"""Passes a request to the pipeline."""


class ReplayProtection:
    """Accepts each signed request once.

    Args:
        idempotency: Knows which ids were used, here and by other replicas.
        reply_deadline_seconds: Seconds after which a request must be answered.
    """

    def __init__(self, idempotency: Idempotency, *, reply_deadline_seconds: float) -> None:
        self._idempotency = idempotency
        self._reply_deadline = reply_deadline_seconds

    def accept_once(self, source: str, signature: Signature, body: bytes, accept: Accept) -> Completion[Accepted]:
        """Accept a request whose signature was verified, unless it was accepted before.

        Returns:
            A completion that is complete at the reply deadline at the latest. Its error is ``Unauthenticated`` if the
            id came before with another body, ``OutcomeUnknown`` at the deadline, or the error of ``accept``.
        """
        dedup_key = dedup_key_of("webhook", source, signature.webhook_id, sha256(body).digest()[:16])
        done: Completion[Accepted] = Completion()
        use = self._idempotency.use(dedup_key)
        if use.result is None:
            # The pipeline's own deadline starts only after the database has answered, which may take as long again.
            timer = asyncio.get_running_loop().call_later(self._reply_deadline, _expire, done)
            done.then(lambda _: timer.cancel())
        use.then(partial(self._begin, dedup_key, accept, done))
        return done

    def _begin(
        self, dedup_key: DedupKey, accept: Accept, done: Completion[Accepted], state: DedupState | ConnectorError
    ) -> None:
        if state is DedupState.NEW and done.result is not None:
            # The sender was asked to send the request again, and must then find the id unused.
            self._idempotency.end_use(dedup_key, Unavailable("the database answered too late: send it again"))
        elif state is DedupState.NEW:
            accept().then(partial(self._end, dedup_key, done))
        elif state is DedupState.SAFE:
            done.complete(Accepted(Outcome.DUPLICATE, None))
        elif isinstance(state, ConnectorError):
            done.complete(state)
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
