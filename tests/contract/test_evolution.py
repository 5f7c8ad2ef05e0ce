"""Versions of the schemas: those released never change, and every one reads the records of every other."""

import io
import json
import shutil
import subprocess
import sys
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from zoneinfo import ZoneInfo

import avro.io
import avro.schema
import fastavro
import pytest

from connector.message.compatibility import breaks
from connector.message.conversion import convert, record_value
from connector.message.encoding import encode
from connector.message.parsing import BodyKind, parse
from connector.message.schemas import ALL, INSTANCE_EVENT, OURS, TASK_EVENT, WORKFLOW_EVENT, load, released
from connector.simulator import runs
from connector.values import IngestId, Request
from tests.unit.test_schemas import definitions

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "avro" / "released"
SUMS = ROOT / "tests" / "data" / "released-schemas.sha256"
REQUEST = Request("default", b"", "application/json", 1_772_415_000_000)
INGEST_ID = IngestId("019cac2a-9f19-7a41-8d07-51c2e9b3f6a4")
HEADER_BYTES = 10
NEW_FIELD = {"name": "priority", "type": ["null", "int"], "default": None, "doc": "Urgency (优先级). Example: 2"}
TYPES_OF = {WORKFLOW_EVENT: {"Instance", "Task"}, INSTANCE_EVENT: {"Instance"}, TASK_EVENT: {"Task"}}


def grown(text: str) -> str:
    """The schema of the next version, as the rules let it grow: one optional field before the connector's own."""
    schema = json.loads(text)
    at = [field["name"] for field in schema["fields"]].index(OURS[0])
    schema["fields"].insert(at, NEW_FIELD)
    return json.dumps(schema)


def versions(name: str) -> dict[str, str]:
    """Every version of a record's schema as JSON, oldest first, and the next one."""
    older = {f"released {version}": known[name].text for version, known in released().items() if name in known}
    return older | {"now": load(name).text, "next": grown(load(name).text)}


def pairs() -> list[tuple[str, str, str]]:
    return [(name, writer, reader) for name in ALL for writer, reader in permutations(versions(name), 2)]


def told(name: str) -> list[dict[str, object]]:
    """What the connector makes of two dozen played process runs."""
    messages = [message for run in runs(seed=7, instances=24, start_ms=1_772_415_000_000) for message in run.messages]
    events = [convert(parse(json.dumps(one).encode(), BodyKind.JSON), ZoneInfo("Asia/Shanghai")) for one in messages]
    fitting = [event for event in events if event.message_type in TYPES_OF[name]]
    return [record_value(event, load(name), REQUEST, INGEST_ID) for event in fitting]


def written(text: str, values: list[dict[str, object]]) -> list[bytes]:
    """The records in the bytes of a version, with a value in its own fields that today's schema does not have."""
    out = []
    schema = fastavro.parse_schema(json.loads(text), _write_hint=False)
    for number, value in enumerate(values):
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, {**value, NEW_FIELD["name"]: number})
        out.append(buffer.getvalue())
    return out


def test_what_is_released_never_changes():
    """A file whose sum is not the noted one was changed after its release: take the change back."""
    noted = dict(reversed(line.split()) for line in SUMS.read_text().splitlines())
    found = {
        str(path.relative_to(RELEASED)): sha256(path.read_bytes()).hexdigest() for path in RELEASED.rglob("*.avsc")
    }

    assert noted == found


def test_the_newest_release_has_every_record():
    newest = list(released().values())[-1]

    assert set(ALL) == set(newest)


@pytest.mark.parametrize(("name", "writer", "reader"), pairs())
def test_by_apaches_rules_every_version_reads_every_other(name, writer, reader):
    assert breaks(versions(name)[reader], versions(name)[writer]) == []


@pytest.mark.parametrize(("name", "writer", "reader"), pairs())
def test_apaches_reader_of_a_version_reads_real_records_of_another(name, writer, reader):
    """A reader of version N reads N-1 and N+1: what both have is the same, what only the reader has is its default."""
    texts, values = versions(name), told(name)
    parsed = [avro.schema.parse(texts[one]) for one in (writer, reader)]
    read = [
        avro.io.DatumReader(*parsed).read(avro.io.BinaryDecoder(io.BytesIO(one)))
        for one in written(texts[writer], values)
    ]
    both = {field["name"] for field in json.loads(texts[writer])["fields"]}

    assert len(read) == len(values) > 20
    for number, (value, found) in enumerate(zip(values, read, strict=True)):
        expected = {**value, NEW_FIELD["name"]: number}
        for field in json.loads(texts[reader])["fields"]:
            wanted = expected[field["name"]] if field["name"] in both else field["default"]
            assert plain(found[field["name"]]) == wanted, field["name"]


def plain(value):
    """Times as epoch milliseconds."""
    return round(value.timestamp() * 1000) if hasattr(value, "timestamp") else value


@pytest.mark.parametrize("name", ALL)
def test_a_record_of_today_is_read_by_whoever_has_the_released_file_alone(name):
    """The connector's own bytes, not those of a reference writer."""
    for version, known in released().items():
        writer, reader = (avro.schema.parse(one.text) for one in (load(name), known[name]))
        for value in told(name):
            body = io.BytesIO(encode(load(name), value)[HEADER_BYTES:])
            found = avro.io.DatumReader(writer, reader).read(avro.io.BinaryDecoder(body))
            assert all(plain(found[field]) == value[field] for field in known[name].fields), version


@pytest.mark.parametrize("name", ALL)
def test_a_released_field_keeps_its_name_type_default_and_place(name):
    """Stricter than compatibility: a field that could be dropped by Avro's rules stays all the same."""
    now = definitions(name)
    for known in released().values():
        then = {field["name"]: field for field in json.loads(known[name].text)["fields"]}
        kept = [field for field in now if field in then]
        assert list(then) == kept
        for field, definition in then.items():
            assert (now[field]["type"], now[field].get("default")) == (definition["type"], definition.get("default"))


@pytest.mark.parametrize("name", ALL)
def test_a_field_that_came_later_is_optional(name):
    first = next(iter(released().values()))[name]
    for field, definition in definitions(name).items():
        if field not in first.fields:
            assert (definition["type"][0], definition["default"]) == ("null", None), field


# --- an incompatible change ---


def retyped(fields, name):
    fields[name]["type"] = ["null", "string"] if fields[name]["type"] != ["null", "string"] else ["null", "long"]


def renamed(fields, name):
    fields[name]["name"] = f"{name}2"
    del fields[name]["default"]


def demanded(fields, name):
    fields[name]["type"] = fields[name]["type"][1]
    del fields[name]["default"]


def without_default(fields, name):
    fields["novel"] = {"name": "novel", "type": "string", "doc": "No default."}


@pytest.mark.parametrize(
    ("change", "field", "named"),
    [
        (retyped, "action", "field action"),
        (retyped, "approverMap", "field approverMap"),
        (renamed, "msgId", "field msgId2"),
        (demanded, "processKey", "field processKey"),
        (without_default, "msgId", "field novel"),
    ],
)
def test_an_incompatible_change_is_told_with_its_field(change, field, named):
    schema = json.loads(load(WORKFLOW_EVENT).text)
    fields = {each["name"]: each for each in schema["fields"]}
    change(fields, field)
    schema["fields"] = list(fields.values())

    found = breaks(json.dumps(schema), load(WORKFLOW_EVENT).text)

    assert found
    assert all(line.startswith(f"{named}: ") for line in found)


@pytest.mark.parametrize(("type_", "code"), [('["null", "string"]', 1), ('["null", "int"]', 0)])
def test_schemas_check_fails_on_an_incompatible_change_and_names_the_field(tmp_path, type_, code):
    """In a copy of the package whose schema says something else of ``action``: with its own type it passes."""
    shutil.copytree(ROOT / "connector", tmp_path / "connector", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "avro", tmp_path / "avro")
    path = tmp_path / "avro" / f"{TASK_EVENT}.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    next(field for field in schema["fields"] if field["name"] == "action")["type"] = json.loads(type_)
    path.write_text(json.dumps(schema), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "connector", "schemas", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert ("TaskEvent: field action: " in done.stderr) is (code == 1)
