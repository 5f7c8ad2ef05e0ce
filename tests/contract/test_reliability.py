"""What users read of the fault runs is what was measured, of every fault there is, and nothing was lost."""

from xml.etree import ElementTree as ET

import pytest

from tests.faults.reliability import DOCUMENT, read
from tests.faults.scenarios import scenarios

ROWS = read(DOCUMENT)
SCENARIOS = {scenario.name: scenario for scenario in scenarios()}


def test_the_picture_is_one():
    assert ET.parse(DOCUMENT.with_suffix(".svg")).getroot().tag.endswith("svg")


def test_every_scenario_has_a_row_and_no_row_is_of_another():
    """`make faults FAULTS_ARGS="--scenario NAME --write docs/reliability.md"` measures one that has none."""
    assert sorted(ROWS) == list(ROWS) == sorted(SCENARIOS)


@pytest.mark.parametrize("name", ROWS)
def test_nothing_was_lost_or_put_out_of_order(name):
    row = ROWS[name]

    assert (row["ok"], row["broken"], row["missing"], row["out_of_order"]) == (True, [], 0, 0)
    assert row["accepted"] > 0
    assert (row["does"], row["brokers"]) == (SCENARIOS[name].does, SCENARIOS[name].nodes)
    assert row["command"].startswith(f"--scenario {name} --seed {row['seed']}")
