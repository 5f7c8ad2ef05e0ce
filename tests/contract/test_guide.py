"""The guide for process owners alone takes a newcomer to the first records; its templates are read as they stand."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connector.errors import Unreadable
from connector.message.parsing import BodyKind, parse
from tests.servers.ports import free_ports
from tests.servers.reading import read_topic

ROOT = Path(__file__).parents[2]
GUIDES = {"en": ROOT / "docs" / "weda-setup.md", "zh": ROOT / "docs" / "weda-setup.zh-CN.md"}
FENCE = re.compile(r"^ *```([\w-]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
PLACEHOLDER = "{{params.msgContext}}"


def blocks(guide: Path) -> list[tuple[str, str]]:
    return FENCE.findall(guide.read_text(encoding="utf-8"))


def test_both_guides_show_the_same_blocks_and_codes():
    english, chinese = GUIDES.values()
    assert blocks(english) == blocks(chinese)
    codes = re.compile(r"^\| (\d[^|]*) \|", re.MULTILINE)
    spoken = [codes.findall(guide.read_text(encoding="utf-8").replace("、", ", ")) for guide in (english, chinese)]
    assert spoken[0] == spoken[1]


def test_every_code_of_a_sender_is_explained():
    text = GUIDES["en"].read_text(encoding="utf-8")
    numbers = [tuple(map(int, found)) for found in re.findall(r"(\d{5})–(\d{5})", text)]
    numbers += [(int(one), int(one)) for one in re.findall(r"\b\d{5}\b", text)]
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "connector").rglob("*.py"))]
    used = {int(one) for source in sources for one in re.findall(r"code(?:: int)? ?= ?(4\d{4})\b", source)}

    assert len(used) > 15
    assert {code for code in used if not any(low <= code <= high for low, high in numbers)} == set()


def test_a_newcomer_gets_a_simulated_weda_to_publish(kafka, topic_prefix, tmp_path):
    """Only addresses differ from what the guide says: the broker's, and ports that are free here."""
    script = "set -e\n" + "\n".join(text for language, text in blocks(GUIDES["en"]) if language == "sh")
    public, operations = free_ports(2)
    for written, here in (
        ("localhost:9092", kafka.bootstrap_servers),
        ("127.0.0.1:8080", f"127.0.0.1:{public}"),
        ("127.0.0.1:9464", f"127.0.0.1:{operations}"),
    ):
        assert written in script
        script = script.replace(written, here)
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    settings = {
        "WEDA_RECEIVER__PORT": str(public),
        "WEDA_OPERATIONS__PORT": str(operations),
        "WEDA_TOPICS__PREFIX": topic_prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    shell = subprocess.Popen(
        ["bash", "-c", script + "\nkill %1; wait"],
        cwd=tmp_path,
        env=known | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = shell.communicate(timeout=120)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)

    assert '{"code":0}' in said, said + errors
    [told] = [json.loads(line) for line in said.splitlines() if line.startswith('{"sent"')]
    assert told["sent"] == told["accepted"] > 20
    found = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.events", told["sent"] + 1)
    assert b"i-1" in {record.key() for record in found}
    assert "同意" in said, "tail has shown what was done"


def rendered(language: str, template: str, message: str) -> tuple[bytes, BodyKind]:
    """What WeDa makes of a template: the text is put in as it is, and only in quotes, where it says so, escaped."""
    if language == "json-text":
        return template.replace(f'"{PLACEHOLDER}"', json.dumps(message)).encode(), BodyKind.JSON
    body = template.replace(PLACEHOLDER, message).strip().encode()
    return body, {"form": BodyKind.FORM, "query": BodyKind.QUERY}.get(language, BodyKind.JSON)


@pytest.mark.parametrize("language", ["json", "json-text", "bare"])
def test_each_template_is_read(language):
    shown = dict(blocks(GUIDES["en"]))
    message = shown["message"].strip()

    assert parse(*rendered(language, shown[language], message)).fields == json.loads(message)


@pytest.mark.parametrize("language", ["form", "query"])
def test_the_message_of_the_test_fails_where_a_template_changes_text(language):
    """Such a template is in neither guide: WeDa encodes nothing, and the connector cannot know what was sent."""
    shown = dict(blocks(GUIDES["en"]))
    message = shown["message"].strip()

    assert language not in shown
    with pytest.raises(Unreadable):
        parse(*rendered(language, f"msgContext={PLACEHOLDER}", message))
