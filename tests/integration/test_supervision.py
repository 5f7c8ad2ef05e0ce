"""A connector of which a part has ended: probes say so, and it starts again as a whole."""

import asyncio
import json
import threading
from functools import partial

import aiohttp
import pytest

from connector import supervision
from connector.app.gauges import Gauges
from connector.errors import Unavailable
from connector.journal.sqlite import SqliteJournal
from connector.kafka.publisher import KafkaPublisher
from tests.waiting import PATIENCE_SECONDS, until


async def live(running) -> tuple[int, dict[str, object]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{running.connector.operations_url}/livez") as answer,
    ):
        return answer.status, json.loads(await answer.text())


async def test_a_thread_that_has_died_is_reported_by_the_probes_and_ends_the_connector(start, monkeypatch):
    """`run` begins again then, in the same process; a kubelet would restart the container."""
    monkeypatch.setattr(supervision, "RESTART_SECONDS", 0.05)
    running = await start()
    assert await live(running) == (200, {"live": True})
    publisher = running.connector.publisher
    publisher._stopping = True  # as if its thread had met its end
    await asyncio.to_thread(publisher._thread.join)
    publisher._stopping = False

    assert await live(running) == (503, {"live": False, "dead": ["publisher"]})
    assert (await running.ready())[0] == 503
    await asyncio.wait_for(running.connector.must_restart.wait(), PATIENCE_SECONDS)
    await until(running.ready, lambda answer: "publisher" in answer[1]["problems"].get("parts", ""))
    assert await running.metric("weda_connector_starts_anew_total", reason="part") == 1


async def test_watchers_that_fail_are_restarted_and_counted(start, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyError

    monkeypatch.setattr(supervision, "RESTART_SECONDS", 0.05)
    running = await start()
    restarts = partial(running.metric, "weda_connector_part_restarts_total", part="gauges")
    before, restarted = await restarts(), supervision.restarts.get("gauges", 0)
    monkeypatch.setattr(Gauges, "_publish", fail)
    await until(lambda: supervision.restarts.get("gauges", 0) > restarted)
    monkeypatch.undo()

    await until(restarts, lambda count: count > before)
    assert await live(running) == (200, {"live": True})
    await until(running.ready, lambda answer: "gauges (KeyError)" in answer[1]["problems"].get("parts", ""))


async def test_the_thread_that_polls_goes_on_whatever_it_meets(start, monkeypatch):
    running = await start()
    met = threading.Event()

    def fail(publisher: KafkaPublisher) -> None:
        met.set()
        raise SystemExit  # no Exception: it would end a thread without a word

    monkeypatch.setattr(KafkaPublisher, "_poll_or_rebuild", fail)
    await until(met.is_set)
    monkeypatch.undo()

    assert await running.post({"msgType": "Task", "instanceId": "i", "msgId": "m"}) == (200, {"code": 0})
    assert running.connector.publisher.is_alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_connector_whose_journals_thread_has_died_can_still_be_stopped_and_refuses_until_then(
    start, monkeypatch
):
    running = await start()

    def end(_journal: SqliteJournal, _retained: object) -> None:
        raise SystemExit

    monkeypatch.setattr(SqliteJournal, "_gather", end)
    await until(partial(live, running), lambda answer: answer[1] == {"live": False, "dead": ["journal"]})
    monkeypatch.undo()

    assert (await running.ready())[0] == 503
    await asyncio.wait_for(running.connector.stop(), PATIENCE_SECONDS)


async def test_a_defect_on_the_journals_thread_makes_the_connector_start_again(start):
    running = await start()
    open_journal = running.connector.context.letters._journal
    with pytest.raises(Unavailable):
        await open_journal._ask(lambda _file: {}["a defect"], writes=True)

    await asyncio.wait_for(running.connector.must_restart.wait(), PATIENCE_SECONDS)
    assert (await live(running))[0] == 200
    await until(running.ready, lambda answer: "journal (KeyError)" in answer[1]["problems"].get("parts", ""))
