"""What the console shows of a body: readable where that is cheap, whatever a source has sent."""

import json

import pytest

from connector.operations.formats import formatted

MOST = 100_000
MESSAGE = {"msgType": "Task", "instanceId": "i-1", "comment": "同意"}


@pytest.mark.parametrize(
    "body",
    [json.dumps({"msgContext": MESSAGE}), json.dumps({"msgContext": json.dumps(MESSAGE)}), "\ufeff{}"],
    ids=["an object", "JSON text", "a byte order mark"],
)
def test_a_body_is_shown_as_people_read_it(body):
    shown = formatted(body.encode(), MOST)

    assert shown.startswith("{")
    assert ("同意" in shown) == ("msgContext" in body)


@pytest.mark.parametrize("depth", [65, 890, 100_000])
@pytest.mark.parametrize("is_within", [False, True])
def test_a_body_that_would_grow_without_bound_is_not_indented(depth, is_within):
    """Half a megabyte on 890 levels became a page of 446 MB, which took 16 seconds and 1.6 GB."""
    bomb = "[" * depth + "1," * ((524_000 - 2 * depth) // 2) + "1" + "]" * depth
    body = json.dumps({"msgContext": bomb}) if is_within else bomb

    assert formatted(body.encode(), MOST) == ""


@pytest.mark.parametrize("body", [b"\xff", b"{", b"[" + b"9" * 5_000 + b"]", b'{"msgContext":"{"}', b"NaN"])
def test_what_is_no_json_is_shown_as_it_arrived_alone(body):
    assert formatted(body, MOST) == ""


def test_what_may_be_sent_is_shown_up_to_a_bound():
    widest = "[" * 64 + "1," * 49_900 + "1" + "]" * 64

    assert 0 < len(formatted(widest.encode(), MOST)) <= MOST + 1
    assert "\\ud800" in formatted(b'{"comment":"\\ud800"}', MOST)
