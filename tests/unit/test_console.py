"""What the console shows of a body: readable where that is cheap, whatever a source has sent."""

import json

import pytest

from connector.operations.formats import formatted
from connector.operations.translations import problem
from connector.text import duration

MINUTE = 60_000
MOST = 100_000
MESSAGE = {"msgType": "Task", "instanceId": "i-1", "comment": "同意"}


@pytest.mark.parametrize(
    "body",
    [json.dumps({"msgContext": MESSAGE}), json.dumps({"msgContext": json.dumps(MESSAGE)}), "\ufeff{}"],
    ids=["an object", "JSON text", "a byte order mark"],
)
def test_a_body_is_shown_as_people_read_it(body):
    shown = formatted(body.encode(), MOST)

    assert shown.startswith("{")
    assert ("同意" in shown) == ("msgContext" in body)


@pytest.mark.parametrize("depth", [65, 890, 100_000])
@pytest.mark.parametrize("is_within", [False, True])
def test_a_body_that_would_grow_without_bound_is_not_indented(depth, is_within):
    """Half a megabyte on 890 levels became a page of 446 MB, which took 16 seconds and 1.6 GB."""
    bomb = "[" * depth + "1," * ((524_000 - 2 * depth) // 2) + "1" + "]" * depth
    body = json.dumps({"msgContext": bomb}) if is_within else bomb

    assert formatted(body.encode(), MOST) == ""


@pytest.mark.parametrize("body", [b"\xff", b"{", b"[" + b"9" * 5_000 + b"]", b'{"msgContext":"{"}', b"NaN"])
def test_what_is_no_json_is_shown_as_it_arrived_alone(body):
    assert formatted(body, MOST) == ""


def test_what_may_be_sent_is_shown_up_to_a_bound():
    widest = "[" * 64 + "1," * 49_900 + "1" + "]" * 64

    assert 0 < len(formatted(widest.encode(), MOST)) <= MOST + 1
    assert "\\ud800" in formatted(b'{"comment":"\\ud800"}', MOST)


@pytest.mark.parametrize(
    ("milliseconds", "english", "chinese"),
    [
        (None, "–", "–"),
        (350, "350 ms", "350 毫秒"),
        (59_900, "59 s", "59 秒"),
        (3 * MINUTE, "3 min", "3 分钟"),
        (125 * MINUTE, "2 h 5 min", "2 小时 5 分"),
        (11 * 60 * MINUTE, "11 h", "11 小时"),
        (99 * 60 * MINUTE, "4 d 3 h", "4 天 3 小时"),
        (30 * 24 * 60 * MINUTE, "30 d", "30 天"),
    ],
)
def test_a_duration_reads_in_both_languages(milliseconds, english, chinese):
    assert (duration(milliseconds, "en"), duration(milliseconds, "zh")) == (english, chinese)


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("missing: a.events", "缺失：a.events"),
        ("a.events went from 12 to 24", "a.events 的分区数从 12 变为 24"),
        ("/data/journal.db was deleted or moved away", "/data/journal.db 被删除或移走"),
        ("cannot reach Kafka: Local: Timed out", "无法连接 Kafka：Local: Timed out"),
        (
            "cannot read the topic a.events: Kafka is not reachable: Local: Timed out",
            "无法读取 Topic a.events，Kafka 无法连接：Local: Timed out",
        ),
        ("something that nobody has translated", "something that nobody has translated"),
    ],
)
def test_a_problem_is_said_in_the_readers_language(english, chinese):
    assert problem(english, "zh") == chinese
    assert problem(english, "en") == english
