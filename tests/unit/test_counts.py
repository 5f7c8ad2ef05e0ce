"""The event loop's counters and histograms show what prometheus_client's own would show."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from connector.telemetry.counts import LoopCounter, LoopHistogram

BOUNDS = (0.001, 0.25, 1.0, 30)
AMOUNTS = st.sampled_from((0.0, 0.001, 0.0011, 0.25, 0.9, 1.0, 29.5, 30.0, 31.0, 1e9))
OBSERVED = st.lists(st.tuples(st.sampled_from("ab"), AMOUNTS, st.sampled_from((None, {"trace_id": "f" * 32}))))


@given(OBSERVED)
def test_a_histogram_is_shown_like_prometheus_clients(observed: Sequence[tuple[str, float, dict[str, str] | None]]):
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("h_seconds", "How long", ["source"], buckets=BOUNDS, registry=theirs)
    histogram = LoopHistogram("h_seconds", "How long", BOUNDS, ["source"], ours)
    reference.labels("a")
    histogram.initialise(("a",))
    for source, amount, exemplar in observed:
        reference.labels(source).observe(amount, exemplar)
        histogram.observe((source,), amount, exemplar)

    assert generate_latest(ours) == generate_latest(theirs)
    assert without_times(generate_openmetrics(ours)) == without_times(generate_openmetrics(theirs))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2**40))))
def test_a_counter_is_shown_like_prometheus_clients(counted: Sequence[tuple[str, int]]):
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference, counter = (
        Counter("c", "How many", ["source"], registry=theirs),
        LoopCounter("c", "How many", ["source"], ours),
    )
    for source, count in counted:
        reference.labels(source).inc(count)
        counter.counts[source,] += count

    assert generate_latest(ours) == generate_latest(theirs)
    assert generate_openmetrics(ours) == generate_openmetrics(theirs)


def test_a_name_is_taken_once():
    registry = CollectorRegistry()
    LoopCounter("c", "How many", (), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        LoopHistogram("c_total", "How long", BOUNDS, (), registry)


def without_times(text: bytes) -> str:
    """OpenMetrics without the times of its exemplars."""
    return re.sub(r"(?m)(# \{.*\} \S+) \S+$", r"\1", text.decode())
