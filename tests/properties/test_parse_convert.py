"""Whatever a source sends, parse and convert read it as the contract says or refuse it by an error of ours.

Apache's Avro library decodes the records that are compared with what was meant, and fastavro encodes what it decoded to
the same bytes: both are references that share no code with ours.
"""

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest import mock
from urllib.parse import quote
from zoneinfo import ZoneInfo

import avro.io
import avro.schema
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from connector.errors import EmptyBody, Unconvertible, Unreadable
from connector.message import parsing
from connector.message.encoding import SingleObjectFraming
from connector.message.events import convert, readable_instance_id
from connector.message.flat import MOMENTS
from connector.message.headers import headers
from connector.message.parsing import BodyKind, parse
from connector.message.schemas import (
    ALL,
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    WEDA_SCHEMAS,
    WORKFLOW_EVENT,
    codes,
    kinds,
    load,
)
from connector.message.weda import PERSON_FIELDS
from connector.simulator import Shape, render, runs
from connector.testing import encode
from connector.values import IngestId, Request

ZONE = ZoneInfo("Asia/Shanghai")
KINDS = kinds(load(WORKFLOW_EVENT))
REQUEST = Request("default", b"", "application/json", 1_772_415_000_000)
INGEST_ID = IngestId("0195-x")
APACHE = {name: avro.schema.parse(load(name).text) for name in ALL}
HEADER_BYTES = 10
LATEST = 253_402_300_799_999
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

fast = settings(max_examples=100)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
any_text = st.text(max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**30, 2**63])
too_large = st.sampled_from([10**400, -(10**400)])


def json_of(texts, numbers):
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )


any_json = json_of(any_text, numbers | too_large)
writable_json = json_of(text, numbers)
field_names = st.sampled_from([*KINDS, *CONNECTOR_FIELDS])
kinds_of_body = st.sampled_from(list(BodyKind))

PIECES = [
    *('{"', '"', "\\", ":", ",", "[", "]", "{", "}", '":"', '"}', '\\"', " ", "\ufeff", "\\u0000", "\\ud800"),
    *("1", "-", "e9", "e999", "9" * 400, "٣", "NaN", "null", "true", "msgContext", "msgType", "Task", "instanceId"),
]


def to_json(value, **options):
    """JSON text in UTF-8; a lone surrogate, which has no UTF-8 form, is escaped."""
    written = json.dumps(value, ensure_ascii=False, **options)
    try:
        return written.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options).encode()


def record_of(event, name):
    """What Apache's Avro library reads in a record of an event, times as epoch milliseconds."""
    schema = load(name)
    data = event.encode(schema, SingleObjectFraming().header("t", schema), REQUEST, INGEST_ID)
    value = apache_decode(name, data[HEADER_BYTES:])
    assert data == encode(schema, value)
    return value


def apache_decode(name, body):
    decoder = avro.io.BinaryDecoder(io.BytesIO(body))
    decoded = avro.io.DatumReader(APACHE[name]).read(decoder)
    assert decoder.reader.read() == b""
    for field, held in decoded.items():
        if isinstance(held, datetime):
            decoded[field] = (held - EPOCH) // timedelta(milliseconds=1)
    return decoded


def published(body, kind=BodyKind.JSON):
    """The record of ``WorkflowEvent`` as decoded; those of the other types are compared with it."""
    message = parse(body, kind)
    event = convert(message, ZONE)
    whole, *narrow = (record_of(event, name) for name in WEDA_SCHEMAS)
    for name, value in zip(WEDA_SCHEMAS[1:], narrow, strict=True):
        own = load(name).fields
        without_field = {field for field in KINDS if field not in own and message.fields.get(field) is not None}
        assert value["extras"] == whole["extras"] | {field: message.raw_json(field) for field in without_field}
        assert {**value, "extras": None} == {field: whole[field] for field in own} | {"extras": None}
    assert_flat(message, whole, record_of(event, FLAT_EVENT))
    assert event.fields == {name: whole[name] for name in KINDS}
    named = {"msgId": event.message_id, "processKey": event.process_key, "envType": event.environment}
    named |= {"action": event.action, "instanceId": event.instance_id, "msgType": event.message_type}
    assert named == {name: whole[name] for name in named}
    return whole


def assert_flat(message, whole, flat):
    """The record for tables says what the others do, without U+0000, and holds what has no column as it was sent."""
    scalars = {name: whole[name] for name, kind in KINDS.items() if kind != "maps"}
    nul = {name for name, value in scalars.items() if isinstance(value, str) and "\0" in value}
    expected = {name: value.replace("\0", "\ufffd") if name in nul else value for name, value in scalars.items()}
    assert expected == {name: flat[name] for name in scalars}
    maps = {name for name, kind in KINDS.items() if kind == "maps" and message.fields.get(name) is not None}
    kept = {name: message.raw_json(name) for name in (*maps, *nul)} | whole["extras"]
    assert json.loads(flat["extrasJson"] or "{}") == {name: json.loads(text) for name, text in kept.items()}
    assert (flat["extrasJson"] is None) == (not kept)
    moments = [whole[name] for name in MOMENTS if whole[name] is not None]
    assert flat["eventTime"] == (moments[0] if moments else None)
    assert flat["fingerprint"] == message.fingerprint.hex()
    for name, begin in PERSON_FIELDS.items():
        ids, names = flat[f"{begin}Ids"], flat[f"{begin}Names"]
        assert len(ids) == len(names)
        assert bool(whole[name]) or not ids


# --- nothing crashes ---


@fast
@given(body=st.binary(max_size=200), kind=kinds_of_body)
@example(body=b"\xef\xbb\xbf", kind=BodyKind.JSON)
@example(body=b"msgContext=%", kind=BodyKind.FORM)
@example(body=b'{"a":' + b"[" * 100 + b'"' + b'\\"' * 100_000, kind=BodyKind.JSON)
def test_no_bytes_crash_parse(body, kind):
    try:
        parse(body, kind)
    except (EmptyBody, Unreadable) as error:
        assert error.code // 100 == 400  # noqa: PT017 - what is not refused is fine too


@fast
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=25),
    kind=kinds_of_body,
)
def test_no_text_that_is_almost_json_crashes_parse(pieces, kind):
    body = "".join(pieces).encode()
    try:
        readable_instance_id(parse(body, kind))
    except (EmptyBody, Unreadable) as error:
        assert error.code // 100 == 400  # noqa: PT017 - what is not refused is fine too


@st.composite
def bodies(draw):
    """A message with an instance and a type, bare or in an envelope, its other values anything."""
    fields = draw(st.dictionaries(any_text, any_json, max_size=3) | st.just({}))
    fields |= draw(st.dictionaries(field_names, any_json, max_size=6))
    fields |= {
        "msgType": draw(st.sampled_from(["Task", "instance"])),
        "instanceId": draw(any_text | numbers | too_large),
    }
    beside = draw(st.none() | st.dictionaries(any_text, any_json, max_size=1))
    return to_json(fields if beside is None else {**beside, "msgContext": fields})


def is_utf8(fields):
    """Whether no text in it holds half of a surrogate pair."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@fast
@given(body=bodies())
@example(body=b'{"msgType":"Task","instanceId":5,"x":"\\ud800"}')
@example(body=b'{"x":"\\ud800","msgContext":{"msgType":"Task","instanceId":5}}')
@example(body=b'{"x":"\\ud800","msgContext":{"msgType":"Task","instanceId":"i","y":1}}')
@example(body=b'{"msgType":"Task","instanceId":"i","taskMap":"{\\"a\\":\\"\\\\ud800\\",\\"b\\":1%s}"}' % (b"0" * 30))
@example(body=b'{"msgType":"Task","instanceId":"i","taskMap":"{\\"a\\":1%s}"}' % (b"0" * 400))
@example(body=b'{"msgType":"Task","instanceId":"i","taskMap":"{\\"a\\":1e999}"}')
@example(body=b'{"msgType":"task","instanceId":"i","x":{"\\ud800":[{}]}}')
def test_any_message_becomes_records_or_is_refused_by_an_error_of_ours(body):
    message = parse(body, BodyKind.JSON)
    try:
        published(body)
        headers(convert(message, ZONE), REQUEST, INGEST_ID)
    except (Unreadable, Unconvertible) as error:
        assert error.code // 100 in {400, 422}  # noqa: PT017 - what is not refused is fine too
        assert error.code == 42205 or is_utf8(message.fields)  # noqa: PT017 - it is the error that is raised first
        readable_instance_id(message)
    else:
        assert is_utf8(message.fields)


# --- what is published is what was sent ---


def as_int(number):
    return st.sampled_from([number, str(number), float(number), f" {number} ", f"{number}.0"])


def as_boolean(truth):
    return st.sampled_from(
        [truth, int(truth), str(int(truth)), str(truth), str(truth).upper(), f" {str(truth).lower()}"]
    )


FIRST_MIDNIGHT = datetime(1970, 1, 1)  # noqa: DTZ001 - in whichever zone
COMPACT = {"%Y%m%d": 8, "%Y%m%d%H%M": 12, "%Y%m%d%H%M%S": 14, "%Y%m%d%H%M%S%f": 17}


def as_date(milliseconds):
    """The forms in which a time can be sent; seconds only where they hold it, and no number that reads as a date."""
    moment = EPOCH + timedelta(milliseconds=milliseconds)
    forms = [moment.isoformat(), moment.isoformat().replace("+00:00", "Z"), moment.astimezone(ZONE).isoformat(" ")]
    local = moment.astimezone(ZONE).replace(tzinfo=None)
    if is_once(local, moment) and local != FIRST_MIDNIGHT:
        forms += [*calendar_forms(local), *compact_forms(local)]
    numbers = [milliseconds] if milliseconds >= 10**11 else []
    if milliseconds % 1000 == 0 and 0 < milliseconds // 1000 < 10**11:
        numbers.append(milliseconds // 1000)
    for number in numbers:
        if not reads_as_date(str(number)):
            forms += [number, str(number), float(number)]
    return st.sampled_from(forms)


def is_once(local, moment):
    """Whether the zone's clocks show a time once: not in the hour that summer time repeated."""
    return local.replace(tzinfo=ZONE, fold=0).astimezone(UTC) == moment


def calendar_forms(local):
    """A time as people and databases write it, without a zone."""
    day = f"{local.year:04}-{local.month}-{local.day}"
    time = f"{local.hour}:{local.minute:02}:{local.second:02}" + f".{local.microsecond // 1000:03}"
    forms = [local.isoformat(), local.isoformat(" "), f"{day} {time}", f"{day.replace('-', '/')} {time}"]
    forms += [f"{local:%Y/%m/%d}T{time.rjust(12, '0')}", f" {day}  {time} "]
    if not local.second and not local.microsecond:
        forms += [f"{day} {local.hour}:{local.minute}", f"{day.replace('-', '/')} {local:%H:%M}"]
    if local.time() == FIRST_MIDNIGHT.time():
        forms += [day, day.replace("-", "/"), f"{local:%Y-%m-%d}"]
    return forms if local.year >= 1000 else forms[:2]


def compact_forms(local):
    """Its digits alone, as text and as a number, where they say it whole."""
    if not 1970 <= local.year <= 2100:
        return []
    texts = [local.strftime(layout)[:length] for layout, length in COMPACT.items()]
    whole = [one for one in texts if one.ljust(17, "0") == texts[-1]]
    return [*whole, *map(int, whole), *(f" {one} " for one in whole)]


def reads_as_date(digits):
    """Whether digits are a calendar date of 1970 to 2100."""
    layout = next((layout for layout, length in COMPACT.items() if length == len(digits)), None)
    if layout is None:
        return False
    try:
        return 1970 <= datetime.strptime(digits, layout).year <= 2100  # noqa: DTZ007 - in whichever zone
    except ValueError:
        return False


def as_maps(maps):
    forms = [maps, [None, *maps], json.dumps(maps), f" {json.dumps(maps, ensure_ascii=False)} "]
    if len(maps) == 1 and maps[0]:
        forms += [maps[0], json.dumps(maps[0])]
    if not maps:
        forms += [{}, "{}"]
    return st.sampled_from(forms)


VALUES = {
    "string": (text, st.just),
    "int": (st.integers(-(2**31), 2**31 - 1), as_int),
    "boolean": (st.booleans(), as_boolean),
    "date": (
        st.integers(0, LATEST // 1000 - 86_400).map(lambda seconds: seconds * 1000)
        | st.integers(0, LATEST - 86_400_000),
        as_date,
    ),
    "maps": (st.lists(st.dictionaries(text, text, max_size=3), max_size=3), as_maps),
}


@st.composite
def sent_and_meant(draw, fields):
    """Values as a source may write them, and what they mean."""
    meant = {name: draw(st.none() | VALUES[kind][0], label=name) for name, kind in fields.items()}
    sent = {
        name: None if value is None else draw(VALUES[fields[name]][1](value), label=f"{name} as sent")
        for name, value in meant.items()
    }
    return sent, meant


SOME = {name: kind for name, kind in KINDS.items() if name not in {"msgType", "instanceId"}}
PER_KIND = {kind: [name for name, other in SOME.items() if other == kind] for kind in VALUES}


@st.composite
def some_fields(draw):
    return {draw(st.sampled_from(PER_KIND[kind]), label=kind): kind for kind in VALUES}


@fast
@given(
    both=some_fields().flatmap(sent_and_meant),
    kind=kinds_of_body,
    nested=st.sampled_from(["object", "text", "text of text"]),
    message_type=st.sampled_from(["Task", "Instance"]),
)
def test_every_field_is_read_by_apache_avro_as_it_was_meant(both, kind, nested, message_type):
    sent, meant = both
    fields = {**sent, "msgType": message_type.lower(), "instanceId": "i-1"}
    inner = json.dumps(fields, ensure_ascii=False)
    wrapped = {"object": fields, "text": inner, "text of text": json.dumps(inner)}[nested]
    as_form = f"a=1&msgContext={quote(json.dumps(inner) if nested == 'text of text' else inner)}"
    body = to_json({"msgContext": wrapped}) if kind is BodyKind.JSON else as_form.encode()
    decoded = published(body, kind)

    assert {name: decoded[name] for name in meant} == meant
    assert [name for name in SOME if name not in meant and decoded[name] is not None] == []
    assert decoded["extras"] == {}
    assert (decoded["msgType"], decoded["instanceId"]) == (message_type, "i-1")
    assert (decoded["source"], decoded["receivedAt"], decoded["ingestId"]) == ("default", 1_772_415_000_000, INGEST_ID)


@fast
@given(values=st.dictionaries(st.sampled_from(PER_KIND["string"]), writable_json, max_size=3))
def test_a_string_field_holds_text_as_sent_and_anything_else_as_its_json_text(values):
    body = to_json({**values, "msgType": "Task", "instanceId": "i-1"})
    decoded = published(body)

    for name, value in values.items():
        wanted = value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        assert decoded[name] == wanted


tokens = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
tokens |= writable_json.map(partial(json.dumps, ensure_ascii=False))


@fast
@given(
    unknown=st.dictionaries(text.filter(lambda name: name not in KINDS and name != "msgContext"), tokens, max_size=4),
    space=st.sampled_from(["", " ", "\n\t"]),
    shape=st.sampled_from(["bare", "object", "text"]),
)
@example({"x": "100000000000000000000000.10", "source": '"me"', "extras": "{}"}, "", "bare")
def test_an_unknown_field_is_in_extras_with_every_digit(unknown, space, shape):
    members = "".join(f",{space}{json.dumps(name)}{space}:{space}{token}" for name, token in unknown.items())
    inner = f'{{"msgType":"Task","instanceId":"i-1"{members}{space}}}'
    body = {"bare": inner, "object": f'{{"msgContext":{inner}}}', "text": json.dumps({"msgContext": inner})}[shape]
    decoded = published(body.encode())

    assert decoded["extras"] == unknown


@fast
@given(
    fields=st.dictionaries(any_text, any_json, max_size=5), spaces=st.sampled_from([None, 1]), enveloped=st.booleans()
)
def test_the_fingerprint_is_that_of_the_canonical_json(fields, spaces, enveloped):
    fields = {**fields, "msgId": "m-1"}
    assume("msgContext" not in fields)
    shown = dict(reversed(fields.items()))
    message = parse(to_json({"msgContext": shown} if enveloped else shown, indent=spaces), BodyKind.JSON)
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert message.fingerprint == hashlib.sha256(canonical.encode(errors="surrogatepass")).digest()[:16]


@fast
@given(values=st.lists(tokens, max_size=4))
@example(["1e999", "-1e999", "-0.0", "-0", "5e-324", "1e22", "1e16", "1E-5", "0.10", "1.0", "9" * 400])
def test_every_number_counts_for_the_fingerprint_as_the_standard_library_writes_it(values):
    body = f'{{"msgId":"m-1","x":[{",".join(values)}]}}'
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert parse(body.encode(), BodyKind.JSON).fingerprint == hashlib.sha256(canonical.encode()).digest()[:16]


# --- bounds ---


def values_in(value):
    """Members and elements, an empty object or list counted as one."""
    if isinstance(value, dict):
        value = list(value.values())
    return max(len(value), 1) + sum(map(values_in, value)) if isinstance(value, list) else 0


@fast
@given(
    value=json_of(any_text | st.sampled_from([',"[{', '\\",']), numbers), most=st.integers(0, 12), nested=st.booleans()
)
def test_a_document_is_refused_where_it_has_more_members_and_elements_than_may_be(value, most, nested):
    written = to_json({"msgContext": json.dumps(value)} if nested else value).decode()
    with mock.patch.object(parsing, "MAX_VALUES", most):
        if values_in(json.loads(written)) <= most:
            assert parsing.load_json(written) == json.loads(written)
        else:
            with pytest.raises(Unreadable, match=f"more than {most} members and elements"):
                parsing.load_json(written)


# --- dates ---


def date_of(value):
    return published(to_json({"msgType": "Task", "instanceId": "i", "startTime": value}))["startTime"]


@fast
@given(seconds=st.integers(1, 4_133_894_400 - 86_400 - 8 * 3600), data=st.data())
def test_every_spelling_of_a_moment_is_that_moment(seconds, data):
    """From 1970 to 2100: digits of a date, numbers of one digit, slashes, epoch numbers."""
    milliseconds = seconds * 1000 if data.draw(st.booleans()) else seconds // 60 * 60_000

    if milliseconds:
        assert date_of(data.draw(as_date(milliseconds))) == milliseconds


@fast
@given(digits=st.integers(10**7, 10**17).map(str) | st.integers(19_700_101, 21_001_231).map(str), text=st.booleans())
def test_digits_are_a_calendar_date_or_the_number_that_they_are(digits, text):
    if reads_as_date(digits):
        assume(not digits.startswith("19700101"))
        moment = datetime.strptime(digits, next(each for each, length in COMPACT.items() if length == len(digits)))  # noqa: DTZ007 - in ZONE
        expected = (moment.replace(tzinfo=ZONE) - EPOCH) // timedelta(milliseconds=1)
    else:
        expected = int(digits) * (1 if int(digits) >= 10**11 else 1000)
    assume(expected <= LATEST)

    assert date_of(digits if text else int(digits)) == expected


@fast
@given(
    day=st.sampled_from(["0000-00-00", "0000/00/00", "0000-0-0", "1970-01-01", "1970/1/1", "1970-1-1"]),
    time=st.sampled_from(["", " 00:00:00", "T00:00:00", " 00:00", " 0:00", " 00:00:00.000"]),
)
@example(day="-", time="")
@example(day="--", time=" ")
@example(day="19700101", time="")
@example(day="19700101", time="000000")
@example(day="0000-00-00", time="T00:00:00Z")
def test_a_placeholder_for_no_date_is_null(day, time):
    assert date_of(day + time) is None


# --- messages as WeDa sends them ---

USUAL = {
    **VALUES,
    "date": (st.integers(210_012_312_360, 19_700_100_999_999), st.just),
    "maps": (VALUES["maps"][0], st.just),
}


@st.composite
def usual_fields(draw):
    """The types that WeDa documents, some fields missing, some null."""
    names = draw(st.lists(st.sampled_from(list(SOME)), unique=True))
    fields = {name: draw(st.none() | USUAL[SOME[name]][0], label=name) for name in names}
    instance_id = draw(text.filter(lambda one: one and not one.isspace()))
    return fields | {"msgType": draw(st.sampled_from(["Task", "Instance"])), "instanceId": instance_id}


shapes = st.sampled_from(["text", "object", "bare"])


def shaped(inner, shape):
    return {"bare": inner, "object": f'{{"msgContext": {inner}}}', "text": json.dumps({"msgContext": inner})}[shape]


@fast
@given(fields=usual_fields(), shape=shapes, escaped=st.sampled_from(["escaped", ""]))
@example({"msgType": "Task", "instanceId": "i", "taskMap": [{"a": "b"}], "elementMap": []}, "text", "escaped")
@example({"msgType": "Instance", "instanceId": "i", "action": 99, "instanceStatus": 4}, "bare", "")
def test_a_message_with_the_types_that_weda_documents_is_published_field_by_field(fields, shape, escaped):
    body = shaped(json.dumps(fields, ensure_ascii=bool(escaped)), shape).encode()

    assert published(body) == dict.fromkeys(KINDS) | fields | {
        "source": "default",
        "receivedAt": REQUEST.received_at,
        "ingestId": INGEST_ID,
        "extras": {},
    }
    event = convert(parse(body, BodyKind.JSON), ZONE)
    known = {name: {code.value for code in codes(load(WORKFLOW_EVENT), name)} for name in ("action", "instanceStatus")}
    odd = [name for name, values in known.items() if fields.get(name) is not None and fields[name] not in values]
    assert (list(event.unknown_codes), list(event.unknown_fields)) == (odd, [])


@fast
@given(
    fields=usual_fields(),
    shape=shapes,
    odd=st.dictionaries(field_names | any_text.filter(lambda name: name != "msgContext"), any_json, max_size=2),
)
@example({"msgType": "Task", "instanceId": "i"}, "object", {"action": 2.0})
def test_an_odd_field_changes_no_other(fields, shape, odd):
    """It is refused, or all other fields are what they would be without it."""
    assume(not odd.keys() & {"msgType", "instanceId"})
    body, plain = (shaped(json.dumps(each), shape).encode() for each in (fields | odd, fields))
    try:
        decoded = published(body)
    except (Unreadable, Unconvertible):
        return
    expected = published(plain)
    unknown = {name: json.dumps(value) for name, value in odd.items() if name not in KINDS}

    assert decoded["extras"] == unknown
    assert [name for name in decoded if decoded[name] != expected[name] and name not in {"extras", *odd}] == []


@fast
@given(fields=usual_fields(), other=usual_fields(), shape=shapes)
def test_of_equal_names_the_last_is_published_and_counts_for_the_fingerprint(fields, other, shape):
    members = [json.dumps({name: value})[1:-1] for each in (other, fields) for name, value in each.items()]
    doubled = shaped("{" + ", ".join(members) + "}", shape).encode()
    once = shaped(json.dumps(other | fields), shape).encode()

    assert published(doubled) == published(once)
    assert parse(doubled, BodyKind.JSON).fingerprint == parse(once, BodyKind.JSON).fingerprint


@fast
@given(fields=usual_fields(), shape=shapes)
def test_a_byte_order_mark_changes_nothing(fields, shape):
    inner = json.dumps(fields)
    body, marked = shaped(inner, shape), shaped("\ufeff" * (shape == "text") + inner, shape)

    assert published(b"\xef\xbb\xbf" + marked.encode()) == published(body.encode())


# --- the simulator's messages ---


def plain_date(value):
    if str(value).isdigit():
        return (int(value) if int(value) >= 10**11 else int(value) * 1000) or None
    moment = datetime.fromisoformat(value)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=ZONE)) - EPOCH) // timedelta(milliseconds=1)


def plain_maps(value):
    maps = [value] if isinstance(value, dict) else value
    return [{key: plain_text(inner) for key, inner in each.items()} for each in maps]


def plain_text(value):
    return value if isinstance(value, str) else plain_json(value)


def plain_json(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


PLAIN = {
    "string": plain_text,
    "int": int,
    "boolean": lambda value: str(value).lower() in {"true", "1"},
    "date": plain_date,
    "maps": plain_maps,
}
"""What the simulator means by the forms of a value that it sends."""


def plain(value, kind):
    return None if value is None or (value == "" and kind != "string") else PLAIN[kind](value)


@pytest.mark.parametrize("number", range(3))
def test_the_simulators_messages_are_published_as_they_were_meant_in_every_shape(seed, number):
    for run in runs(seed + number, 5, 1_790_000_000_000):
        for message in run.messages:
            decoded = []
            for shape in Shape:
                sent = render(message, shape)
                form = BodyKind.of(sent.headers.get("Content-Type", ""))
                decoded.append(published(sent.body or sent.query.encode(), BodyKind.QUERY if sent.query else form))
            meant = {name: plain(message.get(name), kind) for name, kind in KINDS.items()}
            unknown = {name: plain_json(value) for name, value in message.items() if name not in KINDS}

            assert {name: decoded[0][name] for name in KINDS} == meant
            assert decoded[0]["extras"] == unknown
            assert all(one == decoded[0] for one in decoded)
