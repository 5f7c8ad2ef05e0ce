"""The index of instances: who waits where for how long, and how much of it is kept."""

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from connector.consuming import Event, persons
from connector.kafka.reader import ConsumerRecord
from connector.lookup import instances
from connector.lookup.instances import Index, facts_of, figures, find, nodes_of, people_of
from connector.message import weda
from connector.notify.matching import ended_by
from connector.operations import pictures

MINUTE = 60_000
WANG, LI, CHEN = ({"userId": f"u{number}", "userName": name} for number, name in enumerate(("王芳", "李娜", "陈静")))


def record(instance: str, at: int, **fields) -> ConsumerRecord:
    value = {"msgType": "Task", "receivedAt": at, "source": "default", "flowTitle": f"{instance} 的差旅费", **fields}
    return ConsumerRecord("events", "events", 0, 0, instance, at, {}, value)


def task(node: str, action: int, opened: int, closed: int | None = None, people=(WANG,), **fields) -> dict:
    times = {"taskStartTime": opened * MINUTE, "taskEndTime": None if closed is None else closed * MINUTE}
    return {"elementId": node, "elementName": node, "action": action, "approverMap": list(people), **times, **fields}


def indexed(*steps: dict, index: Index | None = None, instance: str = "i-1") -> Index:
    index = Index() if index is None else index
    index.take(facts_of(record(instance, number, **step) for number, step in enumerate(steps, 1)))
    return index


def only(index: Index) -> instances.Instance:
    [instance] = index.instances()
    return instance


def test_who_it_waits_for_changes_with_each_decision():
    first = task("财务", 0, 10)
    assert only(indexed(first)).waits_for == "王芳"
    assert only(indexed(first)).waits_since == 10 * MINUTE
    assert only(indexed(first, task("财务", 2, 10, 30))).waits_for == ""
    turned = task("财务", 4, 10, turnToUserMap=[LI])
    assert only(indexed(first, turned)).waits_for == "李娜"
    added = task("财务", 7, 10, addAssigneeMap=[CHEN])
    assert only(indexed(first, added)).waits_for == "王芳、陈静"


def test_two_approvers_each_decide_and_one_is_enough_where_the_flow_goes_on():
    both = task("法务", 0, 1, people=(WANG, LI))
    one = task("法务", 2, 1, 21, people=(WANG,))
    assert only(indexed(both, one)).waits_for == "李娜"
    other = task("法务", 2, 1, 51, people=(LI,))
    [visit] = only(indexed(both, one, other)).visits
    assert (visit.is_over, visit.milliseconds(99 * MINUTE)) == (True, 50 * MINUTE)
    passed, _ = only(indexed(both, one, task("出纳", 0, 21))).visits
    assert (passed.is_over, passed.milliseconds(99 * MINUTE)) == (True, 20 * MINUTE)


def test_the_longest_wait_is_that_of_one_visit_of_a_node():
    steps = (task("a", 0, 0), task("a", 2, 0, 5), task("b", 0, 5), task("b", 6, 5, 45), task("a", 0, 45))
    instance = only(indexed(*steps))
    assert [visit.node for visit in instance.visits] == ["a", "b", "a"]
    assert instance.send_backs == 1
    longest = instance.longest_at(60 * MINUTE)
    assert longest is not None
    assert (longest.node, longest.is_sent_back) == ("b", True)
    assert instance.longest_at(90 * MINUTE) is instance.visits[2]


@pytest.mark.parametrize(("first", "last"), [(-62_135_596_800_000, 253_402_300_799_999), (1, 1), (5_000_000, 1_000)])
def test_times_that_make_no_sense_make_a_picture_all_the_same(first, last):
    task_times = {"taskStartTime": first, "taskEndTime": last, "startTime": first}
    instance = only(indexed({**task("a", 2, 0), **task_times}, task("b", 0, 1)))
    shown = pictures.waits(instance, 60 * MINUTE, ZoneInfo("Asia/Shanghai"))
    assert shown is not None
    assert len(shown.rows) == 2
    assert len(shown.ticks) < 10
    assert all(0 <= row.x < 100 and 0 < row.width <= 100 for row in shown.rows)


def test_an_end_ends_every_wait():
    end = {"msgType": "Instance", "instanceStatus": 3, "endTime": 90 * MINUTE, "startTime": 10 * MINUTE}
    instance = only(indexed(task("a", 0, 10, startTime=10 * MINUTE), end))
    assert instance.is_over
    assert instance.waits_for == ""
    assert instance.state == "审批通过"
    assert instance.milliseconds(10**12) == 80 * MINUTE


def test_each_word_is_found_anywhere_and_who_is_waited_for_comes_first():
    index = indexed(task("a", 0, 0, people=(LI,)), instance="i-one")
    indexed(task("a", 0, 0), task("a", 2, 0, 1), task("b", 0, 1, people=(LI,)), index=index, instance="i-two")
    indexed(task("a", 0, 0), index=index, instance="i-three")

    def found(text: str) -> list[str]:
        return [one.instance_id for one in find(index.instances(), text, 10)]

    assert found("王芳") == ["i-three", "i-two"]
    assert found("李娜") == ["i-two", "i-one"]
    assert found("差旅费 THREE") == ["i-three"]
    assert found("nobody") == []


def test_figures_count_what_has_ended_and_what_waits():
    index = Index()
    for number, minutes in enumerate((10, 20, 90)):
        end = {"msgType": "Instance", "instanceStatus": 3, "startTime": 0, "endTime": minutes * MINUTE}
        steps = (task("a", 0, 1, startTime=1), task("a", 2, 1, minutes), end)
        indexed(*({**step, "processName": "报销"} for step in steps), index=index, instance=f"i-{number}")
    indexed(task("a", 0, 5, processName="报销"), index=index, instance="open")

    shown = figures(index.instances())

    assert shown.running == {"报销": 1}
    assert [(one.name, one.count) for one in shown.processes] == [("报销", 3)]
    assert shown.processes[0].median == pytest.approx(20 * MINUTE, rel=0.1)
    assert [(one.name, one.count, one.since) for one in shown.waited] == [("王芳", 1, 5 * MINUTE)]


def test_the_index_is_bounded_and_says_what_it_has_forgotten():
    index = Index(limit=2)
    for number in range(4):
        index.take(facts_of([record(f"i-{number}", 100 + number)]))
    assert [one.instance_id for one in index.instances()] == ["i-3", "i-2"]
    assert index.forgotten_at == 101
    steps = [task(f"n-{number}", 0, number) for number in range(instances.MAX_VISITS + 5)]
    assert len(only(indexed(*steps)).visits) == instances.MAX_VISITS


def test_what_changed_last_comes_first_in_whatever_order_partitions_are_read():
    index = Index(limit=2)
    for received in (300, 100, 200, 150):
        index.take(facts_of([record(f"i-{received}", received)]))
    assert [one.instance_id for one in index.instances()] == ["i-300", "i-200"]
    assert index.forgotten_at == 150


def test_a_full_index_is_searched_and_counted_in_a_moment():
    index = Index()
    for number in range(instances.MAX_INSTANCES):
        indexed(task("a", 0, 0), task("a", 2, 0, 5), task("b", 0, 5, people=(LI,)), index=index, instance=f"i-{number}")
    began = time.process_time()
    assert len(find(index.instances(), "李娜 i-4999", 50)) == 1
    figures(index.instances())
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("maps", "people"),
    [
        ([WANG, LI], {"u0": "王芳", "u1": "李娜"}),
        ([{"u0": "王芳", "u1": "李娜"}], {"u0": "王芳", "u1": "李娜"}),
        ([{"u0": "王芳", "level": "3", "active": "true", "department": '{"id":"d-17"}'}], {"u0": "王芳"}),
        ([{"userId": "level", "userName": "3"}, {"userId": "u7"}], {"u7": "u7"}),
        ([{"userId": "u7", "userName": "007"}, {"u8": " "}, {"u9": "--"}], {"u7": "007", "u8": "u8", "u9": "--"}),
        ([{"nickName": "小王", "age": "31"}], {"nickName": "小王"}),
        ([{}], {}),
        (None, {}),
    ],
)
def test_console_and_consumers_name_the_same_people_whatever_shape_the_maps_have(maps, people):
    value = {weda.APPROVERS: maps}
    assert people_of(value, weda.APPROVERS) == people
    assert {person.id: person.name for person in persons(value, weda.APPROVERS)} == people


def test_the_columns_of_flat_name_people_too():
    assert people_of({"approverIds": ["u0"], "approverNames": ["王芳"]}, weda.APPROVERS) == {"u0": "王芳"}


@pytest.mark.parametrize("maps", [[{"n-1": "财务"}], [{"elementId": "n-1", "elementName": "财务"}]])
def test_a_node_is_read_in_either_shape(maps):
    assert nodes_of({weda.NODES: maps}) == {"n-1": "财务"}


@pytest.mark.parametrize(
    ("fields", "is_over"),
    [
        ({"action": 24, "instanceStatus": 6, "instanceStatusName": "已挂起"}, False),
        ({"action": 5, "instanceStatus": 0}, False),
        ({"action": 99, "instanceStatus": 99}, False),
        ({"action": 22, "instanceStatus": 0}, False),
        ({"action": 5}, True),
        ({"action": 16}, True),
        ({"action": 18, "instanceStatus": 0}, True),
        ({"action": 23}, True),
        *(({"action": 99, "instanceStatus": status}, True) for status in range(1, 6)),
    ],
)
def test_console_and_reminders_agree_on_whether_an_instance_has_ended(fields, is_over):
    message = {"msgType": "Instance", **fields}
    event = Event("i-1", message, datetime.now(UTC), "", "t", 0, 0)

    assert only(indexed(task("财务", 0, 10), message)).is_over is is_over
    assert (ended_by(event) is not None) is is_over
