"""Instances as people look for them: title, process, starter, state, and who waited at which node for how long.

Times are WeDa's own where a message has them, else when it was received. Everything is bounded: instances, visits,
people, and the length of each text.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from heapq import nsmallest
from itertools import islice
from operator import attrgetter
from statistics import median, quantiles
from typing import Any, Final

from connector.kafka.reader import ConsumerRecord
from connector.message import weda
from connector.message.persons import Person, nodes, persons
from connector.message.schemas import WORKFLOW_EVENT, codes, load

MOST_INSTANCES: Final = 5_000
"""Instances of an index: the one that changed longest ago makes room."""

MOST_VISITS: Final = 64
"""Visits of one instance that are kept: the latest."""

MOST_PEOPLE: Final = 32
"""People of one visit."""

MOST_LISTED: Final = 50
"""Rows of each table of `Figures`."""

_LONGEST: Final = 200
_TENTHS: Final = 10
_CHANGED_AT: Final = attrgetter("changed_at")


@dataclass(frozen=True, slots=True)
class Fact:
    """What one record says of its instance; times are epoch milliseconds."""

    instance_id: str
    received_at: int
    source: str
    kind: str
    title: str
    process: str
    starter: Mapping[str, str]
    started_at: int | None
    ended_at: int | None
    action: int | None
    status: int | None
    state: str
    node_id: str
    node: str
    people: Mapping[str, str]
    to: Mapping[str, str]
    opened_at: int | None
    closed_at: int | None


@dataclass(slots=True)
class Visit:
    """A stay of an instance at a node.

    Attributes:
        node_id: The node.
        node: Its name.
        opened_at: When it was reached, in epoch milliseconds.
        people: Who had to act there: id → name.
        waiting: Those of them who have not acted, as far as the messages tell.
        closed_at: When somebody acted last, or None.
        decided: How many have acted.
        is_over: Nothing is waited for here any more.
        is_sent_back: It ended by a send-back.
    """

    node_id: str
    node: str
    opened_at: int
    people: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    closed_at: int | None = None
    decided: int = 0
    is_over: bool = False
    is_sent_back: bool = False

    def wait_for(self, people: Mapping[str, str]) -> None:
        """Somebody has to act here."""
        if len(self.people) < MOST_PEOPLE:
            self.people |= people
            self.waiting |= people

    def decide(self, people: Mapping[str, str], at: int) -> None:
        """One of them has acted; the message names that one, or all of the node."""
        self.decided += 1
        self.closed_at = at
        if len(people) == 1:
            self.waiting.pop(next(iter(people)), None)
        if self.decided >= len(self.people):
            self.close(at)

    def close(self, at: int) -> None:
        """Nobody has to act here any more."""
        self.is_over = True
        self.closed_at = at if self.closed_at is None else max(self.closed_at, at)
        self.waiting = {}

    def milliseconds(self, now: int) -> int:
        """How long it took, or has taken until now."""
        end = self.closed_at if self.is_over and self.closed_at is not None else now
        return max(end - self.opened_at, 0)


class Instance:
    """One instance.

    Args:
        instance_id: Its id.
    """

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.title = ""
        self.process = ""
        self.source = ""
        self.state = ""
        self.status: int | None = None
        self.started_at: int | None = None
        self.ended_at: int | None = None
        self.changed_at = 0
        self.send_backs = 0
        self.visits: list[Visit] = []
        self._starter: dict[str, str] = {}

    def take(self, fact: Fact) -> None:
        """Add what the next record says."""
        self.changed_at = max(self.changed_at, fact.received_at)
        self.source = fact.source
        self.title = fact.title or self.title
        self.process = fact.process or self.process
        self.state = fact.state or self.state
        self.status = self.status if fact.status is None else fact.status
        self._starter = dict(fact.starter) or self._starter
        self.started_at = fact.started_at or self.started_at or fact.received_at
        if fact.kind == weda.TASK and fact.node:
            self._act(fact)
        elif fact.kind == weda.INSTANCE and weda.is_over(fact.action, fact.status):
            self.ended_at = fact.ended_at or fact.received_at
            self._close_all(self.ended_at)

    @property
    def starter(self) -> str:
        """Who started it."""
        return joined(self._starter)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def waiting(self) -> list[Visit]:
        """Where somebody has to act now."""
        return [visit for visit in tuple(self.visits) if not visit.is_over and visit.waiting]

    @property
    def waits_for(self) -> str:
        """Who has to act now."""
        return joined({key: name for visit in self.waiting for key, name in visit.waiting.items()})

    @property
    def waits_since(self) -> int | None:
        """Since when the first of them has to."""
        return min((visit.opened_at for visit in self.waiting), default=None)

    def longest_at(self, now: int) -> Visit | None:
        """The visit that took longest, those that go on counted until now."""
        return max(tuple(self.visits), key=lambda visit: visit.milliseconds(now), default=None)

    @property
    def last_at(self) -> int:
        """The latest time that is known of it, in WeDa's own times where there are any."""
        times = (time for visit in tuple(self.visits) for time in (visit.opened_at, visit.closed_at) if time)
        return max((self.ended_at or 0, *times)) or self.changed_at

    @property
    def people(self) -> set[str]:
        """Names of all who had to act."""
        return {name for visit in tuple(self.visits) for name in visit.people.values()}

    def milliseconds(self, now: int) -> int | None:
        """From its start to its end, or until now."""
        return None if self.started_at is None else max((self.ended_at or now) - self.started_at, 0)

    def matches(self, words: Iterable[str]) -> bool:
        """Whether each word, in lower case, is in its title, process, people or id."""
        text = "\n".join((self.title, self.process, self.starter, *self.people, self.instance_id)).lower()
        return all(word in text for word in words)

    def _act(self, fact: Fact) -> None:
        action, at = fact.action, fact.closed_at or fact.opened_at or fact.received_at
        if action in weda.COPIES:
            return
        visit = self._visit(fact)
        if action == weda.TURN_OVER and fact.to:
            visit.waiting = {}
            visit.people = {key: name for key, name in visit.people.items() if key not in fact.people}
            visit.wait_for(fact.to)
        elif action in {weda.TODO, weda.ADD_ASSIGNEE}:
            visit.wait_for({**fact.people, **fact.to} if action == weda.TODO else fact.to)
        elif action in weda.NODE_ENDS:
            self._close_all(fact.closed_at or fact.received_at)
            visit.is_sent_back = action == weda.SEND_BACK
            self.send_backs += visit.is_sent_back
        elif action in weda.PASSES:
            visit.people |= fact.people
            visit.close(at)
        elif action == weda.APPROVE:
            visit.people = visit.people or dict(fact.people)
            visit.decide(fact.people, at)

    def _visit(self, fact: Fact) -> Visit:
        """The visit that goes on at a node, or a new one: others that somebody has decided on are over then."""
        for visit in reversed(self.visits):
            if visit.node_id == fact.node_id and not visit.is_over:
                return visit
        for visit in self.visits:
            if visit.decided and not visit.is_over:
                visit.close(visit.opened_at)
        visit = Visit(fact.node_id, fact.node, fact.opened_at or fact.received_at)
        self.visits = [*self.visits[1 - MOST_VISITS :], visit]
        return visit

    def _close_all(self, at: int) -> None:
        for visit in self.visits:
            if not visit.is_over:
                visit.close(at)


@dataclass(frozen=True, slots=True)
class DurationSummary:
    """Durations of one kind, in milliseconds."""

    name: str
    where: str
    count: int
    median: float
    p90: float
    longest: float


@dataclass(frozen=True, slots=True)
class PendingPerson:
    """Somebody who is waited for: how many instances, and since when the first of them."""

    name: str
    count: int
    since: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What the instances of an index have in common.

    Attributes:
        running: Instances of each process that go on.
        processes: How long those that have ended took, by process.
        nodes: How long the visits of each node of a process took that are over.
        send_backs: Node and process → send-backs.
        waited: Who is waited for, by the number of instances.
    """

    running: dict[str, int]
    processes: list[DurationSummary]
    nodes: list[DurationSummary]
    send_backs: list[tuple[str, str, int]]
    waited: list[PendingPerson]


class Index:
    """The instances that changed last.

    Args:
        most: Instances that are kept.
    """

    def __init__(self, most: int = MOST_INSTANCES) -> None:
        self._most = most
        self._instances: dict[str, Instance] = {}
        self.forgotten_at: int | None = None
        """When the latest instance changed that had to make room, or None."""

    def __len__(self) -> int:
        """How many instances it has."""
        return len(self._instances)

    def take(self, facts: Iterable[Fact]) -> None:
        """Add what records say, in their order."""
        for fact in facts:
            instance = self._instances.get(fact.instance_id)
            if instance is None:
                instance = self._instances[fact.instance_id] = Instance(fact.instance_id)
            instance.take(fact)
        # Partitions are read side by side, so that the order of reading is not that of the changes.
        for gone in nsmallest(len(self._instances) - self._most, self._instances.values(), key=_CHANGED_AT):
            del self._instances[gone.instance_id]
            self.forgotten_at = max(self.forgotten_at or 0, gone.changed_at)

    def instances(self) -> list[Instance]:
        """All of them, those that changed last first."""
        return sorted(self._instances.values(), key=_CHANGED_AT, reverse=True)


def find(instances: Iterable[Instance], text: str, most: int) -> list[Instance]:
    """Instances in which each word of a text is; those that wait for such a person first, then as they come."""
    words = text.lower().split()
    found = [instance for instance in instances if instance.matches(words)]
    return sorted(found, key=lambda instance: not any(word in instance.waits_for.lower() for word in words))[:most]


def figures(instances: Iterable[Instance]) -> Figures:
    """The figures of some instances."""
    running: dict[str, int] = {}
    processes: dict[str, list[int]] = {}
    nodes: dict[tuple[str, str], list[int]] = {}
    send_backs: dict[tuple[str, str], int] = {}
    waited: dict[str, list[int]] = {}
    for each in instances:
        took = each.milliseconds(each.last_at)
        if each.is_over and took is not None:
            processes.setdefault(each.process, []).append(took)
        elif not each.is_over:
            running[each.process] = running.get(each.process, 0) + 1
        for visit in tuple(each.visits):
            place = visit.node, each.process
            if visit.is_over:
                nodes.setdefault(place, []).append(visit.milliseconds(visit.opened_at))
            if visit.is_sent_back:
                send_backs[place] = send_backs.get(place, 0) + 1
        for visit in each.waiting:
            for name in visit.waiting.values():
                waited.setdefault(name, []).append(visit.opened_at)
    return Figures(
        running,
        _summaries({(name, ""): times for name, times in processes.items()}),
        _summaries(nodes),
        [(*place, count) for place, count in sorted(send_backs.items(), key=lambda one: -one[1])[:MOST_LISTED]],
        [
            PendingPerson(name, len(times), min(times))
            for name, times in sorted(waited.items(), key=lambda one: (-len(one[1]), min(one[1])))[:MOST_LISTED]
        ],
    )


def fact_of(record: ConsumerRecord) -> Fact | None:
    """What a record says, or None of one that has no fields."""
    value = record.value
    if not isinstance(value, dict) or record.key is None:
        return None
    action, status = value.get("action"), value.get("instanceStatus")
    return Fact(
        record.key,
        value.get("receivedAt") or record.timestamp,
        value.get("source") or "",
        value.get("msgType") or "",
        _text(value, "flowTitle"),
        _text(value, "processName"),
        people_of(value, weda.STARTER),
        value.get("startTime") or None,
        value.get("endTime") or None,
        action,
        status,
        _text(value, "instanceStatusName") or meaning("instanceStatus", status),
        value.get("elementId") or _text(value, "elementName"),
        _text(value, "elementName") or joined(nodes_of(value)),
        people_of(value, weda.APPROVERS),
        {**people_of(value, weda.TURNED_TO), **people_of(value, weda.ADDED)},
        value.get("taskStartTime") or None,
        value.get("taskEndTime") or None,
    )


def facts_of(records: Iterable[ConsumerRecord]) -> Iterator[Fact]:
    """What records say, those without fields left out."""
    for record in records:
        fact = fact_of(record)
        if fact is not None:
            yield fact


def people_of(value: Mapping[str, Any], field: str) -> dict[str, str]:
    """The people that a field of a record's value names, id → name."""
    return _bounded(persons(value, field))


def nodes_of(value: Mapping[str, Any]) -> dict[str, str]:
    """The nodes that a record's value names, id → name."""
    return _bounded(nodes(value))


def joined(people: Mapping[str, str]) -> str:
    """The names in one text."""
    return "、".join(dict.fromkeys(people.values()))


@cache
def _meanings(name: str) -> Mapping[int, str]:
    return {code.value: code.name for code in codes(load(WORKFLOW_EVENT), name)}


def meaning(name: str, code: int | None) -> str:
    """What WeDa calls a code of a field, or the empty text."""
    return "" if code is None else _meanings(name).get(code, "")


def _bounded(people: Iterable[Person]) -> dict[str, str]:
    return {person.id[:_LONGEST]: person.name[:_LONGEST] for person in islice(people, MOST_PEOPLE)}


def _text(value: Mapping[str, Any], name: str) -> str:
    return (value.get(name) or "")[:_LONGEST]


def _summaries(times: Mapping[tuple[str, str], list[int]]) -> list[DurationSummary]:
    """The slowest first."""
    spreads = [
        DurationSummary(name, where, len(each), median(each), _p90(each), max(each))
        for (name, where), each in times.items()
    ]
    return sorted(spreads, key=lambda spread: -spread.median)[:MOST_LISTED]


def _p90(times: list[int]) -> float:
    return quantiles(times, n=_TENTHS, method="inclusive")[-1] if len(times) > 1 else float(times[0])
