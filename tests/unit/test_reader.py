"""What a reader has time for: each answer, and the next record; slow answers and long scans are not idle time.

The client library and the clock are replaced: each answer takes a time that the test chooses, and nobody waits for it.
"""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from connector.admin import doctor
from connector.errors import OutsideUnreachable
from connector.kafka import consumer, deadline, reader
from connector.kafka.reader import read_records
from connector.message import weda
from connector.settings import Settings
from tests.still_clock import StillClock

TOPIC = "weda.events"
OURS, OTHER = b"i-1", b"i-2"
MOST_POLLS = 1_000
"""A reader that polls more often does not end."""


class Answer:
    """A record, or without a key the end of the partition."""

    def __init__(self, offset: int, key: bytes | None) -> None:
        self.offset, self.key = lambda: offset, lambda: key
        self.error = lambda: KafkaError(KafkaError._PARTITION_EOF) if key is None else None
        self.topic, self.partition = lambda: TOPIC, lambda: 0
        self.value, self.headers, self.timestamp = lambda: None, list, lambda: (1, 1_700_000_000_123)


class SlowConsumer:
    """Has a topic of one partition.

    Args:
        clock: The clock that its answers move on.
        keys: The key of each record.
        request_seconds: How long an answer takes that is no record.
        record_seconds: How long a record takes.
        missing_until: When the topic is created.
        is_busy: Whether there is always one more record of another instance, so that the end is never reported.
    """

    def __init__(
        self,
        clock: StillClock,
        keys: Iterable[bytes],
        *,
        request_seconds: float = 0.0,
        record_seconds: float = 0.0,
        missing_until: float = 0.0,
        is_busy: bool = False,
    ) -> None:
        self.keys, self.polls = list(keys), 0
        self._clock, self._has_ended = clock, False
        self._next: int | None = None
        self._request_seconds, self._record_seconds = request_seconds, record_seconds
        self._missing_until, self._is_busy = missing_until, is_busy

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._answer_within(timeout)
        known = {0: None} if self._clock.now >= self._missing_until else {}
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=known)})

    def offsets_for_times(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self._answer_within(timeout)
        end = len(self.keys)
        return [TopicPartition(each.topic, each.partition, end if each.offset == OFFSET_END else 0) for each in places]

    def assign(self, places: list[TopicPartition]) -> None:
        self._next = max(0, places[0].offset) if places else None

    def poll(self, timeout: float) -> Answer | None:
        self.polls += 1
        assert self.polls < MOST_POLLS, "reading does not end"
        if self._next == len(self.keys) and not self._has_ended and not self._is_busy:
            self._has_ended = True
            return Answer(self._next, None)
        if self._next == len(self.keys) and self._is_busy:
            self.keys.append(OTHER)
        if self._next is None or self._next == len(self.keys):
            self._clock.sleep(timeout)
            return None
        self._clock.sleep(self._record_seconds)
        self._next += 1
        return Answer(self._next - 1, self.keys[self._next - 1])

    def close(self) -> None: ...

    def _answer_within(self, timeout: float) -> None:
        self._clock.sleep(min(timeout, self._request_seconds))
        if timeout < self._request_seconds:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    replaced = StillClock(0.0)
    for module in (reader, consumer, deadline):
        monkeypatch.setattr(module, "time", replaced)
    return replaced


def read(monkeypatch: pytest.MonkeyPatch, kafka: SlowConsumer, **options: Any) -> list[int]:
    """The offsets of the records that are read from the beginning."""
    monkeypatch.setattr(reader, "Consumer", lambda _properties: kafka)
    reading = {"stream": "events", "topic": TOPIC, "from_beginning": True, **options}
    return [record.offset for record in read_records("kafka:9092", {}, **reading)]


def test_what_comes_before_reading_is_not_counted_as_idle(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [OURS, OURS], request_seconds=2)

    assert read(monkeypatch, kafka, idle_seconds=1) == [0, 1]


def test_the_time_in_which_a_topic_was_missing_is_not_counted_as_idle(
    clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = SlowConsumer(clock, [OURS], missing_until=4.9, record_seconds=0.2, request_seconds=0.1)

    assert read(monkeypatch, kafka, idle_seconds=5) == [0]
    assert clock.now > 4.9 + 5


def test_a_topic_that_stays_missing_is_awaited_for_the_idle_time(
    clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = SlowConsumer(clock, [], missing_until=3_600)

    assert read(monkeypatch, kafka, idle_seconds=5) == []
    assert 5 <= clock.now < 2 * 5


def test_a_scan_for_one_instance_is_not_idle(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [*[OTHER] * 20, OURS], record_seconds=0.1)

    assert read(monkeypatch, kafka, key="i-1", idle_seconds=1) == [20]


def test_reading_one_instance_ends_although_others_go_on(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [OTHER, OURS], record_seconds=0.1, is_busy=True)

    assert read(monkeypatch, kafka, key="i-1", idle_seconds=1) == [1]


def by_doctor(monkeypatch: pytest.MonkeyPatch, kafka: SlowConsumer) -> doctor.Finding:
    """What the doctor finds of a connector that publishes what it accepts."""

    async def publish(_settings: Settings, _url: str, _source: str, message: Mapping[str, str]) -> tuple[int, str]:
        kafka.keys.append(message["instanceId"].encode())
        return 200, weda.ACCEPTED_BODY.decode()

    monkeypatch.setattr(reader, "Consumer", lambda _properties: kafka)
    monkeypatch.setattr(doctor, "_post", publish)
    return doctor._through_connector(Settings.load(environment={}), "kafka:9092", "http://connector:8080")


def test_doctor_reads_only_what_came_after_its_message(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [OTHER] * 500, record_seconds=1)

    finding = by_doctor(monkeypatch, kafka)

    assert (finding.verdict, kafka.polls) == ("ok", 1)


def test_doctor_waits_for_a_topic_that_its_message_creates(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_doctor(monkeypatch, SlowConsumer(clock, [], missing_until=5)).verdict == "ok"


def test_doctor_reports_a_topic_that_it_cannot_read(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = by_doctor(monkeypatch, SlowConsumer(clock, [], request_seconds=3_600))

    assert (finding.verdict, "cannot read the topic" in finding.found) == ("failed", True)


@pytest.mark.parametrize("start", [{}, {"since": 1_700_000_000_000}, {"from_beginning": False, "back": 2}])
def test_each_answer_has_a_deadline_of_its_own(
    start: dict[str, Any], clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = SlowConsumer(clock, [OURS, OURS], request_seconds=consumer.REACH_SECONDS - 1)

    assert read(monkeypatch, kafka, until_end=True, **start) == [0, 1]


def test_an_answer_that_does_not_come_in_time_is_an_error(clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = SlowConsumer(clock, [OURS, OURS], request_seconds=consumer.REACH_SECONDS + 1)

    with pytest.raises(OutsideUnreachable):
        read(monkeypatch, kafka, until_end=True)
