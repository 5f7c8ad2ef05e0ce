"""librdkafka alone: the records of the stream ``events`` as fast as the broker acknowledges them.

`python -m bench.produce BOOTSTRAP_SERVERS TOPIC SECONDS` prints a `Sample` as JSON. The records (key, headers, value)
are made beforehand by the connector's own code, so that only librdkafka and its Python binding are measured.
"""

import os
import sys
import time
from itertools import cycle, islice
from zoneinfo import ZoneInfo

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from bench.sample import Sample, resident_bytes
from bench.traffic import SIMULATED, Traffic
from connector.kafka.publisher import producer_properties
from connector.message.encoding import MAGIC
from connector.message.events import convert
from connector.message.headers import headers
from connector.message.ingest_ids import IngestIds
from connector.message.parsing import BodyKind, parse
from connector.message.schemas import WORKFLOW_EVENT, load
from connector.values import ProducibleRecord, Request

DISTINCT = 5_000
WARM_UP_SECONDS = 1.0


class Count:
    """Delivery reports."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.failed = 0

    def report(self, error: KafkaError | None, _message: Message) -> None:
        """Count one."""
        if error is None:
            self.acknowledged += 1
        else:
            self.failed += 1


def make_records(topic: str, count: int) -> list[ProducibleRecord]:
    """Records of the simulator's messages, as the connector makes them."""
    ingest_ids, schema, requests = IngestIds(), load(WORKFLOW_EVENT), Traffic(SIMULATED, "127.0.0.1").requests()
    made = []
    for http in islice(requests, count):
        request = Request("default", http.partition(b"\r\n\r\n")[2], "application/json", time.time_ns() // 1_000_000)
        event = convert(parse(request.body, BodyKind.JSON), ZoneInfo("Asia/Shanghai"))
        ingest_id = ingest_ids.next()
        value = event.encode(schema, MAGIC + schema.fingerprint, request, ingest_id)
        key, shared = event.instance_id.encode(), headers(event, request, ingest_id)
        made.append(ProducibleRecord("events", topic, key, value, shared, request.received_at))
    return made


def run(bootstrap_servers: str, topic: str, seconds: float) -> Sample:
    """Produce for so many seconds after a warm-up; what is acknowledged meanwhile counts."""
    producer, count = Producer(producer_properties(bootstrap_servers, {})), Count()
    endless = cycle(make_records(topic, DISTINCT))
    begun = time.perf_counter()
    cpu, start, is_warm = time.process_time(), begun, False
    while (now := time.perf_counter()) - start < seconds or not is_warm:
        if not is_warm and now - begun >= WARM_UP_SECONDS:
            cpu, start, is_warm = time.process_time(), now, True
            count.acknowledged = 0
        _produce(producer, next(endless), count)
    sample = Sample(
        accepted=count.acknowledged,
        refused=count.failed,
        seconds=time.perf_counter() - start,
        p50=None,
        p99=None,
        p999=None,
        cpu_seconds=time.process_time() - cpu,
        rss=resident_bytes(os.getpid()),
    )
    producer.purge()
    producer.flush(5)
    return sample


def _produce(producer: Producer, record: ProducibleRecord, count: Count) -> None:
    """Produce one record; while librdkafka's queue is full, take delivery reports."""
    while True:
        try:
            producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                timestamp=record.timestamp,
                on_delivery=count.report,
            )
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


if __name__ == "__main__":
    sample = run(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    print(msgspec.json.encode(sample).decode())
