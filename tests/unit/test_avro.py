"""What the primitives of Avro's binary encoding write is, byte for byte, what fastavro writes."""

import io

import pytest
from fastavro import schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from connector.message import avro

text = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["", "x" * 63, "x" * 64, "同" * 5_000])
longs = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [-65, -64, 4_095, 4_096, 2**27 - 1, 2**27, 2**34, 2**41 - 1, 2**41, 1_772_415_000_123]
)
maps = st.dictionaries(text, text, max_size=3)
MAP = {"type": "map", "values": "string"}


def by_fastavro(schema, value):
    out = io.BytesIO()
    schemaless_writer(out, schema, value, strict=True, disable_tuple_notation=True)
    return out.getvalue()


@given(number=longs)
@example(0)
@example(-1)
@example(-(2**63))
def test_a_number_is_fastavros(number):
    assert avro.varint(number) == avro.NUMBER[number] == by_fastavro("long", number)
    assert avro.NULLABLE_NUMBER[number] == by_fastavro(["null", "long"], number)


def test_every_small_number_is_fastavros():
    for number in range(-70, 5_000):
        assert avro.NUMBER[number] == by_fastavro("int", number)
        assert avro.NULLABLE_NUMBER[number] == by_fastavro(["null", "int"], number)


@given(number=st.integers(2**27 - 1, 2**41))
def test_a_time_in_milliseconds_is_fastavros(number):
    assert avro.NUMBER[number] == by_fastavro("long", number)


@pytest.mark.parametrize("truth", [True, False])
def test_a_boolean_is_fastavros(truth):
    assert avro.NULLABLE_BOOLEAN[truth] == by_fastavro(["null", "boolean"], truth)


def test_a_null_is_fastavros():
    assert by_fastavro(["null", "string"], None) == avro.NULL


@given(value=text)
def test_a_text_is_fastavros(value):
    assert avro.encode_text(value) == by_fastavro("string", value)


@given(value=maps)
def test_a_map_is_fastavros(value):
    assert avro.encode_map(value) == by_fastavro(MAP, value)


@given(value=st.lists(maps, max_size=3))
def test_an_array_of_maps_is_fastavros(value):
    assert avro.encode_nullable_maps(value) == by_fastavro(["null", {"type": "array", "items": MAP}], value)


@pytest.mark.parametrize("value", [["a"], [None], [{"a": 1}], [{"a": None}], [{"a": "b"}, 1], [{"a": {}}], [{"a": []}]])
def test_maps_of_what_is_no_text_are_an_error(value):
    with pytest.raises(AttributeError):
        avro.encode_nullable_maps(value)


@pytest.mark.parametrize("encode", [avro.encode_text, lambda half: avro.encode_map({half: ""})])
def test_half_of_a_surrogate_pair_has_no_bytes(encode):
    for _ in range(2):  # nothing of it is remembered
        with pytest.raises(UnicodeEncodeError):
            encode("\ud800")


def test_keys_are_remembered_up_to_a_bound_and_encoded_the_same_beyond_it():
    for number in range(5_000):
        for key in (f"key-{number}", f"key-{number % 7}", "k" * number):
            assert avro.encode_map({key: "v"}) == by_fastavro(MAP, {key: "v"})

    assert len(avro._KEY) <= avro._MAX_CACHED_KEYS
    assert max(map(len, avro._KEY.values())) <= avro._MAX_CACHED_KEY_BYTES


def test_keys_that_came_once_do_not_keep_out_those_in_use():
    for number in range(2 * avro._MAX_CACHED_KEYS):
        avro.encode_map({f"once-{number}": "v"})
    avro.encode_map({"often": "v"})

    assert "often" in avro._KEY
