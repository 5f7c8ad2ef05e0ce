"""The history of one instance, drawn as text: a column per node, a row per event."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from connector.cli.columns import local_time, table
from connector.clock import now_ms
from connector.kafka.reader import ConsumerRecord
from connector.lookup import timeline
from connector.lookup.instances import Instance
from connector.lookup.timeline import Step
from connector.text import duration, one_line

MAX_COLUMNS: Final = 12
"""How many columns are drawn; further nodes share the last one."""

_HERE, _BACK_TO, _LINE, _NONE = "●", "◁", "│", " "


def lines(records: Sequence[ConsumerRecord]) -> Iterator[str]:
    """Yield a summary of an instance, then a line for each of its events.

    Args:
        records: The records of one instance, in order, from the topic that has all of its events.
    """
    page = timeline.read(records)
    if not page.steps:
        return
    if page.instance is not None:
        yield _head(page.instance)
    columns = _columns(page.steps)
    yield from table([_row(columns, number, step) for number, step in enumerate(page.steps)])
    if page.following is not None:
        yield "later events are left out: weda-connector tail --from-beginning --instance ID has them"


def _row(columns: Sequence[tuple[str, int, int]], number: int, step: Step) -> tuple[Any, ...]:
    return (
        local_time(step.at),
        "" if step.after is None else f"+{duration(step.after)}",
        _graph(columns, number, step),
        step.node,
        f"{step.what} {_BACK_TO} {step.back_to}" if step.back_to else step.what,
        f"{step.who} → {step.to}" if step.to else step.who,
        step.status,
        "" if step.task_milliseconds is None else f"took {duration(step.task_milliseconds)}",
        f"[{step.partition}:{step.offset}]",
        f"“{step.comment}”" if step.comment else "",
    )


def _head(instance: Instance) -> str:
    """Return title and state of an instance, how long it took by WeDa's own times, and whom it waits for."""
    took = instance.milliseconds(now_ms()) or 0
    parts = [one_line(part) for part in (instance.title, instance.process, instance.state) if part]
    parts.append(f"took {duration(took)}" if instance.is_over else f"open for {duration(took)}")
    if instance.waits_since is not None:
        parts.append(f"waits for {one_line(instance.waits_for)} since {local_time(instance.waits_since)}")
    return " · ".join(parts)


def _columns(steps: Sequence[Step]) -> list[tuple[str, int, int]]:
    """Return the nodes in order of first appearance, each with the numbers of its first and last event."""
    spans: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for name in filter(None, (step.node, step.back_to)):
            spans[name] = spans.get(name, (number, number))[0], number
    return [(name, *span) for name, span in spans.items()]


def _graph(columns: Sequence[tuple[str, int, int]], number: int, step: Step) -> str:
    cells = [_NONE] * min(len(columns), MAX_COLUMNS)
    for index, (name, first, last) in enumerate(columns):
        column = min(index, MAX_COLUMNS - 1)
        if name == step.node:
            cells[column] = _HERE
        elif name == step.back_to:
            cells[column] = _BACK_TO
        elif cells[column] == _NONE and first < number < last:  # a mark of another node in the last column stays
            cells[column] = _LINE
    return " ".join(cells)
