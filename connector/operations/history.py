"""How the counters of the last minutes grew: rates and latencies for the overview."""

import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from prometheus_client import CollectorRegistry

from connector.telemetry.metrics import PREFIX

SECONDS_BETWEEN: Final = 5.0
_SAMPLES: Final = 121
_REQUESTS: Final = f"{PREFIX}requests"
_DURATION: Final = f"{PREFIX}request_duration_seconds"
_PUBLISHED: Final = f"{PREFIX}messages_published"


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters at one moment; times in seconds."""

    at: float
    outcomes: dict[str, float]
    published: float
    buckets: dict[float, float]


class History:
    """The last ten minutes.

    Args:
        registry: The metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)

    def take(self) -> None:
        """Take in the counters of now."""
        outcomes: dict[str, float] = {}
        buckets: dict[float, float] = {}
        published = 0.0
        for family in self._registry.collect():
            for sample in family.samples if family.name in {_REQUESTS, _DURATION, _PUBLISHED} else ():
                if sample.name == f"{_REQUESTS}_total":
                    outcome = sample.labels["outcome"]
                    outcomes[outcome] = outcomes.get(outcome, 0) + sample.value
                elif sample.name == f"{_PUBLISHED}_total":
                    published += sample.value
                elif sample.name == f"{_DURATION}_bucket" and sample.labels["outcome"] == "accepted":
                    limit = float(sample.labels["le"])
                    buckets[limit] = buckets.get(limit, 0) + sample.value
        self._samples.append(Sample(time.monotonic(), outcomes, published, buckets))

    def totals(self) -> dict[str, int]:
        """Requests by outcome since the start."""
        return {name: int(value) for name, value in self._samples[-1].outcomes.items()} if self._samples else {}

    def accepted(self) -> list[float]:
        """Accepted messages a second, interval after interval."""
        return [
            (after.outcomes.get("accepted", 0) - before.outcomes.get("accepted", 0)) / max(after.at - before.at, 0.001)
            for before, after in pairwise(self._samples)
        ]

    def rate(self, seconds: float = 60) -> float:
        """Accepted messages a second over the last so many seconds."""
        first, last = self._span(seconds)
        if first is last or first is None or last is None:
            return 0.0
        return (last.outcomes.get("accepted", 0) - first.outcomes.get("accepted", 0)) / max(last.at - first.at, 0.001)

    def quantile(self, share: float, seconds: float = 600) -> float | None:
        """How long an accepted request took at most, for that share of them: the bound of a bucket, in seconds."""
        first, last = self._span(seconds)
        if first is None or last is None:
            return None
        grown = sorted((limit, count - first.buckets.get(limit, 0)) for limit, count in last.buckets.items())
        total = grown[-1][1] if grown else 0
        return next((limit for limit, count in grown if total and count >= share * total), None)

    def _span(self, seconds: float) -> tuple[Sample | None, Sample | None]:
        if not self._samples:
            return None, None
        last = self._samples[-1]
        return next(one for one in self._samples if one.at >= last.at - seconds), last
