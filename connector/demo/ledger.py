"""The ledger of a demo: what was sent and answered, against what appeared in the events topic. Pure."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from connector.simulator import Answer, Outcome
from connector.simulator.sender import RETRYABLE

MOST_UNKNOWN: Final = 1_000
"""Most unknown instances kept: the answer of one of ours may arrive after its record."""

MOST_SETTLED: Final = 4_096
"""Most settled instances of ours kept."""

_MOST_AHEAD: Final = 10  # one message of an instance is sent at a time, so that hardly one is ahead of its answer


@dataclass(slots=True)
class _Instance:
    """One instance on its way.

    Attributes:
        places: Place in the instance of each answered message, by message id.
        awaited: Accepted messages that have not appeared.
        appeared: Message ids in the order of their first appearance.
        uncertain: Messages that were never answered, and have not appeared: they still may.
        is_ended: Nothing more of it will be sent.
    """

    places: dict[str, int] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    appeared: dict[str, None] = field(default_factory=dict)
    uncertain: set[str] = field(default_factory=set)
    is_ended: bool = False

    @property
    def is_settled(self) -> bool:
        return self.is_ended and not self.awaited and not self.uncertain

    @property
    def out_of_order(self) -> int:
        """Messages that appeared after a later one."""
        furthest, late = -1, 0
        for place in (self.places[message] for message in self.appeared if message in self.places):
            late += place < furthest
            furthest = max(furthest, place)
        return late


class Ledger:
    """Counts distinct messages; an instance is kept until it has ended and everything accepted of it has appeared.

    Answers and appearances may come in any order. Messages that others send to the same topic do not count.

    Attributes:
        sent: Messages sent.
        accepted: Those that were answered with code 0.
        published: Sent messages that are in the events topic.
        ended: Instances of which nothing more will be sent.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.accepted = 0
        self.published = 0
        self.ended = 0
        self._instances: dict[str, _Instance] = {}
        self._unknown: OrderedDict[str, _Instance] = OrderedDict()
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._settled_out_of_order = 0

    @property
    def lost(self) -> int:
        """Accepted messages that are not in the events topic, or not yet."""
        return sum(len(each.awaited) for each in self._instances.values())

    @property
    def out_of_order(self) -> int:
        """Messages that appeared after a later one of the same instance."""
        return self._settled_out_of_order + sum(each.out_of_order for each in self._instances.values())

    @property
    def is_sound(self) -> bool:
        """Whether something was published, nothing is lost, and all of it is in order."""
        return self.published > 0 and self.lost == 0 and self.out_of_order == 0

    def counts(self) -> dict[str, int]:
        """The numbers by name, as the demo's last line has them."""
        return {name: getattr(self, name) for name in ("sent", "accepted", "published", "lost", "out_of_order")}

    def is_ours(self, instance_id: str) -> bool:
        """Whether a message of the instance was sent by this demo and answered, lately at least."""
        return instance_id in self._instances or instance_id in self._settled

    def is_open(self, instance_id: str) -> bool:
        """Whether more of the instance is expected."""
        return instance_id in self._instances

    def answered(self, answer: Answer) -> None:
        """Note a message's outcome."""
        instance = self._of(answer.instance_id)
        message_id = answer.message["msgId"]
        instance.places[message_id] = answer.seq
        self.sent += 1
        self.accepted += answer.outcome is Outcome.ACCEPTED
        if message_id in instance.appeared:
            self.published += 1
        elif answer.outcome is Outcome.ACCEPTED:
            instance.awaited.add(message_id)
        elif answer.outcome is Outcome.UNKNOWN:
            instance.uncertain.add(message_id)
        if _is_last(answer):
            instance.is_ended = True
            self.ended += 1
        self._settle(answer.instance_id, instance)

    def appeared(self, instance_id: str, message_id: str) -> None:
        """Note a record of the events topic; those of one instance come in the topic's order."""
        if instance_id in self._settled:
            return
        instance = self._instances.get(instance_id) or self._unknown_instance(instance_id)
        is_answered = message_id in instance.places
        is_full = not is_answered and len(instance.appeared) - len(instance.places) >= _MOST_AHEAD
        if message_id in instance.appeared or is_full:
            return
        instance.appeared[message_id] = None
        instance.awaited.discard(message_id)
        instance.uncertain.discard(message_id)
        self.published += is_answered
        self._settle(instance_id, instance)

    def _of(self, instance_id: str) -> _Instance:
        if instance_id not in self._instances:
            known = instance_id in self._unknown
            self._instances[instance_id] = self._unknown.pop(instance_id) if known else _Instance()
        return self._instances[instance_id]

    def _unknown_instance(self, instance_id: str) -> _Instance:
        if len(self._unknown) >= MOST_UNKNOWN and instance_id not in self._unknown:
            self._unknown.popitem(last=False)
        return self._unknown.setdefault(instance_id, _Instance())

    def _settle(self, instance_id: str, instance: _Instance) -> None:
        """Keep the numbers of an instance that is complete, and forget the rest."""
        if not instance.is_settled:
            return
        del self._instances[instance_id]
        self._settled_out_of_order += instance.out_of_order
        self._settled[instance_id] = None
        if len(self._settled) > MOST_SETTLED:
            self._settled.popitem(last=False)


def _is_last(answer: Answer) -> bool:
    """Whether the platform sends nothing more of the instance: its end, or a message that it gave up."""
    has_given_up = answer.outcome is not Outcome.ACCEPTED and (answer.status is None or answer.status in RETRYABLE)
    return has_given_up or answer.seq + 1 == answer.total
