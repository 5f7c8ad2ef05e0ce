"""Pictures of one instance: its path through the nodes, and how long it waited at each."""

from dataclasses import dataclass
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from connector.lookup.instances import Instance, Visit, joined
from connector.lookup.timeline import Step
from connector.operations import charts
from connector.text import cut

_MAX_PEOPLE_UNITS: Final = 120
_FULL_PERCENT: Final = 100.0
_MIN_BAR_PERCENT: Final = 0.5
_COLUMN: Final = 132
_ROW: Final = 44
_TOP: Final = 40
_LEFT: Final = 66
_MAX_NAME_CHARS: Final = 10


@dataclass(frozen=True, slots=True)
class Stop:
    """One dot of the drawing: its pixel, its label, and whether the step goes back."""

    x: int
    y: int
    label: str
    is_back: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Diagram of the path: a column per node, a row per step.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        columns: Pixel and name of each node's column.
        stops: A dot for each step at a node.
        lines: Lines from dot to dot: two points, and whether the line goes back.
    """

    width: int
    height: int
    columns: list[tuple[int, str]]
    stops: list[Stop]
    lines: list[tuple[int, int, int, int, bool]]


class Row(NamedTuple):
    """One visit in the picture: its texts, its bar in percent of the width, and its outcome.

    ``kind`` is ``passed``, ``sent-back`` or ``open``; ``took`` is in milliseconds.
    """

    node: str
    people: str
    x: float
    width: float
    kind: str
    took: int
    is_longest: bool


@dataclass(frozen=True, slots=True)
class Waits:
    """The visits of an instance, scaled by time.

    Attributes:
        rows: A row for each visit, in order.
        ticks: Ticks of the axis: percent of the width, and text.
        longest: The visit that took longest.
    """

    rows: list[Row]
    ticks: list[tuple[float, str]]
    longest: Visit | None


def drawing(shown: list[Step]) -> Drawing | None:
    """Draw the path through the nodes; None if there are fewer than two."""
    names = list(dict.fromkeys(name for step in shown for name in (step.node, step.back_to) if name))
    if len(names) < 2:  # noqa: PLR2004 - one node makes no path
        return None
    x = {name: _LEFT + number * _COLUMN for number, name in enumerate(names)}
    stops: list[Stop] = []
    lines: list[tuple[int, int, int, int, bool]] = []
    at_node = [step for step in shown if step.node]
    for number, step in enumerate(at_node):
        here = Stop(x[step.node], _TOP + number * _ROW + 20, _short(step.what), bool(step.back_to))
        if stops:
            before = at_node[number - 1]
            lines.append((stops[-1].x, stops[-1].y, here.x, here.y, bool(before.back_to)))
        stops.append(here)
    columns = [(x[name], _short(name)) for name in names]
    height = _TOP + len(at_node) * _ROW + 10
    return Drawing(_LEFT * 2 + len(names) * _COLUMN - _COLUMN // 2, height, columns, stops, lines)


def waits(instance: Instance, now: int, zone: ZoneInfo) -> Waits | None:
    """Draw the visits of an instance, scaled by time; None if there are none.

    Args:
        instance: The instance.
        now: The end of visits that are not over, in epoch milliseconds.
        zone: The time zone of the axis.
    """
    visits = tuple(instance.visits)
    if not visits:
        return None
    # Times come from WeDa, and some may be missing or out of order: the axis covers all of them.
    first = min(instance.started_at or visits[0].opened_at, *(visit.opened_at for visit in visits))
    last = max(first + 1, instance.ended_at or 0, *(visit.opened_at + visit.milliseconds(now) for visit in visits))
    longest = instance.longest_at(now)
    scale = charts.Scale(first, last, 0, _FULL_PERCENT)
    rows = [_row(visit, scale, now, is_longest=visit is longest) for visit in visits]
    ticks = [(scale.at(at), text) for at, text in charts.time_ticks(first, last, zone, limit=4)]
    return Waits(rows, ticks, longest)


def _row(visit: Visit, scale: charts.Scale, now: int, *, is_longest: bool) -> Row:
    took = visit.milliseconds(now)
    begin, end = scale.at(visit.opened_at), scale.at(visit.opened_at + took)
    kind = "sent-back" if visit.is_sent_back else "passed" if visit.is_over else "open"
    return Row(
        visit.node,
        charts.fit(joined(visit.people), _MAX_PEOPLE_UNITS),
        min(begin, scale.end - _MIN_BAR_PERCENT),  # the thinnest bar at the right edge still fits
        max(end - begin, _MIN_BAR_PERCENT),
        kind,
        took,
        is_longest,
    )


def _short(name: str) -> str:
    return cut(name, _MAX_NAME_CHARS)
