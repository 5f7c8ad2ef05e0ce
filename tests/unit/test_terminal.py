"""What commands print for people: lines that line up, histories that are drawn, nothing that steers a terminal."""

import re

import pytest
from rich.cells import cell_len

from connector.cli import columns, history
from connector.cli.exits import Exit, exit_of
from connector.cli.tail import TailStream
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.kafka.reader import ConsumerRecord
from connector.message.routes import DEAD_LETTERS, STREAMS
from connector.text import counted, cut, escaped, one_line, printable, text_or_base64, visible, without_controls

AT = 1_700_000_000_000
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 messages"), (1, "1 message"), (2, "2 messages"), (12_345, "12,345 messages")]
)
def test_a_count_agrees_with_its_noun(number, shown):
    assert counted(number, "message") == shown


def test_a_noun_may_have_a_plural_of_its_own():
    assert (counted(1, "reply", "replies"), counted(2, "reply", "replies")) == ("1 reply", "2 replies")


def test_text_of_a_sender_keeps_to_its_line_and_steers_nothing():
    assert one_line("经理\x1b[31m\n\u202e审批") == "经理 [31m  审批"
    assert [one_line(None), one_line(""), one_line(0)] == ["-", "-", "0"]
    assert one_line("x" * 300) == "x" * 199 + "…"
    assert printable("a\r\nb\x07") == "a \nb "


def test_each_way_to_make_text_harmless_keeps_what_its_reader_needs():
    text = "审批\x1b[31m\n\u202e👨\u200d👩"
    assert visible(text) == "审批\\u001b[31m\n\\u202e👨\u200d👩"
    assert escaped(text) == r"审批\x1b[31m\n\u202e👨\u200d👩"
    assert without_controls(text) == "审批[31m\n\u202e👨\u200d👩"
    assert [cut("审批流程", limit) for limit in (5, 4, 3, 1)] == ["审批流程", "审批流程", "审批…", "…"]


@pytest.mark.parametrize(("body", "shown"), [("审批".encode(), ("审批", False)), (b"\xff", ("/w==", True))])
def test_a_body_that_is_no_text_is_shown_as_base64(body, shown):
    assert text_or_base64(body) == shown


@pytest.mark.parametrize("width", [4, 10])
def test_columns_line_up_whatever_script_they_hold(width):
    lines = [columns.aligned((first, "end"), (width,)) for first in ("ab", "审批", "", None)]

    assert {cell_len(line) for line in lines} == {width + 2 + 3}
    assert (
        columns.aligned(("审批流程说明", "end"), (4,)) == "审批流程说明  end"
    )  # whole where nobody looks at a terminal


def test_a_table_is_as_wide_as_its_values():
    assert columns.table([("a", "审批", "last"), ("long", None, "x"), ("", "c", "")]) == [
        "a     审批  last",
        "long  -     x",
        "      c",
    ]
    assert columns.table([]) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), Exit.USAGE),
        (OutsideUnreachable("x"), Exit.UNREACHABLE),
        (ConnectorError("x"), Exit.FAILED),
    ],
)
def test_an_error_has_its_exit_code(error, code):
    assert exit_of(error) is code


def test_tail_reads_every_stream():
    assert {stream.value for stream in TailStream} == {*STREAMS, DEAD_LETTERS}


def event(number: int, after: int, **fields: object) -> ConsumerRecord:
    value = {"msgType": "Task", "instanceId": "i-1", "flowTitle": "张三的请假", "processName": "请假申请", **fields}
    headers = {"weda.fingerprint": str(number)}
    return ConsumerRecord("events", "weda.events", 3, number, "i-1", AT + after, headers, value)


def test_the_history_of_an_instance_is_drawn_by_node():
    """A column per node with a line while it is open, the way back, who to whom, and how long after the one before."""
    records = [
        event(0, 0, actionName="触发流程实例", startUserMap=[{"1": "张三"}]),
        event(1, SECOND, actionName="待办", elementName="经理审批", approverMap=[{"2": "李四"}]),
        event(
            2,
            HOUR,
            actionName="转交",
            elementName="经理审批",
            approverMap=[{"2": "李四"}],
            turnToUserMap=[{"3": "王五"}],
        ),
        event(3, 2 * HOUR, actionName="同意", elementName="财务复核", approverMap=[{"4": "赵六"}]),
        event(
            4,
            3 * HOUR,
            action=6,
            actionName="回退",
            elementName="财务复核",
            rollbackElementName="经理审批",
            comment="补\n票",
            taskStartTime=AT,
            taskEndTime=AT + 5 * MINUTE,
        ),
        event(
            5,
            3 * HOUR + MINUTE,
            msgType="Instance",
            actionName="流程实例结束",
            instanceStatus=3,
            instanceStatusName="审批通过",
            startTime=AT - 24 * HOUR,
            endTime=AT,
        ),
    ]

    head, *rows = history.lines(records)

    assert head == "张三的请假 · 请假申请 · 审批通过 · took 1 d"
    shown = [re.sub(r"^\S+ \S+", "", row) for row in rows]  # without the time
    assert [row.split() for row in shown] == [
        ["触发流程实例", "张三", "[3:0]"],
        ["+1", "s", "●", "经理审批", "待办", "李四", "[3:1]"],
        ["+59", "min", "●", "经理审批", "转交", "李四", "→", "王五", "[3:2]"],
        ["+1", "h", "│", "●", "财务复核", "同意", "赵六", "[3:3]"],
        ["+1", "h", "◁", "●", "财务复核", "回退", "◁", "经理审批", "took", "5", "min", "[3:4]", "“补", "票”"],
        ["+1", "min", "流程实例结束", "审批通过", "[3:5]"],
    ]
    assert len({cell_len(row.partition("[3:")[0]) for row in rows}) == 1
    assert list(history.lines([])) == []
    waits = event(1, 0, action=0, elementName="经理审批", approverMap=[{"2": "李四"}], taskStartTime=AT)
    assert re.search(r" · open for \d+ d.* · waits for 李四 since \d{4}-", next(history.lines([waits])))


def test_many_nodes_share_the_last_column():
    records = [event(number, number, elementName=f"n{number}") for number in range(40)]

    rows = list(history.lines(records))[1:]

    assert all(row.count("●") == 1 for row in rows)
    assert max(row.index("●") for row in rows) - min(row.index("●") for row in rows) == 2 * (history.MAX_COLUMNS - 1)
