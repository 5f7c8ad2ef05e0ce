"""A message becomes an event, and the event the value and the headers of its records.

``tests/data/bodies.yaml`` says how each form of a value is read.
"""

import json
from zoneinfo import ZoneInfo

import pytest

from connector.consuming import Person, persons
from connector.errors import ConfigurationError, Unconvertible, Unreadable
from connector.message import records
from connector.message.events import IDENTIFIERS, MAX_IDENTIFIER_CHARS, convert, readable_instance_id
from connector.message.flat import FlatType
from connector.message.headers import headers, timestamp_text
from connector.message.parsing import BodyKind, parse
from connector.message.records import RecordType, record_type
from connector.message.schemas import (
    ALL,
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    INSTANCE_EVENT,
    TASK_EVENT,
    WORKFLOW_EVENT,
    kinds,
    load,
)
from connector.message.schemas import parse as parse_schema
from connector.testing import record_value
from connector.values import IngestId, Request

SHANGHAI = ZoneInfo("Asia/Shanghai")
REQUEST = Request("hr", b"", "application/json", 1_772_415_000_123)
INGEST_ID = IngestId("0195-x")


def message(**fields):
    return parse(json.dumps({"msgType": "Task", "instanceId": "i-1", **fields}).encode(), BodyKind.JSON)


def event(zone=SHANGHAI, **fields):
    return convert(message(**fields), zone)


def headers_of(one, *, conflict=False, request=REQUEST):
    return {name: text.decode() for name, text in headers(one, request, INGEST_ID, conflict=conflict)}


@pytest.mark.parametrize("name", ALL)
def test_a_record_has_every_field_of_its_schema_and_no_other(name):
    value = record_value(event(unknown=1), load(name), REQUEST, INGEST_ID)

    assert set(value) == set(load(name).fields)
    assert (value["source"], value["receivedAt"], value["ingestId"]) == ("hr", REQUEST.received_at, INGEST_ID)


def test_a_field_of_the_other_type_is_in_the_extras_of_the_narrow_record_unless_it_is_null():
    one = event(msgType="Instance", comment="同意", taskMap=None, elementMap=[])
    narrow = record_value(one, load(INSTANCE_EVENT), REQUEST, INGEST_ID)

    assert narrow["extras"] == {"comment": json.dumps("同意")}
    assert narrow["elementMap"] == []
    assert record_value(one, load(WORKFLOW_EVENT), REQUEST, INGEST_ID)["extras"] == {}


def test_an_unknown_field_that_is_null_is_in_the_extras():
    assert record_value(event(x=None), load(WORKFLOW_EVENT), REQUEST, INGEST_ID)["extras"] == {"x": "null"}


@pytest.mark.parametrize("name", CONNECTOR_FIELDS)
def test_a_field_that_is_named_as_ours_does_not_take_our_place(name):
    value = record_value(event(**{name: "theirs"}), load(WORKFLOW_EVENT), REQUEST, INGEST_ID)

    assert value["extras"] == {name: '"theirs"'}
    assert value[name] != "theirs"


def test_unknown_fields_and_codes_are_named():
    one = event(y=1, comment="x", source="me", action=99, instanceStatus=5)

    assert one.unknown_fields == ["y", "source"]
    assert one.unknown_codes == ["action"]
    assert not event(action=None).unknown_codes


def test_a_date_without_a_zone_is_in_the_zone_that_is_set():
    text = "2026-03-02 09:30:00"
    dates = [event(ZoneInfo(zone), startTime=text).fields["startTime"] for zone in ("UTC", "Asia/Shanghai")]

    assert dates[0] - dates[1] == 8 * 3_600_000


def test_the_headers_are_those_of_a_cloud_event():
    one = event(msgId="m-1", envType="prod")

    assert headers_of(one) == {
        "ce_specversion": "1.0",
        "ce_id": "m-1",
        "ce_type": "io.weda.workflow.task.v1",
        "ce_source": "/sources/hr/prod",
        "ce_subject": "i-1",
        "ce_time": "2026-03-02T01:30:00.123Z",
        "content-type": "application/avro",
        "weda.fingerprint": one.fingerprint.hex(),
    }


@pytest.mark.parametrize(("environment", "path"), [("", ""), (None, ""), ("a/b 同", "/a%2Fb%20%E5%90%8C")])
def test_the_source_of_an_event_is_a_uri_reference(environment, path):
    assert headers_of(event(envType=environment))["ce_source"] == f"/sources/hr{path}"


@pytest.mark.parametrize("message_id", [None, ""])
@pytest.mark.parametrize("conflict", [True, False])
def test_the_id_of_an_event_without_a_msg_id_is_ours(message_id, conflict):
    assert headers_of(event(msgId=message_id), conflict=conflict)["ce_id"] == INGEST_ID


def test_the_id_of_a_conflict_names_its_content():
    one = event(msgId="m-1")

    assert headers_of(one, conflict=True)["ce_id"] == f"m-1~{one.fingerprint.hex()[:8]}"


def test_the_id_of_the_request_is_passed_on():
    request = Request("hr", b"", "", 0, request_id="r-1")

    assert headers_of(event(), request=request)["weda.request-id"] == "r-1"
    assert "weda.request-id" not in headers_of(event())


def test_the_trace_context_is_passed_on():
    request = Request("hr", b"", "", 0, "00-a-b-01")

    assert headers_of(event(), request=request)["traceparent"] == "00-a-b-01"
    assert "traceparent" not in headers_of(event())


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        (42202, {"msgType": "x"}),
        (42203, {"instanceId": " "}),
        (42204, {"action": "x"}),
        (42204, {"isCcTask": "x"}),
        (42204, {"startTime": "x"}),
        (42204, {"taskMap": "x"}),
        (42205, {"comment": "\ud800"}),
        (42206, {"startTime": -1}),
        *((42207, {name: "x" * (MAX_IDENTIFIER_CHARS + 1)}) for name in ("instanceId", *IDENTIFIERS)),
    ],
)
def test_each_way_of_being_unconvertible_has_its_code(code, fields):
    with pytest.raises(Unconvertible) as caught:
        event(**fields)

    assert caught.value.code == code


@pytest.mark.parametrize("name", ["instanceId", *IDENTIFIERS])
def test_an_identifier_is_taken_up_to_its_bound_and_reported_without_its_text_beyond(name):
    assert event(**{name: "同" * MAX_IDENTIFIER_CHARS}).fields[name] == "同" * MAX_IDENTIFIER_CHARS
    with pytest.raises(Unconvertible, match=f"^{name} has more than 1024 characters: send it as WeDa made it$"):
        event(**{name: "同" * (MAX_IDENTIFIER_CHARS + 1)})


@pytest.mark.parametrize("name", ["action", "isCcTask", "startTime", "taskMap"])
def test_an_error_names_the_field(name):
    with pytest.raises(Unconvertible, match=f"^{name} "):
        event(**{name: "hunter2"})


@pytest.mark.parametrize("name", ["instanceId", "action", "comment", "isCcTask", "startTime", "taskMap"])
def test_a_number_past_double_range_in_a_known_field_is_unreadable(name):
    with pytest.raises(Unreadable) as caught:
        event(**{name: 10**400})

    assert caught.value.code == 40006


@pytest.mark.parametrize(
    ("sent", "key"), [("i-1", "i-1"), (7, "7"), (None, None), (" ", None), (True, None), ({}, None)]
)
def test_the_key_of_a_dead_letter_is_the_instance_where_it_is_readable(sent, key):
    assert readable_instance_id(message(instanceId=sent, msgType="x")) == key


@pytest.mark.parametrize(("sent", "key"), [("i-1", "i-1"), ("\ud800", None), (7, None), (10**400, None)])
def test_a_lone_surrogate_leaves_a_dead_letter_its_key_where_that_is_text(sent, key):
    assert readable_instance_id(message(instanceId=sent, x="\ud800")) == key


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "1970-01-01T00:00:00.000Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999Z")]
)
def test_a_timestamp_is_written_in_utc_with_milliseconds(milliseconds, text):
    assert timestamp_text(milliseconds) == text


# --- the record for tables ---


def flat(**fields):
    return record_value(event(**fields), load(FLAT_EVENT), REQUEST, INGEST_ID)


PERSONS = pytest.mark.parametrize(
    ("sent", "ids", "names", "others"),
    [
        (None, [], [], []),
        ([], [], [], []),
        ({"1801": "李四", "1802": ""}, ["1801", "1802"], ["李四", ""], []),
        ([{"userId": "1801", "userName": "李四", "age": 3}], ["1801"], ["李四"], []),
        ([{"id": 1801, "name": "李四"}, None, {"userId": "1802"}], ["1801", "1802"], ["李四", ""], []),
        ({"1801": "李四", "active": True, "level": 3, "dept": {}}, ["1801"], ["李四"], ["active", "level", "dept"]),
        ([{"userId": "active", "userName": True}, {"userId": None, "userName": "x"}], [], [], ["active", "null"]),
        ('{"1801": "李四", "active": true}', ["1801"], ["李四"], ["active"]),
        ([{"userId": "12e45", "userName": "李四"}, {"userId": "007"}], ["12e45", "007"], ["李四", ""], []),
        (" ", [], [], []),
    ],
)


@PERSONS
def test_persons_are_ids_and_names_in_either_shape_and_what_is_no_person_is_apart(sent, ids, names, others):
    value = flat(approverMap=sent)

    assert (value["approverIds"], value["approverNames"], value["notPersonIds"]) == (ids, names, others)


@PERSONS
def test_a_reader_finds_the_same_persons_in_every_stream(sent, ids, names, others):
    expected = tuple(Person(each, name or each) for each, name in zip(ids, names, strict=True))
    events = record_value(event(approverMap=sent), load(WORKFLOW_EVENT), REQUEST, INGEST_ID)

    assert persons(events, "approverMap") == persons(flat(approverMap=sent), "approverMap") == expected


@pytest.mark.parametrize(
    ("fields", "moment"),
    [
        ({"startTime": 1, "taskStartTime": 2, "endTime": 3, "taskEndTime": 4}, 4_000),
        ({"startTime": 1, "taskStartTime": 2, "endTime": 3}, 3_000),
        ({"startTime": 1, "taskStartTime": 2}, 2_000),
        ({"startTime": 1, "endTime": 0}, 1_000),
        ({}, None),
    ],
)
def test_the_time_of_an_event_is_the_nearest_to_it_that_its_message_says(fields, moment):
    assert flat(**fields)["eventTime"] == moment


@pytest.mark.parametrize(
    ("code", "key"), [(2, "approved"), (20, "approved_automatically_exception"), (77, "action_77"), (-9, "action_-9")]
)
def test_a_code_has_a_key_in_english(code, key):
    assert flat(action=code)["actionKey"] == key
    assert flat(action=None)["actionKey"] is None


def test_what_has_no_column_is_in_the_json_as_it_was_sent():
    unknown = {"x-unknown": 1.50}  # no field of Avro can have this name
    value = flat(taskMap={"a": "b"}, approverMap={"1": "x"}, elementMap=None, extrasJson="theirs", **unknown)

    assert json.loads(value["extrasJson"]) == {
        "taskMap": {"a": "b"},
        "approverMap": {"1": "x"},
        **unknown,
        "extrasJson": "theirs",
    }
    assert flat()["extrasJson"] is None


def test_a_text_holds_no_character_that_databases_refuse_and_what_was_sent_is_in_the_json():
    value = flat(comment="a\0b", instanceId="i\0", approverMap={"1\0": "x\0"})

    assert (value["comment"], value["instanceId"]) == ("a\ufffdb", "i\ufffd")
    assert (value["approverIds"], value["approverNames"]) == (["1\ufffd"], ["x\ufffd"])
    assert json.loads(value["extrasJson"]) == {"comment": "a\0b", "instanceId": "i\0", "approverMap": {"1\0": "x\0"}}


# --- a schema that the encoding does not fit stops the start ---


def changed(name, old, new):
    text = load(name).text
    assert text.count(old) == 1
    return parse_schema(text.replace(old, new))


def test_every_record_type_lacks_what_only_the_other_message_has():
    assert record_type(WORKFLOW_EVENT).lacking == ()
    for name in (INSTANCE_EVENT, TASK_EVENT):
        lacking = record_type(name).lacking
        assert set(lacking) == set(kinds(load(WORKFLOW_EVENT))) - set(kinds(load(name)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name":"comment","type":["null","string"]', '"name":"comment","type":["null","int"]'),
        ('"name":"comment"', '"name":"remark"'),
        ('"name":"extras"', '"name":"more","type":["null","string"]},{"name":"extras"'),
        ('"name":"source"', '"name":"origin"'),
    ],
)
def test_a_record_whose_fields_are_not_some_of_the_workflow_event_s_is_a_configuration_error(old, new):
    with pytest.raises(ConfigurationError, match=f"schema {TASK_EVENT}: its fields are not some of {WORKFLOW_EVENT}'s"):
        RecordType(changed(TASK_EVENT, old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"name":"actionKey"', '"name":"key"'),
        ('"name":"comment","type":["null","string"]', '"name":"comment","type":["null","int"]'),
        ('"name":"fingerprint","type":"string"', '"name":"fingerprint","type":["null","string"]'),
        ('"name":"source"', '"name":"more","type":["null","string"]},{"name":"source"'),
    ],
)
def test_a_flat_record_with_other_columns_is_a_configuration_error(old, new):
    with pytest.raises(ConfigurationError, match=f"schema {FLAT_EVENT}: its columns are not"):
        FlatType(changed(FLAT_EVENT, old, new))


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("comment", '"comment","type":["null","string"],"default":null', '"comment","type":["string","null"]'),
        ("comment", '"comment","type":["null","string"],"default":null', '"comment","type":"string"'),
        ("comment", '"name":"comment","type":["null","string"]', '"name":"comment","type":["null","string","int"]'),
        ("msgType", '"name":"msgType","type":"string"', '"name":"msgType","type":["null","string"]'),
        ("isCcTask", '"name":"isCcTask","type":["null","boolean"]', '"name":"isCcTask","type":["null","double"]'),
    ],
)
def test_a_field_of_a_type_without_an_encoding_is_a_configuration_error_that_names_it(field, old, new):
    with pytest.raises(ConfigurationError, match=rf"^schema .*\b{field}\b.*"):
        records._check_types(changed(WORKFLOW_EVENT, old, new))
