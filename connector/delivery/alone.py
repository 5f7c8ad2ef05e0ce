"""Records that are published alone, to find out whether Kafka rejects them for their own sake.

Kafka accepts or rejects a record batch as a whole. Only of a record that was in flight with no other is it certain that
the rejection is about this one, so that its message becomes a dead letter.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from connector.delivery.completion import Completion
from connector.journal.model import Admission
from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.supervision import BackgroundTasks
from connector.values import ProducibleRecord

_TURN_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.005
_NOT_ALONE: Final = Failure(FailureKind.UNCERTAIN, "_TIMED_OUT", "no report came while it was published alone")


class AlonePublisher:
    """Publishes the records of one message, one after the other, while nothing else is in flight.

    Args:
        publisher: Where records go.
        in_flight: How many other messages are in flight.
        background: Runs what outlasts its turn.

    Attributes:
        sequences: The messages that are to be published alone the next time.
    """

    def __init__(self, publisher: Publisher, in_flight: Callable[[], int], background: BackgroundTasks) -> None:
        self._publisher = publisher
        self._in_flight = in_flight
        self._background = background
        self._turn: object | None = None
        self._unreported = 0
        self.sequences: set[int] = set()

    @property
    def is_active(self) -> bool:
        """Whether a message is published alone, or is about to be: nobody else may publish."""
        return self._turn is not None

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that calls :meth:`publish`, and keep all others from publishing until it has ended.

        Others wait half a minute at most. The work then goes on without being alone: what it has produced stays with
        librdkafka, and publishing that again before its report is in would break rule 1.
        """
        self._turn = object()
        try:
            await asyncio.wait({self._background.start(work)}, timeout=_TURN_SECONDS)
        finally:
            self._turn = None

    async def publish(self, admission: Admission) -> Failures:
        """Publish the records of a message, each once the report of the one before is in.

        Returns:
            For each record why it failed, or None. A record that was rejected was alone.
        """
        turn = self._turn or object()  # an object of its own if the turn is over already
        while self._turn is turn and (self._in_flight() or self._unreported):  # noqa: ASYNC110 - rare, and needs no event
            await asyncio.sleep(_LOOK_SECONDS)
        failures: list[Failure | None] = []
        for record in admission.records:
            failure = await self._publish_one(record) if self._turn is turn else _NOT_ALONE
            failures.append(failure if failure is None or self._turn is turn else _NOT_ALONE)
        if self._turn is turn:
            self.sequences.discard(admission.sequence)
        return tuple(failures)

    async def _publish_one(self, record: ProducibleRecord) -> Failure | None:
        reported: Completion[Failures] = Completion()
        self._unreported += 1
        self._publisher.publish((record,), reported.complete)
        (failure,) = await reported
        self._unreported -= 1
        return failure
