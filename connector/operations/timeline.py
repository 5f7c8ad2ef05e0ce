"""One instance as people see it: what happened when, who did it, how long it took, where it was sent back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from connector.reading import Decoded

LOOK_BACK: Final = 5_000
"""How many records before the end of each partition are looked at."""

_NOBODY: Final = ("userName", "name", "nickName")
_BACK: Final = {6: ("rollbackElementName", "rollbackElementId"), 5: ("revokeElementName", "revokeElementId")}
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
        to: Names of those to whom it went: turned over to, added, copied.
        status: The state after it.
        comment: What was written.
        task_milliseconds: How long the task took, by WeDa's own times.
        place: Topic, partition and offset.
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
    place: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A step's place in the drawing."""

    x: int
    y: int
    label: str
    is_back: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """The way through the nodes: columns are nodes, rows are steps.

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


def steps(found: Iterable[Decoded]) -> list[Step]:
    """The steps of an instance, in the order of its records; repeats are left out."""
    told: list[Step] = []
    seen: set[str] = set()
    for record in found:
        fingerprint = record.headers.get("weda.fingerprint", "")
        if isinstance(record.value, dict) and not (fingerprint and fingerprint in seen):
            seen.add(fingerprint)
            told.append(_step(record, record.value, told[-1].at if told else None))
    return told


def drawing(told: list[Step]) -> Drawing | None:
    """The way through the nodes, or None where there are fewer than two."""
    names = list(dict.fromkeys(name for step in told for name in (step.node, step.back_to) if name))
    if len(names) < 2:  # noqa: PLR2004 - there is no way from one place
        return None
    place = {name: _LEFT + number * _COLUMN for number, name in enumerate(names)}
    stops: list[Stop] = []
    lines: list[tuple[int, int, int, int, bool]] = []
    at_node = [step for step in told if step.node]
    for number, step in enumerate(at_node):
        here = Stop(place[step.node], _TOP + number * _ROW + 20, step.what, bool(step.back_to))
        if stops:
            before = at_node[number - 1]
            lines.append((stops[-1].x, stops[-1].y, here.x, here.y, bool(before.back_to)))
        stops.append(here)
    columns = [(place[name], _short(name)) for name in names]
    height = _TOP + len(at_node) * _ROW + 10
    return Drawing(_LEFT * 2 + (len(names) - 1) * _COLUMN, height, columns, stops, lines)


def _step(record: Decoded, value: Mapping[str, Any], before: int | None) -> Step:
    action = value.get("action")
    back = next((str(value[name]) for name in _BACK.get(action or 0, ()) if value.get(name)), "")
    began, ended = value.get("taskStartTime"), value.get("taskEndTime")
    return Step(
        at=record.timestamp,
        after=None if before is None else record.timestamp - before,
        who=_names(value.get("approverMap")) or _names(value.get("startUserMap")),
        what=str(value.get("actionName") or action or ""),
        kind=str(value.get("msgType")),
        node=str(value.get("elementName") or _names(value.get("elementMap"))),
        back_to=back,
        to="、".join(
            filter(None, (_names(value.get(name)) for name in ("turnToUserMap", "addAssigneeMap", "ccUserMap")))
        ),
        status=str(value.get("taskStatusName") or value.get("instanceStatusName") or ""),
        comment=str(value.get("comment") or ""),
        task_milliseconds=ended - began if isinstance(began, int) and isinstance(ended, int) else None,
        place=f"{record.topic} [{record.partition}] @ {record.offset}",
    )


def _names(maps: Any) -> str:
    """The names in WeDa's maps: id → name, or fields of a person or node."""
    found: list[str] = []
    for one in maps or ():
        named = next((one[name] for name in (*_NOBODY, "elementName") if one.get(name)), None)
        found += [named] if named else [value for value in one.values() if value]
    return "、".join(dict.fromkeys(found))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
