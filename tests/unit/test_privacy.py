"""What is to stay out of the topics stays out, by whatever way it came, and equal texts stay equal."""

import json
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import EmptyBody, Unconvertible, Unreadable
from connector.message.events import convert
from connector.message.headers import headers
from connector.message.parsing import BodyKind, parse
from connector.message.redact import Redaction
from connector.message.schemas import FLAT_EVENT, INSTANCE_EVENT, TASK_EVENT, WORKFLOW_EVENT, load
from connector.testing import record_value
from connector.values import IngestId, Request

KEY = "a-key-of-pseudonyms"
SECRET = "张伟"
REQUEST = Request("default", b"", "", 1_772_415_000_000)
BASE = {"msgType": "Task", "instanceId": "i-1", "msgId": "m-1"}


def privacy(redact=(), pseudonyms=(), key=KEY):
    return Redaction(redact, pseudonyms, key)


def published(body, kind=BodyKind.JSON, *, by):
    """Everything that consumers see of a message: its records' values, key and headers."""
    event = convert(by.apply(parse(body, kind)), ZoneInfo("Asia/Shanghai"))
    values = [
        record_value(event, load(name), REQUEST, IngestId("0195-x"))
        for name in (WORKFLOW_EVENT, TASK_EVENT if event.message_type == "Task" else INSTANCE_EVENT)
    ]
    return event, values, headers(event, REQUEST, IngestId("0195-x"))


def envelope(fields):
    return json.dumps({"msgContext": json.dumps(fields)}).encode()


@pytest.mark.parametrize("shape", ["text", "object", "bare", "form", "query"])
@pytest.mark.parametrize("way", ["redact", "pseudonyms"])
@pytest.mark.parametrize(
    "fields",
    [
        {"comment": SECRET},
        {"flowTitle": SECRET},
        {"ownName": SECRET},
        {"ownName": {"deep": [SECRET, {SECRET: 1}]}},
        {"approverMap": {"u-1": SECRET}},
        {"approverMap": [{SECRET: "x"}, None]},
        {"approverMap": json.dumps({"u-1": SECRET}, ensure_ascii=False)},
        {"approverMap": json.dumps({"u-1": SECRET})},
        {"comment": SECRET, "msgType": "Instance"},
    ],
    ids=str,
)
def test_nothing_of_the_field_is_published(shape, way, fields):
    message = BASE | fields
    text = json.dumps(message)
    body, kind = {
        "text": (envelope(message), BodyKind.JSON),
        "object": (json.dumps({"msgContext": message}).encode(), BodyKind.JSON),
        "bare": (text.encode(), BodyKind.JSON),
        "form": (f"msgContext={quote(text)}".encode(), BodyKind.FORM),
        "query": (f"msgContext={quote(text)}".encode(), BodyKind.QUERY),
    }[shape]
    names = [name for name in fields if name != "msgType"]
    event, values, record = published(body, kind, by=privacy(**{way: names}))

    assert SECRET not in str(values)
    assert json.dumps(SECRET).strip('"') not in str(values)
    assert event.fingerprint != parse(body, kind).fingerprint
    assert (values[0]["instanceId"], values[0]["msgId"]) == ("i-1", "m-1")
    assert dict(record)["weda.fingerprint"] == event.fingerprint.hex().encode()


def test_what_is_redacted_is_as_if_it_was_not_sent():
    _, (redacted, _), _ = published(envelope(BASE | {"comment": SECRET, "own": 1}), by=privacy(["comment", "own"]))
    _, (without, _), _ = published(envelope(BASE), by=privacy(["comment", "own"]))

    assert redacted == without


def test_what_is_not_named_is_as_it_was_sent():
    fields = BASE | {"action": "2", "startTime": "2026-03-02 09:30:00", "own": 1.50, "flowTitle": "请假"}
    body = json.dumps({"msgContext": fields}).replace("1.5", "1.50").encode()
    _, (value, _), _ = published(body, by=privacy(["comment"]))
    plain = record_value(
        convert(parse(body, BodyKind.JSON), ZoneInfo("Asia/Shanghai")),
        load(WORKFLOW_EVENT),
        REQUEST,
        IngestId("0195-x"),
    )

    assert value == plain
    assert value["extras"] == {"own": "1.50"}


@pytest.mark.parametrize("shape", [{SECRET: "李四"}, [{"userId": SECRET, "userName": "李四"}]], ids=["map", "list"])
def test_a_person_is_the_same_pseudonym_in_either_shape(shape):
    by = privacy(pseudonyms=["approverMap"])
    event = convert(by.apply(parse(envelope(BASE | {"approverMap": shape}), BodyKind.JSON)), ZoneInfo("UTC"))
    value = record_value(event, load(FLAT_EVENT), REQUEST, IngestId("0195-x"))

    assert (value["approverIds"], value["approverNames"]) == ([by.pseudonym(SECRET)], [by.pseudonym("李四")])
    assert SECRET not in str(value)


def test_the_same_text_has_the_same_pseudonym_in_every_field():
    by = privacy(pseudonyms=["flowTitle", "approverMap", "own"])
    _, (value, _), _ = published(
        envelope(BASE | {"flowTitle": SECRET, "approverMap": {"u": SECRET}, "own": SECRET}), by=by
    )
    pseudonym = by.pseudonym(SECRET)

    assert value["flowTitle"] == pseudonym
    assert value["approverMap"] == [{by.pseudonym("u"): pseudonym}]
    assert value["extras"]["own"] == json.dumps(pseudonym)
    assert len(pseudonym) == 42
    assert pseudonym.startswith("~")


def test_another_key_makes_other_pseudonyms_and_says_which_made_one():
    by = privacy(pseudonyms=["flowTitle"])
    first = by.pseudonym(SECRET)
    by.replace_key("another-key-of-pseudonyms")
    second = by.pseudonym(SECRET)

    assert first.partition(".")[0] != second.partition(".")[0]
    assert first.partition(".")[2] != second.partition(".")[2]


def test_the_key_of_the_records_may_be_a_pseudonym():
    by = privacy(pseudonyms=["instanceId", "msgId"])
    event, (value, _), record = published(envelope(BASE), by=by)

    assert event.instance_id == value["instanceId"] == by.pseudonym("i-1")
    assert dict(record)["ce_subject"] == by.pseudonym("i-1").encode()
    assert dict(record)["ce_id"] == by.pseudonym("m-1").encode()


@pytest.mark.parametrize("value", [None, "", "  "])
def test_what_says_nothing_stays(value):
    _, (record, _), _ = published(envelope(BASE | {"flowTitle": value}), by=privacy(pseudonyms=["flowTitle"]))

    assert record["flowTitle"] == (value if value != "  " else privacy().pseudonym("  "))


def test_half_of_a_surrogate_pair_in_json_text_of_maps_is_no_defect():
    """Found by the fuzzer, as the next is."""
    _, (record, _), _ = published(
        envelope(BASE | {"approverMap": r'{"\ud83d": "x"}'}), by=privacy(pseudonyms=["approverMap"])
    )

    assert len(record["approverMap"]) == 1


def test_half_of_a_surrogate_pair_is_refused_as_without():
    with pytest.raises(Unconvertible):
        privacy(pseudonyms=["msgId"]).apply(parse(rb'{"msgId":"\ud83d"}', BodyKind.JSON))


@pytest.mark.parametrize(("body", "error"), [(b"", EmptyBody), (b"{", Unreadable), (b"[]", Unreadable)])
def test_what_is_no_message_is_refused_as_without(body, error):
    with pytest.raises(error):
        privacy(["comment"]).apply(parse(body, BodyKind.JSON))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["flowTitle", "own", "other", "comment"]), values))
def test_every_other_field_survives_whatever_is_taken_out(fields):
    kept = privacy(["comment"], ["flowTitle"]).apply(parse(envelope(BASE | fields), BodyKind.JSON)).fields

    assert {name: kept.get(name) for name in ("own", "other")} == {name: fields.get(name) for name in ("own", "other")}
    assert "comment" not in kept
