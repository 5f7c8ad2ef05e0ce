"""`serve` as a process whose log cannot be written, or whose log's reader stands still."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.running import PATIENT_ENVIRONMENT
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS, at_least, until

TOKEN = "a-token-for-tests"


class Served:
    """A process of `serve` and the calls that tests make of it."""

    def __init__(self, process: "subprocess.Popen[bytes]", public: int, operations: int) -> None:
        self.process = process
        self.url = f"http://{LOOPBACK}:{public}/messageDeliver"
        self.operations_url = f"http://{LOOPBACK}:{operations}"

    async def get(self, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{self.operations_url}{path}") as answer,
        ):
            return answer.status, await answer.text()

    async def post(self, number: int) -> int:
        """The answer's `code`."""
        message = {"msgType": "Task", "instanceId": f"i-{number}", "msgId": f"m-{number}", "envType": "prod"}
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(self.url, json={"msgContext": message}, headers={"x-weda-token": TOKEN}) as answer,
        ):
            return (await answer.json())["code"]

    async def dropped(self) -> int:
        """Lines of the log that were dropped."""
        text = (await self.get("/metrics"))[1]
        name = "weda_connector_log_lines_dropped_total "
        return next(int(float(line.removeprefix(name))) for line in text.splitlines() if line.startswith(name))

    async def until_dropped(self, least: int) -> None:
        """Wait until so many are: the log is written in a thread."""
        await until(self.dropped, at_least(least))

    async def problems(self) -> dict[str, str]:
        return dict(json.loads((await self.get("/readyz"))[1])["problems"])


Serve = Callable[..., Any]


@pytest.fixture
async def serve(kafka, topic_prefix, tmp_path) -> AsyncIterator[Serve]:
    """Start `serve`, with the session's broker and one that refuses connections; a shell may redirect its outputs."""
    started: list[subprocess.Popen[bytes]] = []

    async def serve(redirect: str = "", log: int | None = None, **settings: str) -> Served:
        public, operations, nobody = free_ports(3)
        environment = {
            **os.environ,
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": f"{LOOPBACK}:{nobody},{kafka.bootstrap_servers}",
            "WEDA_KAFKA__PROPERTIES": json.dumps(
                {"reconnect.backoff.max.ms": 100, "client.dns.lookup": "use_all_dns_ips"}
            ),
            "WEDA_TOKEN": TOKEN,
            "WEDA_RECEIVER__HOST": LOOPBACK,
            "WEDA_RECEIVER__PORT": str(public),
            "WEDA_OPERATIONS__PORT": str(operations),
            "WEDA_JOURNAL__PATH": str(tmp_path / "journal.db"),
            "WEDA_TOPICS__PREFIX": topic_prefix,
            **PATIENT_ENVIRONMENT,
            **settings,
        }
        command = ["sh", "-c", f'exec "$0" -m connector serve {redirect}', sys.executable]
        outputs = subprocess.DEVNULL if log is None else log
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=outputs, stderr=outputs)
        started.append(process)
        served = Served(process, public, operations)

        async def is_ready() -> bool:
            assert process.poll() is None
            try:
                status, reported = await served.get("/readyz")
                return status == 200 and json.loads(reported)["kafka"] == "up"
            except aiohttp.ClientError:
                return False

        await until(is_ready)
        return served

    yield serve
    for process in started:
        process.kill()
        process.wait()


CLOSED = "2>&- >&-"
FULL = "2>/dev/full >/dev/full"
SINKS = {
    "full disk": (FULL, {}),
    "full disk, debug": (FULL, {"WEDA_LOG__LEVEL": "debug"}),
    "full disk, console": (FULL, {"WEDA_LOG__FORMAT": "console"}),
    "closed": (CLOSED, {}),
    "closed, console": (CLOSED, {"WEDA_LOG__FORMAT": "console"}),
}


@pytest.mark.parametrize("sink", SINKS)
async def test_a_connector_whose_log_cannot_be_written_does_all_its_work(sink, serve, kafka, topic_prefix):
    redirect, settings = SINKS[sink]
    served = await serve(redirect, **settings)
    answers = [await served.post(number) for number in range(20)]
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 20)

    assert set(answers) == {0}
    assert len(records) == 20
    assert (await served.get("/livez"))[0] == 200
    if redirect is FULL:
        await served.until_dropped(20)
        assert "No space left" in (await served.problems())["log"]
    served.process.terminate()
    assert await asyncio.to_thread(served.process.wait, PATIENCE_SECONDS) == 0


async def test_a_connector_whose_logs_reader_stands_still_answers_as_before_and_ends_in_time(serve, tmp_path):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    served = await serve(log=writer)
    os.close(writer)
    answers = [await served.post(number) for number in range(50)]
    status, _ = await served.get("/readyz")

    assert set(answers) == {0}
    assert status == 200
    problems = await until(served.problems, lambda problems: "log" in problems)
    assert "does not read" in problems["log"]
    served.process.terminate()
    assert await asyncio.to_thread(served.process.wait, PATIENCE_SECONDS) == 0
    os.close(reader)


async def test_once_the_logs_reader_has_gone_messages_that_wait_for_kafka_are_published_all_the_same(
    serve, kafka, topic_prefix
):
    """The thread that polls the producer logs what the client tells: it died of the line that it could not write."""
    reader, writer = os.pipe()
    served = await serve(log=writer)
    os.close(writer)
    os.close(reader)
    kafka.pause(1)
    try:
        in_outage = [await served.post(number) for number in range(10)]
    finally:
        kafka.resume(1)
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, f"{topic_prefix}.events", 10)
    after = [await served.post(number) for number in range(10, 15)]

    assert (set(in_outage), set(after), len(records) >= 10) == ({0}, {0}, True)
    assert (await served.get("/livez"))[0] == 200
    await served.until_dropped(1)


async def test_a_bad_setting_ends_with_its_exit_code_though_nobody_can_read_why():
    command = ["sh", "-c", f'"$0" -m connector serve {FULL}', sys.executable]
    ended = await asyncio.to_thread(subprocess.run, command, env={**os.environ, "WEDA_LOG__LEVEL": "loud"}, check=False)

    assert ended.returncode == 2


def test_what_a_process_writes_to_an_output_that_was_closed_reaches_no_file_of_its_own(tmp_path):
    """A library in C would write into whatever had taken the number 2: a socket, or the journal."""
    program = (
        "import os, sys; sys.argv = ['weda-connector', '--version']; from connector.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"journal = open({str(tmp_path / 'journal')!r}, 'wb')\n"
        "os.write(2, b'a word of librdkafka')\njournal.flush()\n"
    )
    command = ["sh", "-c", f'exec "$0" -c "$1" {CLOSED} <&-', sys.executable, program]

    assert subprocess.run(command, check=False).returncode == 0
    assert Path(tmp_path / "journal").read_bytes() == b""
