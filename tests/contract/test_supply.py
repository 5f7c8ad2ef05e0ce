"""What the connector is made of is looked at, and what could not be looked at is not called fine."""

import json
import re
import subprocess

import pytest

from tests.supply import __main__ as supply


@pytest.fixture
def audit(monkeypatch):
    """Let pip-audit say something."""

    def say(reported):
        done = subprocess.CompletedProcess([], 0, reported if isinstance(reported, str) else json.dumps(reported), "")
        monkeypatch.setattr(supply.subprocess, "run", lambda *_, **__: done)

    return say


def part(**reported):
    return {"name": "uvicorn", "version": "1", **reported}


def test_every_part_has_a_licence_that_the_service_can_keep():
    assert supply.licences() == 0


def test_another_licence_fails_the_check(monkeypatch, capsys):
    monkeypatch.setattr(supply, "LICENCES", ("Apache",))

    assert supply.licences() == 1
    assert "not in allow-only" in capsys.readouterr().err


@pytest.mark.parametrize(
    "reported", ["no JSON", {"dependencies": [part(skip_reason="not found")]}, {"dependencies": []}]
)
def test_what_was_not_asked_is_said_loudly(audit, capsys, reported):
    audit(reported)

    assert supply.weaknesses() == 0
    assert "KNOWN WEAKNESSES WERE NOT CHECKED" in capsys.readouterr().err


def test_a_known_weakness_fails_the_check(audit, capsys):
    audit({"dependencies": [part(vulns=[{"id": "CVE-1"}])]})

    assert supply.weaknesses() == 1
    assert "uvicorn 1: CVE-1" in capsys.readouterr().err


def test_the_bill_of_materials_names_every_part_by_its_hash(tmp_path):
    assert supply.materials(tmp_path / "sbom.json") == 0
    listed = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))["components"]

    assert {one["name"].lower() for one in listed} >= {name.lower() for name in supply.parts()}
    assert all(one["externalReferences"][0]["hashes"] for one in listed if "uvicorn" in one["name"])


def test_what_is_looked_at_is_what_the_image_is_installed_from():
    """With the extras, each part of them once."""
    installed = re.findall(r"-r requirements/(\S+)", (supply.ROOT / "Dockerfile").read_text(encoding="utf-8"))

    assert [path.name for path in supply.REQUIREMENTS] == [name for name in installed if name != "build.txt"]
    assert {"uvicorn", "psycopg", "opentelemetry-sdk", "apprise"} <= set(supply.parts())
    assert len(set(supply.parts())) == len(supply.parts())
