"""The command line as scripts meet it: exit codes, one line an error, help with examples."""

import json
import os
import socket
import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from connector.cli import app

COMMANDS = (
    *("serve", "demo", "simulate", "tail", "config", "topics plan", "topics apply"),
    *("journal status", "journal export", "journal drain"),
    *("schemas list", "schemas check", "schemas register"),
    *("dead-letters list", "dead-letters show", "dead-letters replay", "init", "doctor"),
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    command = [sys.executable, "-m", "connector", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=known | environment, timeout=60, check=False)


def test_these_are_the_commands():
    top = get_command(app)
    assert isinstance(top, typer.core.TyperGroup)
    assert {name.split()[0] for name in COMMANDS} == set(top.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    ended = run(*command.split(), "--help")
    assert (ended.returncode, "Examples:" in ended.stdout) == (0, True)
    assert f"weda-connector {command}" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "named"),
    [
        (["serve"], {}, 2, "WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        (["serve"], {"WEDA_NO_SUCH": "1"}, 2, "WEDA_NO_SUCH"),
        (["serve"], {"WEDA_RECEIVER__PORT": "many"}, 2, "WEDA_RECEIVER__PORT"),
        (["config"], {"WEDA_STREAMS": "nothing"}, 2, "WEDA_STREAMS"),
        (["topics", "plan"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["journal", "status", "--operations-url", "http://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
        (["journal", "drain", "--journal", "none.db"], {"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 2, "none.db"),
        (["journal", "drain"], {}, 2, "WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        (["dead-letters", "list"], {"WEDA_OPERATIONS__URL": "http://127.0.0.1:1"}, 3, "127.0.0.1:1"),
        (["dead-letters", "replay", "--operations-url", "http://127.0.0.1:1"], {}, 3, "127.0.0.1:1"),
        (["init", "--output", "no-such-folder/connector.yaml"], {}, 2, "no-such-folder"),
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
