"""WeDa's vocabulary: names and codes of its messages, and the answer that it takes for success.

Paths, methods and HTTP headers are the connector's own choice and are in `connector.endpoints`.

`avro/*.avsc` defines all fields and dictionaries of codes (see `connector.message.schemas`); this module has only those
that the connector acts on. The simulator repeats these names on purpose: it plays WeDa and must not know what the
connector expects. For fields that it does not know, it sends the examples in the schemas.
"""

from types import MappingProxyType
from typing import Final

ACCEPTED_BODY: Final = b'{"code":0}'
"""The answer that WeDa takes for success."""

ENVELOPE: Final = "msgContext"
"""The member, form field or query parameter that holds the message."""

TEMPLATE: Final = f'{{"{ENVELOPE}": {{{{params.{ENVELOPE}}}}}}}'
"""The body template for WeDa's request. The only template that works without encoding, which WeDa cannot do."""

FORM: Final = "application/x-www-form-urlencoded"
"""The media type of a form with the message in `ENVELOPE`."""

JSON_MEDIA_TYPES: Final = ("application/json", "text/plain", "application/octet-stream")
"""The media types that platforms declare for a JSON body."""

INSTANCE_ID: Final = "instanceId"
"""The field with the instance's id; messages of one instance stay in order."""

MESSAGE_ID: Final = "msgId"
"""The field with the message's own id, part of its dedup key."""

MESSAGE_TYPE: Final = "msgType"
"""The field that says what a message is about: `INSTANCE` or `TASK`."""

INSTANCE: Final = "Instance"
"""``msgType`` of a message about a whole run of a process."""

TASK: Final = "Task"
"""``msgType`` of a message about one person's task."""

MESSAGE_TYPES: Final = MappingProxyType({name.lower(): name for name in (INSTANCE, TASK)})
"""``msgType`` in lower case → as it is published; WeDa's editions spell it differently."""

ENVIRONMENTS: Final = ("pre", "prod")
"""The values of ``envType``."""

IdAndName = tuple[tuple[str, str], ...]
"""Pairs of member names for id and name in a map of one person or node; other maps are id → name, of many."""

PERSON: Final[IdAndName] = (("userId", "userName"), ("id", "name"))
NODE: Final[IdAndName] = (("elementId", "elementName"), ("id", "name"))

NODES: Final = "elementMap"
APPROVERS: Final = "approverMap"
STARTER: Final = "startUserMap"
TURNED_TO: Final = "turnToUserMap"
ADDED: Final = "addAssigneeMap"
COPIED_TO: Final = "ccUserMap"
"""The fields whose maps name nodes and persons."""

PERSON_FIELDS: Final = MappingProxyType(
    {APPROVERS: "approver", STARTER: "starter", TURNED_TO: "turnedTo", ADDED: "added", COPIED_TO: "copiedTo"}
)
"""Field of maps of persons → the prefix of its two columns in `flat`."""

TODO: Final = 0
"""``action`` 待办: a task waits for somebody."""

APPROVE: Final = 2
"""``action`` 同意: one person approved; others of the node may still have to."""

REJECT: Final = 3
"""``action`` 拒绝: an approver turned the run down."""

TURN_OVER: Final = 4
"""``action`` 转办: a task was given to somebody else."""

WITHDRAW: Final = 5
"""``action`` 撤销: a task, or a whole run, was withdrawn."""

SEND_BACK: Final = 6
"""``action`` 回退: a task was sent back."""

ADD_ASSIGNEE: Final = 7
"""``action`` 会签加签: somebody else has to approve too."""

TERMINATE: Final = 8
"""``action`` 终止: an approver ended the run."""

VOID: Final = 16
"""``action`` 废弃流程: a run was made void."""

DELETE_INSTANCE: Final = 18
"""``action`` 删除流程实例: an instance was deleted."""

FINISH: Final = 23
"""``action`` 流程实例结束: a run has come to its end."""

COPIES: Final = frozenset({15, 21})
"""``action`` 节点抄送, 审批抄送: somebody was sent a copy, and nobody has to act."""

PASSES: Final = frozenset({1, 9, 13, 19, 20})
"""``action`` 提交, 跳过, 处理, 自动同意, 自动同意(异常处理): the node is passed."""

RUN_ENDS: Final = frozenset({TERMINATE, VOID, DELETE_INSTANCE, FINISH})
"""``action`` after which a run has ended, whatever its status."""

NODE_ENDS: Final = RUN_ENDS | {REJECT, WITHDRAW, SEND_BACK}
"""``action`` of a task after which nobody has to act at its node."""

TURNED_DOWN: Final = 2
"""``instanceStatus`` 已驳回: the run was turned down."""

APPROVED: Final = 3
"""``instanceStatus`` 审批通过: the run was approved."""

DELETED: Final = 5
"""``instanceStatus`` 已删除: the instance is deleted."""

_OVER: Final = frozenset({1, TURNED_DOWN, APPROVED, 4, DELETED})  # 1 已终止 terminated, 4 已作废 voided


def is_deleted(action: int | None, status: int | None) -> bool:
    """Whether a message about an instance says that it is deleted."""
    return action == DELETE_INSTANCE or status == DELETED


def is_over(action: int | None, status: int | None) -> bool:
    """Whether a message about an instance says that it has ended.

    A status that WeDa's page does not list, such as a suspended run, does not end it.
    """
    # After a withdrawal a run may go on from its start, so that the action decides only if the message has no status.
    return status in _OVER or action in RUN_ENDS or (action == WITHDRAW and status is None)
