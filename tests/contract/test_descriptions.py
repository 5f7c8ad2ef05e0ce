"""What the descriptions of both interfaces say is what the connector does: held against tools, topics and answers."""

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import product
from pathlib import Path
from urllib.parse import quote, urlencode

import fastavro
import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from openapi_spec_validator import validate as validate_openapi

from connector import endpoints, errors
from connector.answers import MAX_URL_BYTES
from connector.errors import Defect, Malformed, Unconvertible
from connector.kafka.topics import desired_topics
from connector.message import weda
from connector.message.encoding import RegistryFraming
from connector.message.parsing import BODY_KINDS, BodyKind, parse
from connector.message.routes import STREAMS, Routes
from connector.message.schemas import ALL, INSTANCE_EVENT, TASK_EVENT, load
from connector.receiver import application
from connector.receiver.connection import MAX_HEAD_BYTES
from connector.settings import Settings
from tests import asyncapi as official
from tests.contract.test_http import TABLE, Failing, Served, body_of, message
from tests.waiting import until
from tools import dictionary
from tools.descriptions import asyncapi, openapi, samples
from tools.descriptions.notation import yaml_text

ROOT = Path(__file__).parents[2]
DOCUMENTS = {"asyncapi": "asyncapi.yaml", "openapi": "openapi.yaml"}
TOPICS = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
RECEIVER = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
OF_TWO_SOURCES = {
    "streams": ["events", "state"],
    "topics": {"prefix": "weda.{source}.{envType}", "replication_factor": 3, "retention_ms": -1},
    "sources": {"default": {}, "hr": {"env_types": ["uat"]}},
}
EARLIER_EDITION = "asyncapi-latest-version"
"""The parser's remark that there is an AsyncAPI 3.1: it adds nothing that Kafka needs, and fewer tools read it."""


def messages_of(channel):
    return {name: found(TOPICS, message) for name, message in TOPICS["channels"][channel]["messages"].items()}


def found(document, schema):
    """What a reference points to."""
    for name in schema["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


def avro_messages():
    messages = TOPICS["components"]["messages"].values()
    return {each["name"]: each for each in messages if "schema" in each["payload"]}


def answers():
    """Code → the example of the answer, over all of the document."""
    contents = (each["content"]["application/json"] for each in RECEIVER["components"]["responses"].values())
    return {int(code): each["value"] for content in contents for code, each in content["examples"].items()}


def fits(name):
    """The validator of a schema of the receiver's document."""
    return Draft202012Validator({**RECEIVER, "$ref": f"#/components/schemas/{name}"})


@asynccontextmanager
async def serving(environments=(), streams=tuple(STREAMS), **changes):
    """A receiver in memory with every stream, whose default source allows these environments."""
    served = Served(**changes)
    served.routes = Routes(streams, "weda.workflow", {**dict.fromkeys(served.sources, ()), "default": environments})
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_committed_document_is_what_the_command_prints_whatever_the_locale_says(what):
    """Run ``make generate`` after a change of the code."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment |= {"WEDA_TOPICS__PREFIX": "another", "WEDA_RECEIVER__MAX_BODY_BYTES": "1KiB"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.descriptions", what],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=True,
    )

    assert (ROOT / "docs" / DOCUMENTS[what]).read_text(encoding="utf-8") == done.stdout.decode()


def test_the_command_describes_the_topics_and_limits_of_a_configuration(tmp_path):
    file = tmp_path / "connector.yaml"
    file.write_text(yaml.safe_dump({**OF_TWO_SOURCES, "receiver": {"max_body_bytes": "64KiB"}}))
    printed = {
        what: subprocess.run(
            [sys.executable, "-m", "tools.descriptions", what, "--config", file],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for what in DOCUMENTS
    }

    assert yaml.safe_load(printed["asyncapi"])["channels"]["events"]["address"] == "weda.{source}.{envType}.events"
    assert yaml.safe_load(printed["openapi"])["components"]["requestBodies"]["Message"]["x-max-bytes"] == 65536


def test_the_command_names_a_bad_setting(tmp_path):
    file = tmp_path / "connector.yaml"
    file.write_text("topics: {partitions: 0}")
    command = [sys.executable, "-m", "tools.descriptions", "asyncapi", "--config", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "topics.partitions" in done.stderr
    assert done.stderr.count("\n") == 1


# --- the topics ---


def test_the_official_parser_accepts_the_topics():
    said = official.validate(ROOT / "docs" / "asyncapi.yaml")

    assert [each for each in said["diagnostics"] if each["code"] != EARLIER_EDITION] == []
    assert said["channels"] == [channel["address"] for channel in TOPICS["channels"].values()]


def test_the_official_parser_accepts_topics_that_are_named_by_source_and_environment(tmp_path):
    document = asyncapi.document(Settings.model_validate(OF_TWO_SOURCES))
    file = tmp_path / "asyncapi.yaml"
    file.write_text(yaml_text(document), encoding="utf-8")
    said = official.validate(file)

    assert [each for each in said["diagnostics"] if each["code"] != EARLIER_EDITION] == []
    assert said["channels"] == [
        "weda.{source}.{envType}.events",
        "weda.{source}.{envType}.state",
        "weda.{source}.all.dead-letters",
    ]
    parameters = document["channels"]["events"]["parameters"]
    assert parameters["source"]["enum"] == ["default", "hr"]
    assert parameters["envType"]["enum"] == ["pre", "prod", "uat"]
    assert [*document["channels"]["dead-letters"]["parameters"]] == ["source"]


@pytest.mark.parametrize(
    ("place", "bad"),
    [
        ("components/messages/TaskEvent/payload/schema/fields/0/type", "strng"),
        ("components/messages/DeadLetter/payload/type", "strng"),
        ("operations/publishEvents/action", "publish"),
        ("channels/events/bindings/kafka/partitions", "twelve"),
        ("channels/state/messages/InstanceDeleted/$ref", "#/components/messages/Nothing"),
    ],
)
def test_the_official_parser_refuses_what_is_wrong(tmp_path, place, bad):
    """Or its word would say nothing: of types in both kinds of schema, the document, a binding, a reference."""
    document = yaml.safe_load(yaml_text(asyncapi.document()))
    *way, name = (int(step) if step.isdigit() else step for step in place.split("/"))
    spot = document
    for step in way:
        spot = spot[step]
    assert spot[name] != bad
    spot[name] = bad
    file = tmp_path / "asyncapi.yaml"
    file.write_text(yaml_text(document), encoding="utf-8")

    assert 0 in {each["severity"] for each in official.validate(file)["diagnostics"]}


def test_a_channel_is_a_stream_of_the_routing_table_or_the_dead_letters():
    routes = Routes(STREAMS, Settings().topics.prefix)
    topics = {route.stream.name: route.topic for route in routes.all} | {
        "dead-letters": routes.dead_letter_topic("default")
    }

    assert {name: channel["address"] for name, channel in TOPICS["channels"].items()} == topics
    assert sorted(topics.values()) == sorted(routes.topics)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))
def test_a_channel_has_the_records_of_its_stream(stream):
    names = {message["name"] for message in messages_of(stream.name).values()}

    assert names == {stream.record_type, *(["InstanceDeleted"] if stream.is_state else [])}


def test_a_channel_s_subject_is_that_of_its_route():
    subjects = {route.stream.name: route.subject for route in Routes(STREAMS, "weda.workflow").all}

    assert subjects == {
        name: channel["x-registry-subject"] for name, channel in TOPICS["channels"].items() if name != "dead-letters"
    }


def test_a_channel_is_configured_as_the_connector_creates_its_topic():
    specs = {spec.name: spec for spec in desired_topics(asyncapi.EVERY_STREAM)}
    for channel in TOPICS["channels"].values():
        binding = channel["bindings"]["kafka"]
        spec = specs.pop(binding["topic"])

        assert binding["topic"] == channel["address"]
        assert binding["partitions"] == spec.partitions
        reported = binding["topicConfiguration"]
        assert {**spec.config} == {
            name: ",".join(value) if isinstance(value, list) else str(value) for name, value in reported.items()
        }
    assert specs == {}


def test_replication_is_described_where_it_is_set():
    document = asyncapi.document(Settings.model_validate(OF_TWO_SOURCES))
    binding = document["channels"]["events"]["bindings"]["kafka"]

    assert binding["replicas"] == 3
    assert binding["topicConfiguration"]["min.insync.replicas"] == 2
    assert binding["topicConfiguration"]["retention.ms"] == -1
    assert "topic" not in binding


def test_the_connector_sends_to_every_channel_all_its_messages():
    operations = TOPICS["operations"].values()

    assert {each["action"] for each in operations} == {"send"}
    assert {each["channel"]["$ref"].rpartition("/")[2]: len(each["messages"]) for each in operations} == {
        name: len(channel["messages"]) for name, channel in TOPICS["channels"].items()
    }


@pytest.mark.parametrize("record_type", ALL)
def test_an_avro_body_is_the_schema_s_file(record_type):
    definition = avro_messages()[record_type]["payload"]["schema"]

    assert definition == json.loads((ROOT / "avro" / f"{record_type}.avsc").read_text(encoding="utf-8"))
    assert fastavro.parse_schema(definition)["name"] == record_type


def test_every_record_type_is_described():
    assert {*avro_messages()} == {*ALL}
    assert {each["payload"]["schemaFormat"] for each in avro_messages().values()} == {asyncapi.AVRO_FORMAT}


@pytest.mark.parametrize("record_type", ALL)
def test_an_example_of_a_record_is_one(record_type):
    described = avro_messages()[record_type]
    (example,) = described["examples"]
    schema = fastavro.parse_schema(load(record_type).parsed)
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, example["payload"], strict=True)

    assert out.tell() > 100
    assert example["payload"]["instanceId"] == example["headers"]["ce_subject"]
    validator = Draft7Validator(found(TOPICS, described["headers"]))
    assert [error.message for error in validator.iter_errors(example["headers"])] == []


async def test_the_headers_and_the_key_of_a_record_are_those_of_its_message():
    schema = TOPICS["components"]["schemas"]["RecordHeaders"]
    async with serving() as served:
        for record_type in (INSTANCE_EVENT, TASK_EVENT):
            body = json.dumps(dictionary.sample_message(record_type)).encode()
            answer = await served.ask(
                body,
                x_request_id="request-1",
                traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            assert answer.code == 0
        published = served.publisher.published

    assert {record.stream for record in published} == {*STREAMS}
    for record in published:
        reported = {name: text.decode() for name, text in record.headers}
        assert [*reported] == [*schema["properties"]]
        assert [error.message for error in Draft7Validator(schema).iter_errors(reported)] == []
        for described in messages_of(record.stream).values():
            assert Draft7Validator(described["bindings"]["kafka"]["key"]).is_valid(record.key.decode())


async def test_headers_that_a_record_may_lack_are_not_required():
    async with serving() as served:
        await served.ask(message())
        reported = dict(served.publisher.published[0].headers)
    schema = TOPICS["components"]["schemas"]["RecordHeaders"]

    assert [*reported] == schema["required"]


def test_the_types_of_events_are_those_of_the_messages():
    reported = {samples.record_of(record_type).headers["ce_type"] for record_type in (INSTANCE_EVENT, TASK_EVENT)}
    described = TOPICS["components"]["schemas"]["RecordHeaders"]["properties"]["ce_type"]["enum"]

    assert {*described} == reported
    assert len(described) == len(weda.MESSAGE_TYPES)


@pytest.mark.parametrize("deletion", [{"action": 18}, {"instanceStatus": 5}])
async def test_a_deleted_instance_is_the_tombstone_that_the_state_s_channel_describes(deletion):
    described = messages_of("state")["InstanceDeleted"]
    async with serving() as served:
        await served.ask(message(msgType="Instance", **deletion))
        (record,) = served.publisher.of("state")

    assert described["payload"] == {"type": "null"}
    assert record.value is None
    assert record.key == b"i-1"


@pytest.mark.parametrize("body", [samples.UNNAMED, b'{"msgContext":{"instanceId":"i-7"}}', b"\xff"])
async def test_the_headers_and_the_key_of_a_dead_letter_are_as_described(body):
    described = messages_of("dead-letters")["DeadLetter"]
    async with serving() as served:
        await served.ask(body, x_request_id="request-1")
        (letter,) = served.letters
    reported = {name: text.decode() for name, text in letter.headers}

    assert [*reported] == [*described["headers"]["required"], "weda.request-id"]
    assert [*described["headers"]["properties"]] == [*reported, "weda.streams"]
    assert [error.message for error in Draft7Validator(described["headers"]).iter_errors(reported)] == []
    key = None if letter.key is None else letter.key.decode()
    assert Draft7Validator(described["bindings"]["kafka"]["key"]).is_valid(key)
    assert letter.value == body


@pytest.mark.parametrize("with_registry", [False, True], ids=["without a registry", "with a registry"])
async def test_a_record_begins_with_the_bytes_of_its_encoding(with_registry):
    ids = {route.topic: 258 for route in Routes(STREAMS, "weda.workflow").all}
    async with serving(framing=RegistryFraming(ids) if with_registry else None) as served:
        await served.ask(message())
        await served.ask(message(msgType="Instance"))
        published = served.publisher.published

    assert {record.stream for record in published} == {*STREAMS}
    for record in published:
        (described,) = (each for each in messages_of(record.stream).values() if "x-encodings" in each)
        first = described["x-encodings"][with_registry]["startsWith"].partition(",")[0]
        assert record.value.startswith(bytes.fromhex(first))
        assert not with_registry or record.value[1:5] == (258).to_bytes(4, "big")


# --- the receiver ---


def test_the_official_validator_accepts_the_receiver():
    validate_openapi(RECEIVER)
    validate_openapi(openapi.document(Settings.model_validate(OF_TWO_SOURCES)))


def test_the_receiver_is_described_whole():
    operations = {path: [*at.keys() - {"summary", "parameters"}] for path, at in RECEIVER["paths"].items()}
    content = RECEIVER["components"]["requestBodies"]["Message"]["content"]

    assert {*operations} == {"/messageDeliver", "/sources/{source}/messageDeliver"}
    assert all({method.upper() for method in methods} == {*endpoints.METHODS} for methods in operations.values())
    assert {*content} == {*BODY_KINDS} - {""}


def codes_in_the_code():
    """What the package's raise statements and constructors can answer: each error's own code, or that of its class."""
    answering = {
        name: one
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.ConnectorError) and "code" in vars(one)
    }
    for path in (ROOT / "connector").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in answering and name != "ConnectorError":
                given = [each.value for each in node.keywords if each.arg == "code"]
                yield ast.literal_eval(given[0]) if given else answering[name].code


def test_every_code_that_the_connector_can_answer_is_described_and_no_other():
    assert {0, *codes_in_the_code()} == {*answers()}
    assert Unconvertible.code not in answers()  # only a dead letter has it: an accepted message that Kafka rejected


def test_a_status_has_the_codes_and_examples_that_begin_with_it():
    for status, response in RECEIVER["components"]["responses"].items():
        content = response["content"]["application/json"]
        for code, example in content["examples"].items():
            assert status == ("200" if code == "0" else code[:3])
            assert code == str(example["value"]["code"])
            assert Draft202012Validator({**RECEIVER, **content["schema"]}).is_valid(example["value"])


def test_every_answer_is_referred_to_or_is_that_of_another_address_or_method():
    used = {
        status
        for at in RECEIVER["paths"].values()
        for method in ("get", "post", "put")
        for status, response in at[method]["responses"].items()
        if response == {"$ref": f"#/components/responses/{status}"}
    }

    assert {*RECEIVER["components"]["responses"]} - used == {"405"}


@pytest.mark.parametrize("code", samples.REFUSED)
async def test_what_no_record_can_be_made_of_is_answered_as_its_example(code):
    kind, body = samples.REFUSED[code]
    form = {"content_type": "application/x-www-form-urlencoded"} if kind is BodyKind.FORM else {}
    async with serving(samples.ALLOWED_ENVIRONMENTS) as served:
        answer = await served.ask(body, **form)

        assert answers()[code] == answer.fields
        assert answer.status == code // 100
        assert len(served.letters) == (code != 40000)


async def _without_a_credential(served):
    return await served.ask(message(), authorization=None)


async def _with_another_s_credential(served):
    return await served.ask(message(), authorization="Bearer t-hr")


async def _at_another_address(served):
    return await served.ask(message(), path="/sources/a/b/messageDeliver")


async def _by_another_method(served):
    return await served.ask(method="DELETE")


async def _too_slowly(served):
    head = b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t-new\r\ncontent-length: 9\r\n\r\n{"
    return await served._exchange(head, "POST")


async def _too_large(served):
    return await served.ask(b" " * (RECEIVER["components"]["requestBodies"]["Message"]["x-max-bytes"] + 1))


async def _as_xml(served):
    return await served.ask(b"<a/>", content_type="application/xml")


async def _one_too_many(served):
    served.publisher.hold()
    served.receiver._pipeline._max_in_flight = 1
    first = asyncio.create_task(served.ask(message(instanceId="a")))
    await until(lambda: served.publisher.published)
    answer = await served.ask(message(instanceId="b"))
    served.publisher.release()
    await first
    return answer


async def _with_too_large_a_head(served):
    return await served.ask(message(), x_filler="x" * MAX_HEAD_BYTES)


async def _by_a_defect(served):
    served.receiver._pipeline._framing = Failing(RuntimeError("broken"))
    return await served.ask(message())


async def _while_shutting_down(served):
    served.health.is_closing = True
    return await served.ask(message())


SITUATIONS = {
    401: _without_a_credential,
    403: _with_another_s_credential,
    404: _at_another_address,
    405: _by_another_method,
    408: _too_slowly,
    413: _too_large,
    415: _as_xml,
    429: _one_too_many,
    431: _with_too_large_a_head,
    500: _by_a_defect,
    503: _while_shutting_down,
}


@pytest.mark.parametrize("status", SITUATIONS)
async def test_every_other_refusal_is_answered_as_its_example(status, monkeypatch):
    if status == 408:
        monkeypatch.setattr(application, "BODY_SECONDS", 0.05)
    described = openapi.document(Settings())["components"]["responses"][str(status)]
    example = next(iter(described["content"]["application/json"]["examples"].values()))
    async with serving() as served:
        answer = await SITUATIONS[status](served)

    assert answer.status == status
    assert example["value"] == answer.fields
    special = {"retry-after", "x-weda-outcome", "allow", "www-authenticate", "x-request-id"} & {*answer.headers}
    assert {name.lower() for name in described.get("headers", {})} == special
    for name, header in described.get("headers", {}).items():
        value = answer.headers[name.lower()]
        assert header["schema"].get("const", value).lower() == value
        assert value in header["schema"].get("enum", [value])
        assert name != "Retry-After" or int(value) >= header["schema"]["minimum"]


async def test_an_outcome_that_is_unknown_is_answered_as_its_example():
    async with serving(reply_deadline=0.5) as served:
        served.publisher.hold()
        answer = await served.ask(message())
        served.publisher.release()

        assert (answer.status, answer.fields) == (503, answers()[50301])
        assert answer.headers["x-weda-outcome"] == "unknown"


def test_every_refusal_has_its_situation_or_its_sample():
    assert {code // 100 for code in answers() if code} == {*SITUATIONS} | {code // 100 for code in samples.REFUSED}
    assert {code for code in answers() if code // 100 in {400, 422}} == {*samples.REFUSED, Malformed.code}


async def test_a_request_that_can_be_read_in_two_ways_is_answered_as_its_example():
    async with serving() as served:
        answer = await served.ask(message(), Authorization="Bearer t-hr")

        assert (answer.status, answer.fields) == (400, answers()[Malformed.code])
        assert served.letters == []


def requests():
    """Every example of a request, at every address, by every method and under every media type that may carry it."""
    components = RECEIVER["components"]
    examples, content = components["examples"], components["requestBodies"]["Message"]["content"]
    as_json = content["application/json"]["examples"]
    for path in (each.replace("{source}", components["parameters"]["source"]["example"]) for each in RECEIVER["paths"]):
        for name in components["parameters"]["msgContext"]["examples"]:
            yield f"{path}?msgContext={quote(examples[name]['value'])}", "GET", None, b""
        for method, media_type in product(("POST", "PUT"), content):
            for name in content[media_type].get("examples", as_json):
                yield path, method, media_type, written(media_type, examples[name]["value"])


def written(media_type, value):
    """The bytes of an example as its media type has them."""
    if media_type == "application/x-www-form-urlencoded":
        return urlencode(value).encode()
    return json.dumps(value, ensure_ascii=False).encode()


async def test_every_example_of_a_request_is_accepted_and_becomes_its_record():
    sent = [*requests()]
    expected = {
        kind: {**samples.record_of(record_type).value}
        for kind, record_type in (("Instance", INSTANCE_EVENT), ("Task", TASK_EVENT))
    }
    assert len(sent) == 2 * (2 + 2 * (3 * 6 + 2))
    for path, method, media_type, body in sent:
        async with serving(streams=("instances", "tasks")) as served:
            answer = await served.ask(body, method=method, path=path, content_type=media_type)
            assert (answer.status, answer.fields) == (200, {"code": 0}), (path, method, media_type)
            (value,) = [*served.values("instances"), *served.values("tasks")]
        ours = {"receivedAt", "ingestId"}
        assert {name: each for name, each in value.items() if name not in ours} == {
            name: each for name, each in expected[value["msgType"]].items() if name not in ours
        }


@pytest.mark.parametrize("kind", ["instance", "task"])
def test_an_example_of_a_body_fits_its_schema(kind):
    examples = RECEIVER["components"]["examples"]

    for shape in ("text", "object", "bare"):
        assert fits("Body").is_valid(examples[f"{kind}-{shape}"]["value"])
    assert fits("Form").is_valid(examples[f"{kind}-form"]["value"])
    for text in (examples[f"{kind}-text"]["value"]["msgContext"], examples[f"{kind}-query"]["value"]):
        assert fits("Message").is_valid(json.loads(text))


ACCEPTED = [
    pytest.param(body_of(row), id=f"{about}: {row['name']}")
    for about, rows in TABLE.items()
    for row in rows
    if "status" not in row and "headers" not in row and row.get("method") != "GET"
]
"""The rows of the table of odd requests that are JSON and become a record."""


@pytest.mark.parametrize("body", ACCEPTED)
def test_what_is_accepted_fits_the_schema_of_messages(body):
    """The schema is never stricter than the connector."""
    fields = parse(body, BodyKind.JSON).fields

    assert len(ACCEPTED) > 60
    assert [error.message for error in fits("Message").iter_errors(fields)] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"msgType": "Task"},
        {"instanceId": "i-1"},
        {"msgType": "Task", "instanceId": " \u3000"},
        {"msgType": "Task", "instanceId": None},
        {"msgType": "Task", "instanceId": True},
        {"msgType": "Tasks", "instanceId": "i-1"},
        {"msgType": "Task", "instanceId": "i-1", "action": 2.5},
        {"msgType": "Task", "instanceId": "i-1", "action": "approve"},
        {"msgType": "Task", "instanceId": "i-1", "action": 2**31},
        {"msgType": "Task", "instanceId": "i-1", "action": True},
        {"msgType": "Task", "instanceId": "i-1", "isCcTask": 2},
        {"msgType": "Task", "instanceId": "i-1", "isCcTask": "yes"},
        {"msgType": "Task", "instanceId": "i-1", "startTime": -1},
        {"msgType": "Task", "instanceId": "i-1", "startTime": [1]},
        {"msgType": "Task", "instanceId": "i-1", "taskMap": 5},
        {"msgType": "Task", "instanceId": "i-1", "taskMap": [5]},
    ],
    ids=json.dumps,
)
def test_what_does_not_fit_the_schema_of_messages_is_refused(fields):
    assert not fits("Message").is_valid(fields)
    assert samples.refusal(BodyKind.JSON, json.dumps(fields).encode()).code // 100 == 422


@pytest.mark.parametrize(
    "fields",
    [
        {"instanceId": 7},
        {"msgType": "TASK"},
        {"action": " 2 "},
        {"action": "+2.0"},
        {"action": 2.0},
        {"action": ""},
        {"isCcTask": "1"},
        {"isCcTask": 0},
        {"isCcTask": " TRUE "},
        {"isCcTask": ""},
        {"startTime": 0},
        {"startTime": "2026-03-02 09:30:00"},
        {"taskMap": {"a": 1}},
        {"taskMap": [None, {}]},
        {"taskMap": '{"a": "b"}'},
        {"comment": [1, {"a": None}]},
    ],
    ids=json.dumps,
)
async def test_each_way_to_write_a_field_that_the_schema_takes_is_accepted(fields):
    whole = {"msgType": "Task", "instanceId": "i-1"} | fields
    async with serving() as served:
        answer = await served.ask(json.dumps(whole).encode())

    assert fits("Message").is_valid(whole)
    assert answer.fields == {"code": 0}


def test_every_field_that_the_schema_knows_is_described():
    described = RECEIVER["components"]["schemas"]["Message"]["properties"]

    assert {*described} == {*load("io.weda.workflow.WorkflowEvent").fields} - {
        "source",
        "receivedAt",
        "ingestId",
        "extras",
    }


def test_an_answer_of_the_table_of_odd_requests_is_one_of_its_operation():
    for rows in TABLE.values():
        for row in rows:
            path = re.sub(
                r"^/sources/[^/]+/", "/sources/{source}/", str(row.get("path", "/messageDeliver")).partition("?")[0]
            )
            operation = RECEIVER["paths"].get(path, {}).get(row.get("method", "POST").lower())
            status = str(row.get("status", 200))
            assert operation is None or status in operation["responses"], row["name"]
            assert status in RECEIVER["components"]["responses"]


async def test_the_described_sizes_are_the_limits():
    limit = RECEIVER["components"]["requestBodies"]["Message"]["x-max-bytes"]
    assert limit == Settings().receiver.max_body_bytes
    url = f"/messageDeliver?msgContext={quote(message())}&a="
    async with serving() as served:
        body = message()
        assert (await served.ask(body + b" " * (limit - len(body)))).code == 0
        assert (await served.ask(body + b" " * (limit + 1 - len(body)))).status == 413
        assert (await served.ask(method="GET", path=url.ljust(MAX_URL_BYTES, "b"))).code == 0
        assert (await served.ask(method="GET", path=url.ljust(MAX_URL_BYTES + 1, "b"))).status == 413
    for at in RECEIVER["paths"].values():
        assert str(limit) in at["post"]["description"]
        assert str(MAX_URL_BYTES) in at["get"]["description"]


@pytest.mark.parametrize("scheme", ["bearer", "wedaToken"])
async def test_each_described_credential_is_enough(scheme):
    described = RECEIVER["components"]["securitySchemes"][scheme]
    name = described.get("name", "Authorization")
    value = "t-default" if described["type"] == "apiKey" else f"{described['scheme'].title()} t-default"
    async with serving() as served:
        answer = await served.ask(message(), **{"authorization": None, name.lower(): value})

    assert answer.code == 0
    assert {next(iter(each)) for each in RECEIVER["security"]} == {"bearer", "wedaToken", "webhookId", "certificate"}


def test_a_sample_that_becomes_a_record_is_no_refusal():
    with pytest.raises(Defect):
        samples.refusal(BodyKind.JSON, message(envType="prod"))
    with pytest.raises(Defect):
        samples.stranger(samples.TOKENS["default"])
