"""Every command of the runbooks runs, against a real connector, and says something."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import TOKEN
from tests.monitoring.rules import ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
A_CHECK_FAILED, STILL_READING = 1, 124
SECONDS, AT_ONCE = 20, 3


def commands() -> list[str]:
    """Each line of each shell block; a line that ends in a backslash goes on."""
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip()]


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["timeout", str(SECONDS), "bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_every_command_runs_and_says_something(  # noqa: PLR0917 - the real parts
    start, kafka, registry, postgres, topic_prefix, tmp_path
):
    """A curl that finds nothing, a grep without a match or an unknown option fails here."""
    (tmp_path / "var").mkdir()
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
    return {0, A_CHECK_FAILED, STILL_READING} if "weda-connector " in command else {0}
