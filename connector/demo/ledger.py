"""The ledger of a demo: what was sent and answered, against what appeared in the events topic. Pure."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from connector.simulator import Answer, Outcome

MOST_STRANGERS: Final = 1_000
"""Instances of other senders that are remembered, in case an answer makes them ours."""

MOST_SETTLED: Final = 4_096
"""Instances of ours that are remembered after they were settled."""

_MOST_AHEAD: Final = 10  # one message of an instance is sent at a time, so that hardly one is ahead of its answer


@dataclass(slots=True)
class _Instance:
    """One instance on its way.

    Attributes:
        places: Place in the instance of each answered message, by message id.
        awaited: Accepted messages that have not appeared.
        appeared: Message ids in the order of their first appearance.
        is_ended: Nothing more of it will be sent.
        is_uncertain: A message was never answered: it may still appear.
    """

    places: dict[str, int] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    appeared: dict[str, None] = field(default_factory=dict)
    is_ended: bool = False
    is_uncertain: bool = False

    @property
    def is_settled(self) -> bool:
        return self.is_ended and not self.is_uncertain and not self.awaited

    @property
    def published(self) -> int:
        return sum(message in self.places for message in self.appeared)

    @property
    def out_of_order(self) -> int:
        """Messages whose first appearance stands after that of a later one."""
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
        ended: Instances of which nothing more will be sent.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.accepted = 0
        self.ended = 0
        self._instances: dict[str, _Instance] = {}
        self._strangers: OrderedDict[str, _Instance] = OrderedDict()
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._settled_published = 0
        self._settled_out_of_order = 0

    @property
    def published(self) -> int:
        """Sent messages that are in the events topic."""
        return self._settled_published + sum(each.published for each in self._instances.values())

    @property
    def lost(self) -> int:
        """Accepted messages that are not in the events topic, or not yet."""
        return sum(len(each.awaited) for each in self._instances.values())

    @property
    def out_of_order(self) -> int:
        """Messages whose first appearance stands after that of a later one of the same instance."""
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
        if answer.outcome is Outcome.ACCEPTED:
            self.accepted += 1
            if message_id not in instance.appeared:
                instance.awaited.add(message_id)
        instance.is_uncertain |= answer.outcome is Outcome.UNKNOWN
        if answer.seq + 1 == answer.of:
            instance.is_ended = True
            self.ended += 1
        self._settle(answer.instance_id, instance)

    def appeared(self, instance_id: str, message_id: str) -> None:
        """Note a record of the events topic; those of one instance come in the topic's order."""
        if instance_id in self._settled:
            return
        instance = self._instances.get(instance_id) or self._stranger(instance_id)
        if message_id not in instance.places and len(instance.appeared) - len(instance.places) > _MOST_AHEAD:
            return
        instance.appeared.setdefault(message_id)
        instance.awaited.discard(message_id)
        self._settle(instance_id, instance)

    def _of(self, instance_id: str) -> _Instance:
        if instance_id not in self._instances:
            self._instances[instance_id] = self._strangers.pop(instance_id, None) or _Instance()
        return self._instances[instance_id]

    def _stranger(self, instance_id: str) -> _Instance:
        if len(self._strangers) >= MOST_STRANGERS and instance_id not in self._strangers:
            self._strangers.popitem(last=False)
        return self._strangers.setdefault(instance_id, _Instance())

    def _settle(self, instance_id: str, instance: _Instance) -> None:
        """Keep the numbers of an instance that is complete, and forget the rest."""
        if not instance.is_settled:
            return
        del self._instances[instance_id]
        self._settled_published += instance.published
        self._settled_out_of_order += instance.out_of_order
        self._settled[instance_id] = None
        if len(self._settled) > MOST_SETTLED:
            self._settled.popitem(last=False)
