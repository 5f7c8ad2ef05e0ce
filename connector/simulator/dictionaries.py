"""WeDa's codes and their names as listed on its page 流程消息订阅, and some that the page does not list."""

from enum import IntEnum
from typing import Final


class Action(IntEnum):
    """What was done to an instance or a task; WeDa's page leaves 10-12 and 14 unassigned."""

    TODO = 0
    SUBMIT = 1
    APPROVE = 2
    REJECT = 3
    TURN_OVER = 4
    WITHDRAW = 5
    SEND_BACK = 6
    ADD_ASSIGNEE = 7
    TERMINATE = 8
    SKIP = 9
    UNLISTED_URGE = 14  # UNLISTED: not on the page, so that the connector meets codes that it does not know
    HANDLE = 13
    NODE_COPY = 15
    VOID = 16
    DRAFT = 17
    DELETE = 18
    AUTO_APPROVE = 19
    AUTO_APPROVE_REPAIR = 20
    APPROVAL_COPY = 21
    START = 22
    FINISH = 23
    UNLISTED_SUSPEND = 24
    UNLISTED_RESUME = 25


class Status(IntEnum):
    """The states of an instance."""

    RUNNING = 0
    TERMINATED = 1
    REJECTED = 2
    APPROVED = 3
    VOIDED = 4
    DELETED = 5
    UNLISTED_SUSPENDED = 6


class TaskStatus(IntEnum):
    """The states of a task; no page of WeDa lists these codes."""

    OPEN = 0
    DONE = 1
    PASSED_ON = 2
    REVOKED = 3
    COPIED = 4


ACTION_NAMES: Final = {
    Action.TODO: "待办",
    Action.SUBMIT: "提交",
    Action.APPROVE: "同意",
    Action.REJECT: "拒绝",
    Action.TURN_OVER: "转办",
    Action.WITHDRAW: "撤销",
    Action.SEND_BACK: "回退",
    Action.ADD_ASSIGNEE: "会签加签",
    Action.TERMINATE: "终止",
    Action.SKIP: "跳过",
    Action.HANDLE: "处理",
    Action.UNLISTED_URGE: "催办",
    Action.NODE_COPY: "节点抄送",
    Action.VOID: "废弃流程",
    Action.DRAFT: "保存草稿",
    Action.DELETE: "删除流程实例",
    Action.AUTO_APPROVE: "自动同意",
    Action.AUTO_APPROVE_REPAIR: "自动同意(异常处理)",
    Action.APPROVAL_COPY: "审批抄送",
    Action.START: "触发流程实例",
    Action.FINISH: "流程实例结束",
    Action.UNLISTED_SUSPEND: "挂起",
    Action.UNLISTED_RESUME: "恢复",
}

STATUS_NAMES: Final = {
    Status.RUNNING: "审批中",
    Status.TERMINATED: "已终止",
    Status.REJECTED: "已驳回",
    Status.APPROVED: "审批通过",
    Status.VOIDED: "已作废",
    Status.DELETED: "已删除",
    Status.UNLISTED_SUSPENDED: "已挂起",
}

TASK_STATUS_NAMES: Final = {
    TaskStatus.OPEN: "待处理",
    TaskStatus.DONE: "已处理",
    TaskStatus.PASSED_ON: "已转办",
    TaskStatus.REVOKED: "已撤回",
    TaskStatus.COPIED: "已抄送",
}

TASK_STATUS_AFTER: Final = {
    Action.TODO: TaskStatus.OPEN,
    Action.DRAFT: TaskStatus.OPEN,
    Action.ADD_ASSIGNEE: TaskStatus.OPEN,
    Action.UNLISTED_URGE: TaskStatus.OPEN,
    Action.TURN_OVER: TaskStatus.PASSED_ON,
    Action.WITHDRAW: TaskStatus.REVOKED,
    Action.NODE_COPY: TaskStatus.COPIED,
    Action.APPROVAL_COPY: TaskStatus.COPIED,
}
"""Action → the state in which it leaves its task; after every other action the task is done."""
