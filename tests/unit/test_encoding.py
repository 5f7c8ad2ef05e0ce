"""What is encoded is what any reader of Avro decodes, and what is no record is unreadable."""

import io
from datetime import UTC, datetime

import avro.io
import avro.schema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.errors import Unreadable
from connector.message import schemas
from connector.message.encoding import CONTENT_TYPE, RegistryFraming, SingleObjectFraming, decode
from connector.message.schemas import ALL, INSTANCE_EVENT, TASK_EVENT, WEDA_SCHEMAS, load
from connector.testing import encode

TIMES = {name: {field for field, kind in schemas.kinds(load(name)).items() if kind == "date"} for name in WEDA_SCHEMAS}

text = st.text(st.characters(exclude_categories=["Cs"]))
milliseconds = st.integers(0, 253_402_300_799_999)
VALUES = {
    "string": text,
    "int": st.integers(-(2**31), 2**31 - 1),
    "boolean": st.booleans(),
    "date": milliseconds,
    "maps": st.lists(st.dictionaries(text, text, max_size=3), max_size=3),
}
OWN_VALUES = {
    "source": text,
    "receivedAt": milliseconds,
    "ingestId": text,
    "extras": st.dictionaries(text, text, max_size=3),
}


def record_values(name):
    fields = {field: st.none() | VALUES[kind] for field, kind in schemas.kinds(load(name)).items()}
    return st.fixed_dictionaries(fields | {"instanceId": text, "msgType": text} | OWN_VALUES)


def record(name, **changes):
    value = dict.fromkeys(load(name).fields)
    value |= {
        "instanceId": "i-1",
        "msgType": "Task",
        "source": "default",
        "receivedAt": 1,
        "ingestId": "x",
        "extras": {},
    }
    return value | changes


def apache_decode(name, data):
    decoder = avro.io.BinaryDecoder(io.BytesIO(data[10:]))
    value = avro.io.DatumReader(avro.schema.parse(load(name).text)).read(decoder)
    assert decoder.reader.read() == b""
    for field in TIMES[name] | {"receivedAt"}:
        value[field] = epoch_milliseconds(value[field])
    return value


def epoch_milliseconds(moment):
    if moment is None:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


@given(data=st.data())
@pytest.mark.parametrize("name", WEDA_SCHEMAS)
def test_apaches_reader_and_ours_decode_what_was_encoded(name, data):
    value = data.draw(record_values(name))

    encoded = encode(load(name), value)

    assert value == apache_decode(name, encoded)
    assert value == decode(encoded)


def test_the_header_is_the_magic_and_the_fingerprint_in_little_endian():
    encoded = encode(load(TASK_EVENT), record(TASK_EVENT))

    assert b"\xc3\x01" + load(TASK_EVENT).fingerprint == encoded[:10]
    assert encoded[:10] == SingleObjectFraming().header("t", load(TASK_EVENT))


def test_the_bytes_are_those_of_the_specification():
    encoded = encode(load(INSTANCE_EVENT), record(INSTANCE_EVENT, action=1, instanceId="i"))

    assert encoded[10:20] == b"\x02i\x08Task" + b"\x00" + b"\x02\x02"


def test_the_media_type_is_avros():
    assert CONTENT_TYPE == "application/avro"


def test_times_are_epoch_milliseconds_on_both_ways():
    value = record(TASK_EVENT, taskStartTime=1772415000123)

    assert decode(encode(load(TASK_EVENT), value))["taskStartTime"] == 1772415000123


def test_a_registry_s_framing_is_a_zero_byte_and_the_id_of_the_topic_s_schema():
    framing = RegistryFraming({"a": 7, "b": 0x01020304})

    assert framing.header("a", load(TASK_EVENT)) == b"\x00\x00\x00\x00\x07"
    assert framing.header("b", load(TASK_EVENT)) == b"\x00\x01\x02\x03\x04"


def test_a_record_in_a_registry_s_framing_is_read_by_the_registry_s_schema():
    header = RegistryFraming({"t": 7}).header("t", load(TASK_EVENT))
    encoded = header + encode(load(TASK_EVENT), record(TASK_EVENT))[10:]

    assert decode(encoded, {7: load(TASK_EVENT)}.__getitem__) == record(TASK_EVENT)
    with pytest.raises(Unreadable, match="WEDA_REGISTRY__URL"):
        decode(encoded)


@pytest.mark.parametrize("data", [b"", b"\xc3", b"\xc3\x01", b"\xc3\x01" + bytes(7), b"\x00\x00\x00\x00", b"{}"])
def test_bytes_in_another_encoding_are_unreadable(data):
    with pytest.raises(Unreadable, match="single-object"):
        decode(data)


def test_a_schema_of_another_version_is_unreadable_and_named():
    with pytest.raises(Unreadable, match="0102030405060708"):
        decode(b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08")


def test_a_record_cut_short_anywhere_is_unreadable():
    encoded = encode(load(TASK_EVENT), record(TASK_EVENT, taskMap=[{"a": "b"}], action=300))

    for length in range(10, len(encoded)):
        with pytest.raises(Unreadable):
            decode(encoded[:length])


def test_a_record_with_more_behind_it_is_unreadable():
    with pytest.raises(Unreadable, match="go on"):
        decode(encode(load(TASK_EVENT), record(TASK_EVENT)) + b"\x00")


@given(body=st.binary(max_size=200))
@example(body=b"\xff" * 20)
@example(body=b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@pytest.mark.parametrize("name", ALL)
def test_any_bytes_are_a_record_or_unreadable(name, body):
    try:
        value = decode(b"\xc3\x01" + load(name).fingerprint + body)
    except Unreadable:
        return
    assert load(name).fields == tuple(value)
