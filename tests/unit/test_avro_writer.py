"""What the writers made of our schemas write is, byte for byte, what fastavro writes."""

import io

import pytest
from fastavro import schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from connector.errors import ConfigurationError
from connector.message.avro import varint, writer
from connector.message.schemas import ALL, WORKFLOW_EVENT, kinds, load, parse

text = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["", "x" * 63, "x" * 64, "同" * 5_000])
ints = st.integers(-(2**31), 2**31 - 1)
longs = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [2**27 - 1, 2**27, 2**34, 2**41 - 1, 2**41, 1_772_415_000_123]
)
maps = st.dictionaries(text, text, max_size=3)
VALUES = {
    "string": text,
    "int": ints,
    "boolean": st.booleans(),
    "date": longs,
    "maps": st.lists(maps, max_size=3),
}
OWN = {"instanceId": text, "msgType": text, "source": text, "receivedAt": longs, "ingestId": text, "extras": maps}


def by_fastavro(schema, value):
    out = io.BytesIO()
    schemaless_writer(out, schema.parsed, value, strict=True, disable_tuple_notation=True)
    return out.getvalue()


@given(data=st.data())
@pytest.mark.parametrize("name", ALL)
def test_the_bytes_are_fastavros(name, data):
    schema = load(name)
    fields = {field: st.none() | VALUES[kind] for field, kind in kinds(schema).items()}
    value = data.draw(st.fixed_dictionaries(fields | OWN))

    assert by_fastavro(schema, value) == writer(schema)(b"", value)


@given(number=longs)
@example(0)
@example(-1)
@example(-(2**63))
def test_a_number_is_fastavros(number):
    out = io.BytesIO()
    schemaless_writer(out, "long", number)

    assert out.getvalue() == varint(number)


def test_a_type_without_a_template_is_told_when_the_writer_is_made():
    changed = load(WORKFLOW_EVENT).text.replace('["null","boolean"]', '["null","double"]')

    with pytest.raises(ConfigurationError, match="isCcTask"):
        writer(parse(changed))
