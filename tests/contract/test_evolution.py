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

from connector.message.compatibility import incompatibilities
from connector.message.events import Event, convert
from connector.message.parsing import BodyKind, parse
from connector.message.schemas import (
    ALL,
    CONNECTOR_FIELDS,
    FLAT_EVENT,
    INSTANCE_EVENT,
    TASK_EVENT,
    WEDA_SCHEMAS,
    WORKFLOW_EVENT,
    load,
    released,
)
from connector.simulator import runs
from connector.testing import record_value
from connector.values import IngestId, Request
from tests.unit.test_schemas import definitions

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "avro" / "released"
SUMS = ROOT / "tests" / "data" / "released-schemas.sha256"
REQUEST = Request("default", b"", "application/json", 1_772_415_000_000)
INGEST_ID = IngestId("019cac2a-9f19-7a41-8d07-51c2e9b3f6a4")
NEW_FIELD = {"name": "newField", "type": ["null", "int"], "default": None, "doc": "A new field (新字段). Example: 2"}
TYPES_OF = {
    WORKFLOW_EVENT: {"Instance", "Task"},
    INSTANCE_EVENT: {"Instance"},
    TASK_EVENT: {"Task"},
    FLAT_EVENT: {"Instance", "Task"},
}


def grown(text: str) -> str:
    """The schema of the next version, as the rules let it grow: one optional field before the connector's own."""
    schema = json.loads(text)
    at = [field["name"] for field in schema["fields"]].index(CONNECTOR_FIELDS[0])
    schema["fields"].insert(at, NEW_FIELD)
    return json.dumps(schema)


def versions(name: str) -> dict[str, str]:
    """Every version of a record's schema as JSON, oldest first, and the next one."""
    older = {f"released {version}": known[name].text for version, known in released().items() if name in known}
    return older | {"now": load(name).text, "next": grown(load(name).text)}


def pairs() -> list[tuple[str, str, str]]:
    return [(name, writer, reader) for name in ALL for writer, reader in permutations(versions(name), 2)]


def events(name: str) -> list[Event]:
    """The events of two dozen played process runs that become such a record."""
    messages = [message for run in runs(seed=7, instances=24, start_ms=1_772_415_000_000) for message in run.messages]
    found = [convert(parse(json.dumps(one).encode(), BodyKind.JSON), ZoneInfo("Asia/Shanghai")) for one in messages]
    return [event for event in found if event.message_type in TYPES_OF[name]]


def reported(name: str) -> list[dict[str, object]]:
    """What the connector makes of them."""
    return [record_value(event, load(name), REQUEST, INGEST_ID) for event in events(name)]


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


def test_the_newest_frozen_version_has_every_record():
    newest = list(released().values())[-1]

    assert set(WEDA_SCHEMAS) == set(newest)  # FLAT_EVENT is frozen with the release


@pytest.mark.parametrize(("name", "writer", "reader"), pairs())
def test_by_apaches_rules_every_version_reads_every_other(name, writer, reader):
    assert incompatibilities(versions(name)[reader], versions(name)[writer]) == []


@pytest.mark.parametrize(("name", "writer", "reader"), pairs())
def test_apaches_reader_of_a_version_reads_real_records_of_another(name, writer, reader):
    """A reader of version N reads N-1 and N+1: what both have is the same, what only the reader has is its default."""
    texts, values = versions(name), reported(name)
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


def _having(name):
    """The released versions that have a record."""
    return {version: known for version, known in released().items() if name in known}


def plain(value):
    """Times as epoch milliseconds."""
    return round(value.timestamp() * 1000) if hasattr(value, "timestamp") else value


@pytest.mark.parametrize("name", ALL)
def test_a_record_of_today_is_read_by_whoever_has_the_released_file_alone(name):
    """The connector's own bytes, not those of a reference writer."""
    for version, known in _having(name).items():
        writer, reader = (avro.schema.parse(one.text) for one in (load(name), known[name]))
        for event, value in zip(events(name), reported(name), strict=True):
            body = io.BytesIO(event.encode(load(name), b"", REQUEST, INGEST_ID))
            found = avro.io.DatumReader(writer, reader).read(avro.io.BinaryDecoder(body))
            assert all(plain(found[field]) == value[field] for field in known[name].fields), version


@pytest.mark.parametrize("name", ALL)
def test_a_released_field_keeps_its_name_type_default_and_place(name):
    """Stricter than compatibility: a field that could be dropped by Avro's rules stays all the same."""
    now = definitions(name)
    for known in _having(name).values():
        then = {field["name"]: field for field in json.loads(known[name].text)["fields"]}
        kept = [field for field in now if field in then]
        assert list(then) == kept
        for field, definition in then.items():
            assert (now[field]["type"], now[field].get("default")) == (definition["type"], definition.get("default"))


@pytest.mark.parametrize("name", ALL)
def test_a_field_that_came_later_is_optional(name):
    first = next((known[name] for known in _having(name).values()), load(name))
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
def test_an_incompatible_change_is_reported_with_its_field(change, field, named):
    schema = json.loads(load(WORKFLOW_EVENT).text)
    fields = {each["name"]: each for each in schema["fields"]}
    change(fields, field)
    schema["fields"] = list(fields.values())

    found = incompatibilities(json.dumps(schema), load(WORKFLOW_EVENT).text)

    assert found
    assert all(line.startswith(f"{named}: ") for line in found)


def with_another_type_of_action(tmp_path, type_, command):
    """Run a command of a copy of the package whose schema of tasks says something else of ``action``."""
    shutil.copytree(ROOT / "connector", tmp_path / "connector", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "avro", tmp_path / "avro")
    path = tmp_path / "avro" / f"{TASK_EVENT}.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    next(field for field in schema["fields"] if field["name"] == "action")["type"] = json.loads(type_)
    path.write_text(json.dumps(schema), encoding="utf-8")

    return subprocess.run(
        [sys.executable, "-m", "connector", *command],
        cwd=tmp_path,
        env={
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": "embedded",
            "WEDA_JOURNAL__PATH": str(tmp_path / "journal.db"),
            "WEDA_RECEIVER__PORT": "0",
            "WEDA_OPERATIONS__PORT": "0",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("type_", "code"), [('["null", "string"]', 1), ('["null", "int"]', 0)])
def test_schemas_check_fails_on_an_incompatible_change_and_names_the_field(tmp_path, type_, code):
    """With its own type it passes."""
    done = with_another_type_of_action(tmp_path, type_, ["schemas", "check"])

    assert done.returncode == code, done.stderr
    assert ("TaskEvent: field action: " in done.stderr) is (code == 1)


def test_a_schema_that_no_message_is_encoded_for_stops_the_start(tmp_path):
    done = with_another_type_of_action(tmp_path, '["null", "string"]', ["serve"])

    assert done.returncode == 2, done.stderr
    assert f"schema {TASK_EVENT}: its fields are not some of {WORKFLOW_EVENT}'s" in done.stderr.splitlines()[-1]
