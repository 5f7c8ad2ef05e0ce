"""The ledger of a demo: compares what was sent and answered with what appeared in the events topic. Pure."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from connector.simulator import Answer, Outcome
from connector.simulator.sender import RETRYABLE

MAX_UNKNOWN: Final = 1_000
"""The limit on unknown instances: a record of one of ours may be read before the answer arrives."""

MAX_SETTLED: Final = 4_096
"""The limit on remembered instances that are settled."""

# The simulator sends one message of an instance at a time, so that more unanswered ones are another sender's.
_MAX_AHEAD: Final = 10


@dataclass(slots=True)
class _Instance:
    """An instance that is not settled.

    Attributes:
        places: Id of an answered message → its place in the instance.
        awaited: Ids of accepted messages that have not appeared.
        appeared: Ids of messages in the order of their first appearance.
        uncertain: Ids of messages that were never answered and have not appeared, but still may.
        is_ended: Whether nothing more of the instance will be sent.
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
        """The number of messages that appeared after a later one."""
        furthest, late = -1, 0
        for place in (self.places[message] for message in self.appeared if message in self.places):
            late += place < furthest
            furthest = max(furthest, place)
        return late


class Ledger:
    """Counts distinct messages; keeps an instance until it has ended and all its accepted messages have appeared.

    Answers and appearances may come in any order. Messages that others send to the same topic do not count.

    Attributes:
        sent: The number of messages sent.
        accepted: The number of messages answered with code 0.
        published: The number of sent messages that are in the events topic.
        ended: The number of instances of which nothing more will be sent.
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
        """The number of accepted messages that are not, or not yet, in the events topic."""
        return sum(len(instance.awaited) for instance in self._instances.values())

    @property
    def out_of_order(self) -> int:
        """The number of messages that appeared after a later one of the same instance."""
        return self._settled_out_of_order + sum(instance.out_of_order for instance in self._instances.values())

    @property
    def is_sound(self) -> bool:
        """Whether messages were published, none is lost, and all are in order."""
        return self.published > 0 and self.lost == 0 and self.out_of_order == 0

    def counts(self) -> dict[str, int]:
        """Return name → number, as in the demo's last line."""
        return {name: getattr(self, name) for name in ("sent", "accepted", "published", "lost", "out_of_order")}

    def is_ours(self, instance_id: str) -> bool:
        """Whether this demo sent a message of the instance and got an answer; old instances are forgotten."""
        return instance_id in self._instances or instance_id in self._settled

    def is_open(self, instance_id: str) -> bool:
        """Whether more answers or records of the instance are expected."""
        return instance_id in self._instances

    def answered(self, answer: Answer) -> None:
        """Count the outcome of a message."""
        instance = self._of(answer.instance_id)
        message_id = answer.message["msgId"]
        instance.places[message_id] = answer.seq
        self.sent += 1
        self.accepted += answer.outcome is Outcome.ACCEPTED
        # The reader may be faster than the answer: then `appeared` could not yet count the record as ours.
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
        """Count a record of the events topic; those of one instance come in the topic's order."""
        # Nothing more of it is expected, so that this is another sender's record or one that was read again.
        if instance_id in self._settled:
            return
        instance = self._instances.get(instance_id) or self._unknown_instance(instance_id)
        is_answered = message_id in instance.places
        is_full = not is_answered and len(instance.appeared) - len(instance.places) >= _MAX_AHEAD
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
        if len(self._unknown) >= MAX_UNKNOWN and instance_id not in self._unknown:
            self._unknown.popitem(last=False)
        return self._unknown.setdefault(instance_id, _Instance())

    def _settle(self, instance_id: str, instance: _Instance) -> None:
        """Move an instance that is complete to the settled ones, of which only the numbers are kept."""
        if not instance.is_settled:
            return
        del self._instances[instance_id]
        self._settled_out_of_order += instance.out_of_order
        self._settled[instance_id] = None
        if len(self._settled) > MAX_SETTLED:
            self._settled.popitem(last=False)


def _is_last(answer: Answer) -> bool:
    """Whether the platform sends nothing more of the instance: it has ended, or the platform gave up on a message."""
    has_given_up = answer.outcome is not Outcome.ACCEPTED and (answer.status is None or answer.status in RETRYABLE)
    return has_given_up or answer.seq + 1 == answer.total
