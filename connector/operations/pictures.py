"""The pictures of one instance: its way through the nodes, and how long it waited at each."""

from dataclasses import dataclass
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from connector.lookup.instances import Instance, Visit, joined
from connector.lookup.timeline import Step
from connector.operations import charts
from connector.text import cut

_PEOPLE_UNITS: Final = 120
_WHOLE: Final = 100.0
_THINNEST: Final = 0.5
_COLUMN: Final = 132
_ROW: Final = 44
_TOP: Final = 40
_LEFT: Final = 66
_MAX_NAME_CHARS: Final = 10


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a step is in the drawing."""

    x: int
    y: int
    label: str
    is_back: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Diagram of the path: a column per node, a row per step.

    Attributes:
        width: Of the whole, in pixels.
        height: Of the whole.
        columns: Where each node's column is, and its name.
        stops: A dot for each step at a node.
        lines: From stop to stop: two points, and whether it goes back.
    """

    width: int
    height: int
    columns: list[tuple[int, str]]
    stops: list[Stop]
    lines: list[tuple[int, int, int, int, bool]]


class Row(NamedTuple):
    """One visit in the picture: its texts, its bar in percent of the width, and what became of it.

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
    """The visits of an instance, scaled by time: a row for each, in their order.

    Attributes:
        rows: The visits.
        ticks: Where the axis has a line, in percent of the width, and its text.
        longest: The visit that took longest.
    """

    rows: list[Row]
    ticks: list[tuple[float, str]]
    longest: Visit | None


def drawing(shown: list[Step]) -> Drawing | None:
    """The way through the nodes, or None where there are fewer than two."""
    names = list(dict.fromkeys(name for step in shown for name in (step.node, step.back_to) if name))
    if len(names) < 2:  # noqa: PLR2004 - there is no way from one node
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
    """The picture of an instance's visits, scaled by time, or None where there are none.

    Args:
        instance: The instance.
        now: Where what goes on ends, in epoch milliseconds.
        zone: The zone of the times on the axis.
    """
    visits = tuple(instance.visits)
    if not visits:
        return None
    first = min(instance.started_at or visits[0].opened_at, *(visit.opened_at for visit in visits))
    last = max(first + 1, instance.ended_at or 0, *(visit.opened_at + visit.milliseconds(now) for visit in visits))
    longest = instance.longest_at(now)
    scale = charts.Scale(first, last, 0, _WHOLE)
    rows = [_row(visit, scale, now, is_longest=visit is longest) for visit in visits]
    ticks = [(scale.at(at), text) for at, text in charts.time_ticks(first, last, zone, most=4)]
    return Waits(rows, ticks, longest)


def _row(visit: Visit, scale: charts.Scale, now: int, *, is_longest: bool) -> Row:
    took = visit.milliseconds(now)
    begin, end = scale.at(visit.opened_at), scale.at(visit.opened_at + took)
    kind = "sent-back" if visit.is_sent_back else "passed" if visit.is_over else "open"
    return Row(
        visit.node,
        charts.fit(joined(visit.people), _PEOPLE_UNITS),
        min(begin, scale.end - _THINNEST),
        max(end - begin, _THINNEST),
        kind,
        took,
        is_longest,
    )


def _short(name: str) -> str:
    return cut(name, _MAX_NAME_CHARS)
