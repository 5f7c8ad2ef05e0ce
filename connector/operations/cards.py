"""Summaries on pages: the overall state, one event, the dead letters of one cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from connector.intake.listing import Listing, Reason
from connector.lookup.fixes import fix_of
from connector.lookup.instances import Instance, joined, meaning, nodes_of, people_of
from connector.message import weda
from connector.telemetry.health import Health
from connector.telemetry.recent import RecentEvent

_MAX_REASONS: Final = 100


@dataclass(frozen=True, slots=True)
class Cause:
    """Dead letters of one code.

    Attributes:
        code: The code.
        waiting: How many were not reprocessed yet.
        replayed: How many were reprocessed; users read "replayed".
        fix: What to do, in words.
        reasons: Their reasons.
    """

    code: int
    waiting: int
    replayed: int
    fix: str
    reasons: list[Reason]


def causes(listing: Listing) -> list[Cause]:
    """Group the reasons by code; the code with the most waiting dead letters comes first."""
    by_code: dict[int, list[Reason]] = {}
    for reason in listing.reasons:
        by_code.setdefault(reason.code, []).append(reason)
    # The fix for a code may depend on the body: one letter of the code stands for all of them.
    bodies = {listed.letter.code: listed.letter.body for listed in listing.letters}
    causes = [
        Cause(
            code,
            sum(reason.waiting for reason in reasons),
            sum(reason.replayed for reason in reasons),
            fix_of(code, bodies.get(code, b"")),
            reasons[:_MAX_REASONS],
        )
        for code, reasons in by_code.items()
    ]
    return sorted(causes, key=lambda cause: (-cause.waiting, -cause.replayed))


@dataclass(frozen=True, slots=True)
class EventCard:
    """One event as the console shows it; ``kind`` selects its colour."""

    received_at: int
    instance_id: str
    title: str
    process: str
    person: str
    action: str
    kind: str
    node: str
    state: str
    source: str


_KINDS: Final[Mapping[int, str]] = {
    **dict.fromkeys((weda.APPROVE, *weda.PASSES), "good"),
    **dict.fromkeys((*weda.NODE_ENDS - {weda.FINISH},), "bad"),
    **dict.fromkeys((weda.TODO, weda.TURN_OVER, weda.ADD_ASSIGNEE), "fair"),
}


def colour_of(instance: Instance) -> str:
    """Return the colour of an instance's state."""
    if not instance.is_over:
        return "fair"
    return {weda.APPROVED: "good", weda.TURNED_DOWN: "bad"}.get(instance.status or 0, "plain")


def event_card(event: RecentEvent) -> EventCard:
    """Return the card of an event."""
    fields = event.fields
    action = fields["action"]
    return EventCard(
        event.received_at,
        event.instance_id,
        fields["flowTitle"] or "",
        fields["processName"] or "",
        joined(people_of(fields, weda.APPROVERS)) or joined(people_of(fields, weda.STARTER)),
        fields["actionName"] or meaning("action", action) or ("" if action is None else str(action)),
        _KINDS.get(action, "plain"),
        fields["elementName"] or joined(nodes_of(fields)),
        fields["taskStatusName"] or fields["instanceStatusName"] or "",
        event.source,
    )


def is_wanted(card: EventCard, terms: Mapping[str, str]) -> bool:
    """Whether each field named in ``terms`` contains its text; case is ignored."""
    return all(text.lower() in getattr(card, name).lower() for name, text in terms.items())


def verdict(health: Health) -> tuple[str, str]:
    """Return the overall state as a colour and a sentence; waiting dead letters count as a problem."""
    if not health.is_ready:
        return "bad", "Messages cannot be accepted now."
    if health.problems or health.kafka != "up":
        return "fair", "Messages are accepted; something needs attention."
    if health.dead_letters:
        return "fair", "Messages are accepted; dead letters wait for somebody."
    return "good", "All is well: messages are accepted."
