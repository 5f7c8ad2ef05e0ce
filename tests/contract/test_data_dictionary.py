"""The data dictionary that users read says what the connector does."""

import json
from pathlib import Path

import pytest

from connector.message.schemas import (
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    INSTANCE_EVENT,
    TASK_EVENT,
    WORKFLOW_EVENT,
    kinds,
    load,
)
from connector.simulator.messages import UNKNOWN_FIELDS
from tools import dictionary

README = Path(__file__).parents[2] / "avro" / "README.md"


def test_every_field_has_its_row():
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]

    for name in {*load(WORKFLOW_EVENT).fields, *load(FLAT_EVENT).fields}:
        assert any(row.startswith(f"| `{name}` |") for row in rows)


def test_every_link_leads_to_a_file():
    names = [f"{name}.avsc" for name in (WORKFLOW_EVENT, INSTANCE_EVENT, TASK_EVENT, FLAT_EVENT)]
    text = README.read_text(encoding="utf-8")

    for name in names:
        assert f"]({name})" in text
        assert (README.parent / name).is_file()


@pytest.mark.parametrize("record_type", [INSTANCE_EVENT, TASK_EVENT])
def test_a_sample_message_has_every_field_that_weda_sends(record_type):
    assert set(kinds(load(record_type))) <= set(dictionary.sample_message(record_type))


@pytest.mark.parametrize(("record_type", "field"), [(WORKFLOW_EVENT, "extras"), (FLAT_EVENT, "extrasJson")])
def test_the_example_of_an_unknown_field_names_none_that_the_schema_knows(record_type, field):
    """Whoever adds a field of that name gives the example another, such as ``x-urgency``."""
    (doc,) = [each["doc"] for each in json.loads(load(record_type).text)["fields"] if each["name"] == field]

    unknown = {*json.loads(doc.rpartition(" Example: ")[2]), *dict(UNKNOWN_FIELDS)}

    assert unknown.isdisjoint({*load(WORKFLOW_EVENT).fields, *load(FLAT_EVENT).fields})


@pytest.mark.parametrize("record_type", [INSTANCE_EVENT, TASK_EVENT])
def test_a_sample_record_holds_what_its_message_says(record_type):
    message, record = dictionary.sample_message(record_type), dictionary.sample_record(record_type)

    for name, kind in kinds(load(record_type)).items():
        if kind not in {"date", "maps"}:
            assert message[name] == record[name]


def test_the_samples_show_both_shapes_of_maps_the_forms_of_dates_and_an_unknown_field():
    task, instance = dictionary.sample_record(TASK_EVENT), dictionary.sample_record(INSTANCE_EVENT)

    assert instance["approverMap"] == [{"1801": "李四"}]
    assert task["approverMap"] == [{"1802": "王五"}]
    assert instance["startTime"] == task["startTime"] == 1772415000000
    assert task["taskEndTime"] == 1772418600000
    assert task["extras"] == {"newField": "2"}
    assert instance["extras"] == {}


def test_the_samples_are_json():
    blocks = README.read_text(encoding="utf-8").split("```json\n")[1:]

    assert len(blocks) == 4
    for block in blocks:
        assert json.loads(block.partition("```")[0])["instanceId"]


def test_our_own_fields_are_said_to_be_ours():
    text = README.read_text(encoding="utf-8")

    assert ", ".join(f"`{name}`" for name in CONNECTOR_FIELDS) + " are the connector's own" in text
