"""Each anomaly is found in a small history that has it, and not in the nearest one that the promises allow."""

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tests.faults import recording as files
from tests.faults.__main__ import main as command
from tests.faults.checks import fingerprint
from tests.faults.history import PROMISE_OF, check, counts, operations, rendered, tail_faults
from tests.faults.ledger import Attempt, Disturbance, Issued, Ledger
from tests.faults.messages import messages
from tests.faults.recording import Break, Cut, Letter, Recording, Run, Seen, Sending, Unreadable

Change = Callable[[Recording], Recording]
STREAMS = ("events", "tasks")
RUN = Run("run", "by hand", 7, instances=1, rate=1, seconds=1, brokers=1)


# --- histories by hand ---


def sending(index: int, *, instance: str = "i", **changes: Any) -> Sending:
    """A request at 10 x its message's index, accepted after half a second."""
    name = f"{instance}{index}"
    plain = Sending(
        *(name, instance, index, "Task", f"msg-{name}", STREAMS, f"body {name}", f"print {name}"),
        *(10.0 * index, 10.0 * index + 0.5, "accepted", 0),
    )
    return replace(plain, **changes)


def appearance(index: int, offset: int, *, stream: str = "events", instance: str = "i", **changes: Any) -> Seen:
    """A faultless record of the message."""
    name = f"{instance}{index}"
    plain = Seen(
        *(stream, 0, offset, instance, name, f"msg-{name}", f"id-{index:04}", f"print {name}", 1000 + index),
        digest=f"{stream} {name}",
    )
    return replace(plain, **changes)


def stood(order: Sequence[int], *, ids: Sequence[int] | None = None) -> list[Seen]:
    """The messages in both of their topics in this order, under these ids."""
    numbers = ids or order
    return [
        appearance(index, offset, stream=stream, ingest_id=f"id-{number:04}", timestamp=1000 + number)
        for stream in STREAMS
        for offset, (index, number) in enumerate(zip(order, numbers, strict=True))
    ]


def polled(records: Sequence[Seen]) -> list[Seen]:
    return [replace(one, at=1000.0 + number) for number, one in enumerate(records)]


def history(order: Sequence[int], *, ids: Sequence[int] | None = None, count: int | None = None) -> Recording:
    """Accepted messages 0 .. count-1, which stand in the topics in this order; both consumers saw the same."""
    records = stood(order, ids=ids)
    attempts = [sending(index) for index in range(count or max(order) + 1)]
    return Recording(RUN, attempts, [], records, polled(records))


def everywhere(change: Callable[[Seen], Seen], *wheres: str) -> Change:
    """Both consumers saw these records otherwise."""

    def changed(good: Recording) -> Recording:
        final = [change(one) if one.where in wheres else one for one in good.final]
        live = [change(one) if one.where in wheres else one for one in good.live]
        return replace(good, final=final, live=live)

    return changed


def live_only(change: Callable[[Seen], Seen], where: str) -> Change:
    return lambda good: replace(good, live=[change(one) if one.where == where else one for one in good.live])


def without(*wheres: str, read: str = "both") -> Change:
    def less(good: Recording) -> Recording:
        final = [one for one in good.final if read == "live" or one.where not in wheres]
        live = [one for one in good.live if read == "final" or one.where not in wheres]
        return replace(good, final=final, live=live)

    return less


def attempted(index: int, *attempts: tuple[float, float, str]) -> Change:
    """The message's requests were these: sent, ended, outcome."""

    def changed(good: Recording) -> Recording:
        others = [one for one in good.attempts if one.index != index]
        mine = [
            sending(index, sent=sent, ended=ended, outcome=outcome, code=0 if outcome == "accepted" else None)
            for sent, ended, outcome in attempts
        ]
        return replace(good, attempts=[*others, *mine])

    return changed


def broken(*found: tuple[Literal["kill", "freeze", "damage", "other"], float, float]) -> Change:
    return lambda good: replace(good, disturbances=[Break(kind, kind, began, ended) for kind, began, ended in found])


def after(*changes: Change) -> Change:
    def changed(good: Recording) -> Recording:
        for change in changes:
            good = change(good)
        return good

    return changed


def reordered(order: Sequence[int], *, ids: Sequence[int] | None = None) -> Change:
    records = stood(order, ids=ids)
    return lambda good: replace(good, final=records, live=polled(records))


def polled_in(order: Sequence[str]) -> Change:
    """The live consumer got the records of these places in this order, and the others after them."""

    def changed(good: Recording) -> Recording:
        by_place = {one.where: one for one in good.live}
        return replace(good, live=polled([by_place.pop(where) for where in order] + [*by_place.values()]))

    return changed


def calm(good: Recording) -> Recording:
    return replace(good, run=replace(good.run, repeats_allowed=False))


@dataclass(frozen=True)
class Case:
    """A change that makes a faultless history anomalous, and the nearest one that is legal."""

    kind: str
    anomaly: Change
    near_miss: Change | None
    promise: str
    order: Sequence[int] = field(default=(0, 1, 2, 3))


UNKNOWN_1 = attempted(1, (10, 10.5, "unknown"))
TWICE_1 = ((10, 10.5, "unknown"), (12, 12.1, "accepted"))
PLACES_OF_1 = tuple(f"{stream}/0@1" for stream in STREAMS)
PLACES_OF_3 = tuple(f"{stream}/0@3" for stream in STREAMS)

CASES: dict[str, Case] = {
    "accepted, later ones stand there": Case(
        "lost",
        without(*PLACES_OF_1),
        after(without(*PLACES_OF_1), UNKNOWN_1),
        "P1",
    ),
    "absent from one of its topics": Case(
        "lost",
        without("tasks/0@1"),
        after(without("tasks/0@1"), UNKNOWN_1),
        "P1",
    ),
    "in its topics under two ids": Case(
        "lost",
        everywhere(lambda one: replace(one, ingest_id="id-0001b"), "tasks/0@1"),
        everywhere(lambda one: replace(one, ingest_id="id-0001b"), *PLACES_OF_1),
        "P1",
    ),
    "seen while it was there, gone in the end": Case(
        "lost",
        without(*PLACES_OF_3, read="final"),
        after(without(*PLACES_OF_3, read="final"), attempted(3, (30, 31, "unknown"))),
        "P1",
    ),
    "accepted, nothing later is there": Case(
        "unseen",
        without(*PLACES_OF_3),
        after(without(*PLACES_OF_3), attempted(3, (30, 31, "refused"))),
        "P1",
    ),
    "never sent": Case(
        "phantom",
        lambda good: replace(good, attempts=[one for one in good.attempts if one.index != 1]),
        attempted(1, (10, 10.5, "refused")),  # Jepsen's aborted read, which is counted
        "P2",
    ),
    "in another type's topic": Case(
        "phantom",
        lambda good: replace(good, final=[*good.final, appearance(1, 0, stream="instances")]),
        None,
        "P2",
    ),
    "another instance's key": Case(
        "phantom",
        everywhere(lambda one: replace(one, key="j"), *PLACES_OF_1),
        None,
        "P2",
    ),
    "other content": Case(
        "phantom",
        everywhere(lambda one: replace(one, fingerprint="print of another"), *PLACES_OF_1),
        None,
        "P2",
    ),
    "an id of its own making": Case(
        "phantom",
        everywhere(lambda one: replace(one, ce_id="made up"), *PLACES_OF_1),
        everywhere(lambda one: replace(one, ce_id="msg-i1~print i1"), *PLACES_OF_1),
        "P2",
    ),
    "seen before it was sent": Case(
        "phantom",
        live_only(lambda one: replace(one, at=29.9), "events/0@3"),
        live_only(lambda one: replace(one, at=30.1), "events/0@3"),
        "P2",
    ),
    "one offset, two records": Case(
        "inconsistent offsets",
        live_only(lambda one: replace(one, digest="other bytes"), "events/0@1"),
        live_only(lambda one: replace(one, at=2000), "events/0@1"),
        "P2",
    ),
    "one offset twice in one read": Case(
        "inconsistent offsets",
        lambda good: replace(good, final=[*good.final, appearance(2, 1)]),
        lambda good: replace(good, final=[*good.final, appearance(1, 1)]),
        "P2",
    ),
    "a record moved between the reads": Case(
        "inconsistent offsets",
        live_only(lambda one: replace(one, offset=9), "events/0@1"),
        everywhere(lambda one: replace(one, offset=one.offset + 5), *(f"events/0@{at}" for at in range(4))),
        "P2",
    ),
    "gone from among the others": Case(
        "inconsistent offsets",
        after(without("events/0@1", read="final"), UNKNOWN_1),
        after(without("events/0@3", read="final"), attempted(3, (30, 31, "unknown"))),
        "P2",
    ),
    "one publication, two times": Case(
        "inconsistent offsets",
        everywhere(lambda one: replace(one, timestamp=5), "tasks/0@1"),
        everywhere(lambda one: replace(one, timestamp=5), *PLACES_OF_1),
        "P2",
    ),
    "is before one that was accepted before it was sent": Case(
        "nonmonotonic send",
        reordered([0, 2, 1, 3], ids=[0, 1, 2, 3]),
        after(reordered([0, 2, 1, 3], ids=[0, 1, 2, 3]), attempted(1, (10, 22, "accepted"))),
        "P3",
    ),
    "an instance in two partitions": Case(
        "nonmonotonic send",
        everywhere(lambda one: replace(one, partition=1), "events/0@3"),
        everywhere(lambda one: replace(one, partition=1), *(f"events/0@{at}" for at in range(4))),
        "P3",
    ),
    "a lower id though it was sent later": Case(
        "nonmonotonic send",
        reordered([0, 1, 2, 3], ids=[0, 2, 1, 3]),
        reordered([0, 1, 2, 3], ids=[0, 2, 20, 300]),
        "P3",
    ),
    "polled backwards": Case(
        "nonmonotonic poll",
        polled_in(["events/0@0", "events/0@2", "events/0@1"]),
        polled_in(["tasks/0@0", "events/0@0", "tasks/0@1"]),
        "P3",
    ),
    "polled twice": Case(
        "nonmonotonic poll",
        lambda good: replace(good, live=[*good.live, replace(good.live[-1], at=9999)]),
        None,
        "P3",
    ),
    "a new id below one that was polled": Case(
        "nonmonotonic poll",
        after(reordered([0, 2, 1, 3]), attempted(1, (10, 22, "accepted"))),
        after(
            reordered([0, 2, 1, 3]),
            attempted(1, (10, 22, "unknown")),
            broken(("freeze", 5, 25), ("kill", 10.2, 10.2)),  # left in a frozen broker's socket
        ),
        "P3",
    ),
    "skipped by who follows": Case(
        "poll skip",
        without("events/0@1", "events/0@2", read="live"),
        everywhere(lambda one: replace(one, offset=one.offset * 2), *(f"events/0@{at}" for at in range(4))),
        "P1",
    ),
    "stopped short of the end": Case(
        "poll skip",
        without("events/0@3", read="live"),
        after(
            lambda good: replace(good, live=[*good.live, appearance(3, 4, at=5000)]), attempted(3, (30, 31, "unknown"))
        ),
        "P1",
    ),
    "a tail with a hole": Case(
        "duplicate",
        reordered([0, 1, 2, 3, 1, 3]),
        reordered([0, 1, 2, 3, 1, 2, 3]),
        "P4",
    ),
    "something newer before the tail is whole": Case(
        "duplicate",
        reordered([0, 1, 2, 1, 3]),
        reordered([0, 1, 2, 1, 2, 3]),
        "P4",
    ),
    "more late ones than processes died": Case(
        "duplicate",
        after(reordered([0, 1, 2, 1, 3, 1]), broken(("freeze", 10, 25), ("kill", 15, 15))),
        after(reordered([0, 1, 2, 1, 3]), broken(("freeze", 10, 25), ("kill", 15, 15))),
        "P4",
    ),
    "a whole tail though nothing crashed": Case(
        "duplicate",
        after(reordered([0, 1, 2, 3, 2, 3]), calm),
        reordered([0, 1, 2, 3, 2, 3]),
        "P4",
    ),
    "published again without a kill": Case(
        "duplicate",
        after(reordered([0, 1, 1, 2], ids=[0, 1, 11, 12]), attempted(1, *TWICE_1)),
        after(reordered([0, 1, 1, 2], ids=[0, 1, 11, 12]), attempted(1, *TWICE_1), broken(("kill", 10.4, 10.4))),
        "P4",
        (0, 1, 2),
    ),
    "published again though the index knew it": Case(
        "duplicate",
        after(
            reordered([0, 1, 1, 2], ids=[0, 1, 11, 12]),
            attempted(1, (10, 10.5, "accepted"), (18, 18.1, "accepted")),
            broken(("kill", 17, 17)),
        ),
        after(
            reordered([0, 1, 1, 2], ids=[0, 1, 11, 12]),
            attempted(1, (10, 10.5, "accepted"), (18, 18.1, "accepted")),
            broken(("kill", 11, 11)),
        ),
        "P4",
        (0, 1, 2),
    ),
    "two messages, one ingestId": Case(
        "duplicate",
        everywhere(lambda one: replace(one, ingest_id="id-0000"), *PLACES_OF_1),
        None,
        "P4",
    ),
    "two messages, one ce_id": Case(
        "duplicate",
        after(
            lambda good: replace(good, attempts=[replace(one, message_id="msg-i0") for one in good.attempts[:2]]),
            reordered([0, 1]),
            everywhere(lambda one: replace(one, ce_id="msg-i0"), *PLACES_OF_1),
        ),
        after(
            lambda good: replace(good, attempts=[replace(one, message_id="msg-i0") for one in good.attempts[:2]]),
            reordered([0, 1]),
            everywhere(lambda one: replace(one, ce_id="msg-i0"), *PLACES_OF_1),
            broken(("kill", 9, 9)),
        ),
        "P4",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_anomaly_is_found_and_names_its_promise(name: str) -> None:
    case = CASES[name]
    good = history(case.order)
    assert check(good) == []

    found = check(case.anomaly(good))

    assert (case.promise, case.kind) in {(one.promise, one.kind) for one in found}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.near_miss])
def test_what_the_promises_allow_is_none(name: str) -> None:
    case = CASES[name]
    assert case.near_miss

    assert check(case.near_miss(history(case.order))) == []


def test_every_kind_has_an_anomaly_and_a_near_miss() -> None:
    assert {case.kind for case in CASES.values()} == {*PROMISE_OF}
    assert {case.kind for case in CASES.values() if case.near_miss} == {*PROMISE_OF}


# --- what a lane leaves behind ---


@pytest.mark.parametrize(
    "order", ["", "1", "123", "123234", "12323234", "123223", "1122", "1231234", "12312312345", "1233"]
)
def test_a_lane_may_leave_this_behind(order: str) -> None:
    assert tail_faults([(letter, "id") for letter in order]) == []


@pytest.mark.parametrize(
    ("order", "at"),
    [
        *(("12324", 4), ("12342", 5), ("12313", 4), ("1231", 4), ("1232124", 4), ("12321", 4), ("121", 3)),
        ("12323123", 5),  # the second crash cannot bring back what was removed before the first
    ],
)
def test_a_lane_never_leaves_this_behind(order: str, at: int) -> None:
    assert tail_faults([(letter, "id") for letter in order]) == [at]


@pytest.mark.parametrize(("order", "stragglers"), [("12324", 1), ("1232124", 2), ("12534", 1), ("123421", 2)])
def test_a_late_record_is_forgiven_for_each_process_that_died_before_a_frozen_broker(
    order: str, stragglers: int
) -> None:
    publications = [(letter, "id") for letter in order]

    assert tail_faults(publications, stragglers) == []
    assert tail_faults(publications, stragglers - 1) != [] or order == "12534"


# --- histories that chance made ---


def lane(data: st.DataObject, count: int) -> list[int]:
    """The order in which a lane that crashes now and then leaves so many messages in a topic."""
    topic: list[int] = []
    waiting = [*range(count)]
    published = 0
    for step in data.draw(st.lists(st.sampled_from(["publish", "publish", "remove", "crash"]), max_size=4 * count)):
        if step == "publish" and published < len(waiting):
            topic.append(waiting[published])
            published += 1
        elif step == "remove" and published:
            waiting.pop(0)
            published -= 1
        elif step == "crash":
            published = 0
    return topic + waiting[published:]


def generated(data: st.DataObject) -> Recording:
    """Some instances in two partitions, with crashes; the live consumer sees one partition after the other."""
    attempts: list[Sending] = []
    ends: dict[tuple[str, int], int] = {}
    final: list[Seen] = []
    for number in range(data.draw(st.integers(1, 3), label="instances")):
        count = data.draw(st.integers(3, 7), label="messages")
        attempts += [sending(index, instance=f"i{number}-") for index in range(count)]
        for index in lane(data, count):
            for stream in STREAMS:
                place = stream, number % 2
                offset = ends.get(place, 0)
                ends[place] = offset + 1
                one = appearance(index, offset, stream=stream, instance=f"i{number}-", partition=number % 2)
                final.append(replace(one, ingest_id=f"id-{number}-{index:04}"))
    live = sorted(final, key=lambda one: (one.stream, one.partition, one.offset))
    return Recording(RUN, attempts, [], final, polled(live))


def chosen(data: st.DataObject, good: Recording) -> Seen:
    """A record whose publication is in its topic once, as is a later one behind it."""
    once = [one for one in good.final if _times(good, one) == 1]
    if not once:
        reject()
    return data.draw(st.sampled_from(once), label="record")


def _times(good: Recording, one: Seen) -> int:
    return sum((each.stream, each.ingest_id) == (one.stream, one.ingest_id) for each in good.final)


def dropped(data: st.DataObject, good: Recording) -> Recording:
    return without(chosen(data, good).where)(good)


def dropped_by_one(data: st.DataObject, good: Recording) -> Recording:
    return without(chosen(data, good).where, read=data.draw(st.sampled_from(["live", "final"])))(good)


def swapped(data: st.DataObject, good: Recording) -> Recording:
    """Two messages of an instance change their places in one topic."""
    one = chosen(data, good)
    others = [
        each for each in good.final if (each.stream, each.key) == (one.stream, one.key) and _times(good, each) == 1
    ]
    if len(others) < 2:
        reject()
    other = data.draw(st.sampled_from([each for each in others if each != one]), label="other")

    def swap(each: Seen) -> Seen:
        if each.where not in {one.where, other.where}:
            return each
        source = other if each.where == one.where else one
        return replace(source, offset=each.offset, at=each.at)

    return everywhere(swap, one.where, other.where)(good)


def doubled(data: st.DataObject, good: Recording) -> Recording:
    """A publication that is not its instance's last appears once more, behind all the others, alone."""
    last = max(one.ingest_id for one in good.final if one.key == "i0-")
    one = data.draw(st.sampled_from([each for each in good.final if each.key == "i0-" and each.ingest_id != last]))
    end = 1 + max(each.offset for each in good.final if (each.stream, each.partition) == (one.stream, one.partition))
    again = replace(one, offset=end)
    return replace(good, final=[*good.final, again], live=[*good.live, replace(again, at=9000.0)])


def inserted(data: st.DataObject, good: Recording) -> Recording:
    one = appearance(99, 10_000, stream=data.draw(st.sampled_from(STREAMS)), instance="stranger")
    return replace(good, final=[*good.final, one], live=[*good.live, replace(one, at=9000.0)])


ALTERED: dict[str, Any] = {
    "key": "another",
    "message": "another",
    "ce_id": "another",
    "ingest_id": "id-9",
    "fingerprint": "another",
    "timestamp": 5,
    "partition": 7,
}


def altered(data: st.DataObject, good: Recording) -> Recording:
    """A field of a record is another for both consumers."""
    one, name = chosen(data, good), data.draw(st.sampled_from(sorted(ALTERED)))
    return everywhere(lambda each: replace(each, **{name: ALTERED[name]}), one.where)(good)


def altered_for_one(data: st.DataObject, good: Recording) -> Recording:
    one, name = chosen(data, good), data.draw(st.sampled_from(sorted({*ALTERED, "digest", "offset"})))
    return live_only(lambda each: replace(each, **{name: ALTERED.get(name, 10_000)}), one.where)(good)


MUTATIONS = (dropped, dropped_by_one, swapped, doubled, inserted, altered, altered_for_one)


@given(st.data())
def test_what_crashing_lanes_leave_behind_is_no_finding(data: st.DataObject) -> None:
    assert check(generated(data)) == []


@pytest.mark.parametrize("mutation", MUTATIONS)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_a_mutated_history_is_found(
    mutation: Callable[[st.DataObject, Recording], Recording], data: st.DataObject
) -> None:
    assert check(mutation(data, generated(data))) != []


# --- what people and programs read ---


def test_a_finding_names_promise_place_and_instance_and_shows_the_operations_around_it() -> None:
    bad = without("events/0@1", "tasks/0@1")(history([0, 1, 2, 3]))
    [first, _] = check(bad)

    assert str(first) == (
        "P1 lost: i1 was accepted at 10.500 and is not in events, though later ones are in its partition "
        "[events, instance i]"
    )
    assert operations(bad, first) == [
        *(f"sent i{index} #{index} Task {index * 10}.000-{index * 10}.500 accepted 0" for index in range(4)),
        *(f"read events/0@{index} i{index} id-{index:04}" for index in (0, 2, 3)),
        *(
            f"live events/0@{index} i{index} id-{index:04} at {at:.3f}"
            for index, at in ((0, 1000), (2, 1002), (3, 1003))
        ),
    ]


def test_what_is_allowed_is_counted() -> None:
    tail = after(attempted(0, (0, 1, "refused")), reordered([0, 1, 2, 3, 2, 3]))(history([0, 1, 2, 3]))

    assert check(tail) == []
    assert counts(tail) == {
        "messages": 4,
        "requests": 4,
        "accepted": 3,
        "unknown": 0,
        "refused": 1,
        "disturbances": 0,
        "records": 12,
        "seen_live": 12,
        "appeared_again": 4,
        "accepted_again": 0,
        "refused_and_read": 1,
    }
    assert "no finding; messages 4" in "\n".join(rendered(tail, []))


def test_an_accepted_message_may_be_a_dead_letter_where_kafka_refuses_records() -> None:
    dead_lettered = replace(without(*PLACES_OF_1)(history([0, 1, 2, 3])), letters=[Letter("body i1", "41300", 0, 0)])

    assert {one.kind for one in check(dead_lettered)} == {"lost"}
    assert check(replace(dead_lettered, run=replace(RUN, dead_letters_allowed=True))) == []


def test_as_many_messages_may_be_gone_with_the_journal_as_the_connector_reported() -> None:
    gone = without(*PLACES_OF_1, "events/0@2", "tasks/0@2")(history([0, 1, 2, 3]))
    damaged = broken(("damage", 21, 22))(gone)

    assert len(check(damaged)) == 4
    assert {one.message for one in check(replace(damaged, run=replace(RUN, lost_reported=1)))} == {"i2"}
    assert check(replace(damaged, run=replace(RUN, lost_reported=2))) == []
    assert check(replace(gone, run=replace(RUN, lost_reported=2))) != []


def test_a_tail_has_a_hole_where_the_journal_lost_a_row() -> None:
    holed = broken(("damage", 31, 32))(reordered([0, 1, 2, 3, 1, 3])(history([0, 1, 2, 3])))

    assert {one.kind for one in check(holed)} == {"duplicate"}
    assert check(replace(holed, run=replace(RUN, lost_reported=1))) == []


def test_a_message_is_accepted_again_where_the_index_of_repeats_was_damaged() -> None:
    sent_again = attempted(1, (10, 10.5, "accepted"), (18, 18.1, "accepted"))
    restarts = after(reordered([0, 1, 1, 2], ids=[0, 1, 11, 12]), sent_again)(history([0, 1, 2]))

    assert {one.kind for one in check(restarts)} == {"duplicate"}
    assert check(broken(("damage", 15, 16))(restarts)) == []


def test_who_follows_a_partition_that_lost_its_end_is_asked_nothing() -> None:
    """Message 3 was read, the log was cut before it, and message 4 took its offset; the follower began again."""
    good = history([0, 1, 2, 3, 4])
    final = [
        replace(one, offset=3, era=1) if one.message == "i4" else replace(one, gone=one.message == "i3")
        for one in good.final
    ]
    left = [one for one in final if not one.gone]
    live = polled([*good.final[:4], *left])
    lost = replace(good, final=final, live=[replace(one, era=0) for one in live])

    assert {one.kind for one in check(lost)} >= {"nonmonotonic poll", "inconsistent offsets"}
    assert check(replace(lost, cuts=[Cut("events", 0, 3), Cut("tasks", 0, 3)])) == []


# --- the file ---


def test_a_recording_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    whole = broken(("kill", 1, 1), ("freeze", 2, 3))(history([0, 1, 2, 1, 2]))
    whole = replace(whole, cuts=[Cut("events", 0, 3)], letters=[Letter("body", "41300", 0, 1)])
    file = tmp_path / "folder" / "run.jsonl.gz"

    files.write(whole, file)

    assert files.read(file) == whole


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [*lines[:3], *lines[4:]], "cut off"),
        (lambda lines: lines[1:], "first line"),
        (lambda lines: [], "first line"),
        (lambda lines: [lines[0].replace('"version":1', '"version":2'), *lines[1:]], "version is 2"),
        (lambda lines: [lines[0], lines[1].replace('"sent"', '"other"'), *lines[2:]], "other"),
        (lambda lines: [lines[0], lines[1].replace('"attempt"', '"tempt"'), *lines[2:]], "tempt"),
        (lambda lines: [*lines[:-1], "no JSON"], "no recorded run"),
    ],
)
def test_a_file_that_is_no_whole_recording_is_refused(
    spoil: Callable[[list[str]], list[str]], what: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.jsonl.gz"
    files.write(history([0, 1]), file)
    with gzip.open(file, "rt") as text:
        lines = text.read().splitlines()
    with gzip.open(file, "wt") as text:
        text.writelines(f"{line}\n" for line in spoil(lines))

    with pytest.raises(Unreadable, match=what):
        files.read(file)


def test_what_the_oracle_wrote_down_becomes_a_recording() -> None:
    message = next(messages("run", "i", random.Random(3)))
    issued = Issued(message, [Attempt(105.0, 105.5, "unknown"), Attempt(107, 107.25, "accepted", 0)])
    frozen = Disturbance("brokers frozen", 110, 120)

    first, second = files.sendings(Ledger({message.identity: issued}), began=100)

    assert (first.sent, first.ended, first.outcome, first.code) == (5.0, 5.5, "unknown", None)
    assert (second.sent, second.streams, second.fingerprint) == (7.0, message.streams, fingerprint(message))
    assert files.breaks([frozen], [111.0], freezes=[frozen], began=100) == [
        Break("brokers frozen", "freeze", 10, 20),
        Break("SIGKILL to the connector", "kill", 11, 11),
    ]


def test_the_command_tells_the_findings_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, none = (tmp_path / name for name in ("good.jsonl.gz", "bad.jsonl.gz", "none"))
    files.write(history([0, 1, 2]), good)
    files.write(without("events/0@1", "tasks/0@1")(history([0, 1, 2])), bad)
    none.write_text("something else")

    assert command(["check", str(good)]) == 0
    assert "no finding" in capsys.readouterr().out
    assert command(["check", str(good), str(bad)]) == 1
    assert "FAIL by hand (seed 7): lost 2" in capsys.readouterr().out
    assert command(["check", str(bad), "--json"]) == 1
    as_json = json.loads(capsys.readouterr().out)
    assert (as_json["ok"], as_json["kinds"], as_json["findings"][0]["promise"]) == (
        False,
        {"lost": 2},
        "P1",
    )
    assert command(["check", str(none)]) == 2
    assert command(["check", str(tmp_path / "nowhere")]) == 2
