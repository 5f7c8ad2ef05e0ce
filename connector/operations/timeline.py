"""One instance as people see it: what happened when, who did it, how long it took, where it was sent back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from connector.kafka.reader import ConsumerRecord
from connector.lookup.instances import Instance, Visit, facts_of, joined, meaning, nodes_of, people_of
from connector.message import weda
from connector.operations import charts

PAGE_CHARACTERS: Final = 256 * 1024
"""Most characters of the steps of one page; what comes behind them is on the next."""

MOST_STEPS: Final = 500
"""Most steps of one page: each is some markup, whatever it says."""

LONGEST_COMMENT: Final = 2_000
LONGEST_TEXT: Final = 200
"""Most characters of a comment, and of any other text of a step; the whole is in the record."""

_BACK: Final = {
    weda.SEND_BACK: ("rollbackElementName", "rollbackElementId"),
    weda.WITHDRAW: ("revokeElementName", "revokeElementId"),
}
_PEOPLE_UNITS: Final = 120
_WHOLE: Final = 100.0
_THINNEST: Final = 0.5
_RECEIVERS: Final = (weda.TURNED_TO, weda.ADDED, weda.COPIED_TO)
_COLUMN: Final = 132
_ROW: Final = 44
_TOP: Final = 40
_LEFT: Final = 66
_LONGEST_NAME: Final = 9


@dataclass(frozen=True, slots=True)
class Step:
    """One event of an instance.

    Attributes:
        at: Epoch milliseconds: when it was received.
        after: Milliseconds since the step before, or None for the first.
        who: Names, as far as the message has them.
        what: The action's name.
        kind: ``Instance`` or ``Task``.
        node: Where it happened.
        back_to: The node to which it was sent back or withdrawn.
        to: Names of people it was transferred to, added or copied to.
        status: The state after it.
        comment: What was written.
        task_milliseconds: How long the task took, by WeDa's own times.
        topic: Where the record is, with partition and offset.
        partition: The partition's number.
        offset: Its offset in the partition.
        is_cut: Some text is longer than a page shows.
    """

    at: int
    after: int | None
    who: str
    what: str
    kind: str
    node: str
    back_to: str
    to: str
    status: str
    comment: str
    task_milliseconds: int | None
    topic: str
    partition: int
    offset: int
    is_cut: bool

    @property
    def characters(self) -> int:
        """How many characters it shows."""
        return sum(len(text) for field in fields(self) if isinstance(text := getattr(self, field.name), str))


@dataclass(frozen=True, slots=True)
class Timeline:
    """The steps of one page.

    Attributes:
        steps: In the order of their records.
        first: The number of the first one; the instance's own first is 0.
        following: The number of the first one of the next page, or None where this is the last.
        instance: What the records up to there say of the instance as a whole; None where there are none.
    """

    steps: list[Step]
    first: int
    following: int | None
    instance: Instance | None = None


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


def read(found: Iterable[ConsumerRecord], first: int = 0) -> Timeline:
    """A page of an instance's steps, in the order of its records; repeats are left out.

    Args:
        found: The records of the instance; no more are read than the page needs.
        first: The number of the first step of the page.
    """
    shown: list[Step] = []
    seen: set[str] = set()
    number, size, before = -1, 0, None
    instance: Instance | None = None
    for record in found:
        fingerprint = record.headers.get("weda.fingerprint", "")
        if not isinstance(record.value, dict) or (fingerprint and fingerprint in seen):
            continue
        seen.add(fingerprint)
        number += 1
        for fact in facts_of([record]):
            instance = instance or Instance(fact.instance_id)
            instance.take(fact)
        if number >= first:
            step = _step(record, record.value, before)
            size += step.characters
            if shown and (size > PAGE_CHARACTERS or len(shown) == MOST_STEPS):
                return Timeline(shown, first, number, instance)
            shown.append(step)
        before = record.timestamp
    return Timeline(shown, first, None, instance)


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


def _step(record: ConsumerRecord, value: Mapping[str, Any], before: int | None) -> Step:
    action = value.get("action")
    back = next((value[name] for name in _BACK.get(action or 0, ()) if value.get(name)), "")
    began, ended = value.get("taskStartTime"), value.get("taskEndTime")
    whole = {
        "who": _names(value, weda.APPROVERS) or _names(value, weda.STARTER),
        "what": value.get("actionName") or meaning("action", action) or ("" if action is None else action),
        "kind": value.get("msgType"),
        "node": value.get("elementName") or joined(nodes_of(value)),
        "back_to": back,
        "to": "、".join(filter(None, (_names(value, name) for name in _RECEIVERS))),
        "status": value.get("taskStatusName") or value.get("instanceStatusName") or "",
        "comment": value.get("comment") or "",
    }
    shown = {name: short(str(text), _longest(name)) for name, text in whole.items()}
    return Step(
        at=record.timestamp,
        after=None if before is None else record.timestamp - before,
        **shown,
        task_milliseconds=ended - began if isinstance(began, int) and isinstance(ended, int) else None,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        is_cut=any(len(str(text)) > _longest(name) for name, text in whole.items()),
    )


def short(text: str, most: int = LONGEST_TEXT) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else f"{text[:most]}…"


def _longest(name: str) -> int:
    return LONGEST_COMMENT if name == "comment" else LONGEST_TEXT


def _names(value: Mapping[str, Any], field: str) -> str:
    return joined(people_of(value, field))


def _short(name: str) -> str:
    return short(name, _LONGEST_NAME)
