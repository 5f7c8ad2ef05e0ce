"""Every command of the runbooks runs, against a real connector, and says something."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from connector.notify.outbox import Outbox
from tests.monitoring.rules import ROOT
from tests.running import TOKEN

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
A_CHECK_FAILED, STILL_READING = 1, 124
READING_SECONDS, SECONDS, AT_ONCE = 45, 120, 3
RUNBOOKS = ROOT / "docs" / "runbooks.md"
CHINESE = ROOT / "docs" / "runbooks.zh-CN.md"


def commands() -> list[str]:
    """Each line of each shell block; a line that ends in a backslash goes on."""
    text = RUNBOOKS.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["timeout", str(READING_SECONDS if " tail " in command else SECONDS), "bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_chinese_runbooks_show_the_same_commands():
    """Comments are in their own language; whatever is run of the one is run of the other."""
    shown = [
        [re.sub(r" +# .*", "", block) for block in BLOCK.findall(each.read_text(encoding="utf-8"))]
        for each in (RUNBOOKS, CHINESE)
    ]

    assert shown[0] == shown[1]
    assert len(shown[0]) > 30


def test_the_chinese_runbooks_have_the_same_sections_under_the_same_anchors():
    """So that `prometheusRule.runbookUrl` may name either."""
    english = re.findall(r"^## (.+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE)
    chinese = re.findall(r'^<a id="([\w-]+)"></a>\n\n## .+$', CHINESE.read_text(encoding="utf-8"), re.MULTILINE)

    assert chinese == [title.lower().replace(" ", "-") for title in english]
    assert len(re.findall(r"^## ", CHINESE.read_text(encoding="utf-8"), re.MULTILINE)) == len(chinese)


def test_the_chinese_runbooks_name_the_same_alerts_settings_codes_and_metrics():
    named = re.compile(r"`(Weda\w+|WEDA_\w+|weda_\w+|\w+_\w+|/\w+)`|\b(4\d{4}|50000)\b")
    english, chinese = (
        [
            sorted({first or second for first, second in named.findall(part)})
            for part in re.split(r"^## ", each.read_text(encoding="utf-8"), flags=re.MULTILINE)
        ]
        for each in (RUNBOOKS, CHINESE)
    )

    assert chinese == english


KUBECTL = """#!/bin/sh
[ "$1 $2 $3 $4 $5" = "--namespace weda exec weda-weda-connector-0 --" ] || { echo "what is $*?" >&2; exit 9; }
shift 5
exec "$@"
"""
"""Runs here what it was to run in the pod; as in the image there is no curl."""


@pytest.mark.parametrize("is_in_pod", [False, True], ids=["on a machine", "in a pod"])
async def test_every_command_runs_and_says_something(  # noqa: PLR0917 - the real parts
    start, kafka, registry, postgres, topic_prefix, tmp_path, is_in_pod
):
    """A pattern that finds nothing, a grep without a match or an unknown option fails here."""
    (tmp_path / "var").mkdir()
    Outbox(tmp_path / "var" / "notify.db").close()
    running = await start(
        journal__path=tmp_path / "var" / "journal.db", registry__url=registry.url, registry__auto_register=True
    )
    await running.post({"msgType": "Task", "instanceId": "i-1", "msgId": "m-1", "action": 2})
    assert (await running.post(b"no JSON"))[0] == 400
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "WEDA_TOPICS__PREFIX": topic_prefix,
        "WEDA_REGISTRY__URL": registry.url,
        "WEDA_TOKEN": TOKEN,
        "WEDA_OPERATIONS__TOKEN": "not-asked-for",
        "WEDA_OPERATIONS__URL": running.connector.operations_url,
        "WEDA_JOURNAL__URL": postgres.url(),
    }
    if is_in_pod:
        kubectl = tmp_path / "bin" / "kubectl"
        kubectl.parent.mkdir()
        kubectl.write_text(KUBECTL)
        kubectl.chmod(0o755)
        pod, _notifier = re.findall(r'^# POD="(.*)"$', RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE)
        environment |= {"POD": pod, "PATH": f"{kubectl.parent}:{environment['PATH']}"}
    public, operations = running.connector.url, running.connector.operations_url
    shown = {
        command: command.replace("http://127.0.0.1:8080", public).replace("http://127.0.0.1:9464", operations)
        for command in commands()
    }
    room = asyncio.Semaphore(AT_ONCE)

    async def done(command: str) -> subprocess.CompletedProcess[str]:
        async with room:
            return await asyncio.to_thread(run, command, tmp_path, environment)

    all_done = await asyncio.gather(*map(done, shown.values()))

    assert {
        command: (done.returncode, done.stdout[-500:], done.stderr[-500:])
        for command, done in zip(shown, all_done, strict=True)
        if done.returncode not in fine(command) or not (done.stdout + done.stderr).strip()
    } == {}


def fine(command: str) -> set[int]:
    may_fail = "weda-connector " in command and "weda-connector metrics" not in command
    return {0, A_CHECK_FAILED, STILL_READING} if may_fail else {0}
