"""The steps of one instance, by the page: what happened when, who did it, how long it took, where it was sent back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from connector.kafka.reader import ConsumerRecord
from connector.lookup.instances import Instance, facts_of, joined, meaning, nodes_of, people_of
from connector.message import weda
from connector.message.headers import FINGERPRINT
from connector.text import cut

MAX_PAGE_CHARS: Final = 256 * 1024
"""Most characters of the steps of one page; what comes behind them is on the next."""

MAX_STEPS: Final = 500
"""Most steps of one page: each is some markup, whatever it says."""

MAX_COMMENT_CHARS: Final = 2_000
MAX_TEXT_CHARS: Final = 200
"""Most characters of a comment, and of any other text of a step; the whole is in the record."""

_BACK: Final = {
    weda.SEND_BACK: ("rollbackElementName", "rollbackElementId"),
    weda.WITHDRAW: ("revokeElementName", "revokeElementId"),
}
_RECEIVERS: Final = (weda.TURNED_TO, weda.ADDED, weda.COPIED_TO)


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
        fingerprint = record.headers.get(FINGERPRINT, "")
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
            if shown and (size > MAX_PAGE_CHARS or len(shown) == MAX_STEPS):
                return Timeline(shown, first, number, instance)
            shown.append(step)
        before = record.timestamp
    return Timeline(shown, first, None, instance)


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
    shown = {name: cut(str(text), _limit(name)) for name, text in whole.items()}
    return Step(
        at=record.timestamp,
        after=None if before is None else record.timestamp - before,
        **shown,
        task_milliseconds=ended - began if isinstance(began, int) and isinstance(ended, int) else None,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        is_cut=any(len(str(text)) > _limit(name) for name, text in whole.items()),
    )


def _limit(name: str) -> int:
    return MAX_COMMENT_CHARS if name == "comment" else MAX_TEXT_CHARS


def _names(value: Mapping[str, Any], field: str) -> str:
    return joined(people_of(value, field))
