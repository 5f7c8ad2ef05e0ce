"""Any history of messages, reports, failures, crashes and restarts keeps what delivery promises."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from connector.delivery.delivery import Delivery
from connector.delivery.lanes import Durability
from connector.message.routes import DEAD_LETTERS
from tests.properties.crash_model import Sent, World

HISTORIES = int(os.environ.get("WEDA_TEST_HISTORIES", "2000"))
"""How many histories are played; an evening's run takes more."""

SMALL = st.integers(0, 7)
STEPS = st.one_of(
    st.tuples(st.just("accept"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("accept"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("acknowledge"), SMALL),
    st.tuples(st.just("land"), SMALL),
    st.tuples(st.just("fail"), SMALL, st.integers(1, 3)),
    st.tuples(st.just("refuse"), SMALL),
    st.tuples(st.just("sync"), st.integers(0, 1)),
    st.tuples(st.just("sync"), st.integers(0, 1)),
    st.tuples(st.just("fail_disk"), st.integers(0, 1)),
    st.tuples(st.just("fill")),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 30, 200])),
    st.tuples(st.just("rebuild"), SMALL),
    st.tuples(st.just("crash"), st.integers(0, 15)),
    st.tuples(st.just("restart"), SMALL),
)
HISTORY = st.lists(STEPS, min_size=1, max_size=40)


def played(history: Sequence[tuple[Any, ...]], delivery: type[Delivery] = Delivery) -> None:
    """Play a history, mend everything, and check every promise."""
    world = World(delivery)
    try:
        for step in history:
            world.play(step)
        world.mend()
        check(world)
    finally:
        world.close()


def check(world: World) -> None:
    assert world.delivery.waiting_rows == 0, "P8: something waits in the journal for ever"
    for sent in world.sent:
        check_present(world, sent)
    for instance in "abc":
        for stream in ("events", "tasks"):
            numbers = list(world.of(stream, instance))
            check_order(world, numbers)
            check_tails(numbers)
            check_called_for(world, numbers)
    check_rest(world)


def check_present(world: World, sent: Sent) -> None:
    """P1: what was accepted is in each of its topics, or is a dead letter."""
    if sent.accepted_at is None or sent.number in world.of(DEAD_LETTERS, sent.instance):
        return
    for stream in sent.streams:
        assert sent.number in world.of(stream, sent.instance), f"P1: {sent} is not in {stream}"


def check_order(world: World, numbers: list[int]) -> None:
    """P3: if the answer to A was read before B was sent, A is before B."""
    first = list(dict.fromkeys(numbers))
    for place, number in enumerate(first):
        for later in first[place + 1 :]:
            accepted_at = world.sent[later].accepted_at
            overtaken = accepted_at is not None and accepted_at < world.sent[number].sent_at
            assert not overtaken, f"P3: {number} is before {later}, whose answer had been read: {numbers}"


def check_tails(numbers: list[int]) -> None:
    """P4: what appears again does so as a tail: whole, in order, before anything newer."""
    known: list[int] = []
    following = 0
    for number in numbers:
        if number not in known:
            assert following == len(known), f"P4: {number} is new before the tail was whole: {numbers}"
            known.append(number)
            following = len(known)
        else:
            place = known.index(number)
            begins_or_goes_on = following == len(known) or place <= following
            assert begins_or_goes_on, f"P4: {number} appears again out of order: {numbers}"
            following = place + 1
    assert following == len(known), f"P4: the last tail is not whole: {numbers}"


def check_called_for(world: World, numbers: list[int]) -> None:
    """P4: nothing appears again without a failure, a rebuilt producer, a crash or a restart since it was sent."""
    for number, count in Counter(numbers).items():
        since = sum(step > world.sent[number].sent_at for step in world.disturbances)
        assert count <= 1 + since, f"P4: {number} appears {count} times, after {since} disturbances: {numbers}"


def check_rest(world: World) -> None:
    """The ledgers are even, and nothing of the work is left in memory."""
    assert world.journal.disk.imbalance == 0
    assert world.ledger.imbalance == 0, f"the ledger at rest: {world.ledger.counts}, {world.ledger.journaled_now}"
    assert world.journal.disk.rows == {}
    assert len(world.delivery._lanes) == 0
    assert world.delivery.waiting_since(None) is None


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=HISTORY)
def test_every_history_keeps_the_promises(history):
    played(history)


def test_a_row_whose_commit_failed_is_not_left_behind_what_is_direct():
    """It may be on the disk all the same: a crash would bring it back behind the message that came after it."""
    played(
        [
            ("accept", 0, 0),
            ("wait", 5),
            ("fail_disk", 1),
            ("acknowledge", 0),
            ("accept", 0, 0),
            ("acknowledge", 0),
            ("crash", 0),
        ]
    )


# --- the model can fail: each of these defects is found ---


class OpensBeforeTheRemovalIsDurable(Delivery):
    async def _remove(self, admission):
        self._replay._removals_pending.discard(admission.sequence)
        self._lanes.journaled.removed(admission.lane)
        await self._journal.remove(admission.sequence)


class AnswersBeforeTheSync(Delivery):
    async def _write(self, entry):
        self._complete_durable(entry, Durability.JOURNALED)
        await super()._write(entry)


class TakesAFailureForASuccess(Delivery):
    def _requeue(self, lane, entry, failed):
        self._finish(entry)


class SendsStraightPastTheJournal(Delivery):
    def _must_journal(self, lane):
        return not self.topics_ready or not self._publisher.is_open


class GoesOnBehindAFailedHead(Delivery):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._lanes.drop_read_ahead = lambda _lane: None  # forgets that what follows has to wait


DEFECTS = {
    OpensBeforeTheRemovalIsDurable: 4,
    AnswersBeforeTheSync: 1,
    TakesAFailureForASuccess: 1,
    SendsStraightPastTheJournal: 1,
    GoesOnBehindAFailedHead: 1,
}
"""Defect → a seed with which it is found soon."""


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda one: one.__name__)
def test_a_planted_defect_is_found(defect):
    @seed(DEFECTS[defect])
    @settings(
        max_examples=20_000,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(history=HISTORY)
    def search(history):
        played(history, defect)

    with pytest.raises(AssertionError):
        search()
