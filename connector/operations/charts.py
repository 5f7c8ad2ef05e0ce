"""Line charts as SVG that the server draws: axes with labels, outages shaded, nothing for a browser to load."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from connector.operations.history import Outage, Point

WIDTH: Final = 560
HEIGHT: Final = 190
_LEFT: Final = 52
_RIGHT: Final = 26
_TOP: Final = 12
_BOTTOM: Final = 26
_MOST_POINTS: Final = 180
_ASCII: Final = 0x2E80
_SECOND: Final = 1_000
_STEPS: Final = tuple(
    _SECOND * seconds
    for seconds in (1, 5, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
)
_ROUND: Final = (1, 2, 5, 10)
_LEAST_TOP: Final = 1.0
_MINUTE: Final = 60
_FIRST_MOMENT: Final = -62_104_060_800_000  # the year 2
_LAST_MOMENT: Final = 253_370_764_800_000  # the year 9999
_THINNEST: Final = 2.0
_GAP: Final = 3


class Scale(NamedTuple):
    """Values ``first`` to ``last`` on pixels ``begin`` to ``end``."""

    first: float
    last: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.first) / max(self.last - self.first, 1e-9)
        return round(self.begin + share * (self.end - self.begin), 1)


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its label, the points of its line (a gap begins another line), its highest and its last value."""

    label: str
    paths: list[str]
    highest: float | None
    last: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        title: What it shows.
        unit: The unit of its values.
        lines: Its series.
        x_ticks: Where the axis of time has a line, and its text.
        y_ticks: The same of the axis of values.
        outages: Where outages begin, how wide they are, and how bad.
        at: The time of each point, for who points at it, as text.
        columns: The pixel of each point.
        values: The values of each series at each point.
    """

    title: str
    unit: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    outages: list[tuple[float, float, str]]
    at: list[str]
    columns: list[float]
    values: list[list[float | None]]


def draw(points: Sequence[Point], outages: Iterable[Outage], span: tuple[int, int], zone: ZoneInfo) -> list[Chart]:
    """The charts of the overview.

    Args:
        points: What was measured, oldest first.
        outages: When messages could not be published, or not be accepted.
        span: The time that is shown, from and to, in epoch milliseconds.
        zone: The zone of the times on the axis.
    """
    shown = _condensed(points)
    marks = list(outages)
    frame = _Frame(shown, marks, span, zone)
    return [
        frame.chart(
            "Messages", "a second", accepted=[p.accepted for p in shown], published=[p.published for p in shown]
        ),
        frame.chart("Waiting in the journal", "messages", waiting=[p.backlog for p in shown]),
        frame.chart("Response time", "ms", P50=[p.p50 for p in shown], P99=[p.p99 for p in shown]),
        frame.chart("New dead letters", "messages", new=[round(p.dead_letters * p.seconds) for p in shown]),
    ]


def time_ticks(first: int, last: int, zone: ZoneInfo, most: int) -> list[tuple[int, str]]:
    """Round times between two, with what a clock shows then; a date at midnight and over days."""
    span = last - first
    step = next((step for step in _STEPS if span / step <= most), -(-span // most // _STEPS[-1]) * _STEPS[-1])
    midnight = _moment(first, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = int(midnight.timestamp() * _SECOND)
    times = range(begin + -(-(first - begin) // step) * step, last + 1, step)
    return [(at, _clock(at, zone, step)) for at in times]


def value_ticks(top: float) -> list[float]:
    """Round values from 0 to a top, some four."""
    rough = max(top, _LEAST_TOP) / 4
    power = 1.0
    while power * 10 <= rough:
        power *= 10
    while power > rough:
        power /= 10
    step = next(power * number for number in _ROUND if power * number >= rough)
    count = int(max(top, _LEAST_TOP) / step + 0.999)
    return [step * number for number in range(count + 1)]


def fit(text: str, units: int) -> str:
    """The text, or as much of it as is so wide; a Chinese character is two units wide."""
    wide = 0
    for number, sign in enumerate(text):
        wide += 2 if ord(sign) >= _ASCII else 1
        if wide > units:
            return f"{text[: max(number - 1, 0)]}…"
    return text


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the charts have in common: points, outages and the axis of time."""

    points: Sequence[Point]
    outages: Sequence[Outage]
    span: tuple[int, int]
    zone: ZoneInfo

    def chart(self, title: str, unit: str, **series: Sequence[float | None]) -> Chart:
        ticks = value_ticks(max((value for each in series.values() for value in each if value is not None), default=0))
        x, y = self._x, Scale(0, ticks[-1], HEIGHT - _BOTTOM, _TOP)
        return Chart(
            title,
            unit,
            [_line(label, self.points, each, x, y) for label, each in series.items()],
            [(x.at(at), text) for at, text in time_ticks(*self.span, self.zone, most=6)],
            [(y.at(value), f"{value:g}") for value in ticks],
            [self._shade(outage) for outage in self.outages],
            [datetime.fromtimestamp(point.at / _SECOND, self.zone).strftime("%m-%d %H:%M:%S") for point in self.points],
            [x.at(point.at) for point in self.points],
            [[None if value is None else round(value, 2) for value in each] for each in series.values()],
        )

    @property
    def _x(self) -> Scale:
        return Scale(*self.span, _LEFT, WIDTH - _RIGHT)

    def _shade(self, outage: Outage) -> tuple[float, float, str]:
        first, last = (self._x.at(min(max(at, self.span[0]), self.span[1])) for at in (outage.began, outage.ended))
        return first, max(round(last - first, 1), _THINNEST), "bad" if outage.is_closed else "fair"


def _line(label: str, points: Sequence[Point], values: Sequence[float | None], x: Scale, y: Scale) -> Line:
    paths: list[list[str]] = []
    before: Point | None = None
    for point, value in zip(points, values, strict=True):
        if value is None:
            before = None
            continue
        if before is None or point.at - before.at > _GAP * _SECOND * point.seconds:
            paths.append([])
        paths[-1].append(f"{x.at(point.at)},{y.at(value)}")
        before = point
    known = [value for value in values if value is not None]
    joined = [" ".join(path if len(path) > 1 else path * 2) for path in paths]
    return Line(label, joined, max(known, default=None), known[-1] if known else None)


def _condensed(points: Sequence[Point]) -> list[Point]:
    """As many points as a chart has room for: neighbours become one, with the worst of them where that matters."""
    size = -(-len(points) // _MOST_POINTS)
    if size <= 1:
        return list(points)
    return [Point.of(points[first : first + size]) for first in range(0, len(points), size)]


def _moment(milliseconds: int, zone: ZoneInfo) -> datetime:
    """The moment, or the nearest one that has a date in every zone: times come from senders."""
    return datetime.fromtimestamp(min(max(milliseconds, _FIRST_MOMENT), _LAST_MOMENT) / _SECOND, zone)


def _clock(at: int, zone: ZoneInfo, step: int) -> str:
    moment = _moment(at, zone)
    if step >= _STEPS[-1] or moment - moment.replace(hour=0, minute=0, second=0) < timedelta(seconds=1):
        return moment.strftime("%m-%d")
    return moment.strftime("%H:%M" if step >= _MINUTE * _SECOND else "%H:%M:%S")
