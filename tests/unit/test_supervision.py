"""Parts that have to live: begun again when they fail, looked at, and shown."""

import asyncio
from collections.abc import Iterator

import pytest

from connector import supervision
from connector.supervision import Watchdog, run_forever
from connector.telemetry.health import Health
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def restored(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(supervision, "RESTART_SECONDS", 0.0)
    supervision.restarts.clear()
    supervision._failures.clear()
    yield
    supervision.restarts.clear()
    supervision._failures.clear()


class Fails:
    """Work that fails in some ways, one after the other, and then goes on."""

    def __init__(self, *failures: type[BaseException]) -> None:
        self._failures = list(failures)
        self.goes_on = asyncio.Event()

    async def __call__(self) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.goes_on.set()
        await asyncio.Event().wait()


async def test_a_part_that_fails_is_begun_again_whatever_it_was_and_the_failure_is_shown():
    work = Fails(KeyError, OSError, asyncio.CancelledError)
    task = asyncio.create_task(run_forever("gauges", work))
    await asyncio.wait_for(work.goes_on.wait(), PATIENCE_SECONDS)
    shown = supervision.problem()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert supervision.restarts == {"gauges": 3}
    assert shown == "restarted after a failure: gauges (CancelledError); the log says where"
    assert task.cancelled()


async def test_a_failure_is_shown_for_a_while(monkeypatch):
    supervision.record_failure("replay", KeyError())
    monkeypatch.setattr(supervision, "SHOWN_SECONDS", 0.0)

    assert supervision.problem() == ""


async def test_a_part_that_has_ended_makes_the_connector_neither_live_nor_ready():
    health = Health(1 << 30, watchdog=Watchdog(), is_open=True)
    task = asyncio.create_task(asyncio.sleep(0))
    health.watchdog.watch("gauges", lambda: not task.done())
    before = (health.ended, health.is_ready)
    await task

    assert before == ([], True)
    assert (health.ended, health.is_ready) == (["gauges"], False)


async def test_each_of_two_parts_with_one_name_is_watched():
    watchdog = Watchdog()
    watchdog.watch("connections", lambda: False)
    watchdog.watch("connections", lambda: True)

    assert watchdog.ended == ["connections"]


async def test_what_ends_at_the_end_is_not_dead():
    health = Health(1 << 30, is_open=True)
    health.watchdog.watch("gauges", lambda: False)
    health.is_closing = True

    assert health.ended == []
