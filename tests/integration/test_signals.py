"""Signals that end other programs: the connector stops in good order, or goes on."""

import asyncio
import os
import signal
import sys
import urllib.request
from functools import partial

from tests.servers.ports import free_ports
from tests.waiting import PATIENCE_SECONDS, until


async def test_no_signal_ends_it_without_the_graceful_stop(tmp_path):
    """A hang-up is a stop, as for any program of a terminal; SIGUSR1 and SIGUSR2 mean nothing here."""
    default = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # or it would heed the nohup of a whole run
    process, url = await started(tmp_path, preexec_fn=default)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
    assert process.stderr is not None
    for _ in range(2):
        await asyncio.wait_for(process.stderr.readuntil(b"ignored signal"), PATIENCE_SECONDS)
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(live, url), "it goes on"
    process.send_signal(signal.SIGHUP)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)

    assert process.returncode == 0, said
    assert said.count(b"ignored signal") == 0, "of each once"


async def test_what_nohup_started_outlives_its_terminal(tmp_path):
    process, url = await started(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(live, url)
    process.terminate()
    await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)

    assert process.returncode == 0


async def started(folder, **how) -> tuple[asyncio.subprocess.Process, str]:
    public, operations = free_ports(2)
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    settings = {
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": "embedded",
        "WEDA_RECEIVER__PORT": str(public),
        "WEDA_OPERATIONS__PORT": str(operations),
        "WEDA_JOURNAL__PATH": str(folder / "journal.db"),
    }
    command = [sys.executable, "-m", "connector", "serve"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=known | settings, stdout=pipe, stderr=pipe, **how)
    url = f"http://127.0.0.1:{operations}/readyz"
    await until(lambda: asyncio.to_thread(live, url))
    return process, url


def live(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.status == 200
    except OSError:
        return False
