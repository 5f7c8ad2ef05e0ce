"""The guides: that for operators takes a newcomer to the first records; that for process owners works as it stands.

Its templates are read, its custom code is run by Node against a connector, its pictures are those that the tool draws.
"""

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

import pytest

from connector.errors import Unreadable
from connector.message.parsing import BodyKind, parse
from connector.receiver.authentication import Credentials
from connector.settings import Settings
from tests.contract.test_http import serving
from tests.custom_code import call
from tests.running import PATIENT_ENVIRONMENT
from tests.servers.ports import free_ports
from tests.servers.reading import read_topic
from tests.waiting import PATIENCE_SECONDS
from tools import setup_pictures
from tools.setup_pictures import Field

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = {"en": DOCS / "weda-setup.md", "zh": DOCS / "weda-setup.zh-CN.md"}
FOR_OPERATORS = {"en": DOCS / "connector-setup.md", "zh": DOCS / "connector-setup.zh-CN.md"}
PICTURES = sorted((DOCS / "setup").iterdir())
FENCE = re.compile(r"^ *```([\w-]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
SVG = "{http://www.w3.org/2000/svg}"
PLACEHOLDER = "{{params.msgContext}}"


def blocks(guide: Path) -> list[tuple[str, str]]:
    return FENCE.findall(guide.read_text(encoding="utf-8"))


def without_comments(guide: Path) -> list[tuple[str, str]]:
    return [(language, re.sub(r" // .*", "", text)) for language, text in blocks(guide)]


@pytest.mark.parametrize("guides", [GUIDES, FOR_OPERATORS], ids=["owners", "operators"])
def test_both_languages_show_the_same(guides):
    english, chinese = (guide.read_text(encoding="utf-8") for guide in guides.values())

    assert without_comments(guides["en"]) == without_comments(guides["zh"])
    for form in (r"^#+ ", r"^\| ", r"^- ", r"^!\["):
        found = [len(re.findall(form, FENCE.sub("", text), re.MULTILINE)) for text in (english, chinese)]
        assert found[0] == found[1], form


def test_both_guides_show_the_same_codes():
    english, chinese = GUIDES.values()
    codes = re.compile(r"^\| (\d[\d, –]*) \|", re.MULTILINE)
    spoken = [codes.findall(guide.read_text(encoding="utf-8").partition("| code |")[2]) for guide in (english, chinese)]
    assert len(spoken[0]) > 15
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
    """Only addresses differ from what the guide says (the broker's, free ports), and how long a start may take."""
    every = [text for language, text in blocks(FOR_OPERATORS["en"]) if language == "sh"]
    script = "set -e\n" + "\n".join(text for text in every if "example.com" not in text)
    public, operations = free_ports(2)
    for written, here in (
        ("localhost:9092", kafka.bootstrap_servers),
        ("127.0.0.1:8080", f"127.0.0.1:{public}"),
        ("127.0.0.1:9464", f"127.0.0.1:{operations}"),
        ("--retry 30 ", "--retry 120 "),
    ):
        assert written in script
        script = script.replace(written, here)
    known = {name: value for name, value in os.environ.items() if not name.startswith("WEDA_")}
    settings = {
        "WEDA_RECEIVER__PORT": str(public),
        "WEDA_OPERATIONS__PORT": str(operations),
        "WEDA_TOPICS__PREFIX": topic_prefix,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **PATIENT_ENVIRONMENT,
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
        said, errors = shell.communicate(timeout=3 * PATIENCE_SECONDS)
    finally:
        with suppress(ProcessLookupError):  # a connector that outlives its shell
            os.killpg(shell.pid, signal.SIGKILL)

    assert '{"code":0}' in said, said + errors
    [reported] = [json.loads(line) for line in said.splitlines() if line.startswith('{"sent"')]
    assert reported["sent"] == reported["accepted"] > 20
    found = read_topic(kafka.bootstrap_servers, f"{topic_prefix}.events", reported["sent"] + 1)
    assert b"i-1" in {record.key() for record in found}
    assert "同意" in said, "tail has shown what was done"


def test_the_settings_on_the_operators_page_are_taken(tmp_path):
    shown = [text for language, text in blocks(FOR_OPERATORS["zh"]) if language == "yaml"]
    file = tmp_path / "connector.yaml"
    file.write_text("\n".join(shown), encoding="utf-8")

    sources = Settings.load(environment={}, file=file).sources

    assert {name: source.answers for name, source in sources.items() if name.startswith("hr")} == {
        "hr": "status",
        "hr-test": "code-only",
    }
    assert sources["hr-test"].secrets


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


@pytest.fixture
def custom_code(tmp_path):
    """The method of the guide, for a connector of this machine: a function of address and secret."""

    def written(address: str, secret: str) -> Path:
        code = dict(blocks(GUIDES["zh"]))["javascript"]
        for shown, here in ((r"https://[^']+", address), (r"whsec_[^']+", secret)):
            code, count = re.subn(shown, here, code, count=1)
            assert count == 1
        method = tmp_path / "method.cjs"
        method.write_text(code, encoding="utf-8")
        return method

    return written


async def test_the_custom_code_signs_as_the_connector_wants(custom_code):
    """With any HTTP status it gives `code` and `message` to WeDa."""
    key = secrets.token_bytes(24)
    message = dict(blocks(GUIDES["zh"]))["message"].strip()
    async with serving(sources={"default": Credentials(secrets=(key,))}) as served:
        address = f"http://127.0.0.1:{served.port}/messageDeliver"
        right = custom_code(address, f"whsec_{base64.b64encode(key).decode()}")
        accepted = await asyncio.to_thread(call, right, {"msgContext": message})
        unreadable = await asyncio.to_thread(call, right, {"msgContext": "no message"})
        wrong = custom_code(address, f"whsec_{base64.b64encode(bytes(24)).decode()}")
        stranger = await asyncio.to_thread(call, wrong, {"msgContext": message})

        assert accepted == {"code": 0, "message": ""}
        assert [value["comment"] for value in served.values()] == [json.loads(message)["comment"]]
        assert unreadable["code"] // 100 == 400
        assert unreadable["message"]
        assert stranger["code"] == 40100


async def test_the_custom_code_repeats_once_and_the_message_is_published_once(custom_code):
    async with serving(sources={"default": Credentials(secrets=(bytes(24),))}) as served:
        served.health.is_closing = True
        method = custom_code(f"http://127.0.0.1:{served.port}/messageDeliver", f"whsec_{'A' * 32}")
        message = dict(blocks(GUIDES["zh"]))["message"].strip()
        refused = await asyncio.to_thread(call, method, {"msgContext": message})

        assert refused["code"] == 50300
        assert served.outcomes() == {"refused": 2}

    nobody = await asyncio.to_thread(call, custom_code("http://127.0.0.1:1/messageDeliver", f"whsec_{'A' * 32}"), {})
    assert nobody["code"] == -1
    assert "ECONNREFUSED" in nobody["message"]


def test_the_guides_show_every_picture():
    assert {file.name for file in PICTURES} == {*setup_pictures.PICTURES}
    for guide in GUIDES.values():
        text = guide.read_text(encoding="utf-8")
        assert [file.name for file in PICTURES if f"](setup/{file.name})" not in text] == []


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_the_text_of_a_picture_stays_inside(file):
    """By the width that a sign takes at most: as wide as the type is high for Chinese, 0.62 of it for Latin."""
    for shape in ET.parse(file).iter(f"{SVG}text"):
        size = int((re.findall(r"font-size:(\d+)px", shape.get("style", "")) or ["14"])[0])
        width = sum(size if setup_pictures.columns(sign) == 2 else 0.62 * size for sign in shape.text)
        left = float(shape.get("x")) - (width / 2 if shape.get("text-anchor") == "middle" else 0)

        assert left >= 0, shape.text
        assert left + width <= setup_pictures.WIDTH, shape.text


def test_what_a_picture_shows_is_what_the_guide_says():
    shown = dict(blocks(GUIDES["zh"]))
    marked = [
        part.value
        for card in setup_pictures.CARDS.values()
        for part in card.parts
        if isinstance(part, Field) and part.is_code
    ]

    assert shown["json"].strip() in marked
    text = GUIDES["zh"].read_text(encoding="utf-8")
    assert [value for value in marked if "…" not in value and value.replace(" ", "") not in text.replace(" ", "")] == []


@pytest.mark.parametrize("language", ["form", "query"])
def test_the_message_of_the_test_fails_where_a_template_changes_text(language):
    """Such a template is in neither guide: WeDa encodes nothing, and the connector cannot know what was sent."""
    shown = dict(blocks(GUIDES["en"]))
    message = shown["message"].strip()

    assert language not in shown
    with pytest.raises(Unreadable):
        parse(*rendered(language, f"msgContext={PLACEHOLDER}", message))
