"""What the first scrapes of a start show: nothing that is not known yet."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.servers.ports import LOOPBACK, free_ports
from tests.waiting import PATIENCE_SECONDS

NEVER_ZERO = ("weda_connector_journal_up", "weda_connector_journal_room_bytes", "weda_connector_registry_up")


def test_no_gauge_is_scraped_before_it_is_known(tmp_path):
    """A start must not look like a journal whose disk fails; Kafka is away, so that the start takes its time."""
    starts = (samples_of_a_start(tmp_path) for _ in range(10))
    samples = next(each for each in starts if NEVER_ZERO[0] not in each[0])  # or the first came too late to show it

    assert NEVER_ZERO[0] in samples[-1]


def samples_of_a_start(folder: Path) -> list[dict[str, str]]:
    public, operations, nobody = free_ports(3)
    settings = {
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": f"{LOOPBACK}:{nobody}",
        "WEDA_RECEIVER__PORT": str(public),
        "WEDA_OPERATIONS__PORT": str(operations),
        "WEDA_JOURNAL__PATH": str(folder / "journal.db"),
    }
    command = [sys.executable, "-m", "connector", "serve"]
    process = subprocess.Popen(command, env=os.environ | settings, stderr=subprocess.DEVNULL)
    try:
        scrapes = list(until_ready(f"http://{LOOPBACK}:{operations}/metrics"))
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)

    samples = [dict(line.rsplit(" ", 1) for line in one.splitlines() if line[:1] != "#") for one in scrapes]
    for one in samples:
        assert {name: one[name] for name in NEVER_ZERO if one.get(name) == "0.0"} == {}
        assert one.get("weda_connector_published_through_timestamp_seconds") != "0.0"
    return samples


def until_ready(url: str):
    """One scrape after the other, from the first that is answered to the one that says ready."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
            yield text
            if "weda_connector_ready 1.0" in text:
                return
        time.sleep(0.01)
    raise TimeoutError("the connector was not ready in time")
