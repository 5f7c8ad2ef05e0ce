"""The results as pictures: file name → SVG."""

import statistics
from collections.abc import Sequence

from bench.results import WHAT, Growth, Results
from tools import charts
from tools.charts import Caption


def draw(results: Results) -> dict[str, str]:
    """Pictures of what was measured; nothing of what was not."""
    drawn = {}
    if results.speed:
        drawn["speed.svg"] = _speed(results)
    if results.growth:
        drawn["growth.svg"] = _growth(results.growth)
    if results.soak:
        drawn["soak.svg"] = _soak(results)
    return drawn


def _speed(results: Results) -> str:
    caption = Caption(
        title="CPU a message",
        description="The median CPU time of one message for each subject of the benchmark.",
        unit="µs",
    )
    medians = [statistics.median(sample.cpu_microseconds for sample in samples) for samples in results.speed.values()]
    return charts.bars(caption, [WHAT[name] for name in results.speed], {"CPU": medians})


def _growth(points: Sequence[Growth]) -> str:
    caption = Caption(
        title="Cost as things grow",
        description="CPU time of one message against instances, bytes, streams and messages in the journal.",
        unit="µs",
    )
    labels = [f"{point.much:,} {point.of}" for point in points]
    return charts.bars(caption, labels, {"CPU a message": [point.sample.cpu_microseconds for point in points]})


def _soak(results: Results) -> str:
    caption = Caption(
        title="Memory under load that goes on", description="Resident memory after each leg of a soak.", unit="MiB"
    )
    labels = [str(number) for number in range(1, len(results.soak) + 1)]
    return charts.columns(caption, labels, {"memory": [leg.rss / 2**20 for leg in results.soak]})
