"""The questions that users copy run as they stand, and their answers are what the simulator knows to be true."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import duckdb
import pytest

from connector.kafka.partitions import murmur2
from connector.message.schemas import WORKFLOW_EVENT, load
from connector.simulator.dictionaries import ACTION_NAMES, TASK_STATUS_AFTER, Action, Status
from connector.simulator.messages import OPEN_TASK_STATUSES
from tools import charts, fortnight, questions
from tools.fortnight import END, HOUR, MONDAY, OUTAGE, ZONE, Fortnight

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "questions.md"
CHINESE = ROOT / "docs" / "questions.zh-CN.md"
FOLDER = ROOT / "docs" / "questions"
TEXT = DOCUMENT.read_text(encoding="utf-8")
PICTURES = sorted(FOLDER.glob("*.svg"))

SQL = re.compile(r"^```sql\n(?P<sql>.*?)^```\n(?:\n(?P<table>(?:\|[^\n]*\n)+))?", re.DOTALL | re.MULTILINE)
BLOCKS = [(found["sql"], found["table"]) for found in SQL.finditer(TEXT)]
STATEMENTS = [sql for sql, table in BLOCKS if table is None]
ANSWERED = {sql: table for sql, table in BLOCKS if table}

ENDED = {Status.TERMINATED, Status.REJECTED, Status.APPROVED, Status.VOIDED, Status.DELETED}
DECIDED = {Action.APPROVE, Action.REJECT, Action.SEND_BACK}
BEFORE_START = {Action.DRAFT, Action.DELETE}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the script writes, on a machine with another zone and other hashes; in ``data`` what it read."""
    folder = tmp_path_factory.mktemp("questions")
    data = tmp_path_factory.mktemp("data")
    environment = {**os.environ, "TZ": "America/New_York", "PYTHONHASHSEED": "1", "LC_ALL": "C"}
    command = [sys.executable, "-m", "tools.questions", "--to", str(folder), "--data", str(data)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder, data


@pytest.fixture(scope="module")
def database(written):
    """The tables and views of the document's own statements, over the data that the script left."""
    opened = duckdb.connect()
    opened.execute(f"SET file_search_path = '{written[1]}'")
    for statement in STATEMENTS:
        opened.execute(statement)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def played():
    return Fortnight()


@pytest.fixture(scope="module")
def first(played):
    """Each message of production once, as it first came to the topic, in the topic's order."""
    seen = {}
    for each in played.published:
        if each.arrival.simulated.env_type == "prod":
            seen.setdefault((each.arrival.simulated.instance_id, each.arrival.simulated.position), each)
    return list(seen.values())


@pytest.fixture(scope="module")
def simulated(first):
    """What is known of each instance of production that was started, in the order of its story."""
    instances = defaultdict(list)
    for each in first:
        instances[each.arrival.simulated.instance_id].append(each.arrival.simulated)
    return {
        instance_id: sorted(messages, key=lambda message: message.position)
        for instance_id, messages in instances.items()
        if any(message.step.action not in BEFORE_START for message in messages)
    }


@pytest.fixture(scope="module")
def lives(simulated):
    """Start and end, None while open, of each instance."""
    return {
        instance_id: (messages[0].started_ms, min((one.step.at_ms for one in messages if ends(one)), default=None))
        for instance_id, messages in simulated.items()
    }


def ends(message) -> bool:
    return message.step.msg_type == "Instance" and message.step.status in ENDED


def local(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, ZONE).replace(tzinfo=None)


def rows(database, name: str) -> list[tuple]:
    return database.execute((FOLDER / f"{name}.sql").read_text(encoding="utf-8")).fetchall()


def shown(value) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return "" if value is None else str(value)


# --- the document ---


def test_the_script_gives_the_committed_document_and_plots_byte_for_byte(written):
    made = {path.relative_to(written[0]): path.read_bytes() for path in written[0].rglob("*") if path.is_file()}
    committed = [DOCUMENT, CHINESE, FOLDER / "load.sql", *PICTURES]

    assert made == {path.relative_to(ROOT / "docs"): path.read_bytes() for path in committed}


@pytest.mark.parametrize("sql", ANSWERED, ids=range(len(ANSWERED)))
def test_a_block_of_sql_gives_the_table_beneath_it(sql, database):
    header, _, *lines = [line.strip("| \n").split(" | ") for line in ANSWERED[sql].splitlines()]

    answer = database.execute(sql)

    assert header == [column[0] for column in answer.description]
    assert lines == [[shown(value) for value in row] for row in answer.fetchall()]


def test_every_file_of_sql_is_shown_and_nothing_else():
    assert {path.read_text(encoding="utf-8") for path in FOLDER.glob("*.sql")} == {sql for sql, _ in BLOCKS}
    assert (len(STATEMENTS), len(ANSWERED)) == (4, len(BLOCKS) - 4)
    assert len(ANSWERED) >= 10


def test_the_chinese_edition_has_the_same_blocks_answers_and_plots_and_asks_the_same():
    text = CHINESE.read_text(encoding="utf-8")
    code, plot = (
        re.compile(r"^```(?:sql|sh)\n.*?^```\n", re.DOTALL | re.MULTILINE),
        re.compile(r"\(questions/.+\.svg\)"),
    )
    english = re.findall(r"^\*\*.+\?\*\*\\\n(.+)$", TEXT, re.MULTILINE)

    assert [(found["sql"], found["table"]) for found in SQL.finditer(text)] == BLOCKS
    assert code.findall(text) == code.findall(TEXT)
    assert plot.findall(text) == plot.findall(TEXT)
    assert re.findall(r"^\*\*(.+？)\*\*$", text, re.MULTILINE) == english
    assert text.count("\n- ") == TEXT.count("\n- ")
    assert len(english) == len(ANSWERED)


def test_every_plot_is_shown_once():
    assert sorted(re.findall(r"!\[.+\]\(questions/(.+\.svg)\)", TEXT)) == [path.name for path in PICTURES]
    assert {path.stem for path in PICTURES} == set(questions.PLOTS)


def test_every_question_is_asked_in_two_languages_and_has_its_traps():
    sections = [section for section in TEXT.split("\n## ")[1:] if "\n| " in section and "sql\n" in section]

    assert len(sections) == len(ANSWERED)
    for section in sections:
        assert re.match(r"[A-Z][^\n]+\n\n\*\*[A-Z].+\?\*\*\\\n.*[\u4e00-\u9fff].*？\n\n", section)
        assert re.search(r"\nTraps:\n\n- ", section)


# --- the data ---


def test_the_table_has_every_field_of_the_schema_and_holds_the_records(database, played):
    columns = [row[0] for row in database.execute("DESCRIBE events").fetchall()]
    records = {(each.record.partition, each.record.offset): each.record for each in played.published}
    picked = database.execute(
        "SELECT kafka_partition, kafka_offset, instanceId, epoch_ms(receivedAt), epoch_ms(taskEndTime), approverMap,"
        " isCcTask, extras, fingerprint FROM events"
    ).fetchall()

    assert set(columns) == {*load(WORKFLOW_EVENT).fields, "kafka_partition", "kafka_offset", "fingerprint"}
    assert len(picked) == len(records)
    for partition, offset, *values in picked:
        record = records[partition, offset]
        names = ("instanceId", "receivedAt", "taskEndTime", "approverMap", "isCcTask", "extras")
        assert values == [*(record.value[name] for name in names), record.headers["weda.fingerprint"]]


def test_offsets_count_up_in_the_order_of_publishing_and_an_instance_keeps_to_its_partition_and_order(played):
    offsets, homes, received = defaultdict(list), defaultdict(set), defaultdict(list)
    for each in played.published:
        offsets[each.record.partition].append(each.record.offset)
        homes[each.record.key].add(each.record.partition)
        received[each.record.key].append(each.record.timestamp)

    moments = [each.published_ms for each in played.published]
    assert moments == sorted(moments)
    assert set(offsets) == set(range(fortnight.PARTITIONS))
    assert all(found == list(range(len(found))) for found in offsets.values())
    assert {len(found) for found in homes.values()} == {1}
    assert all(found == sorted(found) for found in received.values())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_are_hashed_as_by_kafka_s_java_client(key, expected):
    """The values of Apache Kafka's own test of ``Utils.murmur2``."""
    assert murmur2(key) == expected & 0xFFFFFFFF


def test_people_work_in_office_hours_only(played):
    by_people = [one.step.at_ms for one in played.simulated if one.step.action in DECIDED]
    moments = [local(at) for at in by_people]

    assert len(moments) > 500
    assert {moment.weekday() for moment in moments} == set(range(5))
    assert all(9 <= moment.hour < 18 and not (12, 0) <= (moment.hour, moment.minute) < (13, 30) for moment in moments)


def test_a_working_hour_at_the_end_of_friday_goes_on_on_monday():
    friday = MONDAY + 4 * 24 * HOUR + 17 * HOUR + HOUR // 2

    assert fortnight.at_work(friday, HOUR) == MONDAY + 7 * 24 * HOUR + 9 * HOUR + HOUR // 2


def test_the_fortnight_has_late_messages_both_kinds_of_repeats_and_an_outage(played):
    late = [each for each in played.accepted if each.received_ms - each.simulated.step.at_ms > 5 * 60_000]
    waited = [each for each in played.published if each.published_ms - each.arrival.received_ms > 1000]

    assert len({each.simulated.instance_id for each in played.accepted}) > 400
    assert played.recognised > 50
    assert len([each for each in played.accepted if each.again]) > 20
    assert len(late) > 100
    assert {each.arrival.simulated.source for each in waited} == {"finance"}
    assert all(each.arrival.received_ms in OUTAGE for each in waited)


def test_the_records_are_as_the_command_prints_them(written, played):
    lines = (written[1] / "events.jsonl").read_text(encoding="utf-8").splitlines()
    printed = json.loads(lines[0])

    assert len(lines) == len(played.published)
    assert printed["topic"] == "weda.workflow.events"
    assert (printed["partition"], printed["offset"], printed["key"]) == (0, 0, printed["value"]["instanceId"])


# --- the answers ---


def test_the_repeats_are_those_that_were_sent_again_after_the_window(database, played):
    again = Counter(each.simulated.source for each in played.accepted if each.again)
    records = Counter(each.simulated.source for each in played.accepted)

    answer = {source: (total, repeats) for source, total, repeats, *_ in rows(database, "repeats")}

    assert answer == {source: (records[source], again[source]) for source in ("finance", "hr")}


def test_the_view_keeps_the_first_telling_of_each_message_of_production(database, first):
    kept = database.execute("SELECT kafka_partition, kafka_offset FROM clean").fetchall()

    assert set(kept) == {(each.record.partition, each.record.offset) for each in first}


def test_durations_are_those_of_what_ended_in_the_last_seven_days(database, simulated, lives, played):
    newest = max(each.record.timestamp for each in played.published)
    hours = defaultdict(list)
    for instance_id, (start, end) in lives.items():
        if end is not None and end > newest - 7 * 24 * HOUR:
            hours[simulated[instance_id][0].process.name].append((end - start) / HOUR)

    answer = {process: figures for process, *figures in rows(database, "durations")}

    assert set(answer) == set(hours)
    for process, (ended, median, _, longest) in answer.items():
        assert ended == len(hours[process])
        assert median == pytest.approx(statistics.median(hours[process]), abs=0.06)
        assert longest == pytest.approx(max(hours[process]), abs=0.06)


def test_what_the_views_leave_out_is_what_is_not_in_them(database):
    answer = {reason: count for _, reason, count in rows(database, "left-out")}
    (records,) = database.execute("SELECT COUNT(*) FROM events WHERE envType = 'prod'").fetchone()
    (kept,) = database.execute("SELECT COUNT(*) FROM clean").fetchone()
    (instances,) = database.execute("SELECT COUNT(DISTINCT instanceId) FROM clean").fetchone()
    (started,) = database.execute("SELECT COUNT(*) FROM lives").fetchone()

    assert answer["duplicates"] == records - kept > 0
    assert answer["drafts that were never started"] == instances - started > 0
    assert answer["messages of previews"] > 0


def test_no_query_holds_a_date_and_every_file_is_made_by_the_page():
    for path in FOLDER.glob("*.sql"):
        assert not re.search(r"\d{4}-\d\d-\d\d", path.read_text(encoding="utf-8")), path.name
    made = set(re.findall(r"> (\w+\.\w+)$", TEXT, re.MULTILINE))
    assert set(re.findall(r"read_\w+\('([^']+)'", TEXT)) <= made


def test_starts_and_ends_per_day_are_those_that_happened(database, lives):
    started = Counter(local(start).date() for start, _ in lives.values())
    ended = Counter(local(end).date() for _, end in lives.values() if end is not None)
    days = sorted({*started, *ended})
    opened = [sum(started[day] - ended[day] for day in days[: at + 1]) for at in range(len(days))]

    expected = [(day, started[day], ended[day], left) for day, left in zip(days, opened, strict=True)]

    assert rows(database, "per-day") == expected


def test_open_instances_and_their_ages_are_those_of_each_evening(database, lives):
    expected = []
    for evening in range(MONDAY + 18 * HOUR, END + 1, 24 * HOUR):
        ages = [
            (evening - start) / HOUR
            for start, end in lives.values()
            if start <= evening and (end is None or end > evening)
        ]
        classes = [sum(low <= age < high for age in ages) for low, high in ((0, 24), (24, 72), (72, 10_000))]
        expected.append((local(evening).date(), len(ages), *classes, round(max(ages) / 24, 1)))

    assert rows(database, "open") == expected


def test_the_time_per_step_is_that_between_a_task_s_opening_and_its_decision(database, first):
    """To a second each, for dates that were sent in whole ones."""
    hours = defaultdict(list)
    for each in first:
        step = each.arrival.simulated.step
        if step.action in DECIDED:
            node = (each.arrival.simulated.process.name, step.node.name)
            hours[node].append((step.at_ms - step.opened_ms) / HOUR)

    answer = {(process, node): values for process, node, *values in rows(database, "steps")}

    assert set(answer) == set(hours)
    for node, (decisions, median, p90) in answer.items():
        assert decisions == len(hours[node])
        assert median == pytest.approx(statistics.median(hours[node]), abs=0.0506)
        assert p90 == pytest.approx(statistics.quantiles(hours[node], n=10, method="inclusive")[8], abs=0.0506)


def test_who_decided_is_counted_only_where_one_person_could(database, first):
    alone, sent_back, rejected, shared = Counter(), Counter(), Counter(), Counter()
    for step in (each.arrival.simulated.step for each in first):
        if step.action not in DECIDED:
            continue
        names = {person.id: person.name for person in step.approvers}.values()
        if len(names) > 1:
            shared.update(names)
            continue
        alone.update(names)
        sent_back.update(names if step.action is Action.SEND_BACK else ())
        rejected.update(names if step.action is Action.REJECT else ())

    answer = rows(database, "people")

    assert len(answer) == 10
    for name, *figures in answer:
        assert figures == [alone[name], sent_back[name], rejected[name], shared[name]]
    least = min(back + no for _, _, back, no, _ in answer)
    others = set(alone) - {name for name, *_ in answer}
    assert all(sent_back[name] + rejected[name] <= least for name in others)


def test_how_instances_end_is_the_last_that_happened_to_them(database, simulated):
    counts = defaultdict(Counter)
    for messages in simulated.values():
        statuses = [one.step.status for one in messages if one.step.msg_type == "Instance"]
        last = statuses[-1] if statuses else Status.RUNNING
        counts[messages[0].process.name][last] += 1

    answer = {process: tuple(figures) for process, *figures in rows(database, "endings")}

    assert answer == {
        process: (
            ended.total(),
            ended[Status.APPROVED],
            ended[Status.REJECTED],
            ended[Status.TERMINATED] + ended[Status.VOIDED] + ended[Status.DELETED],
            ended[Status.RUNNING] + ended[Status.UNLISTED_SUSPENDED],
        )
        for process, ended in counts.items()
    }


def test_states_that_went_backwards_are_those_that_came_after_a_later_moment(database, first):
    """Dates in whole seconds lose up to one: what is two seconds back is found for sure, what is not back never."""
    surely, maybe = went_back(first, at_least=2001), went_back(first, at_least=1)

    for kind, messages, back, instances, furthest in rows(database, "backwards"):
        assert messages == sum(each.arrival.simulated.step.msg_type == kind for each in first)
        assert len(surely[kind]) <= back <= len(maybe[kind])
        assert len({one for one, _ in surely[kind]}) <= instances <= len({one for one, _ in maybe[kind]})
        assert furthest == pytest.approx(max(by for _, by in surely[kind]) / HOUR, abs=0.0506)
    assert sum(map(len, maybe.values())) - sum(map(len, surely.values())) < 5


def went_back(first, *, at_least: int) -> dict[str, list[tuple[str, int]]]:
    """Type of message → instance and milliseconds, where one tells a moment so long before one that came earlier."""
    newest, found = {}, defaultdict(list)
    for one in (each.arrival.simulated for each in first):
        moment = moment_of(one)
        if moment is None:
            continue
        newest[one.instance_id] = max(moment, newest.get(one.instance_id, 0))
        if newest[one.instance_id] - moment >= at_least:
            found[one.step.msg_type].append((one.instance_id, newest[one.instance_id] - moment))
    return found


def test_what_went_backwards_did_come_late(first):
    """The moments that messages tell accuse none that came in its place."""
    late = Counter(one.instance_id for one in late_in_truth(first))
    accused = Counter(instance_id for found in went_back(first, at_least=1).values() for instance_id, _ in found)

    assert accused <= late
    assert accused.total() > late.total() / 3


def test_the_ended_that_look_open_are_those_whose_last_record_is_an_older_one(database, first):
    last, ended, count = {}, set(), Counter()
    for one in (each.arrival.simulated for each in first):
        last[one.instance_id] = one
        if ends(one):
            ended.add(one.instance_id)
    looking_open = [one for one in last.values() if not ends(one)]
    count.update(ACTION_NAMES[one.step.action] for one in looking_open)
    wrong = Counter(ACTION_NAMES[one.step.action] for one in looking_open if one.instance_id in ended)

    answer = {action: figures for action, *figures in rows(database, "looks-open")}

    assert answer == {action: [count[action], wrong[action]] for action in wrong}


def test_a_report_is_called_complete_only_where_nothing_came_later(database, played):
    answer = rows(database, "complete")
    for until, seen, later, newest, through, complete in answer:
        end = int((until - datetime(1970, 1, 1) - timedelta(hours=8)).total_seconds()) * 1000  # noqa: DTZ001 - local
        loaded = end + 5 * 60_000
        of_hour = [each for each in played.published if end - HOUR <= each.arrival.received_ms < end]
        there = [each for each in of_hour if each.published_ms <= loaded]
        accepted = [each for each in played.published if each.arrival.received_ms <= loaded]
        missing = [each.arrival.received_ms for each in accepted if each.published_ms > loaded]

        assert (seen, later) == (len(there), len(of_hour) - len(there))
        assert newest == local(max(each.arrival.received_ms for each in there))
        assert through == local(min(missing, default=loaded))
        assert complete == ("wait" if missing else "yes")
        assert complete == "wait" or later == 0
    assert {row[-1] for row in answer} == {"yes", "wait"}


def test_the_load_is_what_was_received_in_each_hour(database, played):
    moments = [local(each.received_ms) for each in played.accepted]
    hours = Counter(moment.hour for moment in moments)
    minutes = Counter(moment.replace(second=0, microsecond=0) for moment in moments)

    expected = [
        (hour, hours[hour], max(count for minute, count in minutes.items() if minute.hour == hour))
        for hour in range(6, 20)
    ]

    assert rows(database, "hours") == expected


def test_delays_are_those_between_an_end_and_its_receipt(database, first):
    for source, messages, _, minute, hour, day, longest in rows(database, "delay"):
        delays = [
            (each.arrival.received_ms - each.arrival.simulated.step.at_ms) / 1000
            for each in first
            if each.arrival.simulated.source == source and tells_its_end(each.arrival.simulated)
        ]

        assert messages == len(delays)
        assert [minute, hour, day] == [sum(delay > limit for delay in delays) for limit in (60, 3600, 86400)]
        assert longest == pytest.approx(max(delays) / 3600, abs=0.0506)


def tells_its_end(message) -> bool:
    if message.step.msg_type == "Instance":
        return message.step.status in ENDED
    return TASK_STATUS_AFTER.get(message.step.action) not in OPEN_TASK_STATUSES


def moment_of(message) -> int | None:
    """The moment that a message tells, epoch milliseconds; None where it tells none."""
    if tells_its_end(message):
        return message.step.at_ms
    if message.step.msg_type == "Task":
        return message.step.opened_ms
    return message.started_ms if message.step.action is Action.START else None


def late_in_truth(first) -> list:
    """Messages that came to the topic after one that happened later in their instance."""
    furthest, found = {}, []
    for one in (each.arrival.simulated for each in first):
        if one.position < furthest.get(one.instance_id, 0):
            found.append(one)
        furthest[one.instance_id] = max(one.position, furthest.get(one.instance_id, 0))
    return found


# --- the plots ---

SVG = "{http://www.w3.org/2000/svg}"
PAGES = {"light": "#ffffff", "dark": "#0d1117"}

each_picture = pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)


def luminance(colour: str) -> float:
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def colours(style: str) -> dict[str, dict[str, str]]:
    """Page → selector → its colour."""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    rule = re.compile(r"(\.?[a-z]+) \{[^}]*?(?:fill|stroke): (#[0-9a-f]{6})")
    return {"light": dict(rule.findall(light)), "dark": dict(rule.findall(dark))}


def test_there_are_plots():
    assert len(PICTURES) >= 6


@each_picture
def test_a_plot_says_what_it_is_and_needs_nothing_from_outside(path):
    text = path.read_text(encoding="utf-8")
    picture = ET.fromstring(text)

    assert picture.get("role") == "img"
    named = picture.get("aria-labelledby").split()
    assert [picture.find(f"{SVG}{tag}").get("id") for tag in ("title", "desc")] == named
    assert all(len(picture.find(f"{SVG}{tag}").text) > 20 for tag in ("title", "desc"))
    assert re.findall(r"<script|href|url\(|@import|font-face", text) == []


@each_picture
def test_a_plot_has_an_axis_of_round_marks_from_zero(path):
    marks = [text.text for text in ET.parse(path).iter(f"{SVG}text") if text.get("class") == "faint"]
    numbers = [float(mark.replace(",", "")) for mark in marks if mark[0].isdigit()]
    steps = {round(high - low, 6) for low, high in pairwise(numbers)}

    assert numbers[0] == 0
    assert len(numbers) >= 4
    assert len(steps) == 1
    assert float(f"{steps.pop():.0e}"[0]) in {1, 2, 5}
    assert len(marks) == len(numbers) + 1  # and the unit


@each_picture
def test_a_plot_keeps_within_its_frame_and_its_labels_apart(path):
    picture = ET.parse(path).getroot()
    wide, high = map(float, picture.get("viewBox").split()[2:])
    labels = defaultdict(list)
    for text in picture.iter(f"{SVG}text"):
        x, width = float(text.get("x")), charts._text_width(text.text)
        left = x - {"end": width, "middle": width / 2}.get(text.get("text-anchor"), 0)
        labels[text.get("y")].append((left, left + width))
        assert left >= -2
        assert left + width <= wide + 2
        assert 0 < float(text.get("y")) < high
    for spans in map(sorted, labels.values()):
        assert all(one[1] <= other[0] for one, other in pairwise(spans))
    for bar in picture.iter(f"{SVG}rect"):
        assert 0 <= float(bar.get("x")) <= float(bar.get("x")) + float(bar.get("width")) <= wide
        assert 0 <= float(bar.get("y")) <= float(bar.get("y")) + float(bar.get("height")) <= high


@each_picture
@pytest.mark.parametrize("page", PAGES)
def test_a_plot_can_be_read_on_a_page(path, page):
    """Text has a contrast of 4.5 and more to the page, bars and dots of 3 and more; every class has its colour."""
    picture = ET.parse(path).getroot()
    known = colours(picture.find(f"{SVG}style").text)[page]
    drawn = {f".{one.get('class')}" for tag in ("rect", "circle") for one in picture.iter(f"{SVG}{tag}")}
    lines = {f".{one.get('class')}" for one in picture.iter(f"{SVG}line")}

    assert drawn | lines | {"text", ".faint"} <= set(known)
    assert all(contrast(known[name], PAGES[page]) >= 4.5 for name in ("text", ".faint"))
    assert all(contrast(known[name], PAGES[page]) >= 3 for name in drawn)


def test_a_plot_draws_its_numbers():
    """Twice the number, twice the bar; the median dot lies where its number is on the axis."""
    caption = charts.Caption(title="a title", description="a description", unit="unit")
    columns = ET.fromstring(charts.columns(caption, ["x", "y"], {"s": [10, 20]}))
    bars = ET.fromstring(charts.bars(caption, ["x"], {"s": [10], "t": [30]}))
    ranges = ET.fromstring(charts.ranges(caption, ["x"], {"s": [10], "t": [30]}))

    heights = [float(one.get("height")) for one in columns.iter(f"{SVG}rect")][1:]
    widths = [float(one.get("width")) for one in bars.iter(f"{SVG}rect")][2:]
    marks = {one.text: float(one.get("x")) for one in ranges.iter(f"{SVG}text") if one.get("class") == "faint"}
    places = [float(one.get("cx")) for one in ranges.iter(f"{SVG}circle")]

    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.2)
    assert places == pytest.approx([marks["10"], marks["30"]], abs=0.2)


def test_a_name_that_looks_like_markup_stays_a_name():
    caption = charts.Caption(title="a < b & c", description="d", unit="u")

    picture = ET.fromstring(charts.bars(caption, ["<script>"], {"s & t": [1]}))

    assert next(one.text for one in picture.iter(f"{SVG}text")) == "a < b & c"
    assert "<script>" in [one.text for one in picture.iter(f"{SVG}text")]


def test_the_days_of_the_fortnight_are_named_as_they_are():
    assert questions._day(date(2026, 3, 2)) == "Mon 2"
