"""The state machine of one instance: which steps happen to it, in order.

A plot says what gets in the way (detours) and how it ends; the walk goes from node to node of the process::

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

SHORTEST_GAP_MS: Final = 20_000
LONGEST_GAP_MS: Final = 5_400_000


class Ending(Enum):
    """How an instance ends; all but APPROVED, VOIDED and DELETED_DRAFT do so at its last approval."""

    APPROVED = auto()
    REJECTED = auto()
    TERMINATED = auto()
    WITHDRAWN = auto()
    VOIDED = auto()
    DELETED_DRAFT = auto()


class Detour(Enum):
    """What happens at an approval in place of a plain approval."""

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
class Plot:
    """The course of one instance: its ending, and one detour for each approval until they are used up."""

    ending: Ending
    detours: tuple[Detour, ...] = ()
    draft: bool = False


PLOTS: Final = (
    *(Plot(Ending.APPROVED) for _ in range(6)),
    Plot(Ending.APPROVED, (Detour.TURN_OVER,)),
    Plot(Ending.APPROVED, (Detour.ADD_ASSIGNEE,)),
    Plot(Ending.APPROVED, (Detour.SEND_BACK,)),
    Plot(Ending.APPROVED, (Detour.COPY, Detour.SEND_BACK)),
    Plot(Ending.APPROVED, (Detour.WITHDRAW,)),
    Plot(Ending.APPROVED, (Detour.AUTO_APPROVE, Detour.COPY)),
    Plot(Ending.APPROVED, (Detour.AUTO_APPROVE_REPAIR,)),
    Plot(Ending.APPROVED, (Detour.SKIP,), draft=True),
    Plot(Ending.REJECTED),
    Plot(Ending.REJECTED, (Detour.ADD_ASSIGNEE,)),
    Plot(Ending.TERMINATED, (Detour.SUSPEND,)),
    Plot(Ending.WITHDRAWN, (Detour.URGE,)),
    Plot(Ending.VOIDED),
    Plot(Ending.DELETED_DRAFT, draft=True),
)
"""Any ``len(PLOTS)`` neighbouring instances play each of these once, and so every action and every status."""


MessageType = Literal["Instance", "Task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened; ``at_ms`` and ``opened_ms`` (of the task) are epoch milliseconds."""

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


class _Facts(TypedDict, total=False):
    """What only some steps tell, named as in ``Step``."""

    comment: str
    turned_to: tuple[Person, ...]
    added: tuple[Person, ...]
    copied: tuple[Person, ...]
    rolled_back_to: Node
    revoked_to: Node


Walk = Generator[Step, None, int | None]
"""The steps at one node; returns the position of the next, None once the instance has ended."""


def steps(process: Process, plot: Plot, starter: Person, dice: Random, start_ms: int) -> Iterator[Step]:
    """Tell one instance from its start at ``start_ms`` (epoch milliseconds) to its end."""
    return _Story(process, plot, starter, dice, start_ms).tell()


class _Story:
    """One instance on its way."""

    def __init__(self, process: Process, plot: Plot, starter: Person, dice: Random, start_ms: int) -> None:
        self._nodes = process.nodes
        self._plot = plot
        self._starter = starter
        self._dice = dice
        self._now_ms = start_ms
        self._opened_ms = start_ms
        self._node = process.nodes[0]
        self._approvers: tuple[Person, ...] = (starter,)
        self._detours = iter(plot.detours)
        self._last_approval = max(at for at, node in enumerate(self._nodes) if node.type is NodeType.APPROVAL)
        self._take: dict[Detour, Callable[[int], Walk]] = {
            Detour.TURN_OVER: self._turn_over,
            Detour.ADD_ASSIGNEE: self._add_assignee,
            Detour.SEND_BACK: self._send_back,
            Detour.WITHDRAW: self._withdraw,
            Detour.AUTO_APPROVE: self._auto_approve,
            Detour.AUTO_APPROVE_REPAIR: self._auto_approve_repair,
            Detour.SKIP: self._skip,
            Detour.COPY: self._copy,
            Detour.URGE: self._urge,
            Detour.SUSPEND: self._suspend,
        }

    def tell(self) -> Iterator[Step]:
        if self._plot.draft:
            yield self._task(Action.DRAFT)
        if self._plot.ending is Ending.DELETED_DRAFT:
            yield self._instance(Action.DELETE, Status.DELETED)
            return
        yield self._instance(Action.START)
        yield self._task(Action.SUBMIT)
        position: int | None = 1
        while position is not None:
            position = yield from self._visit(position)

    def _visit(self, position: int) -> Walk:
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

    def _decide(self, position: int) -> Walk:
        if position == self._last_approval and self._plot.ending not in {Ending.APPROVED, Ending.VOIDED}:
            return (yield from self._break())
        detour = next(self._detours, None)
        if detour is None:
            return (yield from self._approve(position))
        return (yield from self._take[detour](position))

    def _finish(self) -> Walk:
        yield self._instance(Action.FINISH, Status.APPROVED)
        if self._plot.ending is Ending.VOIDED:
            yield self._instance(Action.VOID, Status.VOIDED)
        return None

    def _break(self) -> Walk:
        if self._plot.ending is Ending.REJECTED:
            yield self._task(Action.REJECT, comment=self._dice.choice(REJECTING_COMMENTS))
            yield self._instance(Action.FINISH, Status.REJECTED)
        elif self._plot.ending is Ending.WITHDRAWN:
            comment = self._dice.choice(WITHDRAWING_COMMENTS)
            yield self._task(Action.WITHDRAW, comment=comment, revoked_to=self._nodes[0])
            yield self._instance(Action.WITHDRAW, Status.TERMINATED)
        else:
            yield self._task(Action.TERMINATE, comment=self._dice.choice(ENDING_COMMENTS))
            yield self._instance(Action.TERMINATE, Status.TERMINATED)
        return None

    def _approve(self, position: int) -> Walk:
        for _ in self._approvers:
            yield self._task(Action.APPROVE, comment=self._dice.choice(APPROVING_COMMENTS))
        return position + 1

    def _turn_over(self, position: int) -> Walk:
        other = self._someone()
        yield self._task(Action.TURN_OVER, comment=self._dice.choice(PASSING_ON_COMMENTS), turned_to=(other,))
        self._approvers = (other,)
        yield self._task(Action.TODO)
        return (yield from self._approve(position))

    def _add_assignee(self, position: int) -> Walk:
        other = self._someone()
        yield self._task(Action.ADD_ASSIGNEE, comment=self._dice.choice(PASSING_ON_COMMENTS), added=(other,))
        self._approvers = (*self._approvers, other)
        yield self._task(Action.TODO)
        return (yield from self._approve(position))

    def _send_back(self, position: int) -> Walk:
        earlier = max(at for at in range(position) if self._nodes[at].type in {NodeType.START, NodeType.APPROVAL})
        comment = self._dice.choice(SENDING_BACK_COMMENTS)
        yield self._task(Action.SEND_BACK, comment=comment, rolled_back_to=self._nodes[earlier])
        if earlier > 0:
            return earlier
        return (yield from self._submit_again())

    def _withdraw(self, _: int) -> Walk:
        comment = self._dice.choice(WITHDRAWING_COMMENTS)
        yield self._task(Action.WITHDRAW, comment=comment, revoked_to=self._nodes[0])
        return (yield from self._submit_again())

    def _submit_again(self) -> Walk:
        self._enter(0)
        yield self._task(Action.SUBMIT, comment="已修改，重新提交")
        return 1

    def _auto_approve(self, position: int) -> Walk:
        yield self._task(Action.AUTO_APPROVE, comment="审批人与发起人相同，自动同意")
        return position + 1

    def _auto_approve_repair(self, position: int) -> Walk:
        yield self._task(Action.AUTO_APPROVE_REPAIR, comment="审批人已离职，自动同意")
        return position + 1

    def _skip(self, position: int) -> Walk:
        yield self._task(Action.SKIP, comment="审批人为空，跳过")
        return position + 1

    def _copy(self, position: int) -> Walk:
        yield self._task(Action.APPROVAL_COPY, copied=(self._someone(), self._someone()))
        return (yield from self._approve(position))

    def _urge(self, position: int) -> Walk:
        yield self._task(Action.UNLISTED_URGE, comment="已超过两天，请尽快审批")
        return (yield from self._approve(position))

    def _suspend(self, position: int) -> Walk:
        yield self._instance(Action.UNLISTED_SUSPEND, Status.UNLISTED_SUSPENDED)
        yield self._instance(Action.UNLISTED_RESUME, Status.RUNNING)
        return (yield from self._approve(position))

    def _enter(self, position: int) -> None:
        self._node = self._nodes[position]
        self._opened_ms = self._now_ms
        if self._node.type is NodeType.START:
            self._approvers = (self._starter,)
        else:
            self._approvers = tuple(self._dice.sample(PEOPLE, self._node.persons))

    def _someone(self) -> Person:
        return self._dice.choice(PEOPLE)

    def _later(self) -> int:
        self._now_ms += self._dice.randrange(SHORTEST_GAP_MS, LONGEST_GAP_MS)
        return self._now_ms

    def _instance(self, action: Action, status: Status = Status.RUNNING) -> Step:
        return self._step("Instance", action, status)

    def _task(self, action: Action, **facts: Unpack[_Facts]) -> Step:
        return self._step("Task", action, Status.RUNNING, **facts)

    def _step(self, msg_type: MessageType, action: Action, status: Status, **facts: Unpack[_Facts]) -> Step:
        return Step(
            msg_type=msg_type,
            action=action,
            status=status,
            at_ms=self._later(),
            opened_ms=self._opened_ms,
            node=self._node,
            approvers=self._approvers,
            **facts,
        )
