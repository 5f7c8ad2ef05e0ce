"""The command line as scripts meet it: exit codes, one line an error, help with examples."""

import json
import os
import re
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command

from connector.cli import app
from connector.cli.commands import SUMMARIES

COMMANDS = tuple(
    f"{name} {inner}".strip()
    for name, command in get_command(app).commands.items()
    for inner in getattr(command, "commands", [""])
)
"""Every command, those of a group as two words; README's table has each of them, and no other."""

IMPORTED = """
import atexit, sys
atexit.register(lambda: print("modules:", *sys.modules, file=sys.stderr))
from connector.cli import main
main()
"""
MOST_MODULES = 250


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    command = [sys.executable, "-m", "connector", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=known | environment, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_exit_codes_and_no_types_of_python(command):
    ended = run(*command.split(), "-h")
    assert (ended.returncode, "Examples:" in ended.stdout, "Exit codes:" in ended.stdout) == (0, True, True)
    assert f"weda-connector {command}" in ended.stdout
    assert re.findall(r"<int|<float|<str|list\[|range>|x[<>]=|<=x|Usage: .*[{}]", ended.stdout) == []


def test_the_help_of_the_root_has_every_command_whole_and_the_exit_codes():
    shown = run("--help")
    assert (shown.returncode, shown.stdout) == (0, run("-h").stdout)
    words = " ".join(shown.stdout.split())
    assert [name for name, line in SUMMARIES.items() if f"{name} {line}" not in words] == []
    assert "Exit codes:" in words
    assert "..." not in words.partition("Run:")[2].replace("--help` has", "")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_and_version_import_no_command(arguments):
    """What makes them quick: the modules that are imported, of which the slow ones are not."""
    ended = subprocess.run([sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, check=False)
    imported = set(ended.stderr.split("modules: ")[-1].split())
    ours = {name for name in imported if name.startswith("connector")}
    slow = {"confluent_kafka", "fastapi", "aiohttp", "pydantic", "rich", "structlog", "msgspec", "fastavro", "yaml"}
    assert ours == {
        *("connector", "connector.errors", "connector.text", "connector.cli", "connector.cli.commands"),
        *("connector.cli.exits", "connector.cli.output"),
    }
    assert imported & slow == set()
    assert len(imported) < MOST_MODULES


@pytest.mark.parametrize(
    ("words", "position", "completed"),
    [
        ("weda-connector jou", 1, {"journal"}),
        ("weda-connector journal ", 2, {"status", "export", "drain", "migrate"}),
        ("weda-connector tail --stream dead", 3, {"dead-letters"}),
    ],
)
def test_words_are_completed(words, position, completed):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(position), "_WEDA_CONNECTOR_COMPLETE": "complete_bash"}
    program = Path(sys.executable).parent / "weda-connector"
    ended = subprocess.run([program], capture_output=True, text=True, env=os.environ | asked, timeout=120, check=False)
    assert (ended.returncode, set(ended.stdout.split())) == (0, completed)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_that_of_the_package(option):
    assert run(option).stdout == f"{version('weda-kafka-connector')}\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "named"),
    [
        (["serve"], {}, 2, "WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        (["serve"], {"WEDA_NO_SUCH": "1"}, 2, "WEDA_NO_SUCH"),
        (["serve"], {"WEDA_RECEIVER__PORT": "many"}, 2, "WEDA_RECEIVER__PORT"),
        (["config"], {"WEDA_STREAMS": "nothing"}, 2, "WEDA_STREAMS"),
        (["topics", "list"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["topics", "describe", "t"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["topics", "plan"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["journal", "status", "--operations-url", "http://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
        (["journal", "drain", "--journal", "none.db"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 2, "none.db"),
        (["journal", "drain"], {}, 2, "WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        (["dead-letters", "list"], {"WEDA_OPERATIONS__URL": "http://127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["dead-letters", "replay", "--operations-url", "http://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
        (["instance", "i-1", "--operations-url", "http://127.0.0.1:1"], {}, 2, "WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        (["status", "--operations-url", "http://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
        (["metrics", "--operations-url", "http://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
        (["config"], {"WEDA_CONFIG": "/no/such.yaml"}, 2, "/no/such.yaml"),
        (["init", "--output", "no-such-folder/connector.yaml"], {}, 2, "no-such-folder"),
        (["notify", "--rules", "none.yaml"], {}, 2, "none.yaml"),
        (["tail", "--max", "1"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["simulate", "--url", "http://127.0.0.1:1", "--instances", "1"], {}, 3, "127.0.0.1:1"),
    ],
)
def test_an_error_is_one_line_that_names_it(arguments, environment, code, named):
    ended = run(*arguments, **environment)
    assert ended.returncode == code, ended.stderr
    assert named in ended.stderr.strip().splitlines()[-1]
    if arguments[0] != "simulate":  # it shows its seed and its progress there too
        assert len(ended.stderr.strip().splitlines()) == 1


def test_bad_usage_ends_with_two():
    assert run("tail", "--max", "none").returncode == 2


def test_config_shows_no_secret():
    ended = run("config", "--json", WEDA_TOKEN="a-token-that-nobody-may-see")
    assert ended.returncode == 0
    assert "nobody-may-see" not in ended.stdout
    assert json.loads(ended.stdout)["receiver"]["port"] == 8080


def test_config_says_where_a_value_comes_from(tmp_path):
    """A variable, a part of a setting, the file; the environment wins over the file."""
    file = tmp_path / "connector.yaml"
    file.write_text("receiver: {port: 1, host: 127.0.0.1}\nkafka: {properties: {client.id: one}}\n")
    given = {"WEDA_RECEIVER__PORT": "9000", "WEDA_KAFKA__PROPERTIES__SASL_PASSWORD": "nobody-may-see"}

    ended = run("config", "--changed", "--json", "--config", str(file), **given)
    table = run("config", "--origin", "--config", str(file), **given).stdout

    assert {name: (one["value"], one["origin"]) for name, one in json.loads(ended.stdout).items()} == {
        "receiver.port": (9000, ["WEDA_RECEIVER__PORT"]),
        "receiver.host": ("127.0.0.1", [str(file)]),
        "kafka.properties": (
            {"client.id": "one", "sasl.password": "********"},
            [str(file), "WEDA_KAFKA__PROPERTIES__SASL_PASSWORD"],
        ),
    }
    assert re.search(r"^WEDA_RECEIVER__PORT +WEDA_RECEIVER__PORT +9000$", table, re.MULTILINE)
    assert re.search(r"^WEDA_LOG__LEVEL +default +info$", table, re.MULTILINE)
    assert "nobody-may-see" not in table


def test_schemas_are_listed_and_shown_without_a_registry():
    listed = run("schemas", "list", "--json")
    assert (listed.returncode, {one["state"] for one in json.loads(listed.stdout)}) == (0, {"no registry is set"})
    shown = json.loads(run("schemas", "show", "TaskEvent").stdout)
    older = json.loads(run("schemas", "show", "io.weda.workflow.TaskEvent", "--release", "0.1.0").stdout)
    assert {shown["name"], older["name"]} == {"TaskEvent"}
    for words, named in ((["Nothing"], "WorkflowEvent"), (["TaskEvent", "--release", "9"], "0.1.0")):
        ended = run("schemas", "show", *words)
        assert (ended.returncode, named in ended.stderr) == (2, True)


def test_a_port_in_use_stops_the_start_with_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(
            "serve",
            WEDA_KAFKA__BOOTSTRAP_SERVERS="embedded",
            WEDA_RECEIVER__HOST="127.0.0.1",
            WEDA_RECEIVER__PORT=port,
            WEDA_OPERATIONS__PORT="0",
            WEDA_TOKEN="a-token",
            WEDA_JOURNAL__PATH=str(tmp_path / "journal.db"),
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("weda-connector: WEDA_RECEIVER__PORT")
    assert len(ended.stderr.strip().splitlines()) == 1
