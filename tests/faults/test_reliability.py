"""The rows of ``docs/reliability.md``: measured one by one, merged, and shown as they are."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.faults import reliability
from tests.faults.checks import Breach
from tests.faults.recording import Recording, Run
from tests.faults.run import Report
from tests.faults.scenarios import Scenario


async def _plays(*_: object) -> None: ...


def report(scenario: str, *breaches: Breach, **figures: Any) -> Report:
    measured = {"sent": 1300, "accepted": 1200, "missing": 0, "out_of_order": 0, "disturbed": 1} | figures
    recording = Recording(Run(scenario, scenario, 7, 1, 1, 1, 3), [], [], [], [])
    return Report(scenario, 7, {"recover_seconds": 0.5} | measured, [*breaches], [], [], None, recording)


def row(name: str, *breaches: Breach, **figures: Any) -> reliability.Row:
    return reliability.row(Scenario(name, f"breaks {name}", _plays, nodes=3), report(name, *breaches, **figures), [])


def test_a_row_holds_the_figures_and_how_to_measure_it_again() -> None:
    measured = reliability.row(Scenario("calm", "nothing", _plays), report("calm"), ["--seconds 5"])

    assert measured["command"] == "--scenario calm --seed 7 --seconds 5"
    assert (measured["ok"], measured["accepted"], measured["recover_seconds"]) == (True, 1200, 0.5)
    assert "cores" in measured["machine"]
    assert json.loads(json.dumps(measured)) == measured


def test_a_row_measured_again_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    document = tmp_path / "docs" / "reliability.md"
    for name, sent in (("zebra", 1), ("ant", 2), ("zebra", 3)):
        reliability.merge(document, row(name, sent=sent))

    assert [(name, each["sent"]) for name, each in reliability.read(document).items()] == [("ant", 2), ("zebra", 3)]
    assert document.read_text() == reliability.rendered(reliability.read(document))
    assert "| zebra | breaks zebra | 3 | 3 | 1,200 |" in document.read_text()


def test_a_row_that_failed_says_so(tmp_path: Path) -> None:
    failed = row("ant", Breach("P1", "missing", "one is gone"), recover_seconds=float("nan"), missing=1)
    rows = {"ant": failed, "zebra": row("zebra", disturbed=0, recover_seconds=None)}
    table = reliability.table([*rows.values()])

    assert "- **ant** failed: P1 missing" in reliability.rendered(rows)
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["FAIL", "ok"]
    assert "never" in table.splitlines()[1]
    assert "–" in table.splitlines()[2]


@pytest.mark.parametrize("seconds", [0, 0.4, 120.0, None])
def test_the_picture_has_two_bars_for_each_scenario(seconds: float | None) -> None:
    rows = {name: row(name, recover_seconds=seconds, oldest_age=seconds or 0) for name in ("ant", "zebra")}
    bars = ET.fromstring(reliability.picture(rows)).findall(".//{*}rect[@height='9']")

    assert [bar.get("class") for bar in bars] == ["back", "oldest"] * 2
    assert all(0 <= float(bar.get("width", "-1")) <= reliability.WIDE for bar in bars)
