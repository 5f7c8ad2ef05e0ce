"""The notifier on a real broker, to a local platform that fails now and then: each person is notified."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from connector.consuming import Events
from connector.notify import service
from connector.notify.metrics import Metrics
from connector.notify.outbox import Outbox
from connector.notify.progress import CatchUp
from connector.notify.rules import Target, read_rules
from connector.notify.sending import Apprise
from connector.notify.service import ConsumerOptions
from tests.running import Running, Start
from tests.servers.ports import free_ports
from tests.waiting import PATIENCE_SECONDS, at_least, equals, until

PEOPLE = 40
COUNT = 1_000
TOGETHER = 32
KILLS = 6


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A sender that was killed is no news."""


class Platform:
    """A web hook that people are notified by; ``answer`` says what becomes of a request before it counts as notified.

    Attributes:
        notified: Text → how often it was taken.
        order: Address → texts, as they were taken.
        unanswered: Texts that were taken, and whose sender got no answer.
    """

    def __init__(self, answer: Callable[[str], int | str]) -> None:
        self.notified: Counter[str] = Counter()
        self.order: dict[str, list[str]] = {}
        self.titles: list[str] = []
        self.unanswered = 0
        platform = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                notified = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status = answer(notified["message"])
                if isinstance(status, int) and status != 200:
                    self.send_error(status)
                    return
                if status != "refused":
                    platform.notified[notified["message"]] += 1
                    platform.order.setdefault(self.path, []).append(notified["message"])
                    platform.titles.append(notified["title"])
                if status == "lost":
                    platform.unanswered += 1
                    self.close_connection = True
                    return
                body = json.dumps({"errcode": 45009 if status == "refused" else 0}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = _Server(("127.0.0.1", 0), Receiver)
        self.url = f"json://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def platforms() -> Iterator[Callable[..., Platform]]:
    made: list[Platform] = []

    def start(answer: Callable[[str], int | str] = lambda _: 200) -> Platform:
        made.append(Platform(answer))
        return made[-1]

    yield start
    for each in made:
        each.close()


class Notifier:
    """A notifier as a process of its own, that can be killed and started again."""

    def __init__(self, folder: Path, running: Running, prefix: str, rules: dict[str, object]) -> None:
        self.folder = folder
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules, allow_unicode=True), encoding="utf-8")
        (self.port,) = free_ports(1)
        self.state = folder / "notify.db"
        self.options = ["--bootstrap-servers", running.connector.bootstrap_servers, "--rules", "rules.yaml"]
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
        self.environment |= {"WEDA_TOPICS__PREFIX": prefix}
        self.group = f"{prefix}-notify"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "connector", "notify", *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        words = [*self.options, "--state", str(self.state), "--group", self.group, "--since", "1d"]
        with (self.folder / "notifier.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*words, "--metrics-port", str(self.port)),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@pytest.fixture
def notifiers(tmp_path: Path, topic_prefix: str) -> Iterator[Callable[..., Notifier]]:
    made: list[Notifier] = []

    def new(running: Running, rules: dict[str, object]) -> Notifier:
        made.append(Notifier(tmp_path, running, topic_prefix, rules))
        return made[-1]

    yield new
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.kill()
    log = tmp_path / "notifier.log"
    sys.stderr.write(log.read_text(encoding="utf-8")[-4000:] if log.exists() else "")


def rules_for(platform: Platform, **rule: object) -> dict[str, object]:
    known = {"name": "todo", "target": "app", "title": "待办", "text": "{{ msgId }} {{ person.id }}"}
    return {
        "targets": {"app": {"url": platform.url + "/{address}", "address": "app"}},
        "people": {"*": {"app": "u{id}"}},
        "retry": {"attempts": 50, "first": "1s", "longest": "1s"},
        "rules": [known | rule],
    }


def todo(number: int, **fields: object) -> dict[str, object]:
    """A task of one person; every other one in the other shape of maps."""
    person = str(number % PEOPLE)
    shapes = [{person: f"人{person}"}], [{"userId": person, "userName": f"人{person}"}]
    known = {"msgType": "Task", "action": 0, "elementId": "n-1", "processName": "请假申请", "flowTitle": "年假"}
    return known | {
        "instanceId": f"i-{number % 97}", "msgId": f"m-{number}", "approverMap": shapes[number % 2]
    } | fields  # fmt: skip


async def post_all(running: Running, messages: list[dict[str, object]]) -> None:
    for first in range(0, len(messages), TOGETHER):
        answers = await asyncio.gather(*(running.post(each) for each in messages[first : first + TOGETHER]))
        assert {answer[0] for answer in answers} == {200}


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {one.name + "".join(sorted(one.labels.values())): one.value for one in samples}


async def test_of_a_thousand_notifications_each_is_delivered_whatever_is_killed(
    start: Start, topic_prefix: str, platforms, notifiers, seed: int
):
    """Twice is only what a platform took and whose sender was killed, or got no answer, before it wrote that down."""
    dice = random.Random(seed)

    def answer(_: str) -> int | str:
        time.sleep(0.02)
        return dice.choices([200, 503, 429, "refused", "lost"], [88, 5, 2, 3, 2])[0]

    platform, running = platforms(answer), await start()
    notifier = notifiers(running, rules_for(platform))
    sending = asyncio.create_task(post_all(running, [todo(number) for number in range(COUNT)]))
    kills = 0
    while len(platform.notified) < COUNT:
        notifier.start()
        enough = COUNT if kills == KILLS else min(len(platform.notified) + dice.randrange(1, 200), COUNT)
        await until(lambda: len(platform.notified), at_least(enough))
        notifier.kill()
        kills += 1
    await sending
    notifier.start()
    await until(lambda: json_counts(notifier) == (0, 0))
    assert notifier.stop() == 0

    twice = platform.notified.total() - COUNT
    sys.stdout.write(f"{COUNT} notified, {twice} twice; {kills} kills, {platform.unanswered} answers lost\n")
    assert set(platform.notified) == {f"m-{number} {number % PEOPLE}" for number in range(COUNT)}
    assert kills > 3
    assert platform.unanswered > 0
    assert twice <= platform.unanswered + 4 * kills, "four are sent at a time"


@asynccontextmanager
async def in_this_process(
    running: Running, prefix: str, folder: Path, rules: dict[str, object], group: str | None = None
) -> AsyncIterator[None]:
    """A notifier that reads everything, until the block ends."""
    file, since = folder / "rules.yaml", datetime(2020, 1, 1, tzinfo=UTC)
    file.write_text(yaml.safe_dump(rules, allow_unicode=True), encoding="utf-8")
    read = read_rules(file)
    options = ConsumerOptions(running.connector.bootstrap_servers, {"prefix": prefix}, group or prefix, since)
    notifier = service.Notifier(options, read, folder / "notify.db", Apprise(), Metrics(list(read.targets)))
    thread = asyncio.create_task(asyncio.to_thread(notifier.run))
    try:
        yield
    finally:
        notifier.stop()
        await thread


async def test_a_stop_that_comes_while_it_starts_ends_it(start: Start, topic_prefix: str, tmp_path: Path, platforms):
    """It read on for ever, and sent nothing."""
    running, file = await start(), tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rules_for(platforms()), allow_unicode=True), encoding="utf-8")
    rules = read_rules(file)
    reading, since = {"prefix": topic_prefix}, datetime.now(UTC)
    options = ConsumerOptions(running.connector.bootstrap_servers, reading, topic_prefix, since)
    notifier = service.Notifier(options, rules, tmp_path / "notify.db", Apprise(), Metrics(list(rules.targets)))

    notifier.stop()

    await asyncio.wait_for(asyncio.to_thread(notifier.run), PATIENCE_SECONDS)


def json_counts(notifier: Notifier) -> tuple[int, int]:
    """How many wait and are parked, as a scrape says; (-1, -1) while there is none."""
    try:
        found = scraped(notifier.port)
    except OSError:
        return -1, -1
    if found["weda_notify_events_total"] == 0 and found["weda_notify_waiting"] == 0:
        return (0, int(found["weda_notify_parked"]))
    return int(found["weda_notify_waiting"]), int(found["weda_notify_parked"])


async def test_what_a_platform_refuses_for_good_is_parked_and_sent_on_request(
    start: Start, topic_prefix: str, platforms, notifiers
):
    refused = [True]
    platform, running = platforms(lambda text: 404 if refused[0] and text == "m-1 1" else 200), await start()
    notifier = notifiers(running, rules_for(platform))
    notifier.start()
    await post_all(running, [todo(number) for number in range(3)])
    await until(lambda: len(platform.notified) == 2 and json_counts(notifier) == (0, 1))
    counted = ("notifications_totalappsent", "notifications_totalappparked", "events_total")
    await until(lambda: [scraped(notifier.port)[f"weda_notify_{name}"] for name in counted], equals([2, 1, 3]))
    (parked,) = [json.loads(line) for line in notifier.run("--parked", "--state", "notify.db").splitlines()]
    assert (parked["person"], parked["attempts"]) == ("1", 1)
    assert "404" in parked["reason"]

    refused[0] = False
    assert json.loads(notifier.run("--retry-parked", "--state", "notify.db")) == {"retried": 1}
    await until(lambda: platform.notified["m-1 1"] == 1 and json_counts(notifier) == (0, 0))

    refused[0] = True
    await post_all(running, [todo(1, msgId="m-1", comment="again")])
    await until(lambda: json_counts(notifier) == (0, 1))
    assert json.loads(notifier.run("--discard-parked", "--state", "notify.db")) == {"discarded": 1}
    await until(lambda: json_counts(notifier) == (0, 0))
    assert notifier.stop() == 0
    assert platform.notified["m-1 1"] == 1


@pytest.mark.parametrize(
    ("answer", "final"), [(200, None), (503, False), (429, False), (404, True), (401, True), ("refused", False)]
)
def test_an_answer_is_a_success_a_reason_to_try_again_or_final(platforms, answer, final):
    """Also where a platform answers 200, and says in its body that it has refused."""
    platform = platforms(lambda _: answer)
    failed = Apprise()(Target(url=platform.url), "", "title", "text")

    assert (None if failed is None else failed.is_final) == final
    assert failed is None or str(45009 if answer == "refused" else answer) in failed.reason


def test_nobody_who_answers_is_a_reason_to_try_again():
    failed = Apprise()(Target(url="json://127.0.0.1:1"), "", "title", "text")
    assert failed is not None
    assert not failed.is_final


async def test_one_person_is_notified_in_order_and_a_target_keeps_its_rate(
    start: Start, topic_prefix: str, platforms, notifiers
):
    failures = iter([503, 200, 503, 503])
    platform, running = platforms(lambda _: next(failures, 200)), await start()
    rules = rules_for(platform)
    rules["targets"]["app"]["per_minute"] = 120
    notifier = notifiers(running, rules)
    began = time.monotonic()
    notifier.start()
    for number in range(0, 6 * PEOPLE, PEOPLE):
        await running.post(todo(number, instanceId="i-0"))
    await until(lambda: len(platform.notified) == 6)

    assert list(platform.order.values()) == [[f"m-{number} 0" for number in range(0, 6 * PEOPLE, PEOPLE)]]
    assert time.monotonic() - began > 8 * 0.5, "nine attempts, half a second apart"


async def test_a_reminder_comes_only_for_what_is_still_open_and_a_digest_gathers(
    start: Start, topic_prefix: str, platforms, notifiers
):
    platform, running = platforms(), await start()
    rules = rules_for(platform, name="overdue", after="10s", when={"action": ["待办"]})
    rules["targets"]["room"] = {"url": f"{platform.url}/room"}
    digest = {"every": "3s", "title": "{{ count }} 项", "text": "{{ lines | join('\n') }}"}
    done = {"name": "report", "target": "room", "title": "t", "text": "{{ flowTitle }}", "digest": digest}
    rules["rules"].append(done | {"when": {"action": ["流程实例结束"], "type": ["Instance"]}})
    notifier = notifiers(running, rules)
    notifier.start()
    await until(lambda: json_counts(notifier), equals((0, 0)))
    await post_all(running, [todo(1), todo(2), todo(3)])
    await running.post(todo(1, msgId="m-11", action=2))
    ends = {
        "msgType": "Instance",
        "action": 23,
        "msgId": "m-22",
        "instanceId": "i-2",
        "flowTitle": "结束的",
        "instanceStatus": 3,
    }
    await running.post(ends)
    await running.post(ends | {"msgId": "m-23", "instanceId": "i-5"})

    def gathered() -> list[str]:
        texts = [text for path, texts in platform.order.items() if "room" in path for text in texts]
        return "\n".join(texts).split("\n")

    await until(gathered, equals(["结束的", "结束的"]))
    await until(lambda: platform.notified["m-3 3"])
    await asyncio.sleep(5)  # nothing more comes

    assert platform.notified["m-3 3"] == 1
    assert {"m-1 1", "m-2 2"} & set(platform.notified) == set()
    assert gathered() == ["结束的", "结束的"]


def let_an_hour_pass(outbox: Outbox) -> None:
    with outbox.database as database:
        database.execute("UPDATE weda_outbox SET due = due - 3600")


async def test_a_reminder_of_what_ended_while_the_notifier_was_stopped_is_not_sent(
    start: Start, topic_prefix: str, platforms, notifiers
):
    """It was sent at once after the start, before the approval was read."""
    platform, running = platforms(), await start()
    notifier = notifiers(running, rules_for(platform, after="1h", when={"action": ["待办"]}))
    notifier.start()
    await post_all(running, [todo(1), todo(2)])
    await until(lambda: json_counts(notifier), equals((2, 0)))
    assert notifier.stop() == 0
    await running.post(todo(1, msgId="m-11", action=2))
    with closing(Outbox(notifier.state)) as outbox:
        let_an_hour_pass(outbox)

    notifier.start()
    await until(lambda: platform.notified["m-2 2"] and json_counts(notifier) == (0, 0))

    assert platform.notified == {"m-2 2": 1}
    assert notifier.stop() == 0


def read_by(options: ConsumerOptions, count: int) -> None:
    """Read events as a notifier does, and commit them."""
    with Events(
        options.bootstrap_servers, group=options.group, since=options.since, auto_commit=False, **options.reading
    ) as events:
        for batch in events.batches(1):
            events.commit()
            count -= len(batch)
            if count == 0:
                return


async def test_the_reader_has_caught_up_once_what_was_there_at_the_start_is_committed(start: Start, topic_prefix: str):
    running, reading = await start(), {"prefix": topic_prefix}
    topic = f"{topic_prefix}.events"

    def options(since: datetime) -> tuple[ConsumerOptions, CatchUp]:
        made = ConsumerOptions(running.connector.bootstrap_servers, reading, f"{topic_prefix}-{since.year}", since)
        return made, CatchUp(made.bootstrap_servers, {}, topic, made.group, since)

    await post_all(running, [todo(number) for number in range(3)])
    from_then_on = options(datetime(2100, 1, 1, tzinfo=UTC))[1]
    assert await asyncio.to_thread(from_then_on.is_done), "nothing is left since then, though nothing is committed"

    all_of_it, catch_up = options(datetime(2020, 1, 1, tzinfo=UTC))
    assert not await asyncio.to_thread(catch_up.is_done)
    await asyncio.to_thread(read_by, all_of_it, 2)
    assert not await asyncio.to_thread(catch_up.is_done)
    await asyncio.to_thread(read_by, all_of_it, 1)
    assert await asyncio.to_thread(catch_up.is_done)
    await post_all(running, [todo(number) for number in range(3, 6)])
    assert await asyncio.to_thread(catch_up.is_done), "later events do not count"


async def test_an_outbox_full_of_reminders_does_not_stop_reading_for_ever(
    start: Start, topic_prefix: str, tmp_path: Path, platforms, monkeypatch
):
    """Reminders waited for reading, and reading for them."""
    monkeypatch.setattr(service, "MAX_NOTIFICATIONS", 1)
    monkeypatch.setattr(service, "BATCH", 1)
    platform, running = platforms(), await start()
    await post_all(running, [todo(1), todo(2)])

    async with in_this_process(running, topic_prefix, tmp_path, rules_for(platform, after="1s")):
        await until(lambda: platform.notified, equals({"m-1 1": 1, "m-2 2": 1}))


async def test_reminders_do_not_wait_for_ever_behind_duplicates(
    start: Start, topic_prefix: str, tmp_path: Path, platforms, monkeypatch
):
    """Such as all events are to a group that Kafka has forgotten: no batch of new ones commits their offsets."""
    monkeypatch.setattr(service, "_LAG_SECONDS", 1.0)
    platform, running = platforms(), await start()
    rules = rules_for(platform, after="1h")
    await post_all(running, [todo(1)])
    with closing(Outbox(tmp_path / "notify.db")) as outbox:
        async with in_this_process(running, topic_prefix, tmp_path, rules):
            await until(lambda: outbox.counts().waiting, equals(1))
        let_an_hour_pass(outbox)

    async with in_this_process(running, topic_prefix, tmp_path, rules, group=f"{topic_prefix}-other"):
        await until(lambda: platform.notified, equals({"m-1 1": 1}))


async def test_a_dry_run_shows_the_texts_and_sends_nothing(start: Start, topic_prefix: str, platforms, notifiers):
    platform, running = platforms(), await start()
    await running.post(todo(7))
    notifier = notifiers(running, rules_for(platform, text="{{ person.name }}：{{ flowTitle }}"))

    shown = notifier.run(*notifier.options, "--dry-run", "--since", "1d")

    assert shown == "--- todo → app u7 (i-7)\n待办\n人7：年假\n"
    notifier = notifiers(running, rules_for(platform, text="催办", after="24h"))
    [head, *_] = notifier.run(*notifier.options, "--dry-run", "--since", "1d").splitlines()
    assert re.fullmatch(r"--- todo → app u7 \(i-7\), at [-\d]{10} [:\d]{8}\S* unless it is done by then", head)
    assert not notifier.state.exists()
    assert platform.notified.total() == 0


async def test_a_dry_run_says_what_would_be_parked_and_goes_on(start: Start, topic_prefix: str, platforms, notifiers):
    """It ended with a traceback at the first event of which no text can be made."""
    running = await start()
    await post_all(running, [todo(7, flowTitle="年假"), todo(8, flowTitle="年假3天")])
    text = "{% if flowTitle %}{{ 6 // (flowTitle | length - 2) }}{% endif %}"
    notifier = notifiers(running, rules_for(platforms(), text=text))

    shown = notifier.run(*notifier.options, "--dry-run", "--since", "1d")

    parked = "EVENT PARKED: rule todo: cannot be rendered: integer division or modulo by zero (i-7)\n"
    assert set(shown.split("--- ")) == {"", parked, "todo → app u8 (i-8)\n待办\n3\n"}
