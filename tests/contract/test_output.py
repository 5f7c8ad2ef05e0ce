"""What commands write, whatever is at the other end: terminals of any encoding, full disks, readers that go."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.test_command_line import COMMANDS

FULL = Path("/dev/full")
LOGGING = """
import sys, structlog
from connector import cli
from connector.cli import config
config.config = lambda: structlog.get_logger("connector.publisher").warning("kafka client", error="_TRANSPORT")
sys.argv = ["weda-connector", "config"]
cli.main()
"""
ODD = "\u009b31m \u202e \u2066 \x07 同意 🙂"


def run(*arguments: str, **how: object) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    environment = how.pop("environment", {})
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, "text": True} | how
    return subprocess.run([sys.executable, *arguments], check=False, env=known | environment, **given)


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize("arguments", [["--schema"], ["--json"]])
def test_json_is_whole_in_every_encoding(encoding, arguments):
    there = {"PYTHONIOENCODING": encoding, "WEDA_KAFKA__PROPERTIES": json.dumps({"client.id": "人事🙂"})}
    ended = run("-m", "connector", "config", *arguments, environment=there, encoding=encoding)
    expected = run("-m", "connector", "config", *arguments, environment=there | {"PYTHONIOENCODING": "utf-8"})

    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == json.loads(expected.stdout)


def test_text_is_written_in_every_encoding():
    there = {"PYTHONIOENCODING": "latin-1", "WEDA_KAFKA__PROPERTIES": json.dumps({"client.id": "人事"})}
    ended = run("-m", "connector", "config", environment=there)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "4eba" in ended.stdout.lower()


@pytest.mark.parametrize(
    "arguments", [[*name.split(), "--help"] for name in COMMANDS[::6]] + [["config"], ["config", "--json"]]
)
def test_a_full_disk_is_one_line(arguments):
    with FULL.open("w") as full:
        ended = run("-m", "connector", *arguments, stdout=full)

    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert "standard output cannot be written: No space left on device" in ended.stderr


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    ended = run("-m", "connector", "config", "--schema", stdout=writing)
    os.close(writing)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_standard_error_that_cannot_be_written_changes_no_exit_code():
    with FULL.open("w") as full:
        ended = run("-m", "connector", "config", stderr=full, environment={"WEDA_NO_SUCH": "1"})

    assert (ended.returncode, ended.stdout) == (2, "")


def test_closed_outputs_are_no_error():
    ended = run("-m", "connector", "config", stdout=None, preexec_fn=lambda: (os.close(1), os.close(2)))

    assert ended.returncode == 0


def test_log_lines_go_to_standard_error():
    """Of every command: standard output holds what was asked for, and nothing else."""
    ended = run("-c", LOGGING)

    assert (ended.returncode, ended.stdout) == (0, "")
    assert "kafka client" in ended.stderr


def test_json_on_a_terminal_steers_nothing():
    """The same JSON, with what a terminal would obey escaped; elsewhere it is as it was."""
    code = f"from connector.cli import output; output.prepare(); output.print_json({ODD!r})"
    ours, theirs = pty.openpty()
    run("-c", code, stdout=theirs)
    shown = os.read(ours, 1000).decode()
    os.close(ours)
    os.close(theirs)
    piped = run("-c", code, environment={"PYTHONIOENCODING": "utf-8"}).stdout

    assert all(one.isprintable() for one in shown.strip())
    assert json.loads(shown) == json.loads(piped) == ODD
    assert "同意" in shown
    assert "\u202e" in piped
