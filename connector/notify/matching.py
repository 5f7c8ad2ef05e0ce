"""Who is notified of what in an event, and which reminders it ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from connector.consuming import Event, Person
from connector.message import weda
from connector.notify.outbox import Draft, identity_of
from connector.notify.rules import FIELDS, Rule, Rules
from connector.notify.templates import fields_of, render

_OPENING: Final = frozenset({0, 7, 15, 17, 21, None})
"""Actions that end no task: 待办, 会签加签, 节点抄送, 保存草稿, 审批抄送."""

_UNLISTED_URGE: Final = 14
_RUNNING: Final = 0
_ENDING: Final = frozenset({5, 8, 16, 18, 23})
"""Actions that end an instance: 撤销, 终止, 废弃流程, 删除流程实例, 流程实例结束."""

_ROOM: Final = Person("", "")


@dataclass(frozen=True, slots=True)
class Ended:
    """What an event ends: an instance, or a node of it for some persons (none: for all)."""

    instance: str
    node: str | None
    persons: tuple[str, ...]


def drafts_of(event: Event, rules: Rules, now: datetime) -> Iterator[tuple[Draft, str | None]]:
    """The notifications that the rules make of an event, each with the reason why it cannot be sent, or None.

    Raises:
        Unrenderable: A template cannot be rendered; the message names the rule.
    """
    for rule in rules.rules:
        if event.value is not None and rule.when.hold(event.value):
            yield from _of_rule(event, rule, rules, now)


def ended_by(event: Event) -> Ended | None:
    """What an event ends, if anything."""
    value = event.value or {}
    action = value.get("action")
    if value.get("msgType") == weda.INSTANCE:
        is_over = action in _ENDING or value.get("instanceStatus") not in {None, _RUNNING}
        return Ended(event.instance_id, None, ()) if is_over else None
    if action in _OPENING or action == _UNLISTED_URGE:
        return None
    persons = tuple(person.id for person in event.persons("approverMap"))
    return Ended(event.instance_id, value.get("elementId") or "", persons)


def _of_rule(event: Event, rule: Rule, rules: Rules, now: datetime) -> Iterator[tuple[Draft, str | None]]:
    target = rules.targets[rule.target]
    persons = tuple(each for each in event.persons(FIELDS[rule.to]) if rule.when.admit(each.id, each.name))
    room = (_ROOM,) if persons or not rule.when.person else ()
    for person in persons if target.address is not None else room:
        address = "" if target.address is None else rules.address(target, person.id)
        draft = _draft(event, rule, rules, now, person=person, persons=persons, address=address or "")
        missing = None if address is not None else f"no {target.address} of the person {person.id} is in people"
        yield draft, missing


def _draft(
    event: Event, rule: Rule, rules: Rules, now: datetime, *, person: Person, persons: tuple[Person, ...], address: str
) -> Draft:
    first = persons[0] if persons else person
    fields = fields_of(event, person if person is not _ROOM else first, persons)
    return Draft(
        identity=identity_of(event.mark, rule.name, rule.target, person.id),
        rule=rule.name,
        target=rule.target,
        address=address,
        person=person.id,
        title=render(rule.title, fields, rules.zone).replace("\n", " "),
        text=render(rule.text, fields, rules.zone),
        due=_due(event, rule, now),
        is_digest=rule.digest is not None,
        is_reminder=rule.after is not None,
        instance=event.instance_id,
        node=str(fields["elementId"]),
    )


def _due(event: Event, rule: Rule, now: datetime) -> float:
    if rule.digest is not None:
        return rule.digest.due(now).timestamp()
    return (event.received_at.timestamp() + rule.after) if rule.after is not None else now.timestamp()
