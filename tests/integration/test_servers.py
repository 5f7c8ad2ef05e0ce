"""The test servers do what the other tests rely on: keep records, break when asked to, leave nothing behind."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from tests.servers import DidNotStart, KafkaCluster, ServerError, end_offsets, read_topic
from tests.servers.processes import Identity
from tests.waiting import PATIENCE_SECONDS, wait_until

A_RUN_THAT_IS_KILLED = """
import os, pathlib, signal, sys
from tests.servers import KafkaCluster
KafkaCluster.start(state=pathlib.Path(sys.argv[1])).pause(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaCluster]:
    """One broker that this module may break."""
    with KafkaCluster.start() as cluster:
        yield cluster


def produce(bootstrap: str, topic: str, *values: bytes, seconds: float = 60) -> int:
    """Produce with acks=all; how many of the records were not acknowledged in time."""
    within = {"message.timeout.ms": int(seconds * 1000), "topic.metadata.refresh.interval.ms": 500}
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 2, **within})
    acknowledged: list[bool] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: acknowledged.append(error is None))
    producer.flush(seconds + 5)
    return len(values) - sum(acknowledged)


def values(bootstrap: str, topic: str, n: int | None = None) -> list[bytes | None]:
    return [record.value() for record in read_topic(bootstrap, topic, n)]


def answers(bootstrap: str) -> bool:
    try:
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 2}).list_topics(timeout=2)
    except KafkaException:
        return False
    return True


def test_a_record_is_read_back_with_its_place(kafka: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.read-back"
    kafka.create_topic(topic, partitions=3, config={"retention.ms": "3600000"})

    assert produce(kafka.bootstrap_servers, topic, *(b"%d" % number for number in range(100))) == 0

    records = read_topic(kafka.bootstrap_servers, topic)
    assert {b"%d" % number for number in range(100)} == {record.value() for record in records}
    for partition, end in kafka.end_offsets(topic).items():
        assert list(range(end)) == [record.offset() for record in records if record.partition() == partition]


def test_reading_a_number_of_records_waits_for_them(kafka: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.later"
    kafka.create_topic(topic)
    later = threading.Timer(1, produce, [kafka.bootstrap_servers, topic, b"1", b"2", b"3"])
    later.start()

    assert values(kafka.bootstrap_servers, topic, n=2) == [b"1", b"2"]

    later.join()


def test_reading_more_records_than_there_are_times_out(kafka: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.empty"
    kafka.create_topic(topic)

    assert read_topic(kafka.bootstrap_servers, topic) == []
    with pytest.raises(TimeoutError):
        read_topic(kafka.bootstrap_servers, topic, n=1, timeout=1)


def test_an_aborted_transaction_is_not_read(kafka: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.transactions"
    kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic_prefix})
    producer.init_transactions(PATIENCE_SECONDS)
    for value, end in ((b"kept", producer.commit_transaction), (b"aborted", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(PATIENCE_SECONDS)
        end(PATIENCE_SECONDS)

    assert values(kafka.bootstrap_servers, topic) == [b"kept"]


def test_topics_are_not_created_by_producing(kafka: KafkaCluster, topic_prefix: str) -> None:
    assert produce(kafka.bootstrap_servers, f"{topic_prefix}.missing", b"1", seconds=2) == 1


def test_a_killed_broker_keeps_its_records_and_its_address(broker: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.kept"
    broker.create_topic(topic)
    produce(broker.bootstrap_servers, topic, b"1", b"2")

    broker.kill(1)
    assert not broker.running(1)
    assert not answers(broker.bootstrap_servers)
    broker.restart(1)

    assert values(broker.bootstrap_servers, topic) == [b"1", b"2"]


def test_a_paused_broker_stops_answering_and_resumes(broker: KafkaCluster) -> None:
    broker.pause(1)
    assert broker.running(1)
    assert not answers(broker.bootstrap_servers)

    broker.resume(1)
    wait_until(lambda: answers(broker.bootstrap_servers))


def test_a_paused_broker_can_be_killed_and_restarted(broker: KafkaCluster) -> None:
    broker.pause(1)

    broker.restart(1)

    wait_until(lambda: answers(broker.bootstrap_servers))


def test_a_broker_outlives_the_thread_that_started_it(broker: KafkaCluster) -> None:
    starter = threading.Thread(target=broker.restart, args=[1])
    starter.start()
    starter.join()
    time.sleep(0.5)  # it does not end

    assert broker.running(1)
    wait_until(lambda: answers(broker.bootstrap_servers))


def test_a_cluster_accepts_with_two_of_three_brokers_and_not_with_one(cluster: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.majority"
    cluster.create_topic(topic, partitions=3)

    cluster.kill(1)
    assert produce(cluster.bootstrap_servers, topic, b"two brokers left") == 0
    cluster.pause(2)
    assert produce(cluster.bootstrap_servers, topic, b"one broker left", seconds=4) == 1


def test_a_cluster_comes_back_whole(cluster: KafkaCluster, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.back"
    cluster.resume_all()
    cluster.start_all()
    cluster.create_topic(topic, partitions=3)
    produce(cluster.bootstrap_servers, topic, b"1", b"2", b"3")

    cluster.kill_all()
    assert not any(cluster.running(node) for node in cluster.nodes)
    cluster.start_all()

    assert sorted(value or b"" for value in values(cluster.bootstrap_servers, topic)) == [b"1", b"2", b"3"]
    assert sum(end_offsets(cluster.bootstrap_servers, topic).values()) == 3


def test_a_broker_that_dies_at_its_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=r"no\.such\.Authorizer"):
        KafkaCluster.start(server_properties={"authorizer.class.name": "no.such.Authorizer"}, state=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()

    with pytest.raises(ServerError, match="not empty"):
        KafkaCluster.start(state=tmp_path)

    assert precious.exists()


def test_brokers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """A run that is killed outright leaves no broker behind, a paused one neither."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", A_RUN_THAT_IS_KILLED, str(tmp_path)]

    assert subprocess.run(command, cwd=root, check=False).returncode == -9

    pid, born = map(int, (tmp_path / "broker1.pid").read_text().split())
    wait_until(lambda: Identity.of(pid) != Identity(pid, born))
