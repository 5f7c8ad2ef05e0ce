"""Instances as people search for them: title, process, starter, state, and who waited at which node for how long.

Times are WeDa's own if a message has them, otherwise the time of receipt. Everything is bounded: instances, visits,
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

MAX_INSTANCES: Final = 5_000
"""Instances in an index; when it is full, the one that changed longest ago is dropped."""

MAX_VISITS: Final = 64
"""Visits kept of one instance, the latest ones."""

MAX_PEOPLE: Final = 32
"""People of one visit."""

MAX_LISTED: Final = 50
"""Rows of each table of `Figures`."""

_MAX_TEXT_CHARS: Final = 200
_DECILES: Final = 10
_CHANGED_AT: Final = attrgetter("changed_at")


@dataclass(frozen=True, slots=True)
class Fact:
    """What one record says about its instance; times are epoch milliseconds."""

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
        node_id: The node's id.
        node: The node's name.
        opened_at: When the node was reached, in epoch milliseconds.
        people: Who had to act there: id → name.
        waiting: Those who have not acted yet, judging by the messages.
        closed_at: When somebody last acted, in epoch milliseconds, or None.
        decided: How many have acted.
        is_over: Whether nobody has to act here any more.
        is_sent_back: Whether a send-back ended it.
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
        """Add people who have to act here."""
        if len(self.people) < MAX_PEOPLE:
            self.people |= people
            self.waiting |= people

    def decide(self, people: Mapping[str, str], at: int) -> None:
        """Record that one person has acted."""
        self.decided += 1
        self.closed_at = at
        # A message names either the person who acted or everybody at the node; the latter does not say who acted.
        if len(people) == 1:
            self.waiting.pop(next(iter(people)), None)
        if self.decided >= len(self.people):
            self.close(at)

    def close(self, at: int) -> None:
        """End the visit: nobody has to act here any more."""
        self.is_over = True
        self.closed_at = at if self.closed_at is None else max(self.closed_at, at)
        self.waiting = {}

    def milliseconds(self, now: int) -> int:
        """How long the visit took, or has taken until ``now``."""
        end = self.closed_at if self.is_over and self.closed_at is not None else now
        return max(end - self.opened_at, 0)


class Instance:
    """One instance, built from its records.

    Args:
        instance_id: The ``instanceId``.
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
        """Update the instance from its next record."""
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
        """Names of the people who started it."""
        return joined(self._starter)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    @property
    def waiting(self) -> list[Visit]:
        """The visits at which somebody has to act now."""
        # A copy: pages are made in a thread, while the event loop takes facts into the same instances.
        return [visit for visit in tuple(self.visits) if not visit.is_over and visit.waiting]

    @property
    def waits_for(self) -> str:
        """Names of the people who have to act now."""
        return joined({key: name for visit in self.waiting for key, name in visit.waiting.items()})

    @property
    def waits_since(self) -> int | None:
        """When the longest wait began, in epoch milliseconds, or None if nobody has to act."""
        return min((visit.opened_at for visit in self.waiting), default=None)

    def longest_at(self, now: int) -> Visit | None:
        """The visit that took longest; open visits count until ``now``."""
        return max(tuple(self.visits), key=lambda visit: visit.milliseconds(now), default=None)

    @property
    def last_at(self) -> int:
        """The latest known time of the instance, in epoch milliseconds; WeDa's own times if there are any."""
        times = (time for visit in tuple(self.visits) for time in (visit.opened_at, visit.closed_at) if time)
        return max((self.ended_at or 0, *times)) or self.changed_at

    @property
    def people(self) -> set[str]:
        """Names of everybody who had to act."""
        return {name for visit in tuple(self.visits) for name in visit.people.values()}

    def milliseconds(self, now: int) -> int | None:
        """How long it took from start to end, or has taken until ``now``."""
        return None if self.started_at is None else max((self.ended_at or now) - self.started_at, 0)

    def matches(self, words: Iterable[str]) -> bool:
        """Whether the title, the process, the people or the id contain every word; words are in lower case."""
        text = "\n".join((self.title, self.process, self.starter, *self.people, self.instance_id)).lower()
        return all(word in text for word in words)

    def _act(self, fact: Fact) -> None:
        action, at = fact.action, fact.closed_at or fact.opened_at or fact.received_at
        if action in weda.COPIES:
            return
        visit = self._visit(fact)
        if action == weda.TURN_OVER and fact.to:
            # The approvers in such a message gave the task away; the receivers have to act in their place.
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
        """Return the open visit at the node of a fact, or begin one."""
        for visit in reversed(self.visits):
            if visit.node_id == fact.node_id and not visit.is_over:
                return visit
        # WeDa does not say whether one approver is enough. A flow that goes on elsewhere after a decision shows it was.
        for visit in self.visits:
            if visit.decided and not visit.is_over:
                visit.close(visit.opened_at)
        visit = Visit(fact.node_id, fact.node, fact.opened_at or fact.received_at)
        self.visits = [*self.visits[1 - MAX_VISITS :], visit]
        return visit

    def _close_all(self, at: int) -> None:
        for visit in self.visits:
            if not visit.is_over:
                visit.close(at)


@dataclass(frozen=True, slots=True)
class DurationSummary:
    """Durations of one process or node, in milliseconds."""

    name: str
    where: str
    count: int
    median: float
    p90: float
    longest: float


@dataclass(frozen=True, slots=True)
class PendingPerson:
    """A person who has to act: in how many instances, and since when (epoch milliseconds) the longest."""

    name: str
    count: int
    since: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Statistics of the instances in an index.

    Attributes:
        running: Process → instances that have not ended.
        processes: Durations of the instances that have ended, by process.
        nodes: Durations of the visits that are over, by node and process.
        send_backs: Node, process and number of send-backs, most first.
        waited: The people who have to act, those with most instances first.
    """

    running: dict[str, int]
    processes: list[DurationSummary]
    nodes: list[DurationSummary]
    send_backs: list[tuple[str, str, int]]
    waited: list[PendingPerson]


class Index:
    """The instances that changed last.

    Args:
        limit: How many instances are kept.
    """

    def __init__(self, limit: int = MAX_INSTANCES) -> None:
        self._limit = limit
        self._instances: dict[str, Instance] = {}
        self.forgotten_at: int | None = None
        """When the most recently changed instance among the dropped ones changed, in epoch milliseconds, or None."""

    def __len__(self) -> int:
        """Number of instances."""
        return len(self._instances)

    def take(self, facts: Iterable[Fact]) -> None:
        """Update the instances from facts, in the order given."""
        for fact in facts:
            instance = self._instances.get(fact.instance_id)
            if instance is None:
                instance = self._instances[fact.instance_id] = Instance(fact.instance_id)
            instance.take(fact)
        # Partitions are read side by side, so the order of reading is not the order of the changes.
        for dropped in nsmallest(len(self._instances) - self._limit, self._instances.values(), key=_CHANGED_AT):
            del self._instances[dropped.instance_id]
            self.forgotten_at = max(self.forgotten_at or 0, dropped.changed_at)

    def instances(self) -> list[Instance]:
        """All instances, the last changed first."""
        return sorted(self._instances.values(), key=_CHANGED_AT, reverse=True)


def find(instances: Iterable[Instance], text: str, limit: int) -> list[Instance]:
    """Return the instances that match every word of a text, those that wait for a person of that name first."""
    words = text.lower().split()
    matches = [instance for instance in instances if instance.matches(words)]
    # A stable sort: within both groups the order stays that of the argument.
    return sorted(matches, key=lambda instance: not any(word in instance.waits_for.lower() for word in words))[:limit]


def figures(instances: Iterable[Instance]) -> Figures:
    """Compute the statistics of instances."""
    running: dict[str, int] = {}
    processes: dict[str, list[int]] = {}
    nodes: dict[tuple[str, str], list[int]] = {}
    send_backs: dict[tuple[str, str], int] = {}
    waited: dict[str, list[int]] = {}
    for instance in instances:
        duration = instance.milliseconds(instance.last_at)
        if instance.is_over and duration is not None:
            processes.setdefault(instance.process, []).append(duration)
        elif not instance.is_over:
            running[instance.process] = running.get(instance.process, 0) + 1
        for visit in tuple(instance.visits):
            place = visit.node, instance.process
            if visit.is_over:
                nodes.setdefault(place, []).append(visit.milliseconds(visit.opened_at))
            if visit.is_sent_back:
                send_backs[place] = send_backs.get(place, 0) + 1
        for visit in instance.waiting:
            for name in visit.waiting.values():
                waited.setdefault(name, []).append(visit.opened_at)
    return Figures(
        running,
        _summaries({(name, ""): times for name, times in processes.items()}),
        _summaries(nodes),
        [(*place, count) for place, count in sorted(send_backs.items(), key=lambda item: -item[1])[:MAX_LISTED]],
        [
            PendingPerson(name, len(times), min(times))
            for name, times in sorted(waited.items(), key=lambda item: (-len(item[1]), min(item[1])))[:MAX_LISTED]
        ],
    )


def fact_of(record: ConsumerRecord) -> Fact | None:
    """Return what a record says, or None if it has no fields."""
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
    """Yield what records say; records without fields are skipped."""
    for record in records:
        fact = fact_of(record)
        if fact is not None:
            yield fact


def people_of(value: Mapping[str, Any], field: str) -> dict[str, str]:
    """Return the people that a field names, id → name."""
    return _bounded(persons(value, field))


def nodes_of(value: Mapping[str, Any]) -> dict[str, str]:
    """Return the nodes that a record's value names, id → name."""
    return _bounded(nodes(value))


def joined(people: Mapping[str, str]) -> str:
    """Join the names of people or nodes into one text, each name once."""
    return "、".join(dict.fromkeys(people.values()))


@cache
def _meanings(name: str) -> Mapping[int, str]:
    return {code.value: code.name for code in codes(load(WORKFLOW_EVENT), name)}


def meaning(name: str, code: int | None) -> str:
    """Return WeDa's name of a field's code, or an empty text."""
    return "" if code is None else _meanings(name).get(code, "")


def _bounded(people: Iterable[Person]) -> dict[str, str]:
    return {person.id[:_MAX_TEXT_CHARS]: person.name[:_MAX_TEXT_CHARS] for person in islice(people, MAX_PEOPLE)}


def _text(value: Mapping[str, Any], name: str) -> str:
    return (value.get(name) or "")[:_MAX_TEXT_CHARS]


def _summaries(times: Mapping[tuple[str, str], list[int]]) -> list[DurationSummary]:
    """Summarize durations, the slowest median first."""
    summaries = [
        DurationSummary(name, where, len(durations), median(durations), _p90(durations), max(durations))
        for (name, where), durations in times.items()
    ]
    return sorted(summaries, key=lambda summary: -summary.median)[:MAX_LISTED]


def _p90(times: list[int]) -> float:
    # quantiles() wants at least two values.
    return quantiles(times, n=_DECILES, method="inclusive")[-1] if len(times) > 1 else float(times[0])
