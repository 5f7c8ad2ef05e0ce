"""Records are read back decoded, and `tail` prints them one a line."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC
from itertools import islice

import pytest
from rich.cells import cell_len

from connector.errors import OutsideUnreachable
from connector.intake.dead_letters import dead_letter
from connector.kafka.embedded import EmbeddedBroker
from connector.kafka.reader import ConsumerRecord, read_records
from connector.message.encoding import SingleObjectFraming
from connector.message.events import convert
from connector.message.headers import headers
from connector.message.parsing import BodyKind, parse
from connector.message.routes import STREAMS, Routes
from connector.values import IngestId, InstanceId, ProducibleRecord, Request
from tests.servers import KafkaCluster, produce
from tests.waiting import PATIENCE_SECONDS

SECONDS = 60
RECEIVED_AT = 1_700_000_000_123
NOBODY = "127.0.0.1:1"
TASK = {
    "msgId": "m-1",
    "msgType": "Task",
    "actionName": "同意",
    "processName": "请假",
    "processKey": "leave",
    "flowTitle": "张三的请假",
    "approverMap": {"6": "张三"},
    "elementName": "经理\x1b[31m审批",
    "taskStatusName": "已办",
}
INSTANCE = {
    "msgType": "Instance",
    "elementName": None,
    "elementMap": [{"n1": "发起"}, {"n2": "抄送"}],
    "taskStatusName": None,
    "instanceStatusName": "审批中",
}


@pytest.fixture
def embedded() -> Iterator[str]:
    """The address of an embedded broker, which makes a topic when something is produced to it."""
    broker = EmbeddedBroker()
    yield broker.bootstrap_servers
    del broker


@pytest.fixture(params=["real", "embedded"])
def servers(request: pytest.FixtureRequest, topic_prefix: str) -> str:
    """Real brokers with the topics, or the embedded one."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded")
    kafka: KafkaCluster = request.getfixturevalue("kafka")
    for stream in (*STREAMS, "dead-letters"):
        kafka.create_topic(Routes(STREAMS, topic_prefix).topic(stream), partitions=3)
    return kafka.bootstrap_servers


def records_of(prefix: str, instance: str, **fields: object) -> list[ProducibleRecord]:
    """What the connector publishes for one message."""
    body = json.dumps({**TASK, "instanceId": instance, **fields}).encode()
    request = Request("default", body, "application/json", RECEIVED_AT)
    event = convert(parse(body, BodyKind.JSON), UTC)
    ingest_id = IngestId("0190-test")
    return [
        ProducibleRecord(
            stream=route.stream.name,
            topic=route.topic,
            key=instance.encode(),
            value=event.encode(
                route.schema, SingleObjectFraming().header(route.topic, route.schema), request, ingest_id
            ),
            headers=headers(event, request, ingest_id),
            timestamp=RECEIVED_AT,
        )
        for route in Routes(STREAMS, prefix).of(event.message_type)
    ]


def letter(prefix: str, body: bytes, instance: str | None = None) -> ProducibleRecord:
    request = Request("default", body, "text/plain", RECEIVED_AT)
    return dead_letter(
        Routes(STREAMS, prefix).topic("dead-letters"),
        request,
        code=40001,
        stage="parse",
        reason="the body is not JSON",
        instance_id=None if instance is None else InstanceId(instance),
    )


def publish(servers: str, records: Sequence[ProducibleRecord]) -> None:
    produce(
        servers,
        (
            {
                "topic": record.topic,
                "value": record.value,
                "key": record.key,
                "headers": list(record.headers),
                "timestamp": record.timestamp,
            }
            for record in records
        ),
    )


def read(servers: str, prefix: str, stream: str = "events", **options: object) -> list[ConsumerRecord]:
    """What there is, from the beginning."""
    reading = {"from_beginning": True, "until_end": True, **options}
    return list(
        read_records(
            servers,
            {"acks": "all", "linger.ms": 5},
            stream=stream,
            topic=Routes(STREAMS, prefix).topic(stream),
            **reading,
        )
    )


def tail_command(servers: str, prefix: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "connector", "tail", "--bootstrap-servers", servers, *arguments],
        env={"WEDA_TOPICS__PREFIX": prefix, "TZ": "Asia/Shanghai"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_tail(servers: str, prefix: str, *arguments: str) -> list[str]:
    """The lines that were printed until it ended by itself."""
    with tail_command(servers, prefix, "--from-beginning", "--until-end", *arguments) as process:
        printed, complaint = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, complaint) == (0, "")
    return printed.splitlines()


def test_a_record_is_read_back_as_it_was_published(servers: str, topic_prefix: str) -> None:
    publish(servers, records_of(topic_prefix, "i-1"))

    (event,) = read(servers, topic_prefix)

    assert ("events", f"{topic_prefix}.events", "i-1", RECEIVED_AT, 0) == (
        event.stream,
        event.topic,
        event.key,
        event.timestamp,
        event.offset,
    )
    assert isinstance(event.value, dict)
    assert tuple(event.value[name] for name in ("instanceId", "actionName", "receivedAt")) == (
        "i-1",
        "同意",
        RECEIVED_AT,
    )
    assert (event.headers["ce_id"], event.headers["ce_subject"]) == ("m-1", "i-1")
    assert [record.key for record in read(servers, topic_prefix, "tasks")] == ["i-1"]


def test_an_instance_is_read_in_order_and_alone(servers: str, topic_prefix: str) -> None:
    actions = [f"step {number}" for number in range(20)]
    both = [(action, key) for action in actions for key in ("i-1", "i-2")]
    publish(servers, [records_of(topic_prefix, key, actionName=action)[0] for action, key in both])

    assert actions == [record.value["actionName"] for record in read(servers, topic_prefix, key="i-2")]
    assert len(read(servers, topic_prefix)) == 40


def test_a_dead_letter_is_read_as_its_bytes(servers: str, topic_prefix: str) -> None:
    publish(servers, [letter(topic_prefix, b"not \xff JSON")])

    (record,) = read(servers, topic_prefix, "dead-letters")

    assert (record.value, record.key, record.headers["weda.error.code"]) == (b"not \xff JSON", None, "40001")


def test_a_record_of_an_unknown_schema_is_read_as_its_bytes(servers: str, topic_prefix: str) -> None:
    event, *_ = records_of(topic_prefix, "i-1")
    publish(servers, [ProducibleRecord("events", event.topic, b"i-1", b"\x00\x00\x00\x00\x07odd", (), RECEIVED_AT)])

    assert [record.value for record in read(servers, topic_prefix)] == [b"\x00\x00\x00\x00\x07odd"]


def test_reading_starts_with_the_next_record(servers: str, topic_prefix: str) -> None:
    """What is published once reading has begun is read, and nothing older."""
    publish(servers, records_of(topic_prefix, "old"))
    reading = read_records(servers, {}, stream="events", topic=f"{topic_prefix}.events", idle_seconds=SECONDS)
    has_been_read = threading.Event()

    def publish_new_ones() -> None:
        while not has_been_read.wait(1):  # nobody is told when the reading has begun
            publish(servers, records_of(topic_prefix, "new"))

    publishing = threading.Thread(target=publish_new_ones)
    publishing.start()
    try:
        assert next(reading).key == "new"
    finally:
        has_been_read.set()
        publishing.join()
    reading.close()


def test_a_topic_that_is_missing_is_waited_for_and_read_whole(embedded: str, topic_prefix: str) -> None:
    missing: list[str] = []
    later = threading.Timer(1, publish, [embedded, records_of(topic_prefix, "first")])

    def set_missing(topic: str) -> None:
        missing.append(topic)
        later.start()

    reading = read_records(
        embedded,
        {},
        stream="events",
        topic=Routes(STREAMS, topic_prefix).topic("events"),
        idle_seconds=SECONDS,
        on_missing=set_missing,
    )

    assert [record.key for record in islice(reading, 1)] == ["first"]
    assert [f"{topic_prefix}.events"] == missing
    later.join()
    reading.close()


def test_nothing_is_read_of_a_missing_topic(servers: str, topic_prefix: str) -> None:
    assert read(servers, f"{topic_prefix}.none") == []
    assert read(servers, f"{topic_prefix}.none", until_end=False, idle_seconds=0.5) == []


def test_reading_goes_on_when_the_broker_is_back(topic_prefix: str) -> None:
    with KafkaCluster.start() as broker:
        broker.create_topic(f"{topic_prefix}.events", partitions=2)
        servers = broker.bootstrap_servers
        publish(servers, records_of(topic_prefix, "before")[:1])
        reading = read_records(
            servers, {}, stream="events", topic=Routes(STREAMS, topic_prefix).topic("events"), from_beginning=True
        )
        assert next(reading).key == "before"

        broker.kill(1)
        broker.restart(1)
        publish(servers, records_of(topic_prefix, "after")[:1])

        assert next(reading).key == "after"
        reading.close()


def test_no_broker_is_said(topic_prefix: str) -> None:
    with pytest.raises(OutsideUnreachable, match="refused"):
        read(NOBODY, topic_prefix)


def test_tail_prints_what_matters_in_one_line(servers: str, topic_prefix: str) -> None:
    """In columns that line up, in the reader's zone; control characters of a source reach no terminal."""
    publish(servers, [*records_of(topic_prefix, "i-1"), *records_of(topic_prefix, "i-2", **INSTANCE)])

    lines = sorted(run_tail(servers, topic_prefix), key=lambda line: line.split()[-1])

    assert [re.split(r" {2,}", line) for line in lines] == [
        ["2023-11-15 06:13:20+08:00", "张三", "同意", "经理 [31m审批", "已办", "张三的请假", "请假", "i-1"],
        ["2023-11-15 06:13:20+08:00", "张三", "同意", "发起、抄送", "审批中", "张三的请假", "请假", "i-2"],
    ]
    assert len({cell_len(line.rpartition("i-")[0]) for line in lines}) == 1


def test_tail_chooses_by_process_person_and_time(kafka: KafkaCluster, topic_prefix: str) -> None:
    """A part of a name is enough; of times, the first record of that time or later is the first one read."""
    for stream in (*STREAMS, "dead-letters"):
        kafka.create_topic(Routes(STREAMS, topic_prefix).topic(stream), partitions=3)
    others = {"processName": "报销", "processKey": "expense", "approverMap": {"7": "李四"}}
    publish(kafka.bootstrap_servers, [*records_of(topic_prefix, "i-1"), *records_of(topic_prefix, "i-2", **others)])

    def found(*arguments: str) -> list[str]:
        whole = ("--from-beginning", "--until-end")
        with tail_command(kafka.bootstrap_servers, topic_prefix, *whole, *arguments) as process:
            printed, complaint = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, complaint) == (0, "")
        return sorted(line.split()[-1] for line in printed.splitlines())

    assert found("--process", "请") == found("--person", "张") == ["i-1"]
    assert found("--process", "expense") == found("--person", "李四") == ["i-2"]
    assert found("--process", "expense", "--person", "张三") == []
    assert found("--since", "2023-11-14T22:13:20Z") == ["i-1", "i-2"]
    assert found("--since", "2023-11-15") == []


def test_tail_prints_whole_records_as_json(servers: str, topic_prefix: str) -> None:
    publish(servers, records_of(topic_prefix, "i-1"))

    (printed,) = run_tail(servers, topic_prefix, "--json", "--max", "1")

    record = json.loads(printed)
    assert {"stream", "topic", "partition", "offset", "key", "timestamp", "headers", "value"} == set(record)
    assert ("i-1", RECEIVED_AT, TASK["elementName"]) == (
        record["key"],
        record["timestamp"],
        record["value"]["elementName"],
    )


def test_tail_shows_why_a_dead_letter_is_one(servers: str, topic_prefix: str) -> None:
    publish(servers, [letter(topic_prefix, b"{\n \xff", "i-1"), letter(topic_prefix, b"{", "i-2")])

    (line,) = run_tail(servers, topic_prefix, "--stream", "dead-letters", "--instance", "i-1")

    shown = ["2023-11-15 06:13:20+08:00", "40001", "parse", "the body is not JSON", "i-1", "{", "\\xff"]
    assert re.split(r" {2,}", line) == shown


def test_tail_ends_cleanly_on_ctrl_c(servers: str, topic_prefix: str) -> None:
    publish(servers, records_of(topic_prefix, "i-1"))
    with tail_command(servers, topic_prefix, "--from-beginning") as process:
        assert process.stdout is not None
        assert "i-1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate(timeout=PATIENCE_SECONDS)

    assert (process.returncode, printed, complaint) == (0, "", "")


def test_tail_is_silent_when_its_reader_goes(embedded: str, topic_prefix: str) -> None:
    publish(embedded, records_of(topic_prefix, "i-1"))
    with tail_command(embedded, topic_prefix, "--from-beginning") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        publish(embedded, records_of(topic_prefix, "i-1"))

        assert (process.wait(PATIENCE_SECONDS), process.stderr.read()) == (0, "")


def test_tail_says_that_it_waits_for_a_topic(embedded: str, topic_prefix: str) -> None:
    with tail_command(embedded, topic_prefix, "--timeout", "0.5") as process:
        printed, said = process.communicate(timeout=PATIENCE_SECONDS)

    assert (process.returncode, printed) == (0, "")
    assert f"waiting for the topic {topic_prefix}.events" in said


@pytest.mark.parametrize(
    ("servers", "code", "said"),
    [("embedded", 2, "--bootstrap-servers"), (NOBODY, 3, "not reachable")],
)
def test_tail_without_brokers_says_why_in_one_line(servers: str, code: int, said: str, topic_prefix: str) -> None:
    with tail_command(servers, topic_prefix) as process:
        printed, complaint = process.communicate(timeout=PATIENCE_SECONDS)

    assert (code, "", 1) == (process.returncode, printed, complaint.count("\n"))
    assert said in complaint
