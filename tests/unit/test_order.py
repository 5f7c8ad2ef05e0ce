"""What is begun once ends once: completions, and keys that may be used once."""

import asyncio

import pytest

from connector.delivery.completion import Completion, Durability
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import DedupState, Duplicates, dedup_key_of
from connector.delivery.lanes import LaneCounts
from connector.delivery.order import LocalOrder, NewMessage
from connector.errors import OutcomeUnknown, Unavailable
from connector.message.routes import DEAD_LETTERS
from connector.testing import InMemoryJournal, InMemoryPublisher
from connector.values import ProducibleRecord, Request
from tests.unit.test_delivery import CountingLedger

KEY = dedup_key_of("webhook", "default", "id-1", b"a" * 16)
OTHER_BODY = dedup_key_of("webhook", "default", "id-1", b"b" * 16)


def test_a_completion_is_set_once_and_calls_back_even_those_who_come_later():
    completion, seen = Completion(), []
    completion.then(seen.append)
    completion.complete(Durability.JOURNALED)
    completion.complete(Durability.PUBLISHED)
    completion.then(seen.append)

    assert seen == [Durability.JOURNALED, Durability.JOURNALED]
    assert completion.result is Durability.JOURNALED


async def test_a_completion_is_awaited_by_many_before_and_after_its_result():
    completion = Completion()
    waiters = [asyncio.ensure_future(completion) for _ in range(2)]
    await asyncio.sleep(0)
    completion.complete(Durability.PUBLISHED)

    assert await asyncio.gather(*waiters) == [Durability.PUBLISHED] * 2
    assert await completion is Durability.PUBLISHED


async def test_an_error_is_raised_to_each_waiter():
    completion = Completion()
    waiter = asyncio.ensure_future(completion)
    await asyncio.sleep(0)
    completion.complete(Unavailable("full"))

    with pytest.raises(Unavailable, match="full"):
        await waiter
    with pytest.raises(Unavailable, match="full"):
        await completion


async def test_a_cancelled_waiter_takes_the_result_from_nobody():
    completion = Completion()
    gone, stays = asyncio.ensure_future(completion), asyncio.ensure_future(completion)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    completion.complete(Durability.PUBLISHED)

    assert await stays is Durability.PUBLISHED


@pytest.fixture
async def order():
    journal, publisher = InMemoryJournal(), InMemoryPublisher()
    contents = await journal.open()
    counts = LaneCounts(contents.lanes)
    delivery = Delivery(
        publisher,
        journal,
        contents,
        ledger=CountingLedger(),
        make_dead_letter=lambda *_: None,
        publish_wait_seconds=0.05,
        journaled=counts,
    )
    yield LocalOrder(delivery, Duplicates(window_seconds=60, max_entries=100), counts, contents.next_sequence)
    await delivery.stop(1)


async def test_a_key_is_used_once_and_with_other_content_never(order):
    assert await order.use(KEY) is DedupState.NEW
    order.end_use(KEY, None)

    assert await order.use(KEY) is DedupState.SAFE
    assert await order.use(OTHER_BODY) is DedupState.CONFLICT


async def test_a_second_use_waits_for_the_first(order):
    await order.use(KEY)
    second = order.use(KEY)
    assert second.result is None
    order.end_use(KEY, None)

    assert await second is DedupState.SAFE


@pytest.mark.parametrize("refusal", [Unavailable("full"), OutcomeUnknown("not in time")])
async def test_a_refused_use_fails_those_that_wait_and_frees_the_key(order, refusal):
    await order.use(KEY)
    second = order.use(KEY)
    order.end_use(KEY, refusal)

    with pytest.raises(type(refusal)):
        await second
    assert await order.use(OTHER_BODY) is DedupState.NEW


async def test_dead_letters_in_the_journal_are_counted_and_messages_are_not(order):
    letter = ProducibleRecord(DEAD_LETTERS, "t.dead-letters", None, b"{", (), 1)
    message = ProducibleRecord("events", "t.events", b"i-1", b"{}", (), 1)
    admitted = [
        order.admit(NewMessage(None, Request("default", b"{", "", 1), (letter,))),
        order.admit(NewMessage("i-1", Request("default", b"{}", "", 1), (message,))),
    ]

    assert [await one for one in admitted] == [Durability.JOURNALED] * 2
    assert await order.dead_letters_in_journal() == 1


async def test_alone_work_is_always_run(order):
    async def work():
        return "done"

    assert await order.run_once(("note", 1), KEY, work) == "done"
