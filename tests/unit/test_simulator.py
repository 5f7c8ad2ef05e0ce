"""The simulator: runs played, shapes given, messages sent and written down."""

import asyncio
import json
import re
import signal
import socket
import sys
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from connector.errors import ConfigurationError
from connector.message.schemas import INSTANCE_EVENT, TASK_EVENT, kinds, load
from connector.simulator import Outcome, Plan, Shape, play, render, runs
from connector.simulator.pace import Pace
from tests.waiting import PATIENCE_SECONDS, equals, until

START_MS = 1_760_000_000_000
ACTIONS = {*range(10), 13, *range(15, 24)}
STATUSES = set(range(6))
INSTANCE_FIELDS = {*kinds(load(INSTANCE_EVENT))}
TASK_FIELDS = {*kinds(load(TASK_EVENT))}
DATE_FORMS = {
    "epoch milliseconds": r"^1\d{12}$",
    "epoch seconds": r"^1\d{9}$",
    "ISO-8601 in UTC": r"^\d{4}-\d\d-\d\dT[\d:.]+Z$",
    "ISO-8601 with an offset": r"^\d{4}-\d\d-\d\dT[\d:.]+\+08:00$",
    "ISO-8601 without a zone": r"^\d{4}-\d\d-\d\dT[\d:.]+$",
    "date, space, time": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$",
}


def messages_of(instances, seed=1):
    return [message for run in runs(seed, instances, START_MS) for message in run.messages]


class TestRuns:
    def test_the_same_seed_tells_the_same_runs(self):
        assert list(runs(7, 25, START_MS)) == list(runs(7, 25, START_MS))

    def test_a_run_does_not_depend_on_how_many_are_played(self):
        endless = runs(7, None, START_MS)
        assert list(runs(7, 3, START_MS)) == [next(endless) for _ in range(3)]

    def test_the_past_is_filled_up_to_now_and_what_is_to_come_is_open(self):
        day = 86_400_000
        whole = list(runs(7, 200, START_MS, spread_ms=14 * day))
        played = list(runs(7, 200, START_MS, spread_ms=14 * day, until_ms=START_MS + 14 * day))
        open_ones = [one for one, all_of_it in zip(played, whole, strict=True) if one != all_of_it]

        assert 0 < len(open_ones) < 50
        for one, all_of_it in zip(played, whole, strict=True):
            assert one.messages == all_of_it.messages[: len(one.messages)]
        assert sum(bool(one.messages) for one in played) > 190

    def test_instances_and_message_ids_are_unique_over_seeds(self):
        played = [run for seed in range(20) for run in runs(seed, 40, START_MS)]
        ids = [message["msgId"] for run in played for message in run.messages]
        assert len(played) == len({run.instance_id for run in played})
        assert len(ids) == len(set(ids))

    @pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5, 6, 99, 2**31 - 1])
    def test_any_twenty_instances_play_every_action_and_every_status(self, seed):
        played = messages_of(20, seed)
        assert {int(message["action"]) for message in played} >= ACTIONS
        assert {int(message["instanceStatus"]) for message in played if "instanceStatus" in message} >= STATUSES

    @pytest.mark.parametrize(("msg_type", "fields"), [("Instance", INSTANCE_FIELDS), ("Task", TASK_FIELDS)])
    def test_every_field_of_each_type_has_a_value_somewhere(self, msg_type, fields):
        played = [message for message in messages_of(60) if message["msgType"] == msg_type]
        valued = {name for message in played for name, value in message.items() if value not in (None, "")}
        assert fields <= valued

    def test_a_field_without_a_value_is_missing_null_or_empty(self):
        played = [message.get("rollbackElementId", ...) for message in messages_of(60) if message["msgType"] == "Task"]
        assert {..., None, ""} <= set(played)

    def test_unknown_fields_and_unknown_codes_appear(self):
        played = messages_of(60)
        assert {name for message in played for name in message} - INSTANCE_FIELDS - TASK_FIELDS
        assert {int(message["action"]) for message in played} - ACTIONS
        assert {int(message.get("instanceStatus", 0)) for message in played} - STATUSES

    def test_ints_are_texts_now_and_then(self):
        assert {type(message["action"]) for message in messages_of(60)} == {int, str}

    @pytest.mark.parametrize("name", ["approverMap", "elementMap", "taskMap", "turnToUserMap"])
    def test_maps_have_both_shapes(self, name):
        assert {list, dict} <= {type(message.get(name)) for message in messages_of(200)}

    def test_map_values_are_sometimes_no_texts(self):
        entries = [entry for message in messages_of(300) for entry in listed(message.get("approverMap"))]
        assert {int, bool, float, dict, type(None)} <= {type(value) for entry in entries for value in entry.values()}

    @pytest.mark.parametrize("form", DATE_FORMS)
    def test_dates_have_every_form(self, form):
        played = [str(message.get("startTime")) for message in messages_of(60)]
        assert any(re.match(DATE_FORMS[form], date) for date in played)

    def test_a_message_is_about_a_kilobyte(self):
        sizes = [len(json.dumps(message, ensure_ascii=False).encode()) for message in messages_of(200)]
        assert min(sizes) > 500
        assert max(sizes) < 1700

    def test_every_process_kind_is_played(self):
        names = {message["processName"] for message in messages_of(20)}
        assert names >= {"请假申请", "费用报销", "合同审批", "采购申请", "员工入职"}


def listed(maps):
    return [maps] if isinstance(maps, dict) else maps or []


def opened(method, content_type, query, body):
    """Read a request as a connector would; returns the shape and the message."""
    if method == "GET":
        return Shape.QUERY, json.loads(parse_qs(query)["msgContext"][0])
    if content_type == "application/x-www-form-urlencoded":
        return Shape.FORM, json.loads(parse_qs(body.decode())["msgContext"][0])
    value = json.loads(body)
    if "msgContext" not in value:
        return Shape.BARE, value
    context = value["msgContext"]
    return (Shape.TEXT, json.loads(context)) if isinstance(context, str) else (Shape.OBJECT, context)


def reopened(request):
    return opened(request.method, request.headers.get("Content-Type"), request.query, request.body)


class TestShapes:
    @pytest.mark.parametrize("shape", [Shape.TEXT, Shape.OBJECT, Shape.BARE, Shape.FORM, Shape.QUERY])
    def test_every_shape_carries_the_message_unchanged(self, shape):
        for message in messages_of(20):
            assert reopened(render(message, shape)) == (shape, message)

    def test_mixed_uses_every_shape_and_the_same_one_for_the_same_message(self):
        played = messages_of(20)
        shapes = [reopened(render(message, Shape.MIXED))[0] for message in played]
        assert set(shapes) == set(Shape) - {Shape.MIXED}
        assert shapes == [reopened(render(message, Shape.MIXED))[0] for message in played]

    def test_a_query_past_8_kib_becomes_a_text_body(self):
        message = messages_of(1)[0]
        assert reopened(render(message, Shape.QUERY, url_bytes=8000))[0] is Shape.TEXT
        assert reopened(render({**message, "comment": "好" * 2000}, Shape.QUERY))[0] is Shape.TEXT


class TestPace:
    def test_no_rate_never_waits(self):
        pace = Pace(0, 0, started=0)
        assert [pace.wait_seconds(0) for _ in range(3)] == [0, 0, 0]

    def test_a_rate_spreads_messages_evenly(self):
        pace = Pace(10, 0, started=5)
        assert [pace.wait_seconds(5) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])

    def test_a_ramp_sends_half_as_many_while_it_lasts(self):
        pace = Pace(100, 4, started=0)
        dues = [pace.wait_seconds(0) for _ in range(301)]
        assert (dues[200], dues[300]) == pytest.approx((4, 5))
        assert dues == sorted(dues)

    def test_lateness_is_not_made_up_by_a_flood(self):
        pace = Pace(10, 0, started=0)
        pace.wait_seconds(0)
        assert pace.wait_seconds(30) == 0
        assert pace.wait_seconds(30) == pytest.approx(0.1, abs=0.05)


class TestPlan:
    @pytest.mark.parametrize(
        ("given", "sent_to"),
        [
            ("http://h:8080", "http://h:8080/messageDeliver"),
            ("https://h/", "https://h/messageDeliver"),
            ("http://h/sources/hr/messageDeliver", "http://h/sources/hr/messageDeliver"),
        ],
    )
    def test_a_base_address_gets_the_path(self, given, sent_to):
        assert Plan(url=given, seed=1).url == sent_to

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("url", "localhost:8080"),
            ("url", "ftp://h"),
            ("url", "http://h:99999"),
            ("url", "http://h/?a=b"),
            ("rate", -1),
            ("repeats", 1.5),
            ("overlaps", -0.1),
            ("retries", -1),
            ("concurrency", 0),
            ("seconds", 0),
            ("ramp_seconds", 3),
            ("since_seconds", 0),
        ],
    )
    def test_an_option_that_makes_no_sense_is_named(self, option, value):
        with pytest.raises(ConfigurationError, match=f"--{option.removesuffix('_seconds')} must be"):
            Plan(**{"url": "http://h", "seed": 1, option: value})

    def test_the_token_is_not_shown(self):
        assert "s3cret" not in repr(Plan(url="http://h", seed=1, token="s3cret"))


class Connector:
    """A small real server that remembers what came, in order; ``answer(request, message)`` may be replaced."""

    def __init__(self):
        self.messages = []
        self.bodies = []
        self.headers = []
        self.came_at = []
        self.in_flight = Counter()
        self.most_in_flight = Counter()
        self.busy = asyncio.Event()
        self.delay = lambda: 0
        self.answer = lambda _: web.json_response({"code": 0})

    async def receive(self, request):
        body = await request.read()
        _, message = opened(request.method, request.content_type, request.query_string, body)
        self.came_at.append(time.monotonic())
        self.messages.append(message)
        nth = len(self.messages)  # now: others may come before this one is answered
        if len(self.messages) == 100:
            self.busy.set()
        self.bodies.append(body)
        self.headers.append(request.headers)
        instance = message["instanceId"]
        self.in_flight[instance] += 1
        self.most_in_flight[instance] = max(self.most_in_flight[instance], self.in_flight[instance])
        await asyncio.sleep(self.delay())
        self.in_flight[instance] -= 1
        answer = self.answer(nth)
        if answer is None:
            request.transport.close()
            return web.Response()
        return answer


@asynccontextmanager
async def listening(connector):
    application = web.Application()
    application.router.add_route("*", "/messageDeliver", connector.receive)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def connector():
    connector = Connector()
    async with listening(connector) as connector.url:
        yield connector


def refusing(times, status=503, retry_after="1", *, is_code_only=False):
    """Refuse the first ``times`` requests."""

    def answer(nth):
        if nth > times:
            return web.json_response({"code": 0})
        headers = {"Retry-After": retry_after} if retry_after else {}
        body = {"code": status * 100, "message": f"refused with {status}"}
        return web.json_response(body, status=200 if is_code_only else status, headers=headers)

    return answer


def entries_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestSending:
    @pytest.mark.parametrize("shape", Shape)
    async def test_every_message_arrives_in_every_shape(self, connector, shape):
        plan = Plan(url=connector.url, seed=5, instances=20, shape=shape, start_ms=START_MS)
        summary = await play(plan)
        played = {run.instance_id: list(run.messages) for run in runs(5, 20, START_MS)}
        came = defaultdict(list)
        for message in connector.messages:
            came[message["instanceId"]].append(message)
        assert played == came
        assert (summary.sent, summary.accepted) == (len(connector.messages), len(connector.messages))

    async def test_an_instance_has_one_message_in_flight_while_many_instances_have_theirs(self, connector):
        connector.delay = iter_of_delays()
        plan = Plan(url=connector.url, seed=5, instances=60, concurrency=16, start_ms=START_MS)
        await play(plan)
        assert set(connector.most_in_flight.values()) == {1}
        order = [message["instanceId"] for message in connector.messages]
        assert order != sorted(order, key=order.index)
        for run in runs(5, 60, START_MS):
            assert list(run.messages) == [m for m in connector.messages if m["instanceId"] == run.instance_id]

    async def test_the_token_is_sent_as_a_bearer_token(self, connector):
        await play(Plan(url=connector.url, seed=5, instances=1, token="s3cret"))
        assert {headers["Authorization"] for headers in connector.headers} == {"Bearer s3cret"}

    @pytest.mark.parametrize("is_code_only", [False, True])
    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_honoured(self, connector, status, is_code_only):
        connector.answer = refusing(1, status, is_code_only=is_code_only)
        summary = await play(Plan(url=connector.url, seed=5, instances=1))
        assert connector.messages[0] == connector.messages[1]
        assert connector.came_at[1] - connector.came_at[0] >= 1
        assert summary.accepted == summary.sent == len(connector.messages) - 1

    async def test_retry_after_may_be_a_date_long_past(self, connector):
        connector.answer = refusing(1, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
        summary = await play(Plan(url=connector.url, seed=5, instances=1))
        assert summary.accepted == summary.sent

    async def test_the_rest_of_an_instance_is_not_sent_once_retries_are_used_up(self, connector):
        connector.answer = refusing(10**6, retry_after=None)
        summary = await play(Plan(url=connector.url, seed=5, instances=3, retries=2))
        assert (summary.sent, summary.refused, summary.reached) == (3, 3, True)
        assert len(connector.messages) == 9

    async def test_a_final_refusal_lets_the_instance_go_on(self, connector):
        connector.answer = refusing(1, 422)
        summary = await play(Plan(url=connector.url, seed=5, instances=1))
        assert (summary.refused, summary.accepted) == (1, len(connector.messages) - 1)

    async def test_another_code_than_0_is_a_refusal(self, connector):
        connector.answer = lambda _: web.json_response({"code": 7})
        summary = await play(Plan(url=connector.url, seed=5, instances=1))
        assert summary.refused == summary.sent > 1

    @pytest.mark.parametrize("shape", [Shape.TEXT, Shape.QUERY])
    async def test_a_broken_connection_is_an_attempt_of_its_own(self, connector, tmp_path, shape):
        connector.answer = lambda nth: None if nth == 2 else web.json_response({"code": 0})
        ledger = tmp_path / "sent.jsonl"
        summary = await play(Plan(url=connector.url, seed=5, instances=1, shape=shape, ledger=ledger))
        second = entries_of(ledger)[1]
        assert summary.accepted == summary.sent == len(connector.messages) - 1
        assert [attempt["error"] for attempt in second["attempts"]] == ["reset", None]

    async def test_no_answer_leaves_the_outcome_unknown(self, connector, tmp_path):
        connector.delay = lambda: 5
        ledger = tmp_path / "sent.jsonl"
        plan = Plan(url=connector.url, seed=5, instances=1, retries=1, timeout_seconds=0.1, ledger=ledger)
        summary = await play(plan)
        assert (summary.sent, summary.failed, summary.reached) == (1, 1, False)
        [entry] = entries_of(ledger)
        assert entry["outcome"] == "unknown"
        assert [attempt["error"] for attempt in entry["attempts"]] == ["timeout", "timeout"]

    async def test_an_address_never_reached_ends_the_simulation(self, tmp_path):
        ledger = tmp_path / "sent.jsonl"
        plan = Plan(url=f"http://127.0.0.1:{free_port()}", seed=5, instances=10**6, retries=1, ledger=ledger)
        summary = await play(plan)
        assert not summary.reached
        assert summary.failed == summary.sent <= plan.concurrency
        assert {entry["outcome"] for entry in entries_of(ledger)} == {"failed"}

    async def test_nothing_is_repeated_unless_asked(self, connector):
        await play(Plan(url=connector.url, seed=5, instances=20))
        assert len(set(connector.bodies)) == len(connector.bodies)

    async def test_repeats_are_the_same_bytes_right_after(self, connector):
        summary = await play(Plan(url=connector.url, seed=5, instances=10, concurrency=1, repeats=1))
        assert connector.bodies[0::2] == connector.bodies[1::2]
        assert summary.sent == summary.accepted == len(connector.bodies) / 2

    async def test_repeats_are_about_the_share_asked_for(self, connector):
        summary = await play(Plan(url=connector.url, seed=5, instances=40, repeats=0.2))
        assert 0.1 < len(connector.bodies) / summary.sent - 1 < 0.3

    async def test_overlaps_are_in_flight_together(self, connector):
        connector.delay = lambda: 0.01
        summary = await play(Plan(url=connector.url, seed=5, instances=10, overlaps=1))
        assert max(connector.most_in_flight.values()) == 2
        assert summary.accepted == summary.sent == len(connector.messages)

    async def test_the_rate_is_kept_over_all_instances(self, connector):
        began = time.monotonic()
        summary = await play(Plan(url=connector.url, seed=5, instances=None, rate=100, seconds=1))
        assert 0 < summary.sent <= 100 * (time.monotonic() - began) + 2  # a busy machine sends less, never more

    async def test_nothing_new_is_sent_after_the_seconds_are_over(self, connector):
        summary = await play(Plan(url=connector.url, seed=5, instances=None, rate=50, seconds=0.3))
        assert 0 < summary.sent == summary.accepted <= 50 * 0.3 + 2

    async def test_a_stop_gives_up_what_is_in_flight(self, connector, tmp_path):
        connector.delay = lambda: 3600
        ledger = tmp_path / "sent.jsonl"
        stop = asyncio.Event()
        playing = asyncio.create_task(play(Plan(url=connector.url, seed=5, instances=8, ledger=ledger), stop=stop))
        await until(connector.in_flight.total, equals(8))
        stop.set()
        summary = await asyncio.wait_for(playing, PATIENCE_SECONDS)
        assert (summary.sent, summary.failed) == (8, 8)
        assert [entry["attempts"][0]["error"] for entry in entries_of(ledger)] == ["stopped"] * 8

    async def test_each_message_is_answered_for_once(self, connector):
        answers = []
        summary = await play(Plan(url=connector.url, seed=5, instances=5, repeats=0.5), on_answer=answers.append)
        assert len(answers) == summary.sent
        assert {(a.outcome, a.status, a.code) for a in answers} == {(Outcome.ACCEPTED, 200, 0)}
        assert all(0 < answer.latency_seconds < 10 and answer.seq < answer.total for answer in answers)


class TestLedger:
    async def test_it_says_what_was_sent_and_answered(self, connector, tmp_path):
        """Each line is one message as it arrived; its attempts are the calls that arrived."""
        connector.answer = refusing(4, retry_after=None)
        ledger = tmp_path / "sent.jsonl"
        summary = await play(
            Plan(url=connector.url, seed=5, instances=12, repeats=0.3, shape=Shape.MIXED, ledger=ledger)
        )
        entries = entries_of(ledger)
        assert len(entries) == summary.sent
        came = Counter(message["msgId"] for message in connector.messages)
        assert came == {entry["msgId"]: len(entry["attempts"]) for entry in entries}
        assert all(entry["message"] in connector.messages for entry in entries)
        assert Counter(entry["outcome"] for entry in entries) == {"accepted": summary.accepted}

    async def test_an_instance_stands_in_order_and_each_answer_before_the_next_sending(self, connector, tmp_path):
        ledger = tmp_path / "sent.jsonl"
        await play(Plan(url=connector.url, seed=5, instances=12, repeats=0.3, ledger=ledger, start_ms=START_MS))
        by_instance = defaultdict(list)
        for entry in entries_of(ledger):
            by_instance[entry["instanceId"]].append(entry)
        assert len(by_instance) == 12
        for run in runs(5, 12, START_MS):
            entries = by_instance[run.instance_id]
            assert [entry["seq"] for entry in entries] == list(range(len(run.messages)))
            assert [entry["message"] for entry in entries] == list(run.messages)
            moments = [moment for e in entries for a in e["attempts"] for moment in (a["sent_at"], a["answered_at"])]
            assert moments == sorted(moments)


COMMAND = """
import typer
from connector.cli.simulate import simulate
application = typer.Typer(rich_markup_mode=None)
application.command()(simulate)
application()
"""


async def simulate(*arguments, interrupt_after=None):
    """Run the command in a process of its own; returns exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    if interrupt_after is not None:
        await interrupt_after
        process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode, out.decode(), err.decode()


def last_line(out):
    return json.loads(out.splitlines()[-1])


class TestCommand:
    async def test_the_last_line_is_the_summary(self, connector):
        code, out, _ = await simulate("--url", connector.url, "--instances", "5", "--seed", "3")
        sent = len(connector.messages)
        assert out == f'{{"sent":{sent},"accepted":{sent},"refused":0,"failed":0}}\n'
        assert code == 0

    async def test_a_refusal_makes_it_exit_1(self, connector):
        connector.answer = refusing(1, 422)
        code, out, err = await simulate("--url", connector.url, "--instances", "2")
        assert (code, last_line(out)["refused"]) == (1, 1)
        assert "1 message refused: 422 (code 42200): refused with 422" in err

    async def test_an_unreachable_address_makes_it_exit_3(self):
        code, out, _ = await simulate("--url", f"http://127.0.0.1:{free_port()}", "--retries", "0", "--instances", "2")
        assert (code, last_line(out)) == (3, {"sent": 2, "accepted": 0, "refused": 0, "failed": 2})

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--url", "nowhere"], "--url must be"),
            (["--url", "http://127.0.0.1:9", "--repeats", "2"], "--repeats must be"),
            (["--url", "http://127.0.0.1:9", "--ledger", "/nowhere/at/all"], "--ledger /nowhere/at/all"),
            (["--url", "http://127.0.0.1:9", "--shape", "round"], "--shape"),
        ],
    )
    async def test_bad_usage_exits_2_and_names_the_option(self, arguments, named):
        code, out, err = await simulate(*arguments)
        assert (code, out) == (2, "")
        assert named in err

    async def test_a_drawn_seed_is_reported_and_plays_the_same_again(self, connector):
        _, _, err = await simulate("--url", connector.url, "--instances", "2")
        seed = re.search(r"^seed (\d+)$", err, re.MULTILINE)[1]
        first = [message["msgId"] for message in connector.messages]
        connector.messages.clear()
        await simulate("--url", connector.url, "--instances", "2", "--seed", seed)
        assert sorted(first) == sorted(message["msgId"] for message in connector.messages)

    async def test_an_interrupt_ends_it_at_once_with_the_summary(self, connector):
        connector.delay = lambda: 0.05
        code, out, err = await simulate(
            "--url", connector.url, "--instances", "0", interrupt_after=connector.busy.wait()
        )
        counts = last_line(out)
        assert counts["sent"] == counts["accepted"] + counts["refused"] + counts["failed"] > 0
        assert code in {0, 1}
        assert "Traceback" not in err


def iter_of_delays():
    """Uneven waits, so that an order kept by luck would not last."""
    delays = iter([0.001, 0.004, 0, 0.009, 0.002] * 10**5)
    return lambda: next(delays)


def free_port():
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
