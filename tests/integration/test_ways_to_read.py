"""Every example of docs/consuming.md, run as it stands there, on a broker and a registry of its own.

The page is the source. A block whose first line is a comment with a file's name is that file. A block of shell is run
in a folder with those files, and prints what the block of text below it shows; one that ends in ``serve`` starts a
connector, which is left running. Only the addresses are exchanged; of what is printed, moments and ids that differ from
run to run, and the order between instances, which nobody promises.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.running import PATIENT_ENVIRONMENT
from tests.servers import KafkaCluster, NotInstalled, SchemaRegistry, debian, read_topic
from tests.servers.flink import sql_client
from tests.servers.java import find_java
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import ServerProcess

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "consuming.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")

BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```\n", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"(?:#|//|--|<!--) ([\w.]+\.(?:py|java|sql|xml))\b")
BLOCKS = [(found["language"], found["text"]) for found in BLOCK.finditer(TEXT)]
FILES = {found[1]: text for _, text in BLOCKS if (found := FILE.match(text))}
SERVE = "weda-connector serve\n"
PLAY = "python play.py\n"
NOT_RUN = ("properties",)
"""Languages of blocks that the page shows and marks as not run."""

UP = "the connector is up"
COMMAND_SECONDS = 500
"""Flink takes ten seconds by itself, and minutes beside others."""

STORY = {
    "plain.events": 7,
    "weda.workflow.events": 7,
    "weda.workflow.instances": 4,
    "weda.workflow.tasks": 3,
    "weda.workflow.state": 4,
}
"""How many records the page's messages become."""

INSTANCES = re.compile(r"leave-1001|trip-2001")
VARYING = (
    (re.compile(r"\x1b\[[\d;]*m"), ""),
    (re.compile(r"\b(?!2026-03-02)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?"), "<moment>"),
    (re.compile(r"\b1[7-9]\d{11}\b"), "<milliseconds>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<ingestId>"),
    (re.compile(r"^ 00(?: [0-9a-f]{2}){4}", re.MULTILINE), " 00 <schema id>"),
    (re.compile(r": \d+ bytes$", re.MULTILINE), ": <size> bytes"),
)


@dataclass(frozen=True)
class Example:
    """A block of shell, and what the page says that it prints."""

    command: str
    shown: str


def examples() -> list[Example]:
    following = [*BLOCKS[1:], ("", "")]
    pairs = zip(BLOCKS, following, strict=True)
    return [Example(text, shown) for (language, text), (_, shown) in pairs if language == "sh" and not serves(text)]


def serves(script: str) -> bool:
    return script.endswith(SERVE)


@dataclass(frozen=True)
class Stage:
    """A folder with the page's files, and what a shell needs to run its commands there.

    Attributes:
        folder: Where.
        addresses: What the page calls an address → where it is in this run.
        environment: Of the commands.
        said: What has been run already → what it printed.
    """

    folder: Path
    addresses: dict[str, str]
    environment: dict[str, str]
    said: dict[str, str]

    def here(self, text: str) -> str:
        """A text of the page with this run's addresses."""
        for shown, real in self.addresses.items():
            text = text.replace(shown, real)
        return text

    def write(self) -> None:
        for name, text in FILES.items():
            (self.folder / name).write_text(self.here(text), encoding="utf-8")

    def run(self, command: str) -> str:
        """What a command prints; what it complains of is shown when the test fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            check=False,
        )
        sys.stderr.write(done.stderr)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def serve(self, script: str) -> ServerProcess:
        """Start a connector as a block of the page does."""
        receiver, operations = free_ports(2)
        self.addresses["localhost:8080"] = f"{LOOPBACK}:{receiver}"
        self.addresses["localhost:9464"] = f"{LOOPBACK}:{operations}"
        own = {
            "WEDA_RECEIVER__HOST": LOOPBACK,
            "WEDA_RECEIVER__PORT": str(receiver),
            "WEDA_OPERATIONS__PORT": str(operations),
            "WEDA_JOURNAL__PATH": str(self.folder / f"journal-{receiver}.db"),
            **PATIENT_ENVIRONMENT,
        }
        settings = [f"{name}={value}" for name, value in (self.environment | own).items()]
        shell = ["bash", "-euo", "pipefail", "-c", f"cd {shlex.quote(str(self.folder))}\n{self.here(script)}"]
        process = ServerProcess(f"connector-{receiver}", ["env", "-i", *settings, *shell], self.folder, detached=False)
        process.start()
        process.wait_for_log_line(UP)
        return process


@pytest.fixture(scope="module")
def stage(registry: SchemaRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The page's connectors on a new broker, and the page's messages in its topics."""
    with ExitStack() as stack:
        kafka = stack.enter_context(KafkaCluster.start())
        folder = tmp_path_factory.mktemp("ways-to-read")
        addresses = {"localhost:9092": kafka.bootstrap_servers, "http://localhost:8081": registry.url}
        stage = Stage(folder, addresses, _environment(folder), {})
        (folder / "avro").symlink_to(ROOT / "avro")
        for script in reversed([text for language, text in BLOCKS if language == "sh" and serves(text)]):
            stack.callback(stage.serve(script).kill)
            stage.write()
            stage.said[PLAY] = stage.run(PLAY)
        for topic, count in STORY.items():
            assert len(read_topic(kafka.bootstrap_servers, topic, count)) == count
        yield stage


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.command.splitlines()[-1][:60])
def test_an_example_prints_what_the_page_shows(example: Example, stage: Stage):
    printed = stage.said.get(example.command) or stage.run(example.command)

    assert comparable(example.shown) == comparable(printed), printed


@pytest.mark.parametrize("stream", ["events", "instances", "tasks", "state"])
def test_whoever_knows_the_addresses_alone_decodes_every_stream(stream: str, stage: Stage):
    """By the program of the page that has nothing of this project, not a schema either."""
    assert "connector" not in FILES["plain.py"]
    assert "avro/" not in FILES["plain.py"]

    printed = stage.run(f"python plain.py weda.workflow.{stream}")

    records = {"events": 6, "instances": 4, "tasks": 2, "state": 4}  # less the one repeat
    assert len(printed.splitlines()) == records[stream]
    assert ("deleted" in printed.split()) == (stream == "state")


def test_every_block_of_the_page_is_run_or_marked():
    """A file that nothing runs, a command that shows nothing, and a language that nobody looks at would rot."""
    commands = "\n".join(example.command for example in examples())
    used = set(re.findall(r"[\w.]+\.(?:py|java|sql|xml)", commands)) | {"pom.xml"}  # Maven finds it by itself

    assert set(FILES) == used
    assert {language for language, _ in BLOCKS} <= {"sh", "text", "python", "java", "sql", "xml", *NOT_RUN}
    assert len(FILES) == sum(language in {"python", "java", "sql", "xml"} for language, _ in BLOCKS)
    assert all(language == "text" for language, _ in (following(example) for example in examples()))
    assert TEXT.count("```properties") == TEXT.count("**Not run here**")


def following(example: Example) -> tuple[str, str]:
    return BLOCKS[BLOCKS.index(("sh", example.command)) + 1]


def comparable(text: str) -> list[str]:
    """The lines without what varies, instance by instance, each in its order."""
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return sorted((line.rstrip() for line in text.splitlines() if line.strip()), key=_instance)


def _instance(line: str) -> str:
    found = INSTANCES.search(line)
    return found[0] if found else ""


def _environment(folder: Path) -> dict[str, str]:
    """Of a shell that finds the tools and has no settings of ours."""
    tools, own = _tools(folder)
    path = (str(tools), str(Path(sys.executable).parent), str(find_java().path.parent), os.environ["PATH"])
    others = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    return {**others, **own, "PATH": os.pathsep.join(path), "PYTHONIOENCODING": "utf-8"}


def _tools(folder: Path) -> tuple[Path, dict[str, str]]:
    """A folder with the commands that the page uses and that are nowhere on the PATH, and what they want to be told."""
    tools = folder / "bin"
    tools.mkdir()
    try:
        kcat, own = debian.program(debian.KCAT), sql_client(tools)
    except NotInstalled as error:
        missing = str(error)
    else:
        command = tools / "kcat"
        command.write_text(f'#!/bin/sh\nexec {shlex.join(kcat)} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        return tools, own
    pytest.fail(missing, pytrace=False)
