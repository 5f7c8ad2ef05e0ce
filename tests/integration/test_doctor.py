"""A first configuration is written, and what keeps a connector from its work is found and reported."""

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.admin import doctor
from connector.admin.config_file import Environment, render
from connector.kafka.topics import TopicAdmin
from connector.settings import Settings
from tests.running import TOKEN
from tests.servers.reading import end_offsets


def run(*arguments: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    command = [sys.executable, "-m", "connector", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=known | environment, timeout=120, check=False
    )


def settings(**flags: Any) -> Settings:
    return Settings.load(environment={}, flags={name.replace("__", "."): value for name, value in flags.items()})


def verdicts(given: Settings, url: str | None = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in doctor.examine(given, url):
        assert each.verdict in {"ok", "skipped"} or each.to_do, each
        found.setdefault(each.check, []).append(each.verdict)
    return found


def test_init_writes_what_it_finds_and_the_connector_reads_it(kafka, tmp_path):
    ended = run("init", "--bootstrap-servers", kafka.bootstrap_servers, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert f"1 at {kafka.bootstrap_servers}" in ended.stdout
    file = tmp_path / "connector.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert written["kafka"] == {"bootstrap_servers": kafka.bootstrap_servers}
    assert len(written["token"]) == 32

    again = run("init", "--bootstrap-servers", kafka.bootstrap_servers, folder=tmp_path)
    assert (again.returncode, "--force" in again.stderr, yaml.safe_load(file.read_text())) == (2, True, written)


def test_every_line_that_init_comments_out_is_a_setting_with_its_default(tmp_path):
    text = render(Environment("kafka:9092", 3, "", "http://registry:8081"), "connector.yaml", token=TOKEN)
    named = re.sub(r"^( *)# ([a-z_]+:(?: |$).*)$", r"\1\2", text, flags=re.MULTILINE)
    for name, content in (("short.yaml", text), ("long.yaml", named)):
        (tmp_path / name).write_text(content, encoding="utf-8")

    short, long = (Settings.load(environment={}, file=tmp_path / name) for name in ("short.yaml", "long.yaml"))

    assert short == long
    assert (short.topics.replication_factor, short.registry.auto_register) == (3, True)
    for variable, _, sentence in Settings.describe():
        assert f"{variable.rpartition('__')[2].removeprefix('WEDA_').lower()}:" in named
        assert sentence.split()[0] in text


def test_a_connector_that_will_work_is_found_to(kafka, topic_prefix, tmp_path):
    given = {"kafka__bootstrap_servers": kafka.bootstrap_servers, "topics__prefix": topic_prefix, "token": TOKEN}
    found = verdicts(settings(**given, journal__path=tmp_path / "journal.db"))

    assert found["brokers"] == found["end to end"] == found["credentials"] == found["clock"] == ["ok"]
    assert found["topics"] == ["ok"], "serve creates them"
    assert "failed" not in chain.from_iterable(found.values())
    assert sum(end_offsets(kafka.bootstrap_servers, f"{topic_prefix}.doctor").values()) == 1


async def test_a_message_goes_through_the_connector_that_runs(start, kafka, topic_prefix):
    running = await start()
    ended = await asyncio.to_thread(
        run,
        *("doctor", "--json", "--url", running.connector.url),
        WEDA_KAFKA__BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
        WEDA_TOPICS__PREFIX=topic_prefix,
        WEDA_TOKEN=TOKEN,
    )
    checks = {each["check"]: each for each in json.loads(ended.stdout)["checks"]}

    assert ended.returncode == 0, ended.stdout
    assert checks["through the connector"]["verdict"] == "ok"
    assert checks["min.insync.replicas"]["verdict"] == "warning", "one broker"
    assert checks["ACLs"]["verdict"] == "ok"
    assert sum(end_offsets(kafka.bootstrap_servers, f"{topic_prefix}.events").values()) == 1


def test_topics_that_break_the_promise_are_named(kafka, topic_prefix):
    given = settings(kafka__bootstrap_servers=kafka.bootstrap_servers, topics__prefix=topic_prefix)
    kafka.create_topic(f"{topic_prefix}.events", partitions=3)
    TopicAdmin(kafka.bootstrap_servers, {}).alter(f"{topic_prefix}.events", 20, config={"min.insync.replicas": "2"})

    found = verdicts(given)

    assert "warning" in found["partitions"]
    assert "failed" in found["min.insync.replicas"]


@pytest.mark.parametrize(
    ("variables", "check"),
    [
        ({"WEDA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "brokers"),
        ({}, "brokers"),
        ({"WEDA_REGISTRY__URL": "http://127.0.0.1:1"}, "registry"),
        ({"WEDA_JOURNAL__PATH": "/proc/journal.db"}, "journal disk"),
        ({"WEDA_JOURNAL__PATH": "/dev/shm/journal.db"}, "journal disk"),
    ],
)
def test_what_is_wrong_is_one_with_what_to_do(variables, check):
    ended = run("doctor", **variables)

    assert ended.returncode == 1, ended.stderr
    lines = ended.stdout.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith(f"failed   {check}: ")]
    assert lines[at + 1].strip().startswith("do: ")


def test_settings_that_cannot_be_read_are_bad_configuration():
    ended = run("doctor", WEDA_NO_SUCH="1")

    assert (ended.returncode, "WEDA_NO_SUCH" in ended.stderr) == (2, True)
