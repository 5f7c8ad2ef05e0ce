"""Applies the rules to an event: who is notified of what, and which reminders the event ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from connector.consuming import Event, Person
from connector.message import weda
from connector.notify.outbox import Draft, identity_of
from connector.notify.rules import FIELDS, Rule, Rules
from connector.notify.templates import Unrenderable, fields_of, render

_DECISIONS: Final = weda.PASSES | {weda.APPROVE, weda.TURN_OVER}
"""Actions with which the persons of a message have done their task; others at the node may still have to act."""

_NOBODY: Final = Person("", "")
"""The recipient of a notification to a room: it is sent once, to nobody in particular."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What an event ends: an instance (``node`` is None), or a node for some persons, for all if none are named."""

    instance: str
    node: str | None
    persons: tuple[str, ...]


def drafts_of(event: Event, rules: Rules, now: datetime) -> Iterator[tuple[Draft, str | None]]:
    """Yield the notifications that the rules make of an event, each with the reason why it cannot be sent, or None.

    Raises:
        Unrenderable: A template cannot be rendered; the message names the rule.
    """
    for rule in rules.rules:
        if event.value is not None and rule.when.hold(event.value):
            try:
                yield from _of_rule(event, rule, rules, now)
            except Unrenderable as error:
                raise Unrenderable(f"rule {rule.name}: {error}") from error.__cause__


def ended_by(event: Event) -> Ended | None:
    """Return what an event ends, or None."""
    value = event.value or {}
    action = value.get("action")
    if value.get("msgType") == weda.INSTANCE:
        is_over = weda.is_over(action, value.get("instanceStatus"))
        return Ended(event.instance_id, None, ()) if is_over else None
    node = value.get("elementId") or ""
    if action in weda.NODE_ENDS:
        return Ended(event.instance_id, node, ())
    # An unknown action ends no reminder: one that is sent too often is better than one that nobody gets.
    if action not in _DECISIONS:
        return None
    return Ended(event.instance_id, node, tuple(person.id for person in event.persons(weda.APPROVERS)))


def _of_rule(event: Event, rule: Rule, rules: Rules, now: datetime) -> Iterator[tuple[Draft, str | None]]:
    target = rules.targets[rule.target]
    persons = tuple(person for person in event.persons(FIELDS[rule.to]) if rule.when.admit(person.id, person.name))
    # A room is notified of an event without persons too, unless the rule asks for certain ones.
    room = (_NOBODY,) if persons or not rule.when.person else ()
    for person in persons if target.address is not None else room:
        address = "" if target.address is None else rules.address(target, person.id)
        draft = _draft(event, rule, rules, now, person=person, persons=persons, address=address or "")
        missing = None if address is not None else f"no {target.address} of the person {person.id} is in people"
        yield draft, missing


def _draft(
    event: Event, rule: Rule, rules: Rules, now: datetime, *, person: Person, persons: tuple[Person, ...], address: str
) -> Draft:
    # A template for a room may name a person as well: the first one.
    first = persons[0] if persons else person
    fields = fields_of(event, person if person is not _NOBODY else first, persons)
    return Draft(
        # By the event's mark and not its offset: a duplicate in Kafka makes no second notification.
        identity=identity_of(event.mark, rule.name, rule.target, person.id),
        rule=rule.name,
        target=rule.target,
        address=address,
        person=person.id,
        title=render(rule.title, fields, rules.zone).replace("\n", " "),  # a subject of an email must be one line
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
