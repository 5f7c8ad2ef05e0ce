"""Measurements as tables; ratios first, absolute figures are not stable from machine to machine."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from bench.sample import Sample

FLOOR: Final = "bare"
ALONE: Final = "librdkafka"
EVENTS: Final = "connector-events"
NOTHING: Final = "–"
WHAT: Final = {
    "bare": "bare ASGI app, same uvicorn",
    "connector-events": "connector, stream events only",
    "connector": "connector, the three default streams",
    "connector-fixed": "connector, stream events only, one fixed message",
    "librdkafka": "librdkafka alone (a record)",
    "everyday": "FastAPI + pydantic + fastavro + producer",
    "camel": "Apache Camel: HTTP + Jackson + Kafka (JSON)",
}

_SPEED_IS: Final = (
    "The simulator's traffic in its default mix (both types of messages, every form of dates and maps, empty and "
    "missing values, unknown fields; some 1.1 kB), process runs in order on 64 keep-alive connections, each request "
    "with ids and an `X-Request-Id` of its own, as an ingress adds it; one broker, 12 partitions, acks=all, lz4, the "
    "answer after the broker's acknowledgement. Each process alone on the same core; broker and load generator on the "
    "others.\n\n"
    "Earlier results sent one fixed message, whose length and types never change. That favours whoever recognises the "
    "common case, so it is only a row now, *one fixed message*, to compare with them.\n"
)
_SPEED_NOISE: Final = (
    "Noisy: whatever else runs on the machine, p99.9 most of all; latencies are those of a closed loop at "
    "saturation (64 requests always on their way). librdkafka alone is bound by the broker as soon as that has "
    "less than a core: its CPU a record is the figure to look at.\n"
)
_JOURNAL_IS: Final = (
    "The connector with its three default streams; the broker is paused (SIGSTOP) for the second half of the "
    "load, then resumed. Journal first: the answer comes after the fsync of the message's row. "
    "A replayed message is two records. Lowest – **median** – highest of the rounds.\n"
)
_GROWTH_IS: Final = (
    "The connector, stream events only (but for the lines of streams), 64 connections, started again for each line. "
    "Messages of one instance wait for one another, so few instances mean small batches. Against a backlog Kafka is "
    "paused, so that every message goes behind it; replay is measured once Kafka is back. One measurement each.\n"
)
_LATENCY_IS: Final = (
    "The connector, stream events only: requests are due at fixed times, at half the rate that the closed loop reached "
    "just before. A latency counts from the time at which its request was due, whether or not a connection was free "
    "then: no answer that is late can hide the requests behind it (coordinated omission).\n"
)
_OVERLOAD_IS: Final = (
    "The connector, stream events only: requests are due at three times the rate that the closed loop reached just "
    "before, over 2,048 connections, which is more than are let in at once (WEDA_RECEIVER__MAX_IN_FLIGHT). Answered a "
    "second: what the load generator managed to send, of what was due. A latency counts from the time at which its "
    "request was due, and grows with what could not be sent yet; from its sending it is what the connector took.\n"
)
_SOAK_IS: Final = (
    "One connector, stream events only, leg after leg of a closed loop. The index of repeats is bounded to 20,000 "
    "entries, so that it is full after the first leg.\n"
)


class Outage(msgspec.Struct, frozen=True):
    """Kafka up, then paused, then back.

    Attributes:
        up: The load with Kafka up.
        down: The load with Kafka paused: every message goes to the journal.
        backlog: Messages in the journal at the end of the pause.
        pause_seconds: From Kafka's return until the journal was seen to shrink.
        replayed: Messages that were in the journal then.
        replay_seconds: From then until the journal was empty.
        replay_cpu_seconds: CPU time that the connector used for that.
    """

    up: Sample
    down: Sample
    backlog: int
    pause_seconds: float
    replayed: int
    replay_seconds: float
    replay_cpu_seconds: float


class Overload(msgspec.Struct, frozen=True):
    """What a closed loop gets accepted, and what becomes of an open one at three times that rate."""

    peak: Sample
    over: Sample


class Growth(msgspec.Struct, frozen=True):
    """One point of a curve.

    Attributes:
        of: What there was, such as ``instances``.
        much: How much of it.
        sample: What was measured then.
        replay: Of a backlog, messages a second that left the journal once Kafka was back.
    """

    of: str
    much: int
    sample: Sample
    replay: float | None = None


class Results(msgspec.Struct, frozen=True):
    """Everything that one run has measured.

    Attributes:
        command: What made it.
        machine: Name → value of what it ran on.
        speed: Name → a sample a round, in the order of the rounds.
        outages: One a round.
        growth: The points, in order.
        latency: An open loop at half load, one a round.
        overloads: One a round.
        soak: One process, leg after leg.
    """

    command: str
    machine: dict[str, str]
    speed: dict[str, list[Sample]]
    outages: list[Outage]
    growth: list[Growth]
    latency: list[Sample]
    overloads: list[Overload]
    soak: list[Sample]


def render(results: Results) -> str:
    """The results as Markdown."""
    sections = [
        "# Results\n",
        f"Written by `{results.command}`; do not edit.\n",
        _table(("machine", ""), results.machine.items()),
        _speed(results.speed),
        _latency(results.latency),
        _overload(results.overloads),
        _journal(results),
        _growth(results.growth),
        _soak(results.soak),
    ]
    return "\n".join(section for section in sections if section)


def _speed(speed: dict[str, list[Sample]]) -> str:
    if not speed:
        return ""
    return "\n".join(
        (
            "## Speed\n",
            _SPEED_IS,
            "Ratios to the bare app of the same round: lowest – **median** – highest of the rounds.\n",
            _table(
                ("", "CPU a message", "accepted a second"),
                ((WHAT[name], _ratios(speed, name, _cpu), _ratios(speed, name, _rate)) for name in speed),
            ),
            _floor(speed),
            "Medians of the rounds:\n",
            _table(
                ("", "CPU µs a message", "accepted/s", "p50 ms", "p99 ms", "p99.9 ms", "memory MiB", "refused"),
                ((WHAT[name], *_absolute(samples)) for name, samples in speed.items()),
            ),
            _SPEED_NOISE,
        )
    )


def _floor(speed: dict[str, list[Sample]]) -> str:
    """The connector against what cannot be had for less: the bare app and librdkafka alone."""
    rounds = zip(speed.get(EVENTS, []), speed.get(FLOOR, []), speed.get(ALONE, []), strict=False)
    ratios = [_cpu(ours) / ((_cpu(bare) + _cpu(alone)) or 1.0) for ours, bare, alone in rounds]
    if not ratios:
        return ""
    return f"CPU of the connector (stream events) ÷ floor (bare app + librdkafka alone): {_spread(ratios, 2)}\n"


def _journal(results: Results) -> str:
    outages = results.outages
    if not outages:
        return ""
    rates = [each.replayed / each.replay_seconds for each in outages if each.replay_seconds]
    alone = [sample.per_second for sample in results.speed.get(ALONE, [])]
    replay_cpu = [1e6 * each.replay_cpu_seconds / each.replayed for each in outages if each.replayed]
    rows = (
        ("accepted a second, journal first ÷ Kafka up", _spread([_of(each, _rate) for each in outages], 2)),
        ("p99, journal first ÷ Kafka up", _spread([_of(each, _p99) for each in outages], 2)),
        ("CPU a message, journal first ÷ Kafka up", _spread([_of(each, _cpu) for each in outages], 2)),
        ("replay rate ÷ librdkafka alone", _spread([rate / statistics.median(alone) for rate in rates if alone], 3)),
        ("accepted/s, Kafka up", _spread([each.up.per_second for each in outages], 0)),
        ("accepted/s, Kafka paused", _spread([each.down.per_second for each in outages], 0)),
        ("p99 ms, Kafka up", _spread([each.up.p99 or 0 for each in outages], 1)),
        ("p99 ms, Kafka paused", _spread([each.down.p99 or 0 for each in outages], 1)),
        ("p99.9 ms, Kafka paused", _spread([each.down.p999 or 0 for each in outages], 1)),
        ("refused, Kafka paused", _spread([each.down.refused for each in outages], 0)),
        ("backlog at the end of the pause", _spread([each.backlog for each in outages], 0)),
        ("seconds from Kafka's return to the first replayed", _spread([each.pause_seconds for each in outages], 1)),
        ("replayed messages/s", _spread(rates, 0)),
        ("CPU µs a replayed message", _spread(replay_cpu, 0)),
    )
    return "\n".join(
        (
            "## Journal\n",
            _JOURNAL_IS,
            _table(("", ""), rows),
            "Noisy: the disk's fsync, and how soon the resumed broker takes itself for alive.\n",
        )
    )


def _latency(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    rows = (
        ("due a second", _spread([sample.offered or 0 for sample in samples], 0)),
        ("accepted a second", _spread([sample.per_second for sample in samples], 0)),
        ("p50 ms", _spread([sample.p50 or 0 for sample in samples], 1)),
        ("p99 ms", _spread([sample.p99 or 0 for sample in samples], 1)),
        ("p99.9 ms", _spread([sample.p999 or 0 for sample in samples], 1)),
        ("CPU µs a message", _spread([sample.cpu_microseconds for sample in samples], 0)),
    )
    return "\n".join(("## Latency at half load\n", _LATENCY_IS, _table(("", ""), rows)))


def _overload(pairs: Sequence[Overload]) -> str:
    if not pairs:
        return ""
    over = [pair.over for pair in pairs]
    answered = [(sample.accepted + sample.refused) / sample.seconds for sample in over]
    rows = (
        ("accepted a second ÷ peak", _spread([_rate(pair.over) / (_rate(pair.peak) or 1) for pair in pairs], 2)),
        ("due a second", _spread([sample.offered or 0 for sample in over], 0)),
        ("answered a second", _spread(answered, 0)),
        ("accepted a second", _spread([sample.per_second for sample in over], 0)),
        ("p99 ms of the accepted", _spread([sample.p99 or 0 for sample in over], 1)),
        ("p99 ms of the accepted, from its sending", _spread([sample.sent_p99 or 0 for sample in over], 1)),
        ("p99 ms of the refused", _spread([sample.refused_p99 or 0 for sample in over], 1)),
        ("p99 ms of the refused, from its sending", _spread([sample.refused_sent_p99 or 0 for sample in over], 1)),
        ("memory MiB after", _spread([sample.rss / 2**20 for sample in over], 0)),
    )
    return "\n".join(("## Overload\n", _OVERLOAD_IS, _table(("", ""), rows)))


def _soak(legs: Sequence[Sample]) -> str:
    if not legs:
        return ""
    rows = (
        (
            str(number),
            f"{leg.accepted:,}",
            f"{leg.per_second:.0f}",
            f"{leg.cpu_microseconds:.0f}",
            f"{leg.p99 or 0:.1f}",
            f"{leg.rss / 2**20:.1f}",
        )
        for number, leg in enumerate(legs, 1)
    )
    first_rows = ("leg", "messages", "accepted/s", "CPU µs", "p99 ms", "memory MiB after")
    return "\n".join(("## Soak\n", _SOAK_IS, _table(first_rows, rows)))


def _growth(points: Sequence[Growth]) -> str:
    if not points:
        return ""
    rows = (
        (
            f"{point.much:,} {point.of}",
            f"{_rate(point.sample) / _rate(_first(points, point.of)):.2f}",
            f"{_cpu(point.sample) / _cpu(_first(points, point.of)):.2f}",
            f"{point.sample.per_second:.0f}",
            f"{point.sample.cpu_microseconds:.0f}",
            f"{point.sample.p99 or 0:.1f}",
            f"{point.sample.accepted:,}",
            f"{point.sample.rss / 2**20:.0f}",
            NOTHING if point.replay is None else f"{point.replay:.0f}",
        )
        for point in points
    )
    first_rows = (
        *("", "rate ÷ first", "CPU ÷ first", "accepted/s", "CPU µs", "p99 ms", "messages", "memory MiB after"),
        "replayed/s",
    )
    return "\n".join(
        (
            "## Growth\n",
            _GROWTH_IS,
            _table(first_rows, rows),
        )
    )


def _rate(sample: Sample) -> float:
    return sample.per_second


def _cpu(sample: Sample) -> float:
    return sample.cpu_microseconds


def _p99(sample: Sample) -> float:
    return sample.p99 or 0.0


def _of(outage: Outage, figure: Callable[[Sample], float]) -> float:
    """Kafka paused to Kafka up."""
    return figure(outage.down) / (figure(outage.up) or 1.0)


def _first(points: Sequence[Growth], of: str) -> Sample:
    return next(point.sample for point in points if point.of == of)


def _ratios(speed: dict[str, list[Sample]], name: str, figure: Callable[[Sample], float]) -> str:
    floors = speed.get(FLOOR, [])
    return _spread([figure(one) / (figure(floor) or 1.0) for one, floor in zip(speed[name], floors, strict=False)], 2)


def _absolute(samples: Sequence[Sample]) -> tuple[str, ...]:
    return (
        _median([sample.cpu_microseconds for sample in samples], 1),
        _median([sample.per_second for sample in samples], 0),
        _median([sample.p50 for sample in samples], 1),
        _median([sample.p99 for sample in samples], 1),
        _median([sample.p999 for sample in samples], 1),
        _median([sample.rss / 2**20 for sample in samples], 0),
        _median([sample.refused for sample in samples], 0),
    )


def _median(figures: Iterable[float | None], digits: int) -> str:
    known = [figure for figure in figures if figure is not None]
    return f"{statistics.median(known):.{digits}f}" if known else NOTHING


def _spread(figures: Sequence[float], digits: int) -> str:
    if not figures:
        return NOTHING
    low, middle, high = min(figures), statistics.median(figures), max(figures)
    return f"{low:.{digits}f} – **{middle:.{digits}f}** – {high:.{digits}f}"


def _table(first_rows: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [first_rows, ["---"] * len(first_rows), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
