"""The bytes of a request become one message, its fingerprint, and the tokens of its fields."""

import json
import time

import pytest

from connector.errors import EmptyBody, Unconvertible, Unreadable
from connector.message.parsing import MAX_NESTING, MAX_TEXT_CHARS, MAX_VALUES, BodyKind, is_overflow, load_json, parse

FIELDS = {"msgType": "Task", "instanceId": "i-1", "action": 2}
BARE = json.dumps(FIELDS)


def read(body, kind=BodyKind.JSON):
    return parse(body if isinstance(body, bytes) else body.encode(), kind)


def code_of(body, kind=BodyKind.JSON):
    with pytest.raises(Unreadable) as caught:
        read(body, kind)
    return caught.value.code


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (BARE, BodyKind.JSON),
        (json.dumps({"msgContext": FIELDS}), BodyKind.JSON),
        (json.dumps({"msgContext": BARE}), BodyKind.JSON),
        (json.dumps({"msgContext": json.dumps(BARE)}), BodyKind.JSON),
        (json.dumps(BARE), BodyKind.JSON),
        (f"msgContext={BARE}", BodyKind.FORM),
        (f"x=1&msgContext={BARE}", BodyKind.QUERY),
        (f"msgContext=old&msgContext={BARE}", BodyKind.FORM),
        (f"msgContext={json.dumps(BARE)}", BodyKind.FORM),
    ],
)
def test_every_shape_holds_the_same_message(body, kind):
    message = read(body, kind)

    assert message.fields == FIELDS
    assert message.fingerprint == read(BARE).fingerprint
    assert message.raw_json("action") == "2"


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"])
@pytest.mark.parametrize("kind", list(BodyKind))
def test_nothing_at_all_is_an_empty_body(body, kind):
    with pytest.raises(EmptyBody):
        read(body, kind)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (40002, b'{"msgType":"\xff"}'),
        (40003, b"{"),
        (40003, b"{NaN}"),
        (40003, b'{"a":-Infinity}'),
        (40004, b"[]"),
        (40004, b"{}"),
        (40004, b'{"msgContext":1}'),
        (40004, b'{"msgContext":" "}'),
        (40005, b'{"a":' + b"[" * MAX_NESTING + b"]" * MAX_NESTING + b"}"),
        (40006, b'{"msgId":' + b"9" * 4301 + b"}"),
        (40007, b'{"msgId":1,"a":[' + b"0," * MAX_VALUES + b"0]}"),
        (40007, b'{"msgId":"' + b"x" * (MAX_TEXT_CHARS + 1) + b'"}'),
        (40007, b'{"msgId":1,"a":[{"' + b"x" * (MAX_TEXT_CHARS + 1) + b'":1}]}'),
    ],
)
def test_each_way_of_being_unreadable_has_its_code(code, body):
    assert code_of(body) == code


@pytest.mark.parametrize(("code", "body"), [(40001, "a=1&" * 1001), (40002, "msgContext=%ff"), (40004, "a=1")])
@pytest.mark.parametrize("kind", [BodyKind.FORM, BodyKind.QUERY])
def test_each_way_of_being_an_unreadable_form_has_its_code(code, body, kind):
    assert code_of(body, kind) == code


def test_an_error_of_syntax_names_the_place():
    with pytest.raises(Unreadable, match="line 2, column 3"):
        read('{"msgId":1,\n  x}')


def test_the_fingerprint_is_of_the_message_and_not_of_how_it_was_written():
    same = ['{"msgId":"1","a":[1,2]}', '{ "a": [1, 2], "msgId": "\\u0031" }', '{"msgContext":{"a":[1,2],"msgId":"1"}}']
    other = ['{"msgId":"1","a":[2,1]}', '{"msgId":1,"a":[1,2]}', '{"msgId":"1","a":[1.0,2]}']

    assert len({read(body).fingerprint for body in same}) == 1
    assert len({read(body).fingerprint for body in [*same, *other]}) == 4
    assert len(read(same[0]).fingerprint) == 16


def test_the_fingerprint_of_a_lone_surrogate_differs_from_that_of_another():
    one, other = read('{"msgId":"\\ud800"}'), read('{"msgId":"\\ud801"}')

    assert one.fingerprint != other.fingerprint


def test_half_of_a_surrogate_pair_is_reported_and_a_whole_one_is_text():
    with pytest.raises(Unconvertible) as caught:
        read('{"msgId":"\\ud800"}').check_text()

    assert caught.value.code == 42205
    read('{"msgId":"\\ud83d\\ude42"}').check_text()


@pytest.mark.parametrize(
    "written", ["1.10", "1E+2", '"\\u0041"', "[ 1,\t2 ]", '{"b": 1, "a": null}', "null", "-0", "1e999"]
)
@pytest.mark.parametrize("shape", ['{"msgId":"1","x":%s}', '{"msgContext": {"msgId":"1","x": %s }}'])
def test_a_token_is_what_was_written(written, shape):
    assert read(shape % written).raw_json("x") == written


@pytest.mark.parametrize("body", ['{"msgId":1,"x":"\\ud800"}', '{"x":"\\ud800","msgContext":{"msgId":1}}'])
def test_a_message_with_a_lone_surrogate_has_no_tokens(body):
    with pytest.raises(Unconvertible):
        read(body).raw_json("msgId")


def test_of_equal_names_the_last_wins_as_a_value_and_as_a_token():
    message = read('{"msgId":"1","x":1,"x":2.0}')

    assert message.fields["x"] == 2.0
    assert message.raw_json("x") == "2.0"


@pytest.mark.parametrize("text", ["[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, "[" * 1_000_000, "[{" * 50_000])
def test_deep_nesting_is_unreadable(text):
    with pytest.raises(Unreadable) as caught:
        load_json(text)

    assert caught.value.code == 40005


@pytest.mark.parametrize(
    "text", ["[" * 64 + "]" * 64, json.dumps("[" * 1000), json.dumps(['"[{' * 100]), json.dumps([[[]]] * 1000)]
)
def test_brackets_in_text_and_side_by_side_are_no_nesting(text):
    assert load_json(text) == json.loads(text)


@pytest.mark.parametrize("text", ['"' + '\\"' * 250_000, '"' * 500_000, '"\\' * 250_000, '"' + "\\" * 500_001])
def test_the_time_to_measure_nesting_grows_with_the_length_and_no_faster(text):
    started = time.perf_counter()
    with pytest.raises(Unreadable):
        load_json("[{}" * 40 + "{}" * 40 + text)

    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("value", [1e308, -1e308, 10**308, True, None, "1e999", [{"a": [0]}]])
def test_a_value_without_a_number_past_double_range_overflows_not(value):
    assert not is_overflow(value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 10**309, -(10**309), [1, {"a": [float("inf")]}]])
def test_a_number_past_double_range_overflows_however_deep(value):
    assert is_overflow(value)


def with_values(count):
    """A message of so many members and elements."""
    fields = {"msgType": "Task", "instanceId": "i-1"} | ({} if count % 2 else {"comment": ""})
    persons = [{"id": "1"}] * ((count - len(fields) - 1) // 2)
    return json.dumps(fields | {"ccUserMap": persons}, separators=(",", ":"))


@pytest.mark.parametrize("shape", ["%s", '{"msgContext":%s}'])
@pytest.mark.parametrize("over", [0, 1])
def test_members_and_elements_are_counted_to_the_last_one(shape, over):
    body = (shape % with_values(MAX_VALUES + over - (shape != "%s"))).encode()

    if over:
        assert code_of(body) == 40007
    else:
        assert read(body).fields["instanceId"] == "i-1"


@pytest.mark.parametrize("escaped", [json.dumps, lambda text: json.dumps(text).replace(",", "\\u002c")])
def test_members_and_elements_in_the_text_of_an_envelope_are_counted(escaped):
    most = json.dumps({"msgContext": "%s"}).replace('"%s"', escaped(with_values(MAX_VALUES))).encode()
    over = json.dumps({"msgContext": "%s"}).replace('"%s"', escaped(with_values(MAX_VALUES + 1))).encode()

    assert read(most).fields["instanceId"] == "i-1"
    assert code_of(over) == 40007


def test_commas_and_brackets_in_text_are_no_members_and_no_elements():
    text = ",[{" * MAX_VALUES

    assert read(json.dumps({"msgId": text})).fields["msgId"] == text


@pytest.mark.parametrize("shape", [lambda text: text, lambda text: json.dumps({"msgContext": text})])
def test_an_envelope_may_be_longer_than_a_text_in_it(shape):
    text = "x" * MAX_TEXT_CHARS
    body = shape(json.dumps({"msgType": "Task", "instanceId": "i-1", "comment": text})).encode()

    assert read(body).fields["comment"] == text
