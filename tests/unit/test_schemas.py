"""The schemas say what WeDa's documentation says, and load only when they do."""

import json
import re

import avro.schema
import pytest

from connector.errors import ConfigurationError
from connector.message import schemas
from connector.message.flat import CODES
from connector.message.schemas import (
    ALL,
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    INSTANCE_EVENT,
    TASK_EVENT,
    WEDA_SCHEMAS,
    WORKFLOW_EVENT,
    load,
)
from tools.schemas import ROOT, derived, only_type

TABLE = """
msgId | string | I T
msgType | string | I T
action | int | I T
actionName | string | I T
processName | string | I T
processKey | string | I T
flowTitle | string | I T
flowCode | string | I T
startTime, endTime | date | I T
instanceId | string | I T
envType | string | I T
sourceType | string | I T
requestId | string | I T
approverMap | list<map<string,string>> | I T
startUserMap | list<map<string,string>> | I T
elementMap | list<map<string,string>> | I
instanceStatus | int | I
instanceStatusName | string | I
taskStatus | int | T
taskStatusName | string | T
elementId, elementName | string | T
elementType, elementTypeName | string | T
comment | string | T
turnToUserMap | list<map<string,string>> | T
addAssigneeMap | list<map<string,string>> | T
ccUserMap | list<map<string,string>> | T
taskMap | list<map<string,string>> | T
pageUrlMap | list<map<string,string>> | T
taskStartTime, taskEndTime | date | T
rollbackElementId, rollbackElementName | string | T
revokeElementId, revokeElementName | string | T
isCcTask | boolean | T
"""
"""The fields as WeDa documented them for the first release: names, type, and the messages that have them (Instance,
Task). Fields that came later are in the schemas alone."""

KINDS = {"string": "string", "int": "int", "boolean": "boolean", "date": "date", "list<map<string,string>>": "maps"}
MESSAGES_OF = {WORKFLOW_EVENT: "IT", INSTANCE_EVENT: "I", TASK_EVENT: "T"}
AVRO_TYPES = {
    "string": "string",
    "int": "int",
    "boolean": "boolean",
    "date": {"type": "long", "logicalType": "timestamp-millis"},
    "maps": {"type": "array", "items": {"type": "map", "values": "string"}},
}


def documented():
    for line in TABLE.strip().splitlines():
        names, kind, on = line.split(" | ")
        yield from ((name, KINDS[kind], on) for name in names.split(", "))


def definitions(name):
    return {each["name"]: each for each in json.loads(load(name).text)["fields"]}


def documentation():
    return [
        pytest.param(each["doc"], id=f"{name.rpartition('.')[2]}.{each['name']}")
        for name in ALL
        for each in definitions(name).values()
    ]


@pytest.mark.parametrize("name", WEDA_SCHEMAS)
def test_a_record_has_every_documented_field_of_its_messages_with_its_type_and_none_of_others(name):
    expected = {field: kind for field, kind, on in documented() if set(on) & set(MESSAGES_OF[name])}
    known = {field for field, _, _ in documented()}

    assert expected == {field: kind for field, kind in schemas.kinds(load(name)).items() if field in known}


@pytest.mark.parametrize("name", WEDA_SCHEMAS)
def test_identity_comes_first_then_the_documents_order_then_what_came_later_and_ours_last(name):
    identity = ["instanceId", "msgType", "msgId", "action", "actionName"]
    rest = [field for field, _, on in documented() if set(on) & set(MESSAGES_OF[name]) and field not in identity]

    expected = (*identity, *rest)
    later = load(name).fields[len(expected) : -len(CONNECTOR_FIELDS)]
    assert (*expected, *later, *CONNECTOR_FIELDS) == load(name).fields


@pytest.mark.parametrize("name", WEDA_SCHEMAS)
def test_what_a_message_may_lack_is_a_union_with_null_first_and_default_null(name):
    fields = definitions(name)

    for field, kind in schemas.kinds(load(name)).items():
        if field in {"instanceId", "msgType"}:
            assert fields[field]["type"] == "string"
            assert "default" not in fields[field]
        else:
            assert ["null", AVRO_TYPES[kind]] == fields[field]["type"]
            assert fields[field]["default"] is None


@pytest.mark.parametrize("name", WEDA_SCHEMAS)
def test_the_connectors_own_fields_are_never_null(name):
    expected = {
        "source": "string",
        "receivedAt": {"type": "long", "logicalType": "timestamp-millis"},
        "ingestId": "string",
        "extras": {"type": "map", "values": "string"},
    }
    fields = definitions(name)

    assert expected == {field: fields[field]["type"] for field in CONNECTOR_FIELDS}
    assert fields["extras"]["default"] == {}


@pytest.mark.parametrize("doc", documentation())
def test_every_field_is_documented_in_english_with_the_chinese_term_and_an_example(doc):
    meaning, found, example = doc.rpartition(" Example: ")

    assert found
    assert example
    assert re.match(r"[A-Z][a-zA-Z]* ", meaning)
    assert re.search(r"\([^)]*[\u4e00-\u9fff][^)]*\)\.", meaning)


@pytest.mark.parametrize("name", ALL)
def test_every_record_is_documented_in_both_languages(name):
    assert re.search(r"[\u4e00-\u9fff]", json.loads(load(name).text)["doc"])


@pytest.mark.parametrize("name", WEDA_SCHEMAS)
def test_examples_are_of_their_fields_type(name):
    python_types = {"string": str, "int": int, "boolean": bool, "date": int, "maps": list}
    examples = schemas.examples(load(name))

    for field, kind in schemas.kinds(load(name)).items():
        assert type(examples[field]) is python_types[kind]


@pytest.mark.parametrize(("path", "text"), derived().items(), ids=str)
def test_what_repeats_the_fields_is_derived_from_one_schema(path, text):
    """Run ``make generate`` after a change of `WorkflowEvent`."""
    assert text == (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [INSTANCE_EVENT, TASK_EVENT])
def test_a_field_means_the_same_in_every_record(name):
    flat, own = definitions(WORKFLOW_EVENT), definitions(name)

    for field, definition in own.items():
        assert flat[field]["type"] == definition["type"]
        assert flat[field]["doc"].rpartition(" Example: ")[0] == definition["doc"].rpartition(" Example: ")[0]


def test_the_dictionaries_are_those_that_weda_documents():
    action = [code.value for code in schemas.codes(load(WORKFLOW_EVENT), "action")]
    status = {code.value: code.name for code in schemas.codes(load(WORKFLOW_EVENT), "instanceStatus")}

    assert [*range(10), 13, *range(15, 24)] == action
    assert status == {0: "审批中", 1: "已终止", 2: "已驳回", 3: "审批通过", 4: "已作废", 5: "已删除"}


def test_a_codes_name_may_hold_brackets():
    by_value = {code.value: code for code in schemas.codes(load(TASK_EVENT), "action")}

    assert by_value[20] == (20, "自动同意(异常处理)", "approved automatically (exception)")


def test_the_keys_of_codes_stay_as_they_are():
    """Tables and queries hold them: a reworded meaning must not change one."""
    keys = {name: [code.key for code in schemas.codes(load(WORKFLOW_EVENT), name)] for name in CODES}

    assert keys == {
        "action": [
            *("to_do", "submitted", "approved", "rejected", "turned_over", "withdrawn", "sent_back", "assignee_added"),
            *("terminated", "skipped", "handled", "copied_by_a_node", "process_voided", "draft_saved"),
            *("instance_deleted", "approved_automatically", "approved_automatically_exception"),
            *("copied_on_approval", "instance_triggered", "instance_ended"),
        ],
        "instanceStatus": ["in_approval", "terminated", "turned_down", "approved", "voided", "deleted"],
    }


def test_a_flat_record_has_no_maps_and_no_list_but_of_texts():
    types = {json.dumps(each["type"]) for each in definitions(FLAT_EVENT).values()}

    assert types <= {
        '"string"',
        '{"type": "long", "logicalType": "timestamp-millis"}',
        '{"type": "array", "items": "string"}',
        *(f'["null", {each}]' for each in ('"string"', '"int"', '"boolean"')),
        '["null", {"type": "long", "logicalType": "timestamp-millis"}]',
    }


def test_a_field_without_a_dictionary_has_no_codes():
    assert schemas.codes(load(TASK_EVENT), "taskStatus") == ()


@pytest.mark.parametrize("name", ALL)
def test_apaches_own_parser_takes_the_schema(name):
    parsed = avro.schema.parse(load(name).text)

    assert name == parsed.fullname


@pytest.mark.parametrize("name", ALL)
def test_the_fingerprint_is_the_one_that_apache_avro_computes(name):
    """Where a logical type stood, Apache's Python keeps ``{"type":"long"}`` in the canonical form; the specification's
    and Java's have ``"long"``. Without logical types all of them agree."""
    text = re.sub(r'\{"type":"long","logicalType":"timestamp-millis"\}', '"long"', load(name).text)

    assert avro.schema.parse(text).fingerprint("CRC-64-AVRO") == load(name).fingerprint


def test_the_fingerprints_are_those_that_apache_avro_for_java_computes():
    """Found with ``SchemaNormalization.parsingFingerprint("CRC-64-AVRO", schema)`` of Avro 1.12.1."""
    expected = {
        WORKFLOW_EVENT: "cf7a32296be353f4",
        INSTANCE_EVENT: "993b182fd7d5cdf3",
        TASK_EVENT: "ec6a3e98e90bbb90",
    }

    assert expected == {name: schema.fingerprint.hex() for name, schema in schemas.released()["0.1.0"].items()}


def test_a_schema_is_found_by_its_fingerprint():
    assert {load(name).fingerprint: load(name) for name in ALL}.items() <= schemas.by_fingerprint().items()


def test_a_schema_is_read_once():
    assert load(TASK_EVENT) is load(TASK_EVENT)


def test_the_text_keeps_documentation_and_logical_types_for_a_registry():
    file = schemas._folder() / f"{TASK_EVENT}.avsc"

    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(load(TASK_EVENT).text)


def test_the_folder_of_schemas_is_no_package_that_would_hide_apaches():
    assert not (schemas._folder() / "__init__.py").exists()


def test_a_missing_schema_names_its_file():
    with pytest.raises(ConfigurationError, match=r"io\.weda\.workflow\.Nothing\.avsc: not readable"):
        load("io.weda.workflow.Nothing")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "null",
        "[]",
        '"string"',
        '{"type": "record", "name": "x.Other", "fields": []}',
        '{"type": "record", "name": "x.Broken"}',
        '{"type": "record", "fields": []}',
        '{"type": "record", "name": "x.Broken", "fields": 3}',
        '{"type": "record", "name": "x.Broken", "fields": [{"name": "a"}]}',
        '{"type": "record", "name": "x.Broken", "fields": [{"name": "a", "type": "nothing"}]}',
        '{"type": "enum", "name": "x.Broken", "symbols": ["A"]}',
        '[{"type": "record", "name": "x.Broken", "fields": []}]',
    ],
)
def test_a_broken_schema_is_a_configuration_error_that_names_its_file(tmp_path, text):
    path = tmp_path / "x.Broken.avsc"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"x\.Broken\.avsc"):
        schemas.read(path)


def test_bytes_that_are_not_text_are_a_broken_schema(tmp_path):
    path = tmp_path / "x.Broken.avsc"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError, match=r"x\.Broken\.avsc"):
        schemas.read(path)


def test_a_type_that_the_converter_has_no_reading_for_is_a_configuration_error(tmp_path):
    path = tmp_path / "x.Odd.avsc"
    path.write_text('{"type": "record", "name": "x.Odd", "fields": [{"name": "a", "type": "double"}]}')

    with pytest.raises(ConfigurationError, match="field a"):
        schemas.kinds(schemas.read(path))


@pytest.mark.parametrize(
    ("documentation", "expected"),
    [
        ("Result (结果). Task messages only. Example: a", "Task"),
        ("Result (结果). Instance messages only. Example: a", "Instance"),
        ("Result (结果). Example: Task messages only, a", None),
    ],
)
def test_a_field_is_of_the_messages_that_its_documentation_names(documentation, expected):
    assert only_type(documentation) == expected


@pytest.mark.parametrize("sentence", ["Tasks messages only. ", "task messages only. ", "Only in task messages. "])
def test_a_field_that_would_be_of_no_messages_is_an_error(sentence):
    with pytest.raises(ValueError, match="messages"):
        only_type(f"Result (结果). {sentence}Example: a")
