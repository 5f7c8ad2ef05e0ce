"""Records that are published alone, to find out whether Kafka rejects them for their own sake.

Kafka accepts or rejects a record batch as a whole. Only of a record that was in flight with no other is it certain that
the rejection is about this one, so that its message becomes a dead letter.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from connector.delivery.completion import Completion
from connector.journal.model import Admission
from connector.kafka.publisher import Failure, FailureKind, Failures, Publisher
from connector.values import ProducibleRecord

_TIMEOUT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.005


class AlonePublisher:
    """Publishes the records of one message, one after the other, while nothing else is in flight.

    Args:
        publisher: Where records go.
        in_flight: How many messages are in flight.

    Attributes:
        is_active: It publishes, or waits until it may: nobody else may publish.
        sequences: The messages that are to be published alone the next time.
    """

    def __init__(self, publisher: Publisher, in_flight: Callable[[], int]) -> None:
        self._publisher = publisher
        self._in_flight = in_flight
        self.is_active = False
        self.sequences: set[int] = set()

    async def publish(self, admission: Admission) -> Failures:
        """Publish the records of a message; what has no report in half a minute is uncertain.

        Returns:
            For each record why it failed, or None.
        """
        failures: list[Failure | None] = []
        self.is_active = True
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while self._in_flight():  # noqa: ASYNC110 - rare, and a count needs no event of its own
                    await asyncio.sleep(_LOOK_SECONDS)
                for record in admission.records:
                    failures.append(await self._publish_one(record))  # noqa: PERF401 - those before a timeout stay
        except TimeoutError:
            no_report = Failure(FailureKind.UNCERTAIN, "_TIMED_OUT", "no report")
            failures += [no_report] * (len(admission.records) - len(failures))
        finally:
            self.is_active = False
        self.sequences.discard(admission.sequence)
        return tuple(failures)

    async def _publish_one(self, record: ProducibleRecord) -> Failure | None:
        reported: Completion[Failures] = Completion()
        self._publisher.publish((record,), reported.complete)
        (failure,) = await reported
        return failure
