"""Dead letters by reason: the same mistake in two bodies is one, and each reason says what to do."""

import pytest

from connector.errors import Unreadable
from connector.intake.dead_letters import kind_of, position_in_body, without_position
from connector.message.parsing import BodyKind, parse

BODIES = [b"{", b'{"msgContext": x}', b'{"msgContext": {"a": 1,}}', b'{\n  "msgContext": "{"msgId": 1}"}', b"[1] 2"]
OLDER = [
    "the text is not JSON (line 1, column 17): Expecting value",
    "the text is not JSON (line 3, column 2): Expecting ',' delimiter",
]


def reason(body: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        parse(body, BodyKind.JSON)
    assert caught.value.code == 40003
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [
        (b"msgContext=%7B%7D", "", BodyKind.QUERY),
        (b"_=1&msgContext=%7B%7D", "", BodyKind.QUERY),
        (b"&a&msgContext=%7B%7D", "", BodyKind.QUERY),
        (b'{"a": "&msgContext="}', "", BodyKind.JSON),
        (b'"&msgContext="', "", BodyKind.JSON),
        (b"_=1", "", BodyKind.JSON),
        (b"msgContext=%7B%7D", "application/x-www-form-urlencoded", BodyKind.FORM),
    ],
)
def test_a_query_string_that_was_kept_is_read_as_one_again(body, content_type, kind):
    assert kind_of(body, content_type) is kind


def test_one_mistake_is_one_reason_that_says_what_to_do():
    reasons = [reason(body) for body in BODIES]

    assert len(set(reasons)) == len({position_in_body(one) for one in reasons}) == len(BODIES)
    [reported] = {without_position(one) for one in reasons}
    assert reported.endswith(
        'make the body {"msgContext": {{params.msgContext}}}, the placeholder without quotes around it'
    )
    assert position_in_body(reasons[0]).startswith("line 1, column 2: Expecting")


def test_reasons_of_earlier_releases_are_gathered_too():
    assert {without_position(one) for one in OLDER} == {"the text is not JSON"}
    assert position_in_body(OLDER[0]) == "line 1, column 17"


def test_a_byte_is_a_position_too():
    with pytest.raises(Unreadable) as caught:
        parse(b'{"a": "\xff"}', BodyKind.JSON)

    assert position_in_body(caught.value.message) == "byte 7"
    assert "byte" not in without_position(caught.value.message)
