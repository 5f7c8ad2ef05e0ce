"""Line charts that the server draws as SVG, with labelled axes and shaded outages."""

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
_MAX_POINTS: Final = 180
_FIRST_WIDE: Final = 0x2E80  # where the CJK blocks of Unicode begin
_SECOND: Final = 1_000  # milliseconds
_STEPS_MILLISECONDS: Final = tuple(
    _SECOND * seconds
    for seconds in (1, 5, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
)
_ROUND_STEPS: Final = (1, 2, 5, 10)
_MIN_TOP: Final = 1.0
_MINUTE_SECONDS: Final = 60
_FIRST_MOMENT: Final = -62_104_060_800_000  # the year 2
_LAST_MOMENT: Final = 253_370_764_800_000  # the year 9999
_MIN_SHADE_PIXELS: Final = 2.0  # a shorter outage would be invisible on a chart of two days
_GAP_INTERVALS: Final = 3  # one late sample is no gap


class Scale(NamedTuple):
    """Maps values from ``first`` to ``last`` to pixels from ``begin`` to ``end``."""

    first: float
    last: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value - self.first) / max(self.last - self.first, 1e-9)
        return round(self.begin + share * (self.end - self.begin), 1)


@dataclass(frozen=True, slots=True)
class Line:
    """One series.

    Attributes:
        label: The name of the series.
        paths: The points of each unbroken line; a gap begins another line.
        highest: The highest value, or None.
        last: The last value, or None.
    """

    label: str
    paths: list[str]
    highest: float | None
    last: float | None


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        title: The title.
        unit: The unit of the values.
        lines: The series.
        x_ticks: Ticks of the time axis: pixel and text.
        y_ticks: Ticks of the value axis: pixel and text.
        outages: Outages: first pixel, width in pixels, and colour.
        at: The time of each point as text, shown when the mouse is over it.
        columns: The horizontal pixel of each point.
        values: For each series its values at the points.
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
    """Draw the charts of the overview.

    Args:
        points: The measurements, oldest first.
        outages: Periods in which messages could not be published, or not be accepted.
        span: The first and the last time shown, in epoch milliseconds.
        zone: The time zone of the axis.
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


def time_ticks(first: int, last: int, zone: ZoneInfo, limit: int) -> list[tuple[int, str]]:
    """Return at most about ``limit`` round times between two, each as a time of day, or as a date at midnight."""
    span = last - first
    step = next(
        (step for step in _STEPS_MILLISECONDS if span / step <= limit),
        -(-span // limit // _STEPS_MILLISECONDS[-1]) * _STEPS_MILLISECONDS[-1],
    )
    # Counted from local midnight, so that ticks are round in the reader's zone and not in UTC.
    midnight = _moment(first, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    begin = int(midnight.timestamp() * _SECOND)
    times = range(begin + -(-(first - begin) // step) * step, last + 1, step)
    return [(at, _clock(at, zone, step)) for at in times]


def value_ticks(top: float) -> list[float]:
    """Return about four round values from 0 to the top or just above."""
    rough = max(top, _MIN_TOP) / 4
    power = 1.0
    while power * 10 <= rough:
        power *= 10
    while power > rough:
        power /= 10
    step = next(power * number for number in _ROUND_STEPS if power * number >= rough)
    count = int(max(top, _MIN_TOP) / step + 0.999)
    return [step * number for number in range(count + 1)]


def fit(text: str, units: int) -> str:
    """Cut a text to a width; a Chinese character is two units wide."""
    width = 0
    for number, character in enumerate(text):
        width += 2 if ord(character) >= _FIRST_WIDE else 1
        if width > units:
            return f"{text[: max(number - 1, 0)]}…"
    return text


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the charts share: points, outages and the time axis."""

    points: Sequence[Point]
    outages: Sequence[Outage]
    span: tuple[int, int]
    zone: ZoneInfo

    def chart(self, title: str, unit: str, **series: Sequence[float | None]) -> Chart:
        ticks = value_ticks(
            max((value for values in series.values() for value in values if value is not None), default=0)
        )
        x, y = self._x, Scale(0, ticks[-1], HEIGHT - _BOTTOM, _TOP)
        return Chart(
            title,
            unit,
            [_line(label, self.points, values, x, y) for label, values in series.items()],
            [(x.at(at), text) for at, text in time_ticks(*self.span, self.zone, limit=6)],
            [(y.at(value), f"{value:g}") for value in ticks],
            [self._shade(outage) for outage in self.outages],
            [datetime.fromtimestamp(point.at / _SECOND, self.zone).strftime("%m-%d %H:%M:%S") for point in self.points],
            [x.at(point.at) for point in self.points],
            [[None if value is None else round(value, 2) for value in values] for values in series.values()],
        )

    @property
    def _x(self) -> Scale:
        return Scale(*self.span, _LEFT, WIDTH - _RIGHT)

    def _shade(self, outage: Outage) -> tuple[float, float, str]:
        first, last = (self._x.at(min(max(at, self.span[0]), self.span[1])) for at in (outage.began, outage.ended))
        return first, max(round(last - first, 1), _MIN_SHADE_PIXELS), "bad" if outage.is_closed else "fair"


def _line(label: str, points: Sequence[Point], values: Sequence[float | None], x: Scale, y: Scale) -> Line:
    paths: list[list[str]] = []
    before: Point | None = None
    for point, value in zip(points, values, strict=True):
        if value is None:
            before = None
            continue
        if before is None or point.at - before.at > _GAP_INTERVALS * _SECOND * point.seconds:
            paths.append([])
        paths[-1].append(f"{x.at(point.at)},{y.at(value)}")
        before = point
    measured = [value for value in values if value is not None]
    # A polyline of a single point is invisible: the point is its own neighbour.
    joined = [" ".join(path if len(path) > 1 else path * 2) for path in paths]
    return Line(label, joined, max(measured, default=None), measured[-1] if measured else None)


def _condensed(points: Sequence[Point]) -> list[Point]:
    """Merge neighbouring points until a chart has room for them; see :meth:`Point.of` for what remains."""
    size = -(-len(points) // _MAX_POINTS)
    if size <= 1:
        return list(points)
    return [Point.of(points[first : first + size]) for first in range(0, len(points), size)]


def _moment(milliseconds: int, zone: ZoneInfo) -> datetime:
    """Convert a time; one without a date becomes the nearest that has one in every zone: times come from senders."""
    return datetime.fromtimestamp(min(max(milliseconds, _FIRST_MOMENT), _LAST_MOMENT) / _SECOND, zone)


def _clock(at: int, zone: ZoneInfo, step: int) -> str:
    moment = _moment(at, zone)
    # At midnight the date says more than 00:00.
    if step >= _STEPS_MILLISECONDS[-1] or moment - moment.replace(hour=0, minute=0, second=0) < timedelta(seconds=1):
        return moment.strftime("%m-%d")
    return moment.strftime("%H:%M" if step >= _MINUTE_SECONDS * _SECOND else "%H:%M:%S")
