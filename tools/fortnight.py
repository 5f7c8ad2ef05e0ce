"""A working fortnight of a simulated company, as it would be in the topic of the stream ``events``.

The simulator tells each instance and words its messages; here they get office hours, a way to the connector on which
some are late or are sent twice, and the connector's own conversion, encoding and places in the topic. The same seed
gives the same fortnight, to the byte: no clock of the machine takes part.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

from connector.cli.tail import record_as_dict
from connector.kafka import partitions
from connector.kafka.reader import ConsumerRecord
from connector.message import events
from connector.message.headers import headers
from connector.message.parsing import BodyKind, parse
from connector.message.routes import Routes
from connector.simulator import Shape, render
from connector.simulator.dictionaries import Action
from connector.simulator.messages import InstanceFields, write
from connector.simulator.processes import PEOPLE, PROCESSES, NodeType, Process
from connector.simulator.runs import seeded_random
from connector.simulator.scenarios import SCENARIOS, Step, steps
from connector.testing import record_value
from connector.values import IngestId, Request

SEED: Final = 7
ZONE: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

MONDAY: Final = int(datetime(2026, 3, 2, tzinfo=ZONE).timestamp()) * SECOND
"""Midnight before the first working day, epoch milliseconds."""

END: Final = MONDAY + 11 * DAY + 18 * HOUR
"""When the topic is read: the second Friday at six in the evening. What comes later is not in it."""

OUTAGE: Final = range(MONDAY + 9 * DAY + 14 * HOUR + 5 * MINUTE, MONDAY + 9 * DAY + 16 * HOUR + 40 * MINUTE)
"""When one connector does not reach Kafka: the second Wednesday, from 14:05 to 16:40. It journals."""

CUT_OFF: Final = "finance"
"""The source whose connector does not."""

SOURCES: Final[Mapping[str, str]] = {"flow_leave_1k3": "hr", "flow_onboarding_e51": "hr"}
"""processKey → source; every other process is finance's. Each source has a connector of its own."""

OFFICE_HOURS: Final = ((9 * HOUR, 12 * HOUR), (13 * HOUR + 30 * MINUTE, 18 * HOUR))
STARTS_A_DAY: Final = (36, 54)
SHARE_STARTED_EARLY: Final = 0.08
EARLY: Final = (6 * HOUR, 8 * HOUR)
"""When some start from home: in Shanghai it is the next day already, in UTC it is not."""

WORKING_DAYS: Final = (0, 1, 2, 3, 4, 7, 8, 9, 10, 11)

SLOW_NODES: Final[Mapping[str, float]] = {
    "法务审核": 2.5,
    "法务会签": 1.8,
    "财务复核": 1.8,
    "总经理审批": 4.0,
    "印章管理员用印": 0.5,
    "盖章登记": 0.4,
}
"""How many times longer than at other nodes people take there."""

BY_MACHINE: Final = frozenset(
    {
        Action.TODO,
        Action.NODE_COPY,
        Action.APPROVAL_COPY,
        Action.AUTO_APPROVE,
        Action.AUTO_APPROVE_REPAIR,
        Action.SKIP,
        Action.START,
        Action.FINISH,
    }
)
"""What the platform does by itself, at any hour and within seconds."""

SHARE_LATE: Final = 0.04
LATE: Final = (5 * MINUTE, 40 * HOUR)
SHARE_SENT_AGAIN_AT_ONCE: Final = 0.03
SHARE_SENT_AGAIN_LATER: Final = 0.012
LATER: Final = (2 * HOUR, 30 * HOUR)
REPEATS_WINDOW: Final = 1 * HOUR
"""How long the connector remembers: ``WEDA_REPEATS__WINDOW_SECONDS``."""

PARTITIONS: Final = 12
ROUTES: Final = Routes(("events",), "weda.workflow", {"hr": (), "finance": ()})


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedMessage:
    """What the platform says once: the truth that the questions are checked against.

    ``step`` is what happened, times in epoch milliseconds; ``message`` is how WeDa words it.
    """

    instance_id: str
    process: Process
    env_type: str
    started_ms: int
    position: int
    step: Step
    message: dict[str, Any]

    @property
    def source(self) -> str:
        """Who sends it."""
        return SOURCES.get(self.process.key, CUT_OFF)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One sending that a connector received, at ``received_ms``; ``again``: it is not the first of its message."""

    simulated: SimulatedMessage
    received_ms: int
    again: bool


@dataclass(frozen=True, slots=True)
class Published:
    """One record of the topic, and what no record holds: when it came there (epoch milliseconds)."""

    arrival: Arrival
    published_ms: int
    record: ConsumerRecord


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a table: what ``published_through`` said before it, and up to which offsets it read."""

    at_ms: int
    published_through_ms: int
    next_offsets: tuple[int, ...]


class Fortnight:
    """All that was simulated, sent and published; each part is made once, when it is asked for.

    Args:
        seed: The same seed, the same fortnight.
    """

    def __init__(self, seed: int = SEED) -> None:
        self._seed = seed

    @cached_property
    def simulated(self) -> tuple[SimulatedMessage, ...]:
        """What happened, instance by instance, each in its order."""
        return tuple(one for start in _starts(self._seed) for one in _instance(self._seed, *start))

    @cached_property
    def arrivals(self) -> tuple[Arrival, ...]:
        """What the connectors received before `END`, in the order of receipt."""
        random = seeded_random(self._seed, "way")
        sent = [arrival for one in self.simulated for arrival in _sent(one, random)]
        sent.sort(key=lambda each: (each.received_ms, each.simulated.instance_id, each.simulated.position))
        return tuple(each for each in sent if each.received_ms < END)

    @cached_property
    def accepted(self) -> tuple[Arrival, ...]:
        """The arrivals that become records: not those that the connector recognises as repeats."""
        return tuple(_new(self.arrivals))

    @property
    def recognised(self) -> int:
        """How many repeats the connector recognised and answered without a record."""
        return len(self.arrivals) - len(self.accepted)

    @cached_property
    def published(self) -> tuple[Published, ...]:
        """The topic's records in the order in which they were published."""
        random = seeded_random(self._seed, "publishing")
        places = sorted(_publishing(self.accepted, random), key=lambda each: each[0])
        numbers = {id(each): number for number, each in enumerate(self.accepted)}
        offsets: Counter[int] = Counter()
        made = []
        for published_ms, arrival in places:
            partition = partition_of(arrival.simulated.instance_id)
            ingest_id = _ingest_id(arrival.received_ms, numbers[id(arrival)])
            record = _record(arrival, ingest_id, partition, offsets[partition])
            made.append(Published(arrival, published_ms, record))
            offsets[partition] += 1
        return tuple(made)

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        """A load five minutes after each full hour of the fortnight."""
        return tuple(self._load(at) for at in range(MONDAY + 5 * MINUTE, END, HOUR))

    def write(self, folder: Path) -> None:
        """Write ``events.jsonl``, as ``weda-connector tail --json`` prints the topic, and ``loads.csv``."""
        ordered = sorted((each.record for each in self.published), key=lambda each: (each.partition, each.offset))
        lines = "".join(f"{json.dumps(record_as_dict(each), ensure_ascii=False)}\n" for each in ordered)
        (folder / "events.jsonl").write_text(lines, encoding="utf-8")
        with (folder / "loads.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("loadedAt", "publishedThrough", "kafka_partition", "nextOffset"))
            for load in self.loads:
                moments = (utc_text(load.at_ms), utc_text(load.published_through_ms))
                rows.writerows((*moments, *place) for place in enumerate(load.next_offsets))

    def _load(self, at_ms: int) -> Load:
        received = [each for each in self.published if each.arrival.received_ms <= at_ms]
        waiting = (each.arrival.received_ms for each in received if each.published_ms > at_ms)
        ends = Counter(each.record.partition for each in received if each.published_ms <= at_ms)
        return Load(at_ms, min(waiting, default=at_ms), tuple(ends[number] for number in range(PARTITIONS)))


def utc_text(milliseconds: int) -> str:
    """``yyyy-mm-dd hh:mm:ss.mmm`` in UTC."""
    return datetime.fromtimestamp(milliseconds / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def partition_of(instance_id: str) -> int:
    """Where Kafka's ``murmur2_random`` puts a key."""
    return partitions.partition_of(instance_id.encode(), PARTITIONS)


def at_work(from_ms: int, working_ms: int) -> int:
    """The moment at which so many milliseconds of office hours have passed since ``from_ms``."""
    left, day = working_ms, (from_ms - MONDAY) // DAY
    while True:
        midnight = MONDAY + day * DAY
        for opens, closes in OFFICE_HOURS if day % 7 < 5 else ():  # noqa: PLR2004 - Monday to Friday
            begin = max(midnight + opens, from_ms)
            room = midnight + closes - begin
            if room > left:
                return begin + left
            left -= max(room, 0)
        day += 1


# --- what happens ---


def _starts(seed: int) -> Iterator[tuple[int, int]]:
    """Number and start (epoch milliseconds) of each instance, day after day."""
    random = seeded_random(seed, "starts")
    number = 0
    for day in WORKING_DAYS:
        for _ in range(random.randint(*STARTS_A_DAY)):
            midnight = MONDAY + day * DAY
            early = random.random() < SHARE_STARTED_EARLY
            in_office = at_work(midnight, int(random.triangular(0, 7.4 * HOUR, 1.5 * HOUR)))
            yield number, midnight + random.randrange(*EARLY) if early else in_office
            number += 1


def _instance(seed: int, number: int, start_ms: int) -> Iterator[SimulatedMessage]:
    random = seeded_random(seed, "instance", number)
    instance_id = blake2b(f"{seed}/{number}".encode(), digest_size=16).hexdigest()
    process, starter = random.choice(PROCESSES), random.choice(PEOPLE)
    instance = InstanceFields(
        instance_id=instance_id,
        process=process,
        title=f"{starter.name}的{process.name}-{random.choice(process.subjects)}",
        version=random.randint(1, 3),
        env_type=random.choices(("prod", "pre"), (9, 1))[0],
        source_type=random.choice(("PC", "H5", "MINI_PROGRAM", "OPEN_API")),
        starter=starter,
        start_ms=start_ms,
    )
    happened = steps(process, SCENARIOS[7 * number % len(SCENARIOS)], starter, random, start_ms)
    for position, step in enumerate(_in_office_hours(happened, start_ms, random)):
        yield SimulatedMessage(
            instance_id=instance_id,
            process=process,
            env_type=instance.env_type,
            started_ms=start_ms,
            position=position,
            step=step,
            message=write(step, instance, random),
        )


def _in_office_hours(happened: Iterator[Step], start_ms: int, random: Random) -> Iterator[Step]:
    """The same steps at another pace: the platform's follow at once, people's come in office hours."""
    moved = {start_ms: start_ms}
    before = now = start_ms
    for step in happened:
        gap = step.at_ms - before
        before = step.at_ms
        now = (
            now + random.randint(1, 15) * SECOND if _by_machine(step) else at_work(now, _working_ms(step, gap, random))
        )
        moved[step.at_ms] = now
        yield replace(step, at_ms=now, opened_ms=moved[step.opened_ms])


def _by_machine(step: Step) -> bool:
    if step.action in BY_MACHINE:
        return True
    if step.msg_type == "Instance":
        return step.action in {Action.WITHDRAW, Action.TERMINATE}  # the task's message said so before
    return step.action is Action.SUBMIT and step.comment is None


def _working_ms(step: Step, gap_ms: int, random: Random) -> int:
    slowness = SLOW_NODES.get(step.node.name, 1.0) if step.node.type is not NodeType.START else 0.6
    return int(gap_ms * slowness * random.lognormvariate(0.6, 0.9))


# --- on the way ---


def _sent(simulated: SimulatedMessage, random: Random) -> Iterator[Arrival]:
    """The sendings of one message: late or not, once or twice."""
    received = simulated.step.at_ms + 40 + int(random.expovariate(1 / 300))
    if random.random() < SHARE_LATE:
        received += _between(LATE, random)
    yield Arrival(simulated, received, again=False)
    if random.random() < SHARE_SENT_AGAIN_AT_ONCE:
        yield Arrival(simulated, received + random.randint(1, 30) * SECOND, again=True)
    if random.random() < SHARE_SENT_AGAIN_LATER:
        yield Arrival(simulated, received + _between(LATER, random), again=True)


def _between(bounds: tuple[int, int], random: Random) -> int:
    """Milliseconds between the bounds, short ones more often."""
    least, most = bounds
    return int(least * (most / least) ** random.random())


def _new(arrivals: tuple[Arrival, ...]) -> Iterator[Arrival]:
    seen: dict[tuple[str, int], int] = {}
    for each in arrivals:
        message = (each.simulated.instance_id, each.simulated.position)
        if each.received_ms - seen.get(message, -REPEATS_WINDOW) >= REPEATS_WINDOW:
            seen[message] = each.received_ms
            yield each


def _publishing(accepted: tuple[Arrival, ...], random: Random) -> Iterator[tuple[int, Arrival]]:
    """When each comes to the topic: at once, or after the outage; never before an earlier one of its instance."""
    latest: dict[str, int] = {}
    waiting = 0
    for each in accepted:
        published = each.received_ms + random.randint(4, 40)
        if each.simulated.source == CUT_OFF and each.received_ms in OUTAGE:
            waiting += 1
            published = OUTAGE.stop + 200 + 3 * waiting
        published = max(published, latest.get(each.simulated.instance_id, 0) + 1)
        latest[each.simulated.instance_id] = published
        yield published, each


# --- through the connector ---


def _record(arrival: Arrival, ingest_id: IngestId, partition: int, offset: int) -> ConsumerRecord:
    """Parsed, converted, encoded and decoded again by the connector's own steps."""
    outgoing = render(arrival.simulated.message, Shape.MIXED)
    body = outgoing.query.encode() if outgoing.query else outgoing.body
    content_type = outgoing.headers.get("Content-Type", "")
    request = Request(arrival.simulated.source, body, content_type, arrival.received_ms)
    kind = BodyKind.QUERY if outgoing.query else BodyKind.of(content_type)
    event = events.convert(parse(body, kind), ZONE)
    [route] = ROUTES.of(event.message_type, request.source, event.environment)
    return ConsumerRecord(
        stream=route.stream.name,
        topic=route.topic,
        partition=partition,
        offset=offset,
        key=event.instance_id,
        timestamp=request.received_at,
        headers={name: text.decode() for name, text in headers(event, request, ingest_id)},
        value=record_value(event, route.schema, request, ingest_id),
    )


def _ingest_id(received_ms: int, number: int) -> IngestId:
    """A UUIDv7 of the moment, with a count in place of the random bits."""
    return IngestId(str(UUID(int=received_ms << 80 | 7 << 76 | 0b10 << 62 | number)))
