"""The steps of one instance, in pages: what happened when, who did it, how long it took, where it was sent back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from connector.kafka.reader import ConsumerRecord
from connector.lookup.instances import Instance, facts_of, joined, meaning, nodes_of, people_of
from connector.message import weda
from connector.message.headers import FINGERPRINT
from connector.text import cut

MAX_PAGE_CHARS: Final = 256 * 1024
"""Characters of the steps on one page; further steps are on the next page."""

MAX_STEPS: Final = 500
"""Steps on one page: even an empty step costs markup."""

MAX_COMMENT_CHARS: Final = 2_000
MAX_TEXT_CHARS: Final = 200
"""Characters shown of a comment, and of any other text of a step; the record has the full text."""

_BACK: Final = {
    weda.SEND_BACK: ("rollbackElementName", "rollbackElementId"),
    weda.WITHDRAW: ("revokeElementName", "revokeElementId"),
}
_RECEIVERS: Final = (weda.TURNED_TO, weda.ADDED, weda.COPIED_TO)


@dataclass(frozen=True, slots=True)
class Step:
    """One event of an instance.

    Attributes:
        at: When the message was received, in epoch milliseconds.
        after: Milliseconds since the previous step, or None for the first.
        who: Names of the approvers, or of the starter.
        what: The action's name.
        kind: ``Instance`` or ``Task``.
        node: The node's name.
        back_to: The node to which the instance was sent back or withdrawn.
        to: Names of the people to whom the task was turned over, or who were added or copied.
        status: The state after the step.
        comment: The comment.
        task_milliseconds: How long the task took, by WeDa's own times.
        topic: The record's topic.
        partition: The record's partition.
        offset: The record's offset in the partition.
        is_cut: Whether a text is longer than a page shows.
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
        """Number of characters that a page shows of the step."""
        return sum(len(text) for field in fields(self) if isinstance(text := getattr(self, field.name), str))


@dataclass(frozen=True, slots=True)
class Timeline:
    """One page of steps.

    Attributes:
        steps: The steps in the order of their records.
        first: The number of the first step on the page; an instance's first step has number 0.
        following: The number of the first step on the next page, or None if this is the last page.
        instance: The instance as the records up to the end of the page describe it, or None without records.
    """

    steps: list[Step]
    first: int
    following: int | None
    instance: Instance | None = None


def read(records: Iterable[ConsumerRecord], first: int = 0) -> Timeline:
    """Read a page of an instance's steps, in the order of its records; duplicates are left out.

    Args:
        records: The records of the instance; only those that the page needs are consumed.
        first: The number of the first step of the page.
    """
    shown: list[Step] = []
    seen: set[str] = set()
    number, size, before = -1, 0, None
    instance: Instance | None = None
    for record in records:
        # After a crash Kafka may have a message twice, with the same fingerprint.
        fingerprint = record.headers.get(FINGERPRINT, "")
        if not isinstance(record.value, dict) or (fingerprint and fingerprint in seen):
            continue
        seen.add(fingerprint)
        number += 1
        # Steps of earlier pages count too: the head of each page shows the instance as it was at the page's end.
        for fact in facts_of([record]):
            instance = instance or Instance(fact.instance_id)
            instance.take(fact)
        if number >= first:
            step = _step(record, record.value, before)
            size += step.characters
            # At least one step, however long: otherwise its page would never come.
            if shown and (size > MAX_PAGE_CHARS or len(shown) == MAX_STEPS):
                return Timeline(shown, first, number, instance)
            shown.append(step)
        before = record.timestamp
    return Timeline(shown, first, None, instance)


def _step(record: ConsumerRecord, value: Mapping[str, Any], before: int | None) -> Step:
    action = value.get("action")
    back = next((value[name] for name in _BACK.get(action or 0, ()) if value.get(name)), "")
    began, ended = value.get("taskStartTime"), value.get("taskEndTime")
    texts = {
        "who": _names(value, weda.APPROVERS) or _names(value, weda.STARTER),
        "what": value.get("actionName") or meaning("action", action) or ("" if action is None else action),
        "kind": value.get("msgType"),
        "node": value.get("elementName") or joined(nodes_of(value)),
        "back_to": back,
        "to": "、".join(filter(None, (_names(value, name) for name in _RECEIVERS))),
        "status": value.get("taskStatusName") or value.get("instanceStatusName") or "",
        "comment": value.get("comment") or "",
    }
    shown = {name: cut(str(text), _limit(name)) for name, text in texts.items()}
    return Step(
        at=record.timestamp,
        after=None if before is None else record.timestamp - before,
        **shown,
        task_milliseconds=ended - began if isinstance(began, int) and isinstance(ended, int) else None,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        is_cut=any(len(str(text)) > _limit(name) for name, text in texts.items()),
    )


def _limit(name: str) -> int:
    return MAX_COMMENT_CHARS if name == "comment" else MAX_TEXT_CHARS


def _names(value: Mapping[str, Any], field: str) -> str:
    return joined(people_of(value, field))
