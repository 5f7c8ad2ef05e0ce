"""What the documents name exists, what they show runs, and nothing public goes without a document."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import pytest
import typer

from connector import errors
from connector.cli import app
from connector.message.routes import STREAMS, Routes
from connector.message.schemas import ALL, INSTANCE_EVENT, TASK_EVENT, load
from connector.settings import Settings
from connector.settings.parts import is_part
from connector.testing import encode
from tests.servers import produce
from tools import dictionary
from tools.reference import metrics_page

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
CONSUMING = ROOT / "docs" / "consuming.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "avro" / "README.md"])
DECISIONS = sorted(ROOT.glob("docs/adr/0*.md"))

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ISSUE = re.compile(r"(?<![\w&])(?<!\]\()#\d+|\bissues?/\d+|\bissue \d+", re.IGNORECASE)
MACHINE = re.compile(r"(?:^|[\s`'\"(=])/(?:work|tmp|home|root|Users)\b")
TYPO_SHOWN = "WEDA_RECIEVER__PORT"  # the settings' decision shows a name that does not exist
NO_SETTINGS = {"WEDA_CONFIG", "WEDA_TEST_SEED", TYPO_SHOWN}

SERVER, TOPIC = '"localhost:9092"', "weda.workflow.events"

everywhere = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(document: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(read(document)) if found == language]


def command_lines(document: Path) -> Iterator[list[str]]:
    """Every call of weda-connector in a shell block or in backticks: its words behind the command, up to a pipe."""
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", read(document)))
    shell = [line for block in blocks(document, "sh") for line in block.replace("\\\n", " ").splitlines()]
    for line in (*inline, *shell):
        words = shlex.split(line, comments=True) if "weda-connector " in line else []
        if "weda-connector" in words:
            yield list(takewhile(lambda word: word != "|", words[words.index("weda-connector") + 1 :]))


def commands() -> dict[str, set[str]]:
    """Each command, subcommands as two words, with its options."""
    found: dict[str, set[str]] = {option: {option} for option in ("--version", "--install-completion")}
    for name, command in typer.main.get_command(app).commands.items():
        for inner, sub in getattr(command, "commands", {"": command}).items():
            found[f"{name} {inner}".strip()] = {"--help", *(one for option in sub.params for one in option.opts)}
    return found


def slug(heading: str) -> str:
    """The anchor of a heading, as the forge and the site make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    """Where links into it may lead: its headings, and what it marks itself."""
    headings = re.findall(r"^#+ (.+)$", read(document), re.MULTILINE)
    return {*map(slug, headings), *re.findall(r'^<a id="([\w-]+)"></a>$', read(document), re.MULTILINE)}


def test_there_are_documents():
    assert len(DOCUMENTS) > 15


@everywhere
def test_a_named_setting_exists(document):
    named = set(re.findall(r"\bWEDA_[A-Z_]+[A-Z]\b", read(document))) - NO_SETTINGS
    known = {name for name, _, _ in Settings.describe()}

    assert {name for name in named if name.removesuffix("_FILE") not in known and not is_part(name)} == set()


def test_every_setting_is_documented():
    document = read(ROOT / "docs" / "settings.md")

    assert [name for name, _, _ in Settings.describe() if f"| `{name}` |" not in document] == []


@everywhere
def test_a_named_metric_exists(document):
    known = set(re.findall(r"^\| `(weda_connector_\w+)`", metrics_page(), re.MULTILINE))

    assert set(re.findall(r"\bweda_connector_[a-z_]*[a-z]\b", read(document))) <= known


@everywhere
def test_a_named_topic_exists(document):
    topics = {*Routes(STREAMS, "weda.workflow").topics}
    named = set(re.findall(r"(?<!io\.)\bweda\.workflow\.[a-z-]+", read(document)))

    assert named <= topics


@everywhere
def test_a_named_command_exists_with_its_options(document):
    known = commands()
    for words in command_lines(document):
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        options = {word.partition("=")[0] for word in words if word.startswith("--")}

        assert name in known
        assert options <= known[name]


def test_every_command_is_in_the_readme():
    text = read(README)

    assert [name for name in commands() if f"| `weda-connector {name}` |" not in text] == []


@everywhere
def test_a_named_make_target_exists(document):
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    shown = "\n".join(text for _, text in FENCE.findall(read(document)))
    named = re.findall(r"`make ([a-z-]+)", read(document)) + re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE)

    assert set(named) <= targets


def test_every_answer_is_in_the_readme():
    tree = (one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ConnectorError))
    statuses = {one.code // 100 for one in tree}

    assert {status for status in statuses if f"\n| {status} | {status}00" not in read(README)} == set()


def test_the_chinese_readme_shows_the_same_blocks():
    """Comments and the figure are in its own language."""
    shown = [
        [
            (language, "" if language == "text" else re.sub(r" +# .*", "", text))
            for language, text in FENCE.findall(each)
        ]
        for each in (read(README), read(CHINESE))
    ]

    assert shown[0] == shown[1]
    assert any(language == "text" for language, _ in shown[0])


def test_the_chinese_readme_has_the_same_sections_rows_and_links():
    english, chinese = read(README), read(CHINESE)

    for form in (r"^## ", r"^\| ", r"^\d\. ", r"^- "):
        count = re.compile(form, re.MULTILINE)
        assert len(count.findall(english)) == len(count.findall(chinese))
    picture = "docs/console/overview{}.png"
    assert set(LINK.findall(english)) ^ set(LINK.findall(chinese)) == {
        *("README.md", "README.zh-CN.md"),
        *("docs/questions.md", "docs/questions.zh-CN.md"),
        *(picture.format(""), picture.format(".zh-CN")),
    }


@everywhere
def test_a_link_leads_somewhere(document):
    for link in LINK.findall(FENCE.sub("", read(document))):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document

        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@everywhere
def test_no_issue_number_and_no_place_of_one_machine(document):
    text = read(document)

    assert ISSUE.findall(text) == []
    assert MACHINE.findall(text) == []


def test_every_decision_is_in_the_index_and_has_its_four_parts():
    index = read(ROOT / "docs" / "adr" / "README.md")

    assert len({decision.name[:4] for decision in DECISIONS}) == len(DECISIONS)
    for decision in DECISIONS:
        text, number = read(decision), decision.name[:4]
        assert f"]({decision.name})" in index
        assert text.startswith(f"# {number}: ")
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]


@pytest.mark.parametrize("record_type", [INSTANCE_EVENT, TASK_EVENT])
def test_the_reader_without_a_registry_decodes_a_record(record_type, monkeypatch):
    monkeypatch.chdir(ROOT)
    [program] = [each for each in blocks(CONSUMING, "python") if each.startswith("# without_registry.py")]
    reader = {"__name__": "reader"}
    exec(compile(program, "without_registry.py", "exec"), reader)
    record = dictionary.sample_record(record_type)

    read_back = reader["decode"](encode(load(record_type), record))

    assert len(reader["SCHEMAS"]) == len(ALL)
    assert read_back["receivedAt"] == datetime.fromtimestamp(record["receivedAt"] / 1000, UTC)
    assert {**read_back, **_times(record)} == record


def test_the_readme_s_reader_reads_a_topic(kafka, topic_prefix):
    topic = f"{topic_prefix}.events"
    kafka.create_topic(topic, partitions=1)
    value = encode(load(TASK_EVENT), dictionary.sample_record(TASK_EVENT))
    produce(kafka.bootstrap_servers, [{"topic": topic, "value": value, "key": "bpm_1912233445566778899"}])
    [program] = blocks(README, "python")
    assert SERVER in program
    program = program.replace(SERVER, f"{kafka.bootstrap_servers!r}, prefix={topic_prefix!r}")

    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        line = reader.stdout.readline()
        reader.kill()

    assert line.split()[2:] == ["bpm_1912233445566778899", "Task", "同意"]


def _times(record):
    """The record's own values of its dates, which the reader gives as moments."""
    return {name: value for name, value in record.items() if name.endswith("Time") or name == "receivedAt"}
