"""The programs of docs/retention.md do what the page says of them, on real Kafka."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from connector.consuming import Events
from connector.kafka.topics import TopicAdmin, TopicSpec
from tests.running import Running, Start

PAGE = Path(__file__).parents[2] / "docs" / "retention.md"
WHO = "张三"
PARTITIONS = 3


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with every Python block of the page, under the name by which its first line calls it."""
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        name = re.match(r'"""python (\w+\.py) ', block)
        assert name, block[:60]
        (tmp_path / name[1]).write_text(block, encoding="utf-8")
    return tmp_path


async def run(program: Path, *arguments: str, given: str = "") -> str:
    command = [sys.executable, str(program), *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def played(start: Start, **settings: object) -> Running:
    """A connector that has taken in three instances, of which ``i-1`` names the person."""
    running = await start(streams=["events", "instances", "state"], topics__partitions=PARTITIONS, **settings)
    for number in range(9):
        person = {"1": WHO} if number % 3 == 1 else {"2": "李四"}
        message = {
            "msgType": "Instance",
            "instanceId": f"i-{number % 3}",
            "msgId": f"m-{number}",
            "startUserMap": person,
        }
        assert await running.post(message) == (200, {"code": 0})
    return running


async def values(servers: str, prefix: str, stream: str) -> list[tuple[str, bool]]:
    """Instance and whether it has a value, of every record."""
    with Events(servers, prefix=prefix, stream=stream, until_end=True, repeats_kept=0) as events:
        return [(event.instance_id, event.value is not None) for event in await asyncio.to_thread(list, events)]


async def test_a_person_is_found_and_erased_up_to_the_last_place(start: Start, topic_prefix: str, programs: Path):
    running = await played(start)
    servers = running.connector.bootstrap_servers

    found = await run(programs / "find.py", servers, topic_prefix, WHO)
    erased = await run(programs / "erase.py", servers, topic_prefix, given=found)
    again = await run(programs / "find.py", servers, topic_prefix, WHO)

    assert sorted(line.split()[0] for line in found.splitlines()) == ["events"] * 3 + ["instances"] * 3 + ["state"] * 3
    assert {line.split()[3] for line in found.splitlines()} == {"i-1"}
    assert erased.count("begins at") == 2
    assert {line.split()[0] for line in again.splitlines()} <= {"state"}  # until the topic is compacted
    states = dict(await values(servers, topic_prefix, "state"))
    assert states == {"i-0": True, "i-1": False, "i-2": True}


async def test_a_copy_without_an_instance_keeps_order_partitions_and_headers(
    start: Start, topic_prefix: str, programs: Path
):
    running = await played(start)
    servers, old, new = running.connector.bootstrap_servers, f"{topic_prefix}.events", f"{topic_prefix}.new.events"
    TopicAdmin(servers, {}).create([TopicSpec(new, PARTITIONS, 1, {})], 20)

    reported = await run(programs / "copy_without.py", servers, old, new, "i-1")

    assert reported == "6 records copied\n"
    before, after = [
        await asyncio.to_thread(records, servers, prefix) for prefix in (topic_prefix, f"{topic_prefix}.new")
    ]
    assert after == [each for each in before if each[0] != "i-1"]
    assert len(after) == 6


def records(servers: str, prefix: str) -> list[tuple[object, ...]]:
    """Every record by partition and place in it, without its offset."""
    with Events(servers, prefix=prefix, until_end=True) as events:
        found = sorted(events, key=lambda event: (event.partition, event.offset))
    return [(one.instance_id, one.partition, one.value["msgId"], one.received_at, one.fingerprint) for one in found]
