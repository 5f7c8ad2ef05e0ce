"""The state machine of one instance: generates its steps, in order.

A scenario has deviations and a final state; the generator visits the nodes of the process one after another::

    [draft] → start → submit → node → node → … → finish
                        ↑        │ turn over, add assignee, skip, automatic approval: on to the next node
                        └────────┘ send back, withdraw: an earlier node again
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Final, Literal, TypedDict, Unpack

from connector.simulator.dictionaries import Action, Status
from connector.simulator.processes import (
    APPROVING_COMMENTS,
    ENDING_COMMENTS,
    PASSING_ON_COMMENTS,
    PEOPLE,
    REJECTING_COMMENTS,
    SENDING_BACK_COMMENTS,
    WITHDRAWING_COMMENTS,
    Node,
    NodeType,
    Person,
    Process,
)

MIN_GAP_MS: Final = 20_000
MAX_GAP_MS: Final = 5_400_000


class FinalState(Enum):
    """How an instance ends; in all states but APPROVED, VOIDED and DELETED_DRAFT it ends at its last approval."""

    APPROVED = auto()
    REJECTED = auto()
    TERMINATED = auto()
    WITHDRAWN = auto()
    VOIDED = auto()
    DELETED_DRAFT = auto()


class Deviation(Enum):
    """What happens at a node of approval instead of a plain approval."""

    TURN_OVER = auto()
    ADD_ASSIGNEE = auto()
    SEND_BACK = auto()
    WITHDRAW = auto()
    AUTO_APPROVE = auto()
    AUTO_APPROVE_REPAIR = auto()
    SKIP = auto()
    COPY = auto()
    URGE = auto()
    SUSPEND = auto()


@dataclass(frozen=True, slots=True)
class Scenario:
    """The course of one instance: its final state, and deviations, of which each approval uses up one."""

    final_state: FinalState
    deviations: tuple[Deviation, ...] = ()
    draft: bool = False


SCENARIOS: Final = (
    *(Scenario(FinalState.APPROVED) for _ in range(6)),
    Scenario(FinalState.APPROVED, (Deviation.TURN_OVER,)),
    Scenario(FinalState.APPROVED, (Deviation.ADD_ASSIGNEE,)),
    Scenario(FinalState.APPROVED, (Deviation.SEND_BACK,)),
    Scenario(FinalState.APPROVED, (Deviation.COPY, Deviation.SEND_BACK)),
    Scenario(FinalState.APPROVED, (Deviation.WITHDRAW,)),
    Scenario(FinalState.APPROVED, (Deviation.AUTO_APPROVE, Deviation.COPY)),
    Scenario(FinalState.APPROVED, (Deviation.AUTO_APPROVE_REPAIR,)),
    Scenario(FinalState.APPROVED, (Deviation.SKIP,), draft=True),
    Scenario(FinalState.REJECTED),
    Scenario(FinalState.REJECTED, (Deviation.ADD_ASSIGNEE,)),
    Scenario(FinalState.TERMINATED, (Deviation.SUSPEND,)),
    Scenario(FinalState.WITHDRAWN, (Deviation.URGE,)),
    Scenario(FinalState.VOIDED),
    Scenario(FinalState.DELETED_DRAFT, draft=True),
)
"""The scenarios, each played once by any ``len(SCENARIOS)`` consecutive instances: every action and status occurs."""


MessageType = Literal["Instance", "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event of an instance; ``at_ms`` and ``opened_ms`` (when the task was opened) are epoch milliseconds."""

    msg_type: MessageType
    action: Action
    status: Status
    at_ms: int
    opened_ms: int
    node: Node
    approvers: tuple[Person, ...]
    comment: str | None = None
    turned_to: tuple[Person, ...] = ()
    added: tuple[Person, ...] = ()
    copied: tuple[Person, ...] = ()
    rolled_back_to: Node | None = None
    revoked_to: Node | None = None


class _OptionalFields(TypedDict, total=False):
    """Optional fields of `Step`."""

    comment: str
    turned_to: tuple[Person, ...]
    added: tuple[Person, ...]
    copied: tuple[Person, ...]
    rolled_back_to: Node
    revoked_to: Node


Steps = Generator[Step, None, int | None]
"""Yields the steps at one node; returns the position of the next node, or None once the instance has ended."""


def steps(process: Process, scenario: Scenario, starter: Person, random: Random, start_ms: int) -> Iterator[Step]:
    """Generate the steps of one instance from its start at ``start_ms`` (epoch milliseconds) to its end."""
    return _Generator(process, scenario, starter, random, start_ms).steps()


class _Generator:
    """Generates the steps of one instance."""

    def __init__(self, process: Process, scenario: Scenario, starter: Person, random: Random, start_ms: int) -> None:
        self._nodes = process.nodes
        self._scenario = scenario
        self._starter = starter
        self._random = random
        self._now_ms = start_ms
        self._opened_ms = start_ms
        self._node = process.nodes[0]
        self._approvers: tuple[Person, ...] = (starter,)
        self._deviations = iter(scenario.deviations)
        self._last_approval = max(
            position for position, node in enumerate(self._nodes) if node.type is NodeType.APPROVAL
        )
        self._by_deviation: dict[Deviation, Callable[[int], Steps]] = {
            Deviation.TURN_OVER: self._turn_over,
            Deviation.ADD_ASSIGNEE: self._add_assignee,
            Deviation.SEND_BACK: self._send_back,
            Deviation.WITHDRAW: self._withdraw,
            Deviation.AUTO_APPROVE: self._auto_approve,
            Deviation.AUTO_APPROVE_REPAIR: self._auto_approve_repair,
            Deviation.SKIP: self._skip,
            Deviation.COPY: self._copy,
            Deviation.URGE: self._urge,
            Deviation.SUSPEND: self._suspend,
        }

    def steps(self) -> Iterator[Step]:
        if self._scenario.draft:
            yield self._task(Action.DRAFT)
        if self._scenario.final_state is FinalState.DELETED_DRAFT:
            yield self._instance(Action.DELETE, Status.DELETED)
            return
        yield self._instance(Action.START)
        yield self._task(Action.SUBMIT)
        position: int | None = 1
        while position is not None:
            position = yield from self._visit(position)

    def _visit(self, position: int) -> Steps:
        if position == len(self._nodes):
            return (yield from self._finish())
        self._enter(position)
        if self._node.type is NodeType.COPY:
            yield self._task(Action.NODE_COPY, copied=self._approvers)
            return position + 1
        for _ in self._approvers:
            yield self._task(Action.TODO)
        if self._node.type is NodeType.HANDLING:
            yield self._task(Action.HANDLE, comment="已办理")
            return position + 1
        return (yield from self._decide(position))

    def _decide(self, position: int) -> Steps:
        if position == self._last_approval and self._scenario.final_state not in {
            FinalState.APPROVED,
            FinalState.VOIDED,
        }:
            return (yield from self._break())
        # An iterator, so that a node that is visited again after a deviation does not deviate forever.
        deviation = next(self._deviations, None)
        if deviation is None:
            return (yield from self._approve(position))
        return (yield from self._by_deviation[deviation](position))

    def _finish(self) -> Steps:
        yield self._instance(Action.FINISH, Status.APPROVED)
        if self._scenario.final_state is FinalState.VOIDED:
            yield self._instance(Action.VOID, Status.VOIDED)
        return None

    def _break(self) -> Steps:
        if self._scenario.final_state is FinalState.REJECTED:
            yield self._task(Action.REJECT, comment=self._random.choice(REJECTING_COMMENTS))
            yield self._instance(Action.FINISH, Status.REJECTED)
        elif self._scenario.final_state is FinalState.WITHDRAWN:
            comment = self._random.choice(WITHDRAWING_COMMENTS)
            yield self._task(Action.WITHDRAW, comment=comment, revoked_to=self._nodes[0])
            yield self._instance(Action.WITHDRAW, Status.TERMINATED)
        else:
            yield self._task(Action.TERMINATE, comment=self._random.choice(ENDING_COMMENTS))
            yield self._instance(Action.TERMINATE, Status.TERMINATED)
        return None

    def _approve(self, position: int) -> Steps:
        for _ in self._approvers:
            yield self._task(Action.APPROVE, comment=self._random.choice(APPROVING_COMMENTS))
        return position + 1

    def _turn_over(self, position: int) -> Steps:
        other = self._someone()
        yield self._task(Action.TURN_OVER, comment=self._random.choice(PASSING_ON_COMMENTS), turned_to=(other,))
        self._approvers = (other,)
        yield self._task(Action.TODO)
        return (yield from self._approve(position))

    def _add_assignee(self, position: int) -> Steps:
        other = self._someone()
        yield self._task(Action.ADD_ASSIGNEE, comment=self._random.choice(PASSING_ON_COMMENTS), added=(other,))
        self._approvers = (*self._approvers, other)
        yield self._task(Action.TODO)
        return (yield from self._approve(position))

    def _send_back(self, position: int) -> Steps:
        earlier = max(
            index for index in range(position) if self._nodes[index].type in {NodeType.START, NodeType.APPROVAL}
        )
        comment = self._random.choice(SENDING_BACK_COMMENTS)
        yield self._task(Action.SEND_BACK, comment=comment, rolled_back_to=self._nodes[earlier])
        if earlier > 0:
            return earlier
        return (yield from self._submit_again())

    def _withdraw(self, _: int) -> Steps:
        comment = self._random.choice(WITHDRAWING_COMMENTS)
        yield self._task(Action.WITHDRAW, comment=comment, revoked_to=self._nodes[0])
        return (yield from self._submit_again())

    def _submit_again(self) -> Steps:
        self._enter(0)
        yield self._task(Action.SUBMIT, comment="已修改，重新提交")
        return 1

    def _auto_approve(self, position: int) -> Steps:
        yield self._task(Action.AUTO_APPROVE, comment="审批人与发起人相同，自动同意")
        return position + 1

    def _auto_approve_repair(self, position: int) -> Steps:
        yield self._task(Action.AUTO_APPROVE_REPAIR, comment="审批人已离职，自动同意")
        return position + 1

    def _skip(self, position: int) -> Steps:
        yield self._task(Action.SKIP, comment="审批人为空，跳过")
        return position + 1

    def _copy(self, position: int) -> Steps:
        yield self._task(Action.APPROVAL_COPY, copied=(self._someone(), self._someone()))
        return (yield from self._approve(position))

    def _urge(self, position: int) -> Steps:
        yield self._task(Action.UNLISTED_URGE, comment="已超过两天，请尽快审批")
        return (yield from self._approve(position))

    def _suspend(self, position: int) -> Steps:
        yield self._instance(Action.UNLISTED_SUSPEND, Status.UNLISTED_SUSPENDED)
        yield self._instance(Action.UNLISTED_RESUME, Status.RUNNING)
        return (yield from self._approve(position))

    def _enter(self, position: int) -> None:
        self._node = self._nodes[position]
        self._opened_ms = self._now_ms
        if self._node.type is NodeType.START:
            self._approvers = (self._starter,)
        else:
            self._approvers = tuple(self._random.sample(PEOPLE, self._node.persons))

    def _someone(self) -> Person:
        return self._random.choice(PEOPLE)

    def _later(self) -> int:
        self._now_ms += self._random.randrange(MIN_GAP_MS, MAX_GAP_MS)
        return self._now_ms

    def _instance(self, action: Action, status: Status = Status.RUNNING) -> Step:
        return self._step("Instance", action, status)

    def _task(self, action: Action, **fields: Unpack[_OptionalFields]) -> Step:
        return self._step("Task", action, Status.RUNNING, **fields)

    def _step(self, msg_type: MessageType, action: Action, status: Status, **fields: Unpack[_OptionalFields]) -> Step:
        return Step(
            msg_type=msg_type,
            action=action,
            status=status,
            at_ms=self._later(),
            opened_ms=self._opened_ms,
            node=self._node,
            approvers=self._approvers,
            **fields,
        )
