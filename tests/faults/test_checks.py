"""Each check fails on the history that it is there for, and passes on every history that the promises allow."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults import checks
from tests.faults.checks import Breach, History, Wanted, check, tail_breaks
from tests.faults.consumer import DeadLetter, Record, field_names
from tests.faults.ledger import Attempt, Disturbance, Issued, Ledger
from tests.faults.messages import OURS, Message, messages, write_json

Change = Callable[[History], History]
PUBLISHED = 1_772_418_600_000


KILLED = [Disturbance("connector killed", 0.6, 19, closes_door=True)]


def ingest_id(number: int) -> str:
    return f"019cac61-8cbb-7c3e-9f20-{number:012d}"


def sent(message: Message, *outcomes: str) -> Issued:
    """Sent at 10 x its index, one attempt a second, each answered after half of one."""
    codes: dict[str, Any] = {"accepted": 0, "refused": 50300, "unknown": None}
    attempts = [
        Attempt(10.0 * message.index + number, 10.0 * message.index + number + 0.5, outcome, codes[outcome])  # type: ignore[arg-type]
        for number, outcome in enumerate(outcomes)
    ]
    return Issued(message, attempts)


def published(message: Message, stream: str, offset: int, number: int | None = None) -> Record:
    """A faultless record of the message."""
    name = ingest_id(message.index if number is None else number)
    fields = field_names(stream)
    known = {field: message.known.get(field) for field in fields - {*OURS}}
    extras = {field: write_json(value) for field, value in message.wire.items() if field not in fields - {*OURS}}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": message.message_id or name,
        "ce_type": f"io.weda.workflow.{message.kind.lower()}.v1",
        "ce_source": "/sources/default",
        "ce_subject": message.instance,
        "ce_time": "2026-03-02T02:30:00.000Z",
        "content-type": "application/avro",
        "weda.fingerprint": checks.fingerprint(message),
    }
    value = {**known, "source": "default", "receivedAt": PUBLISHED, "ingestId": name, "extras": extras}
    return Record(stream, 0, offset, message.instance, PUBLISHED, headers, value)


def tasks(count: int, instance: str = "i") -> list[Message]:
    """Task messages with ids of their own."""
    drawn = messages("run", instance, random.Random(1))
    found = [one for one in islice(drawn, 20 * count) if one.kind == "Task" and one.message_id][:count]
    return [renumbered(one, number) for number, one in enumerate(found)]


def renumbered(message: Message, index: int) -> Message:
    identity = f"run/{message.instance}/{index}"
    own = {"requestId": identity, "msgId": f"msg-{identity}"}
    return replace(message, index=index, wire=message.wire | own | {"new": 7}, known=message.known | own)


def streams_of(order: Sequence[Message], ids: Sequence[int] | None = None) -> list[Record]:
    """The order of the messages in both of their topics."""
    numbers = ids or [message.index for message in order]
    return [
        published(message, stream, offset, number)
        for offset, (message, number) in enumerate(zip(order, numbers, strict=True))
        for stream in message.streams
    ]


def history(order: Sequence[int], *, count: int | None = None, ids: Sequence[int] | None = None) -> History:
    """Accepted messages 0 .. count-1, which stand in the topics in this order."""
    issued = tasks(count or max(order) + 1)
    ledger = Ledger({message.identity: sent(message, "accepted") for message in issued})
    return History(ledger, streams_of([issued[number] for number in order], ids))


def broken(found: Iterable[Breach]) -> set[str]:
    return {breach.check for breach in found}


def changed(record_change: Callable[[Record], Record], *, at: int = 0) -> Change:
    def change(good: History) -> History:
        records = list(good.records)
        records[at] = record_change(records[at])
        return replace(good, records=records)

    return change


def with_value(**fields: Any) -> Change:
    return changed(lambda record: replace(record, value=record.value | fields))


def with_header(name: str, text: str) -> Change:
    return changed(lambda record: replace(record, headers=record.headers | {name: text}))


def attempts_of(good: History, index: int, *attempts: Attempt) -> History:
    identity = f"run/i/{index}"
    message = good.ledger.issued[identity].message
    good.ledger.issued[identity] = Issued(message, list(attempts))
    return good


def refused_with(code: int) -> Change:
    return lambda good: attempts_of(good, 1, Attempt(10, 10.1, "refused", code), Attempt(11, 11.1, "accepted", 0))


def dead_lettered(message: Message, code: str = "41300") -> DeadLetter:
    return DeadLetter(0, 0, {"weda.error.code": code}, message.body)


def with_a_burial(*, is_large: bool, large_refused: bool = True, code: str = "41300") -> History:
    """The second of four messages is a dead letter instead of records."""
    good = history([0, 2, 3])
    (message,) = (replace(one, is_large=is_large) for one in tasks(2)[1:])
    good.ledger.issued[message.identity] = sent(message, "accepted")
    return replace(good, wanted=Wanted(large_refused=large_refused), dead_letters=[dead_lettered(message, code)])


BROKEN: dict[str, tuple[str, Change]] = {
    "an accepted message is in no topic": ("missing", lambda good: replace(good, records=good.records[2:])),
    "an accepted message is in one of its topics only": (
        "missing",
        lambda good: replace(good, records=good.records[1:]),
    ),
    "an accepted message is in its topics under different ids": ("missing", with_value(ingestId=ingest_id(999))),
    "a well-formed message was dead-lettered": (
        "dead-lettered",
        lambda good: replace(good, dead_letters=[dead_lettered(tasks(1)[0])]),
    ),
    "a large message was dead-lettered where every topic takes it": (
        "dead-lettered",
        lambda _: with_a_burial(is_large=True, large_refused=False),
    ),
    "a small message was dead-lettered because a large one was refused": (
        "dead-lettered",
        lambda _: with_a_burial(is_large=False),
    ),
    "a large message was dead-lettered for another reason than its size": (
        "dead-lettered",
        lambda _: with_a_burial(is_large=True, code="42200"),
    ),
    "a large message is neither in its topics nor a dead letter": (
        "missing",
        lambda _: replace(with_a_burial(is_large=True), dead_letters=()),
    ),
    "a small message is refused for its size": (
        "refused",
        lambda good: replace(refused_with(41300)(good), wanted=Wanted(large_refused=True)),
    ),
    "a record was never sent": ("unissued", with_value(requestId="somebody else's")),
    "a record's message had never left": ("unissued", lambda good: attempts_of(good, 0)),
    "a record is in another type's topic": (
        "unissued",
        lambda good: replace(good, records=[*good.records, published(tasks(1)[0], "instances", 9)]),
    ),
    "a field differs": ("unequal", with_value(processKey="another")),
    "a field is made up": ("unequal", with_value(revokeElementId="made up")),
    "an unknown field is lost": ("unequal", with_value(extras={})),
    "an unknown field is made up": ("unequal", with_value(extras={"made": '"up"'})),
    "the key is another": ("unequal", changed(lambda record: replace(record, key="another"))),
    "the record's time is another": ("unequal", changed(lambda record: replace(record, timestamp=1))),
    "ce_id is made up": ("unequal", with_header("ce_id", "made up")),
    "ce_subject is another": ("unequal", with_header("ce_subject", "another")),
    "the fingerprint is of something else": ("unequal", with_header("weda.fingerprint", "0" * 32)),
    "an instance is in two partitions": ("scattered", changed(lambda record: replace(record, partition=1))),
    "a message is refused for good": ("refused", refused_with(42200)),
    "a request has no answer though the connector lives": (
        "unanswered",
        lambda good: attempts_of(good, 1, Attempt(10, 20, "unknown"), Attempt(20, 20.1, "accepted", 0)),
    ),
    "a connection breaks though the connector lives": (
        "unanswered",
        lambda good: attempts_of(good, 1, Attempt(10, 10.2, "unknown"), Attempt(11, 11.1, "accepted", 0)),
    ),
    "an answer has no code": ("refused", refused_with(-1)),
    "a repeat has another ce_id": (
        "changed repeat",
        changed(lambda one: replace(one, headers=one.headers | {"ce_id": f"{one.headers['ce_id']}~00000000"})),
    ),
    "two messages have one ingestId": ("shared ingestId", with_value(ingestId=ingest_id(1))),
    "two messages have one ce_id": ("shared ce_id", with_header("ce_id", "msg-run/i/1")),
    "the age of the oldest message stayed at zero": (
        "age not visible",
        lambda good: replace(good, wanted=Wanted(oldest_age_seconds=5)),
    ),
    "too little was accepted": ("vacuous", lambda good: replace(good, wanted=Wanted(accepted=100))),
    "no large message was refused": ("vacuous", lambda good: replace(good, wanted=Wanted(large_refused=True))),
    "no fatal error was provoked": ("vacuous", lambda good: replace(good, wanted=Wanted(rebuilds=1), rebuilds_seen=0)),
    "nothing was interrupted": ("vacuous", lambda good: replace(good, wanted=Wanted(interrupted=1))),
    "nothing was accepted before a disturbance": (
        "vacuous",
        lambda good: replace(good, disturbances=[Disturbance("kill", -5, -4)]),
    ),
    "nothing was accepted after a disturbance": (
        "vacuous",
        lambda good: replace(good, disturbances=[Disturbance("kill", 31, 99)]),
    ),
    "nothing was sent around a disturbance": (
        "vacuous",
        lambda good: replace(good, disturbances=[Disturbance("kill", 5, 6)]),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_history_is_reported_by_its_check(what: str) -> None:
    good = history([0, 1, 2, 3])
    assert check(good) == []

    name, change = BROKEN[what]

    assert name in broken(check(change(good)))


def test_a_large_message_that_kafka_refused_may_be_a_dead_letter() -> None:
    assert check(with_a_burial(is_large=True)) == []


def test_a_partition_that_lost_its_end_goes_on_below_it() -> None:
    """What was read before it was lost comes before what was written in its place."""
    good = history([0, 1, 2, 3])
    lost_from = 2
    moved = [replace(one, offset=one.offset - 1, era=1) if one.offset >= lost_from else one for one in good.records]

    assert check(replace(good, records=list(reversed(moved)))) == []


def test_a_breach_says_which_promise_and_where() -> None:
    (breach,) = check(with_value(processKey="another")(history([0, 1])))

    assert str(breach).startswith("P2 unequal: processKey is 'another'")
    assert breach.where == "events/0@0"


@pytest.mark.parametrize("kind", ["text", "other instances"])
def test_what_the_sender_draws_is_what_the_checks_accept(kind: str, seed: int) -> None:
    drawn = list(islice(messages("run", kind, random.Random(seed)), 300))
    issued = {message.identity: sent(message, "accepted") for message in drawn}
    found = check(History(Ledger(issued), streams_of(drawn)))

    assert broken(found) <= {"shared ce_id"}, found  # some share a msgId, and `published` writes it plainly


# --- order ---


@pytest.mark.parametrize("order", [[1, 0], [0, 2, 1], [2, 1, 0, 1, 2]])
def test_a_message_behind_one_that_was_sent_after_its_answer_is_out_of_order(order: list[int]) -> None:
    assert "out of order" in broken(checks.out_of_order(history(order)))


def test_an_unanswered_message_may_stand_anywhere() -> None:
    late = attempts_of(history([0, 2, 1, 3]), 1, Attempt(10, 13, "unknown"))

    assert broken(check(replace(late, disturbances=KILLED))) == set()


def test_an_id_below_that_of_an_earlier_message_went_backwards() -> None:
    assert broken(check(history([0, 1, 2], ids=[5, 4, 6]))) == {"ingestId went backwards"}


# --- tails ---


def letters(text: str) -> list[tuple[str, str]]:
    return [(letter, "id") for letter in text]


@pytest.mark.parametrize(
    "order", ["", "1", "123", "123234", "12323234", "123223", "1122", "1231234", "12312312345", "1233"]
)
def test_a_tail_that_is_whole_and_in_order_is_legal(order: str) -> None:
    assert list(tail_breaks(letters(order))) == []


@pytest.mark.parametrize("order", ["12324", "12342", "12313", "1231", "1232124", "12321", "123421", "1234243", "121"])
def test_a_tail_that_is_not_whole_or_not_in_order_is_broken(order: str) -> None:
    assert list(tail_breaks(letters(order))) != []


@given(st.data())
def test_every_history_of_crashes_and_replays_is_legal(data: st.DataObject) -> None:
    """A model of a lane: appended in order, the head removed after it was published, replayed from the head."""
    topic: list[int] = []
    waiting: list[int] = []
    newest = published_up_to = 0
    for step in data.draw(st.lists(st.sampled_from(["take", "publish", "remove", "crash"]), max_size=60)):
        if step == "take":
            waiting.append(newest := newest + 1)
        elif step == "publish" and published_up_to < len(waiting):
            topic.append(waiting[published_up_to])
            published_up_to += 1
        elif step == "remove" and published_up_to:
            waiting.pop(0)
            published_up_to -= 1
        elif step == "crash":
            published_up_to = 0
    topic += waiting[published_up_to:]

    assert list(tail_breaks([(str(number), "id") for number in topic])) == []


@given(st.integers(4, 9), st.data())
def test_a_tail_with_a_record_missing_in_its_middle_is_broken(count: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, count - 3))
    hole = data.draw(st.integers(begin + 1, count - 1))
    order = [*range(count), *(number for number in range(begin, count) if number != hole), count]

    assert list(tail_breaks([(str(number), "id") for number in order])) != []


def test_a_broken_tail_is_reported_with_its_place() -> None:
    breach = next(iter(checks.broken_tails(history([0, 1, 2, 1, 3]))))

    assert (breach.promise, breach.where) == ("P4", "events/0@4")


def test_a_whole_tail_is_no_breach() -> None:
    assert check(history([0, 1, 2, 1, 2, 3])) == []


def test_even_a_whole_tail_is_a_breach_where_nothing_was_broken() -> None:
    calm = replace(history([0, 1, 2, 1, 2, 3]), wanted=Wanted(repeats_allowed=False))

    assert broken(check(calm)) == {"uncalled repeat"}


def test_a_frozen_broker_may_give_out_one_late_record_for_each_connector_that_was_killed_meanwhile() -> None:
    late = replace(history([0, 1, 2, 1, 3]), freezes=[Disturbance("frozen", 10, 25)])

    assert broken(check(late)) == {"broken tail"}
    assert broken(check(replace(late, connector_kills=[15.0]))) == set()
    assert broken(check(replace(late, connector_kills=[35.0]))) == {"broken tail"}


# --- published again ---


def restarts(*attempts: Attempt, kills: Sequence[float] = ()) -> History:
    """Message 1 is there twice, the second time under an id of its own."""
    twice = history([0, 1, 1, 2], ids=[0, 1, 11, 12])
    return replace(attempts_of(twice, 1, *attempts), connector_kills=kills, disturbances=KILLED)


def test_a_message_sent_again_after_a_kill_may_be_published_again() -> None:
    again = restarts(Attempt(10, 10.5, "unknown"), Attempt(12, 12.1, "accepted", 0), kills=[10.4])

    assert check(again) == []


@pytest.mark.parametrize(
    ("attempts", "kills"),
    [
        ([Attempt(10, 10.5, "unknown"), Attempt(12, 12.1, "accepted", 0)], []),
        ([Attempt(10, 10.5, "accepted", 0)], [10.4]),
        ([Attempt(10, 10.5, "accepted", 0), Attempt(18, 18.1, "accepted", 0)], [17.0]),
        ([Attempt(10, 10.5, "accepted", 0), Attempt(11, 11.1, "accepted", 0)], [15.0]),
    ],
    ids=["no kill", "not sent again", "killed long after the index had it", "killed after it was sent again"],
)
def test_otherwise_a_message_has_one_id(attempts: list[Attempt], kills: list[float]) -> None:
    assert broken(check(restarts(*attempts, kills=kills))) == {"published again"}
