"""What a data team's Python reads: every event once, in order, with or without a registry, alone or as a group."""

import asyncio
import time
from itertools import islice

import pytest

from connector.consuming import Event, Events, by_instance
from connector.errors import OutsideUnreachable, Unreadable
from connector.kafka.consumer import REACH_SECONDS
from connector.kafka.publisher import KafkaPublisher, producer_properties
from connector.values import ProducibleRecord
from tests.running import Running, Start
from tests.waiting import equals, until

STREAMS = ["events", "instances", "tasks", "state"]
IDLE_SECONDS = 8.0


def message(instance: str, number: int, **fields: object) -> dict[str, object]:
    return {"msgType": "Instance", "instanceId": instance, "msgId": f"{instance}-{number}", "action": 1} | fields


async def send(running: Running, *messages: dict[str, object]) -> None:
    for each in messages:
        assert await running.post(each) == (200, {"code": 0})


def read(running: Running, prefix: str, **how: object) -> list[Event]:
    with Events(running.connector.bootstrap_servers, prefix=prefix, **how) as events:
        return list(events)


def ids(events: list[Event]) -> list[str]:
    return [(event.value or {})["msgId"] for event in events]


async def test_events_are_read_decoded_and_grouped_by_instance_in_order(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("ab"[number % 2], number, processName="请假") for number in range(10)))

    found = by_instance(await asyncio.to_thread(read, running, topic_prefix, until_end=True))

    assert {instance: ids(events) for instance, events in found.items()} == {
        "a": [f"a-{number}" for number in range(0, 10, 2)],
        "b": [f"b-{number}" for number in range(1, 10, 2)],
    }
    first = found["a"][0]
    assert first.value is not None
    assert (first.value["processName"], first.value["action"]) == ("请假", 1)
    assert int(first.received_at.timestamp() * 1000) == first.value["receivedAt"]


async def test_with_a_registry_every_stream_is_read_and_a_deleted_instance_is_none(
    start: Start, topic_prefix: str, registry
):
    running = await start(registry__url=registry.url, registry__auto_register=True, streams=STREAMS)
    await send(running, message("a", 1), message("a", 2, action=18))

    for stream in STREAMS:
        count = 0 if stream == "tasks" else 2
        how = {"stream": stream, "registry": registry.url, "until_end": True}
        events = await asyncio.to_thread(read, running, topic_prefix, **how)
        assert len(events) == count, stream
    assert [event.value is None for event in events] == [False, True]


async def test_without_the_registry_what_needs_it_says_so(start: Start, topic_prefix: str, registry):
    running = await start(registry__url=registry.url, registry__auto_register=True)
    await send(running, message("a", 1))

    with pytest.raises(Unreadable, match=r"registry=\.\.\."):
        await asyncio.to_thread(read, running, topic_prefix, until_end=True)


async def test_a_repeat_is_left_out_and_counted(start: Start, topic_prefix: str):
    running = await start(repeats__window_seconds=1)
    await send(running, message("a", 1), message("a", 2), message("b", 1))
    await asyncio.sleep(1.5)  # by now the connector has forgotten it
    await send(running, message("a", 1))

    with Events(running.connector.bootstrap_servers, prefix=topic_prefix, until_end=True) as events:
        found = by_instance(await asyncio.to_thread(list, events))

    assert {instance: ids(each) for instance, each in found.items()} == {"a": ["a-1", "a-2"], "b": ["b-1"]}
    assert events.repeats == 1
    every = await asyncio.to_thread(read, running, topic_prefix, until_end=True, repeats_kept=0)
    assert len(every) == 4


async def test_a_group_goes_on_behind_the_last_event_that_was_followed_by_another(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(6)))
    how = {"group": f"{topic_prefix}-group", "idle_seconds": IDLE_SECONDS}

    def first_three() -> list[Event]:
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, **how) as events:
            return list(islice(events, 3))

    before = await asyncio.to_thread(first_three)
    after = await asyncio.to_thread(read, running, topic_prefix, **how)

    assert ids(before) == ["a-0", "a-1", "a-2"]
    assert ids(after) == ["a-2", "a-3", "a-4", "a-5"]


async def test_async_for_reads_the_same(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(5)))

    async with Events(running.connector.bootstrap_servers, prefix=topic_prefix, until_end=True) as events:
        found = [event async for event in events]

    assert ids(found) == [f"a-{number}" for number in range(5)]


async def test_async_for_can_be_cancelled_while_no_record_comes(start: Start, topic_prefix: str):
    running = await start()
    await send(running, *(message("a", number) for number in range(3)))
    group = f"{topic_prefix}-group"
    found: list[Event] = []

    async def follow() -> None:
        async with Events(running.connector.bootstrap_servers, prefix=topic_prefix, group=group) as events:
            async for event in events:
                found.append(event)  # noqa: PERF401 - looked at although the loop does not end by itself

    following = asyncio.create_task(follow())
    await until(lambda: len(found), equals(3))
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following

    assert ids(found) == [f"a-{number}" for number in range(3)]
    rest = await asyncio.to_thread(read, running, topic_prefix, group=group, idle_seconds=IDLE_SECONDS)
    assert ids(rest) == []


async def test_what_is_no_record_of_ours_stops_the_reader_with_its_place(start: Start, topic_prefix: str):
    running = await start()
    await send(running, message("a", 1))
    publisher = KafkaPublisher(producer_properties(running.connector.bootstrap_servers, {}))
    await publisher.start()
    alien = ProducibleRecord("events", f"{topic_prefix}.events", b"a", b"{}", (), 1_763_000_000_000)
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    publisher.publish((alien,), done.set_result)
    assert await done == (None,)
    await publisher.stop(5)

    with pytest.raises(Unreadable, match=rf"{topic_prefix}\.events \[\d+\] @ \d+ cannot be decoded"):
        await asyncio.to_thread(read, running, topic_prefix, until_end=True)


async def test_what_the_caller_does_before_it_reads_is_not_counted_as_silence(start: Start, topic_prefix: str):
    """Importing a library of data frames takes seconds on a busy machine."""
    running = await start()
    await send(running, message("a", 1))

    def read_late() -> list[Event]:
        with Events(running.connector.bootstrap_servers, prefix=topic_prefix, until_end=True) as events:
            time.sleep(REACH_SECONDS + 0.1)
            return list(events)

    assert ids(await asyncio.to_thread(read_late)) == ["a-1"]


def test_no_broker_is_said():
    with pytest.raises(OutsideUnreachable), Events("127.0.0.1:1", until_end=True) as events:
        list(events)


def test_a_group_cannot_know_where_the_end_is():
    with pytest.raises(ValueError, match="until_end"):
        Events("127.0.0.1:1", group="g", until_end=True)
