"""The notifier's rules, texts and outbox: what is wrong is said at the start, what is due is known."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import yaml

from connector.consuming import Event
from connector.errors import ConfigurationError
from connector.notify import progress, service
from connector.notify.delivery import Delivery
from connector.notify.matching import Ended, drafts_of, ended_by
from connector.notify.metrics import Metrics
from connector.notify.outbox import Outbox, locked
from connector.notify.progress import CatchUp
from connector.notify.rules import Digest, Quiet, Retry, example, read_rules
from connector.notify.sending import Apprise, Failed
from connector.notify.templates import MAX_CHARS, Unrenderable, render
from tests.waiting import wait_until

ZONE = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 3, 2, 12, tzinfo=ZONE)
RULE = {"name": "todo", "target": "room", "title": "t", "text": "x"}
RULES = {"targets": {"room": {"url": "json://localhost"}}, "rules": [RULE]}


def written(tmp_path, tree):
    path = tmp_path / "rules.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree), encoding="utf-8")
    return path


def rule(**fields):
    return {**RULES, "rules": [RULE | fields]}


def target(**fields):
    return {**RULES, "targets": {"room": fields}}


def event(**value) -> Event:
    known = {"instanceId": "i-1", "msgType": "Task", "msgId": "m-1", "action": 0, "elementId": "n-1"}
    known |= {"approverMap": [{"1": "王芳"}, {"2": "张伟"}], "startUserMap": [{"userId": "3", "userName": "李娜"}]}
    return Event("i-1", known | value, datetime(2026, 3, 2, 1, tzinfo=UTC), "f" * 32, "weda.workflow.events", 0, 0)


# --- bad rules stop the start ---


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ("targets: [", "no YAML"),
        ("[]", "must have targets and rules"),
        ({"targets": {}}, "rules: Field required"),
        (rule(text="{{ flowTitel }}"), "rule todo: text: flowTitel: no event has a field of that name"),
        (rule(text="{{ flowTitle"), "rule todo: text: is no template"),
        (rule(text="{{ flowTitle | nonsense }}"), "rule todo: text: is no template"),
        (rule(text="{{ flowTitle.__class__.__mro__ }}"), "rule todo: text: cannot be rendered"),
        (rule(title=""), "rule todo: title"),
        (rule(target="nowhere"), "rule todo: target: nowhere is none of room"),
        (rule(to="boss"), "rule todo: to"),
        (rule(when={"action": ["批准"]}), "rule todo: when.action.0: is no action of WeDa"),
        (rule(when={"proces": ["请假"]}), "rule todo: when.proces: Extra inputs are not permitted"),
        (rule(after="soon"), "rule todo: after: must be a number with s, m, h, d or w"),
        (rule(digest={}), "rule todo: digest: needs either at or every"),
        (rule(digest={"at": 1080}), 'rule todo: digest.at: must be a time of day in quotes, as in "08:00"'),
        (rule(after="1h", digest={"every": "1h"}), "rule todo: has after and digest"),
        ({**RULES, "rules": [RULE, RULE]}, "rule todo: name: another rule has it too"),
        ({**RULES, "timezone": "Shanghai"}, "timezone"),
        ({**RULES, "quiet": {"from": "22:00"}}, "quiet: to: Field required"),
        (target(), "target room: needs either url or url_file"),
        (target(url="json://a/{address}"), "target room: address: goes with {address} in the URL"),
        (target(url="json://a", address="wecom"), "target room: address: goes with {address} in the URL"),
        (target(url_file="/nonexistent/url"), "target room: url_file: not readable"),
        (target(url="json://a", per_minute=0), "target room: per_minute"),
    ],
    ids=str,
)
def test_a_bad_rule_is_said_in_one_line_that_names_rule_and_field(tree, said, tmp_path):
    with pytest.raises(ConfigurationError) as found:
        read_rules(written(tmp_path, tree))

    assert said in found.value.message
    assert "\n" not in found.value.message


def test_a_url_that_apprise_does_not_know_is_said_without_its_text(tmp_path):
    rules = read_rules(written(tmp_path, target(url="nonsense://secret-token")))
    with pytest.raises(ConfigurationError, match="target room: url") as found:
        Apprise().check("room", rules.targets["room"], "")
    assert "secret-token" not in found.value.message


def test_the_example_is_taken_and_tells_the_five_cases(tmp_path):
    rules = read_rules(written(tmp_path, example()))
    assert [each.name for each in rules.rules] == ["待办提醒", "超时催办", "被回退", "审批完成", "日报"]
    for name, each in rules.targets.items():
        Apprise().check(name, each, rules.some_address(each))

    notified = event(
        processName="请假", flowTitle="年假3天", elementName="主管审批", pageUrlMap=[{"u": "https://oa/1"}]
    )
    made = [draft for draft, missing in drafts_of(notified, rules, NOON) if missing is None]

    assert [(draft.rule, draft.address) for draft in made] == [
        ("待办提醒", "1"),
        ("待办提醒", "2"),
        ("超时催办", "1"),
        ("超时催办", "2"),
    ]
    assert made[0].text == "王芳，您有一项新的待办。\n年假3天\n发起人：李娜　环节：主管审批\nhttps://oa/1"
    assert made[2].due == notified.received_at.timestamp() + 86400


# --- who is notified of what ---


def test_conditions_choose_events_and_persons(tmp_path):
    when = {"action": ["待办", 14], "process": ["请假*"], "node": ["主管*"], "person": ["王*", "9"]}
    rules = read_rules(
        written(
            tmp_path,
            {
                "targets": {"app": {"url": "json://a/{address}", "address": "wecom"}},
                "people": {"1": {"wecom": "fang"}},
                "rules": [RULE | {"target": "app", "when": when}],
            },
        )
    )

    def notified(**value):
        fields = {"processName": "请假申请", "elementName": "主管审批"} | value
        return [(draft.person, draft.address, missing) for draft, missing in drafts_of(event(**fields), rules, NOON)]

    assert notified() == [("1", "fang", None)]
    assert notified(action=2) == notified(processName="报销") == notified(elementName="财务") == []
    assert notified(approverMap=[{"9": "谁"}]) == [("9", "", "no wecom of the person 9 is in people")]


def test_a_room_is_notified_once_and_an_address_cannot_leave_its_place_in_the_url(tmp_path):
    rules = read_rules(written(tmp_path, rule(text="{{ persons | map(attribute='name') | join('、') }}")))
    assert [(draft.address, draft.text) for draft, _ in drafts_of(event(), rules, NOON)] == [("", "王芳、张伟")]

    service = Apprise()._service(rules.targets["room"].model_copy(update={"url": "json://a/{address}"}), "x@b/?c=d")
    assert (service.host, service.fullpath) == ("a", "/x@b%2F%3Fc=d")


def test_what_an_event_lacks_is_an_empty_text():
    assert render("[{{ comment }}{{ endTime | time }}]", {"comment": "", "endTime": ""}, ZONE) == "[]"


def test_times_are_in_the_rules_zone_and_texts_have_an_end():
    assert render("{{ startTime | time }}", {"startTime": 1_772_415_000_000}, ZONE) == "2026-03-02 09:30"
    assert len(render("{{ comment }}", {"comment": "长" * 5000}, ZONE)) == MAX_CHARS
    with pytest.raises(Unrenderable):
        render("{{ extras.nothing }}", {"extras": {}}, ZONE)


@pytest.mark.parametrize(
    ("value", "ended"),
    [
        ({"action": 2}, Ended("i-1", "n-1", ("1", "2"))),
        ({"action": 4, "approverMap": None}, Ended("i-1", "n-1", ())),
        ({"action": 0}, None),
        ({"action": 14}, None),
        ({"action": 24}, None),
        ({"action": 6}, Ended("i-1", "n-1", ())),
        ({"msgType": "Instance", "action": 23}, Ended("i-1", None, ())),
        ({"msgType": "Instance", "action": 22, "instanceStatus": 0}, None),
        ({"msgType": "Instance", "action": 99, "instanceStatus": 4}, Ended("i-1", None, ())),
    ],
)
def test_an_event_ends_reminders(value, ended):
    assert ended_by(event(**value)) == ended


# --- times ---


@pytest.mark.parametrize(
    ("begin", "end", "now", "until"),
    [
        ("22:00", "08:00", 23, datetime(2026, 3, 3, 8, tzinfo=ZONE)),
        ("22:00", "08:00", 7, datetime(2026, 3, 2, 8, tzinfo=ZONE)),
        ("22:00", "08:00", 8, None),
        ("12:00", "14:00", 13, datetime(2026, 3, 2, 14, tzinfo=ZONE)),
        ("12:00", "14:00", 11, None),
    ],
)
def test_quiet_hours(begin, end, now, until):
    quiet = Quiet.model_validate({"from": begin, "to": end})
    assert quiet.until(NOON.replace(hour=now)) == until


def test_digests_are_due_at_a_time_or_every_so_often():
    assert Digest(at="18:00").due(NOON) == NOON.replace(hour=18)
    assert Digest(at="09:00").due(NOON) == datetime(2026, 3, 3, 9, tzinfo=ZONE)
    assert Digest(every="30m").due(NOON) == NOON.replace(minute=30)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        # Clocks go from 02:00 to 03:00, and from 03:00 back to 02:00.
        (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), datetime(2026, 3, 29, 4, tzinfo=UTC)),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 4, tzinfo=UTC)),
    ],
)
def test_an_interval_of_digests_has_its_length_when_the_clocks_are_changed(now, due):
    assert Digest(every="4h").due(now.astimezone(ZoneInfo("Europe/Berlin"))).timestamp() == due.timestamp()


def test_a_digest_at_a_time_of_day_keeps_it_when_the_clocks_are_changed():
    berlin = ZoneInfo("Europe/Berlin")
    assert Digest(at="18:00").due(datetime(2026, 3, 28, 19, tzinfo=berlin)) == datetime(2026, 3, 29, 18, tzinfo=berlin)


def test_waits_between_attempts_grow_up_to_a_longest():
    retry = Retry(first="1s", longest="5s")
    assert [retry.wait(number) for number in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]


# --- the outbox ---


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "notify.db")
    yield outbox
    outbox.close()


def draft(tmp_path, **fields):
    rules = read_rules(written(tmp_path, rule()))
    ((made, _),) = drafts_of(event(), rules, NOON)
    return replace(made, **fields)


def add(outbox, *drafts):
    outbox.add(drafts)
    outbox.database.commit()


def heads(outbox):
    return [outbox.notification(head.number) for head in outbox.heads(time.time())]


def test_each_address_has_its_own_order_and_the_same_is_added_once(outbox, tmp_path):
    drafts = [draft(tmp_path, identity=bytes([n]), address="ab"[n % 2], text=str(n)) for n in range(5)]
    add(outbox, *drafts, drafts[0])

    assert [head.text for head in heads(outbox)] == ["0", "1"]
    outbox.remove(heads(outbox)[:1])
    assert [head.text for head in heads(outbox)] == ["1", "2"]


def test_looking_for_what_may_be_sent_reads_no_texts_and_at_night_only_urgent_ones(outbox, tmp_path):
    """The sender looks five times a second, all night, and a hundred thousand may wait."""

    def steps_and_columns(rules):
        steps, columns = [], set()
        outbox.database.set_progress_handler(lambda: steps.append(1), 1)
        outbox.database.set_authorizer(lambda *read: columns.add(read[2]) or 0)
        outbox.heads(time.time(), rules)
        outbox.database.set_progress_handler(None, 0)
        outbox.database.set_authorizer(None)
        return len(steps), columns

    add(outbox, draft(tmp_path, identity=b"urgent", rule="urgent"))
    before, _ = steps_and_columns(["urgent"])
    add(outbox, *(draft(tmp_path, identity=bytes([n]), address=str(n)) for n in range(100)))

    assert steps_and_columns(["urgent"])[0] == before
    assert not {"title", "text"} & steps_and_columns(None)[1]


def test_a_reminder_is_cancelled_for_its_person_its_node_or_its_instance(outbox, tmp_path):
    common = {"is_reminder": True, "due": time.time() + 999}
    for number, (person, node) in enumerate([("1", "n-1"), ("2", "n-1"), ("1", "n-2"), ("1", "n-3")]):
        add(outbox, draft(tmp_path, identity=bytes([number]), person=person, node=node, **common))
    add(outbox, draft(tmp_path, identity=b"no reminder"))

    assert outbox.cancel("i-1", "n-1", ["1"]) == 1
    assert outbox.cancel("i-1", "n-2") == 1
    assert outbox.cancel("i-2") == 0
    assert outbox.cancel("i-1") == 2
    assert outbox.counts().waiting == 1


def test_a_parked_reminder_is_cancelled_too(outbox, tmp_path):
    """It was sent for a task that was done, once the parked ones were tried again."""
    outbox.park_draft(draft(tmp_path, node="n-1", is_reminder=True), "no such user")
    outbox.park_draft(draft(tmp_path, node="n-1", identity=b"no reminder"), "no such user")

    assert outbox.cancel("i-1", "n-1") == 1
    assert outbox.retry_parked() == 1


def test_what_is_parked_keeps_its_reason_and_can_be_tried_again(outbox, tmp_path):
    add(outbox, draft(tmp_path))
    outbox.failed(heads(outbox), "no such user", is_final=True)

    assert outbox.heads(time.time()) == []
    assert [each.reason for each in outbox.parked()] == ["no such user"]
    assert (outbox.counts().parked, outbox.retry_parked(), len(outbox.heads(time.time()))) == (1, 1, 1)


def test_the_first_start_is_written_down_once(outbox):
    assert (outbox.first_start(5.0), outbox.first_start(9.0)) == (5.0, 5.0)


def test_two_notifiers_do_not_share_a_file(tmp_path):
    with locked(tmp_path / "notify.db"), pytest.raises(ConfigurationError, match="another notifier"):
        locked(tmp_path / "notify.db").__enter__()


# --- sending ---


def sent(tmp_path, tree, count, answer=lambda _: None, *, may_remind=True):
    """Send from the outbox by these rules until there were so many attempts; gives titles and texts, in order."""
    rules = read_rules(written(tmp_path, tree))
    attempts, stop = [], threading.Event()

    def send(_target, _address, title, text):
        attempts.append((title, text))
        return answer(text)

    flags = {"is_stopped": stop.is_set, "may_remind": lambda: may_remind}
    delivery = Delivery(tmp_path / "notify.db", rules, send, Metrics(list(rules.targets)), **flags)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(delivery.run)
        try:
            wait_until(lambda: len(attempts) >= count or running.done())
        finally:
            stop.set()
    running.result()
    return attempts


def test_each_line_of_a_digest_that_the_rule_has_lost_is_sent_by_itself(outbox, tmp_path):
    """Only the first was sent, and all of them were removed."""
    add(outbox, *(draft(tmp_path, identity=bytes([n]), text=str(n), is_digest=True) for n in range(3)))

    assert sent(tmp_path, rule(), 3) == [("t", "0"), ("t", "1"), ("t", "2")]
    assert outbox.counts().waiting == 0


def test_what_was_made_before_the_rule_got_a_digest_is_no_line_of_it(outbox, tmp_path):
    add(outbox, draft(tmp_path), draft(tmp_path, identity=b"line", text="line", is_digest=True))
    digest = {"every": "1h", "title": "{{ count }}", "text": "{{ lines | join }}"}

    assert sent(tmp_path, rule(digest=digest), 2) == [("t", "x"), ("1", "line")]


def quiet_now():
    now = datetime.now(ZONE)
    return {name: (now + timedelta(hours=hours)).strftime("%H:%M") for name, hours in (("from", -1), ("to", 1))}


def test_in_quiet_hours_an_urgent_one_overtakes_what_waits_for_the_morning(outbox, tmp_path):
    """It waited until the morning too, behind the first one of its address."""
    number = iter(range(9))

    def of(rule_name, text, **fields):
        add(outbox, draft(tmp_path, identity=bytes([next(number)]), rule=rule_name, text=text, **fields))

    of("todo", "waits")
    of("gone", "waits")  # the file has no such rule: parked in the morning
    of("back", "1")
    of("report", "line a", is_digest=True)
    of("back", "2")
    of("report", "line b", is_digest=True)
    failures = iter([Failed("away", is_final=False)])
    digest = {"every": "1h", "text": "{{ lines | join(', ') }}"}
    urgent = [RULE | {"name": "back", "urgent": True}, RULE | {"name": "report", "urgent": True, "digest": digest}]
    by_day = {**RULES, "retry": {"first": "1s"}, "rules": [RULE, *urgent]}

    attempts = sent(tmp_path, by_day | {"quiet": quiet_now()}, 4, lambda _: next(failures, None))

    assert [text for _, text in attempts] == ["1", "1", "line a, line b", "2"]
    assert (outbox.counts().waiting, outbox.counts().parked) == (2, 0)
    assert sent(tmp_path, by_day, 1) == [("t", "waits")]


def test_a_rule_is_urgent_if_the_file_says_so_now(outbox, tmp_path):
    add(outbox, *(draft(tmp_path, identity=name.encode(), rule=name, text=name) for name in ("was", "is")))
    rules = [RULE | {"name": "was"}, RULE | {"name": "is", "urgent": True}]

    assert sent(tmp_path, {**RULES, "quiet": quiet_now(), "rules": rules}, 1) == [("t", "is")]
    assert outbox.counts().waiting == 1


def test_reminders_wait_until_the_reader_has_caught_up_and_hold_nothing_else_back(outbox, tmp_path):
    reminder = draft(tmp_path, text="reminder", is_reminder=True)
    add(outbox, reminder, draft(tmp_path, identity=b"after", text="todo"))

    assert sent(tmp_path, rule(), 1, may_remind=False) == [("t", "todo")]
    assert sent(tmp_path, rule(), 1) == [("t", "reminder")]


def test_while_kafka_is_away_after_a_start_reminders_wait_and_the_rest_is_sent(outbox, tmp_path, monkeypatch):
    asked, is_done = [], CatchUp.is_done

    def watched(self):
        asked.append(self)
        return is_done(self)

    monkeypatch.setattr(CatchUp, "is_done", watched)
    monkeypatch.setattr(progress, "REACH_SECONDS", 0.5)
    monkeypatch.setattr(service, "_LAG_SECONDS", 0.5)
    add(outbox, draft(tmp_path, is_reminder=True), draft(tmp_path, identity=b"todo", text="todo"))
    rules, texts = read_rules(written(tmp_path, rule())), []
    options = service.ConsumerOptions("127.0.0.1:1", {}, "notify", datetime.now(UTC))

    def send(_target, _address, _title, text):
        texts.append(text)

    notifier = service.Notifier(options, rules, tmp_path / "notify.db", send, Metrics(["room"]))
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(notifier.run)
        try:
            wait_until(lambda: (texts and len(asked) > 2) or running.done())
        finally:
            notifier.stop()
    running.result()

    assert texts == ["todo"]
