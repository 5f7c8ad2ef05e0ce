"""Topics of real brokers are described, created and mended as the settings say."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, TopicPartition

from connector.errors import ConfigurationError, OutsideUnreachable
from connector.kafka.topics import TopicAdmin, TopicSpec, TopicState, desired_topics, plan
from connector.settings import Settings
from tests.servers import KafkaCluster, produce
from tests.waiting import PATIENCE_SECONDS, wait_until

SECONDS = 60
NOBODY = "127.0.0.1:1"
AUTHORIZED_BY_ACL = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}
ON_SASL = {
    **AUTHORIZED_BY_ACL,
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="root" password="root" user_root="root" user_guest="guest";'
    ),
    "super.users": "User:root;User:ANONYMOUS",
}


def as_user(name: str, password: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": password,
    }


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaCluster]:
    """One broker that asks who is there, and lets only root do anything."""
    with KafkaCluster.start(server_properties=ON_SASL, client_properties=as_user("root", "root")) as broker:
        yield broker


def settings(prefix: str, **environment: str) -> Settings:
    variables = {"TOPICS__PREFIX": prefix, "TOPICS__PARTITIONS": "3", **environment}
    return Settings.load(environment={f"WEDA_{name}": value for name, value in variables.items()})


def described(kafka: KafkaCluster, name: str, **expected: object) -> TopicState:
    """The topic once it has these attributes: brokers learn of a change one after the other."""
    admin = TopicAdmin(kafka.bootstrap_servers, {})

    def is_as_expected(state: TopicState | None) -> bool:
        return state is not None and all(value == getattr(state, key) for key, value in expected.items())

    return wait_until(lambda: admin.describe([name], SECONDS).get(name), is_as_expected)


def run_topics(command: str, kafka: KafkaCluster, prefix: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    variables = {"TOPICS__PREFIX": prefix, "TOPICS__PARTITIONS": "3", **environment}
    servers = ("--bootstrap-servers", kafka.bootstrap_servers)
    done = subprocess.run(
        [sys.executable, "-m", "connector", "topics", command, *servers, *arguments],
        env={f"WEDA_{name}": value for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    return done.returncode, done.stdout + done.stderr


def test_created_topics_are_as_wanted_on_three_brokers(cluster: KafkaCluster, topic_prefix: str) -> None:
    """With the brokers' default replication, two replicas must have each record and the topic is durable."""
    specs = desired_topics(settings(topic_prefix))

    TopicAdmin(cluster.bootstrap_servers, {"linger.ms": 5}).create(specs, SECONDS)

    states = {spec.name: described(cluster, spec.name, partitions=3) for spec in specs}
    assert plan(specs, states) == ()
    for state in states.values():
        assert (state.replication_factor, state.min_insync_replicas, state.is_durable) == (3, 2, True)
        assert state.max_message_bytes > 1_000_000


def test_topics_of_one_broker_take_records_and_are_not_durable(kafka: KafkaCluster, topic_prefix: str) -> None:
    spec = desired_topics(settings(topic_prefix))[0]

    TopicAdmin(kafka.bootstrap_servers, {}).create([spec], SECONDS)

    state = described(kafka, spec.name)
    assert (state.replication_factor, state.min_insync_replicas, state.is_durable) == (1, 1, False)


def test_a_topic_that_does_not_exist_is_absent(kafka: KafkaCluster, topic_prefix: str) -> None:
    admin = TopicAdmin(kafka.bootstrap_servers, {})

    assert admin.describe([f"{topic_prefix}.none"], SECONDS) == {}
    assert admin.describe([], SECONDS) == {}


def test_connectors_that_create_at_the_same_time_all_succeed(kafka: KafkaCluster, topic_prefix: str) -> None:
    specs = desired_topics(settings(topic_prefix))
    admins = [TopicAdmin(kafka.bootstrap_servers, {}) for _ in range(4)]

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda admin: admin.create(specs, SECONDS), admins))

    for spec in specs:
        described(kafka, spec.name, partitions=3)


def test_an_existing_topic_is_left_as_it_is_by_creating(kafka: KafkaCluster, topic_prefix: str) -> None:
    spec = desired_topics(settings(topic_prefix))[0]
    kafka.create_topic(spec.name, partitions=1, config={"retention.ms": "7777777"})

    TopicAdmin(kafka.bootstrap_servers, {}).create([spec], SECONDS)

    assert described(kafka, spec.name, partitions=1).config["retention.ms"] == "7777777"


def test_altering_changes_what_is_named_and_nothing_else(kafka: KafkaCluster, topic_prefix: str) -> None:
    name = f"{topic_prefix}.altered"
    kafka.create_topic(name, partitions=1, config={"retention.ms": "7777777", "max.message.bytes": "2000"})
    admin = TopicAdmin(kafka.bootstrap_servers, {})

    admin.alter(name, SECONDS, config={"max.message.bytes": "3000"})
    assert described(kafka, name, max_message_bytes=3000, partitions=1).config["retention.ms"] == "7777777"

    admin.alter(name, SECONDS, partitions=2)
    assert described(kafka, name, partitions=2).max_message_bytes == 3000


def test_what_kafka_refuses_is_said_with_its_reason(kafka: KafkaCluster, topic_prefix: str) -> None:
    spec = replace(desired_topics(settings(topic_prefix))[0], replication_factor=9)

    with pytest.raises(ConfigurationError, match="replication factor"):
        TopicAdmin(kafka.bootstrap_servers, {}).create([spec], SECONDS)


def test_the_brokers_are_counted(kafka: KafkaCluster) -> None:
    assert TopicAdmin(kafka.bootstrap_servers, {}).brokers(SECONDS) == 1


def test_a_client_that_did_not_reach_kafka_is_not_asked_again() -> None:
    """It may be one that has learned of no brokers at all, and never connects again."""
    admin = TopicAdmin(NOBODY, {})
    before = admin._client
    with pytest.raises(OutsideUnreachable):
        admin.brokers(0.5)

    assert admin._client is not before


def test_no_broker_is_said_within_the_time_given() -> None:
    started = time.monotonic()

    with pytest.raises(OutsideUnreachable, match="refused"):
        TopicAdmin(NOBODY, {}).brokers(1)
    with pytest.raises(OutsideUnreachable, match="refused"):
        TopicAdmin(NOBODY, {}).describe(["any"], 1)

    assert time.monotonic() - started < 20


def test_a_missing_acl_is_named(guarded: KafkaCluster, topic_prefix: str) -> None:
    admin = TopicAdmin(guarded.bootstrap_servers, as_user("guest", "guest"))

    with pytest.raises(ConfigurationError, match="grant Describe on Topic"):
        admin.describe([f"{topic_prefix}.secret"], SECONDS)
    with pytest.raises(ConfigurationError, match="grant Create on Topic"):
        admin.create([TopicSpec(f"{topic_prefix}.mine", 1, None, {})], SECONDS)


def test_refused_credentials_are_distinguished_from_an_unreachable_broker(guarded: KafkaCluster) -> None:
    with pytest.raises(ConfigurationError, match="credentials") as caught:
        TopicAdmin(guarded.bootstrap_servers, as_user("root", "not-the-password")).brokers(20)
    assert "not-the-password" not in str(caught.value)


def test_apply_makes_what_plan_shows(kafka: KafkaCluster, topic_prefix: str) -> None:
    code, printed = run_topics("plan", kafka, topic_prefix)
    assert (code, printed.count("missing")) == (1, 4)

    code, printed = run_topics("apply", kafka, topic_prefix, "--json")
    assert code == 0
    assert [each["action"] for each in json.loads(printed)["done"]] == ["create"] * 4

    described(kafka, f"{topic_prefix}.dead-letters", partitions=3)
    assert run_topics("plan", kafka, topic_prefix) == (0, "every topic is as it should be\n")


def test_apply_mends_values_and_adds_partitions_only_when_allowed(kafka: KafkaCluster, topic_prefix: str) -> None:
    name = f"{topic_prefix}.dead-letters"
    TopicAdmin(kafka.bootstrap_servers, {}).create(
        desired_topics(settings(topic_prefix, TOPICS__PARTITIONS="2")), SECONDS
    )
    TopicAdmin(kafka.bootstrap_servers, {}).alter(name, SECONDS, config={"retention.ms": "7777777"})
    described(kafka, name, partitions=2)

    code, printed = run_topics("apply", kafka, topic_prefix)
    assert code == 1
    assert printed.count("--allow-reordering") == 4
    assert str(90 * 24 * 3600 * 1000) == described(kafka, name, partitions=2).config["retention.ms"]

    code, printed = run_topics("apply", kafka, topic_prefix, "--allow-reordering")
    assert (code, printed.count("add-partitions")) == (0, 4)
    described(kafka, name, partitions=3)


def test_partitions_are_never_removed(kafka: KafkaCluster, topic_prefix: str) -> None:
    TopicAdmin(kafka.bootstrap_servers, {}).create(desired_topics(settings(topic_prefix)), SECONDS)

    code, printed = run_topics("apply", kafka, topic_prefix, "--allow-reordering", TOPICS__PARTITIONS="2")

    assert (code, printed.count("Kafka removes no partitions")) == (1, 4)


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(
    ("servers", "code", "said"),
    [
        ("", 2, "WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        ("embedded", 2, "the embedded broker creates its topics automatically"),
        (NOBODY, 3, "not reachable"),
    ],
)
def test_without_brokers_one_line_says_why(command: str, servers: str, code: int, said: str) -> None:
    environment = {"WEDA_KAFKA__BOOTSTRAP_SERVERS": servers} if servers else {}
    done = subprocess.run(
        [sys.executable, "-m", "connector", "topics", command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )

    assert (code, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert said in done.stderr


# --- topics list, topics describe ---


def with_records_and_a_group(kafka: KafkaCluster, prefix: str) -> str:
    """The topics of a prefix; ``events`` has three records in two partitions, of which ``reports`` has read one."""
    TopicAdmin(kafka.bootstrap_servers, {}).create(desired_topics(settings(prefix)), SECONDS)
    events = f"{prefix}.events"
    produce(
        kafka.bootstrap_servers,
        [{"topic": events, "value": value, "partition": at} for at, value in ((0, b"a"), (0, b"b"), (2, b"c"))],
    )
    reader = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"{prefix}-reports"})
    reader.commit(offsets=[TopicPartition(events, 0, 1)], asynchronous=False)
    reader.close()
    return events


def test_list_shows_records_and_the_lag_of_a_group(kafka: KafkaCluster, topic_prefix: str) -> None:
    events, group = with_records_and_a_group(kafka, topic_prefix), f"{topic_prefix}-reports"

    code, text = run_topics("list", kafka, topic_prefix, "--group", group)
    _, report = run_topics("list", kafka, topic_prefix, "--group", group, "--json")

    lines = text.splitlines()
    assert code == 0
    assert lines[0].split("  ")[0] == "TOPIC"
    assert lines[0].endswith(f"LAG OF {group}")
    row = next(line for line in lines if line.startswith(f"{events} "))
    assert re.split(r" {2,}", row) == [events, "one broker can lose it", "3", "3", "1 of 1, at least 1", "2"]
    by_name = {one["topic"]: one for one in json.loads(report)["topics"]}
    assert set(by_name) == {spec.name for spec in desired_topics(settings(topic_prefix))}
    assert (by_name[events]["records"], by_name[events]["lag"]) == (3, {group: 2})
    assert by_name[f"{topic_prefix}.tasks"]["lag"] == {group: None}


def test_list_names_a_topic_that_is_missing(kafka: KafkaCluster, topic_prefix: str) -> None:
    spec, *others = desired_topics(settings(topic_prefix))
    TopicAdmin(kafka.bootstrap_servers, {}).create(others, SECONDS)

    code, text = run_topics("list", kafka, topic_prefix)

    assert code == 1
    assert [line.split()[:2] for line in text.splitlines() if "MISSING" in line] == [[spec.name, "MISSING"]]


def test_describe_shows_each_partition(kafka: KafkaCluster, topic_prefix: str) -> None:
    events, group = with_records_and_a_group(kafka, topic_prefix), f"{topic_prefix}-reports"

    code, text = run_topics("describe", kafka, topic_prefix, events, "--group", group)
    _, report = run_topics("describe", kafka, topic_prefix, events, "--group", group, "--json")

    parts = json.loads(report)["by_partition"]
    leader = parts[0]["leader"]
    assert code == 0
    assert "cleanup.policy: delete\n" in text
    assert "index.interval.bytes" not in text
    assert "index.interval.bytes" in json.loads(report)["config"]
    assert [line.split() for line in text.splitlines()[-3:]] == [
        ["0", str(leader), str(leader), "0", "2", "1"],
        ["1", str(leader), str(leader), "0", "0", "0"],
        ["2", str(leader), str(leader), "0", "1", "1"],
    ]
    assert [(one["first"], one["end"], one["committed"][group], one["lag"][group]) for one in parts] == [
        (0, 2, 1, 1),
        (0, 0, None, 0),
        (0, 1, None, 1),
    ]


def test_describe_of_no_topic_says_so(kafka: KafkaCluster, topic_prefix: str) -> None:
    code, text = run_topics("describe", kafka, topic_prefix, f"{topic_prefix}.none")

    assert (code, f"there is no topic {topic_prefix}.none" in text) == (1, True)
