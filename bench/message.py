"""One fixed Task message of about 1 kB, whose length and types never change; other sizes of it, for curves."""

from typing import Any, Final

import msgspec

MESSAGE_ID: Final = "{message-id}"
INSTANCE_ID: Final = "{instance-id}"

TASK: Final[dict[str, Any]] = {
    "msgId": MESSAGE_ID,
    "msgType": "Task",
    "action": 2,
    "actionName": "同意",
    "processName": "费用报销",
    "processKey": "flow_expense_7fd",
    "flowTitle": "宋佳的费用报销-市内交通费86元",
    "flowCode": "flow_expense_7fd_v8",
    "startTime": 1700002142278,
    "instanceId": INSTANCE_ID,
    "envType": "prod",
    "sourceType": "MINI_PROGRAM",
    "requestId": "13f6cecb3719a151",
    "approverMap": [{"userId": "1900166995", "userName": "林雨桐"}],
    "startUserMap": [{"userId": "1900214509", "userName": "宋佳"}],
    "taskStatus": 1,
    "taskStatusName": "已处理",
    "elementId": "UserTask_1a4k",
    "elementName": "部门经理审批",
    "elementType": "UserTask",
    "elementTypeName": "审批节点",
    "comment": "同意，请财务核对发票后付款",
    "ccUserMap": [],
    "taskMap": [{"taskId": "09929774-06813992-0", "assignee": "林雨桐"}],
    "pageUrlMap": [{"taskId": "09929774-06813992", "url": "https://oa.example.com/app/todo?taskId=09929774-06813992"}],
    "taskStartTime": 1700006813992,
    "taskEndTime": 1700008102417,
    "isCcTask": False,
}
_NEEDED: Final = ("msgId", "msgType", "action", "processKey", "instanceId", "envType", "taskStatus", "taskStartTime")
_SENTENCE: Final = "附件已补齐，金额与合同一致，第{}条说明见备注。"


def body(size: int | None = None) -> bytes:
    """The request's body with `MESSAGE_ID` and `INSTANCE_ID` where the ids go.

    Args:
        size: About so many bytes: fewer fields, or a longer comment; None leaves the message as it is.
    """
    message = TASK if size is None else _sized(size)
    return msgspec.json.encode({"msgContext": msgspec.json.encode(message).decode()})


def _sized(size: int) -> dict[str, Any]:
    small = {name: TASK[name] for name in _NEEDED}
    if len(msgspec.json.encode(TASK)) > size:
        return small | {"comment": _comment(size - len(msgspec.json.encode(small)))}
    return TASK | {"comment": _comment(size - len(msgspec.json.encode(TASK)))}


def _comment(size: int) -> str:
    count = max(size, 0) // len(_SENTENCE.encode())
    return "".join(_SENTENCE.format(number) for number in range(count))
