"""The message that every benchmark sends: one Task message of about 1 kB, as WeDa's most common template renders it."""

from typing import Any, Final

import msgspec

MESSAGE_ID: Final = "{message-id}"
INSTANCE_ID: Final = "{instance-id}"
ID_DIGITS: Final = 32

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


def ids(run: str, number: int, instances: int) -> tuple[str, str]:
    """The msgId and instanceId of a run's message, of fixed width; the msgId is never the same twice in a run.

    Args:
        run: Eight hex digits that no other run has.
        number: The message's place in the run, from 0.
        instances: The messages go round over so many instances; 0 gives each message an instance of its own.
    """
    instance = number % instances if instances else number
    return f"{run}{number:024x}", f"{run}{instance:024x}"


def with_ids(template: bytes, message_id: str, instance_id: str) -> bytes:
    """The body of one message."""
    return template.replace(MESSAGE_ID.encode(), message_id.encode()).replace(
        INSTANCE_ID.encode(), instance_id.encode()
    )


def _sized(size: int) -> dict[str, Any]:
    small = {name: TASK[name] for name in _NEEDED}
    if len(msgspec.json.encode(TASK)) > size:
        return small | {"comment": _comment(size - len(msgspec.json.encode(small)))}
    return TASK | {"comment": _comment(size - len(msgspec.json.encode(TASK)))}


def _comment(size: int) -> str:
    count = max(size, 0) // len(_SENTENCE.encode())
    return "".join(_SENTENCE.format(number) for number in range(count))
