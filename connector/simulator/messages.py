"""Writes a step as the message that WeDa would send: every field, in all the loose forms that WeDa may use.

A field without a value is missing, null or an empty string; an int may be a string; a date has one of the forms of
``DATE_FORMS``; people are a list of maps or, as in the newer edition of WeDa's page, one bare map of id → name. A field
of the schema that steps know nothing about has the example from its documentation in every message.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any, Final
from uuid import UUID

from connector.message.schemas import INSTANCE_EVENT, TASK_EVENT, examples, load
from connector.simulator.dictionaries import (
    ACTION_NAMES,
    STATUS_NAMES,
    TASK_STATUS_AFTER,
    TASK_STATUS_NAMES,
    Status,
    TaskStatus,
)
from connector.simulator.processes import Node, NodeType, Person, Process
from connector.simulator.scenarios import Step

Message = dict[str, Any]

ZONE: Final = timezone(timedelta(hours=8), "Asia/Shanghai")

SHARE_OF_INTS_AS_TEXT: Final = 0.06
SHARE_OF_BARE_MAPS: Final = 0.25
SHARE_OF_ODD_MAP_VALUES: Final = 0.04
SHARE_OF_UNKNOWN_FIELDS: Final = 0.05
SHARE_OF_MISSING: Final = 0.6
SHARE_OF_NULL: Final = 0.85  # cumulative; the rest is the empty string

OPEN_TASK_STATUSES: Final = frozenset({TaskStatus.OPEN, TaskStatus.PASSED_ON})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFields:
    """The fields that all messages of one instance share; ``start_ms`` is epoch milliseconds."""

    instance_id: str
    process: Process
    title: str
    version: int
    env_type: str
    source_type: str
    starter: Person
    start_ms: int


def write(step: Step, instance: InstanceFields, random: Random) -> Message:
    """Return the message of one step; the same state of `random` gives the same message."""
    fields = _common(step, instance, random)
    if step.msg_type == "Instance":
        fields |= _instance_fields(step, random)
        fallbacks = examples(load(INSTANCE_EVENT))
    else:
        fields |= _task_fields(step, instance, random)
        fallbacks = examples(load(TASK_EVENT))
    # Fields that were added to the schema are sent too, before the simulator gets values of their own for them.
    fields |= {name: value for name, value in fallbacks.items() if name not in fields}
    if random.random() < SHARE_OF_UNKNOWN_FIELDS:
        name, value = random.choice(UNKNOWN_FIELDS)
        fields[name] = value
    return _without_values(fields, random)


UNKNOWN_FIELDS: Final[tuple[tuple[str, Any], ...]] = (
    ("newField", 2),
    ("tenantId", "tcb-7gq3k2x1"),
    ("formSummary", {"amount": 3280.50, "currency": "CNY", "attachments": ["发票.pdf", "行程单.png"]}),
    ("isUrgent", True),
    ("commentAttachments", []),
    ("signature", None),
)


def _common(step: Step, instance: InstanceFields, random: Random) -> Message:
    ended = step.msg_type == "Instance" and step.status not in {Status.RUNNING, Status.UNLISTED_SUSPENDED}
    return {
        "msgId": str(UUID(int=random.getrandbits(128), version=4)),
        "msgType": step.msg_type,
        "action": _int(step.action, random),
        "actionName": ACTION_NAMES[step.action],
        "processName": instance.process.name,
        "processKey": instance.process.key,
        "flowTitle": instance.title,
        "flowCode": f"{instance.process.key}_v{instance.version}",
        "startTime": _date(instance.start_ms, random),
        "endTime": _date(step.at_ms, random) if ended else random.choice((None, None, None, 0)),
        "instanceId": instance.instance_id,
        "envType": instance.env_type,
        "sourceType": instance.source_type,
        "requestId": f"{random.getrandbits(64):016x}",
        "approverMap": _people(step.approvers, random),
        "startUserMap": _people((instance.starter,), random),
    }


def _instance_fields(step: Step, random: Random) -> Message:
    return {
        "elementMap": _map(((step.node.id, step.node.name),), ("elementId", "elementName"), random),
        "instanceStatus": _int(step.status, random),
        "instanceStatusName": STATUS_NAMES[step.status],
    }


def _task_fields(step: Step, instance: InstanceFields, random: Random) -> Message:
    status = TASK_STATUS_AFTER.get(step.action, TaskStatus.DONE)
    node_type, node_type_name = step.node.type.value
    task_id = f"{instance.instance_id[:8]}-{step.opened_ms % 10**8:08d}"
    tasks = ((f"{task_id}-{position}", person.name) for position, person in enumerate(step.approvers))
    return {
        "taskStatus": _int(status, random),
        "taskStatusName": TASK_STATUS_NAMES[status],
        "elementId": step.node.id,
        "elementName": step.node.name,
        "elementType": node_type,
        "elementTypeName": node_type_name,
        "comment": step.comment,
        "turnToUserMap": _people(step.turned_to, random),
        "addAssigneeMap": _people(step.added, random),
        "ccUserMap": _people(step.copied, random),
        "taskMap": _map(tasks, ("taskId", "assignee"), random),
        "pageUrlMap": _map(((task_id, _page(task_id)),), ("taskId", "url"), random),
        "taskStartTime": _date(step.opened_ms, random),
        "taskEndTime": None if status in OPEN_TASK_STATUSES else _date(step.at_ms, random),
        **_element("rollback", step.rolled_back_to),
        **_element("revoke", step.revoked_to),
        "isCcTask": _boolean(random, truth=step.node.type is NodeType.COPY),
    }


def _page(task_id: str) -> str:
    return f"https://oa.example.com/app/todo?taskId={task_id}"


def _element(prefix: str, node: Node | None) -> Message:
    return {f"{prefix}ElementId": node and node.id, f"{prefix}ElementName": node and node.name}


def _int(value: int, random: Random) -> int | str:
    return str(int(value)) if random.random() < SHARE_OF_INTS_AS_TEXT else int(value)


def _boolean(random: Random, *, truth: bool) -> bool | str | int:
    return random.choice((truth, truth, truth, truth, str(truth).lower(), int(truth)))


def _date(at_ms: int, random: Random) -> int | str:
    if random.random() < 0.5:  # noqa: PLR2004 - half of the dates: what WeDa's other interfaces send
        return at_ms
    return random.choice(DATE_FORMS)(at_ms)


def _local(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, ZONE)


DATE_FORMS: Final[tuple[Callable[[int], int | str], ...]] = (
    lambda at_ms: at_ms,
    str,
    lambda at_ms: at_ms // 1000,
    lambda at_ms: _local(at_ms).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    lambda at_ms: _local(at_ms).isoformat(timespec="seconds"),
    lambda at_ms: _local(at_ms).replace(tzinfo=None).isoformat(timespec="milliseconds"),
    lambda at_ms: _local(at_ms).strftime("%Y-%m-%d %H:%M:%S"),
)
"""Epoch ms (number, text), epoch s, ISO-8601 with Z, with an offset and without a zone, ``yyyy-MM-dd HH:mm:ss``."""


def _people(people: Iterable[Person], random: Random) -> Any:
    return _map(((person.id, person.name) for person in people), ("userId", "userName"), random)


def _map(pairs: Iterable[tuple[str, str]], names: tuple[str, str], random: Random) -> Any:
    """Return pairs in one of the two shapes of maps, now and then with an odd value; None without pairs."""
    bare: dict[str, Any] = dict(pairs)
    if not bare:
        return None
    if random.random() < SHARE_OF_ODD_MAP_VALUES:
        key, value = random.choice(ODD_MAP_VALUES)
        bare[key] = value
    if random.random() < SHARE_OF_BARE_MAPS:
        return bare
    return [{names[0]: key, names[1]: value} for key, value in bare.items()]


ODD_MAP_VALUES: Final[tuple[tuple[str, Any], ...]] = (
    ("level", 3),
    ("active", True),
    ("mobile", None),
    ("department", {"id": "d-17", "name": "财务部"}),
    ("score", 4.5),
)


def _without_values(fields: Message, random: Random) -> Message:
    """Leave out fields without a value, or send null or an empty string, as WeDa does."""
    message: Message = {}
    for name, value in fields.items():
        if value is not None:
            message[name] = value
        elif (roll := random.random()) >= SHARE_OF_MISSING:
            message[name] = None if roll < SHARE_OF_NULL else ""
    return message
