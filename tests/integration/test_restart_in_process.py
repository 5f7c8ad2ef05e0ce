"""What a connector that restarts in its process takes over from the one before it."""

import asyncio
import gc
import weakref
from functools import partial
from typing import ClassVar

import pytest

from connector.app import run as process
from connector.app.connector import Connector
from connector.app.reload import Reload
from connector.settings import Settings
from tests.running import TOKEN, Running
from tests.waiting import equals, until

FREEZE = process._freeze_garbage_collector
MESSAGE = {"msgType": "Task", "instanceId": "i-1", "msgId": "m-1"}


class Recorded(Connector):
    """A connector that can be found again."""

    all: ClassVar[list[Connector]] = []

    async def start(self) -> None:
        await super().start()
        self.all.append(self)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(process, "Connector", Recorded)
    monkeypatch.setattr(process, "_RESTART_SECONDS", 0.0)
    monkeypatch.setattr(process, "_freeze_garbage_collector", gc.collect)
    Recorded.all.clear()


def token_of(settings: Settings) -> str:
    return settings.sources["default"].tokens[-1].get_secret_value()


async def test_rotated_credentials_and_what_needs_a_restart_outlive_it(base_flags, tmp_path):
    file = tmp_path / "connector.yaml"
    file.write_text("sources: {default: {tokens: [first]}}\n")
    reload = Reload(partial(Settings.load, environment={}, flags=base_flags, file=file), (file,))
    running = asyncio.create_task(process.run(reload.load(), reload))
    try:
        await until(lambda: len(Recorded.all), equals(1))
        first = Recorded.all[0]
        file.write_text("timezone: UTC\nsources: {default: {tokens: [second]}}\n")
        await until(lambda: token_of(first.settings), equals("second"))
        first._restarts.request("part")
        await until(lambda: len(Recorded.all), equals(2))
        second = Running(Recorded.all[1])

        assert (await second.post(MESSAGE, authorization="Bearer second"))[0] == 200
        assert (await second.post(MESSAGE, authorization="Bearer first"))[0] == 401
        assert await second.metric("weda_connector_restart_needed") == 1
        assert second.connector.settings.timezone == "Asia/Shanghai"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_connector_before_is_freed(base_flags, monkeypatch):
    """A million dedup keys, and what hangs on them, would stay with each restart."""
    thresholds = gc.get_threshold()
    monkeypatch.setattr(process, "_freeze_garbage_collector", FREEZE)
    running = asyncio.create_task(process.run(Settings.load(environment={"WEDA_TOKEN": TOKEN}, flags=base_flags)))
    try:
        await until(lambda: len(Recorded.all), equals(1))
        Recorded.all[0]._restarts.request("part")
        first = weakref.ref(Recorded.all.pop())
        await until(lambda: len(Recorded.all), equals(1))

        def is_freed() -> bool:
            FREEZE()  # as at the next restart: a thread may have held the last reference at this one
            return first() is None

        await until(is_freed)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        gc.unfreeze()
        gc.set_threshold(*thresholds)


async def test_a_file_that_changes_while_no_connector_watches_it_is_read(base_flags, tmp_path):
    file = tmp_path / "token"
    file.write_text("first")
    reload = Reload(partial(Settings.load, environment={"WEDA_TOKEN_FILE": str(file)}, flags=base_flags), (file,))
    settings = reload.load()
    file.write_text("second-and-longer")
    connector = Connector(settings, reload)
    try:
        await connector.start()
        await until(lambda: token_of(connector.settings), equals("second-and-longer"))
    finally:
        await connector.stop()
