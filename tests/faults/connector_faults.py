"""What happens to the connector itself: killed at any stage, its clock, its disk, its journal, its senders."""

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tests.faults.host import POINTS, Control, Disk
from tests.faults.ledger import Disturbance
from tests.faults.scenarios import Scenario
from tests.faults.stage import TOKEN, Stage
from tests.servers import ServerError

PAGE = 4096
REACH_SECONDS = 60
HOUR = 3600.0
MOST_MIB = 400
"""Memory of the connector beside which slow senders must fit."""


def connector_faults() -> Iterator[Scenario]:
    """All of them."""
    yield killed_at(tuple(POINTS))
    yield clock_stepped()
    yield clock_ahead()
    yield disk("full", outage=False)
    yield disk("full", outage=True)
    yield disk("unsynced", outage=True)
    yield disk("read-only", outage=True)
    yield Scenario(
        *("journal-full", "brokers frozen for longer than a journal of 2 MiB holds", _fill_journal),
        settings={"WEDA_JOURNAL__MAX_BYTES": "2MiB"},
        oldest_age_seconds=5,
        share_accepted=0.1,
    )
    yield in_an_outage("journal-torn", "SIGKILL in an outage, and garbage where the journal's log would go on", _tear)
    yield in_an_outage("journal-scrambled", "SIGKILL in an outage, and pages of the journal overwritten", _scramble)
    yield log_sink("gone")
    yield log_sink("stalled")
    yield journal_file_gone()
    yield Scenario(
        *(
            "registry-gone",
            "the schema registry hangs, then is killed; the connector starts without it",
            _lose_registry,
        ),
        registered=True,
        seconds=60,
        interrupts=True,
    )
    yield Scenario(
        "slow-senders",
        "beside the load hundreds of senders that stop half-way, trickle, never read, or hang up",
        _be_slow,
        refusals_allowed=True,
    )


def killed_at(points: tuple[str, ...], *, seconds: float = 90) -> Scenario:
    """The connector ends itself by SIGKILL, once at each point, and is started again."""
    return Scenario(
        "killed-at-every-stage",
        f"SIGKILL at each of {len(points)} stages: on the way in, to Kafka, to the disk, in replay, start and stop",
        partial(_kill_at_each, points=points),
        seconds=seconds,
        breakable=True,
        interrupts=True,
        share_accepted=0.05,
    )


def clock_stepped() -> Scenario:
    """The wall clock jumps, an outage across the jumps."""
    return Scenario(
        *("clock-stepped", "the wall clock steps back an hour, on by fifty minutes, and back, in an outage too"),
        *(_step_clock,),
        breakable=True,
        oldest_age_seconds=2,
    )


def clock_ahead() -> Scenario:
    """The wall clock is so far ahead that Kafka rejects the records' timestamps."""
    return Scenario(
        *("clock-ahead", "the wall clock is eight hours ahead; it is set while it runs, and again before a restart"),
        *(_set_clock_ahead,),
        breakable=True,
        interrupts=True,
        timestamps_replaced=True,
        oldest_age_seconds=3,
    )


def disk(state: Disk, *, outage: bool) -> Scenario:
    """The journal's disk fails; in an outage nothing can be accepted then."""
    what = {"full": "is full", "unsynced": "does not sync", "read-only": "is read-only"}[state]
    return Scenario(
        f"disk-{state}" + ("-in-outage" if outage else ""),
        f"the journal's disk {what}" + (" while the brokers are frozen" if outage else ", brokers up"),
        partial(_break_disk, state=state, outage=outage),
        breakable=True,
        share_accepted=0.1 if outage else 0.25,
    )


def log_sink(state: Literal["gone", "stalled"]) -> Scenario:
    """The log can be written no more, and Kafka goes and comes back."""
    does = {
        "gone": "the log's reader ends; then every broker is killed, and started again",
        "stalled": "the log's reader stands still; then every broker is killed, and started again",
    }[state]
    return Scenario(
        f"log-sink-{state}",
        does,
        partial(_lose_log, state=state),
        piped=True,
        oldest_age_seconds=2,
        repeats_allowed=True,
        refusals_allowed=False,
    )


def journal_file_gone() -> Scenario:
    """The journal is deleted, replaced by an older copy, and deleted once more, while it holds a backlog."""
    return Scenario(
        *(
            "journal-file-gone",
            "in an outage the journal is deleted, then replaced by an older copy, then deleted before a SIGKILL",
            _lose_journal_file,
        ),
        seconds=60,
        interrupts=True,
        oldest_age_seconds=5,
        share_accepted=0.1,
    )


def in_an_outage(name: str, does: str, harm: Callable[[Stage], None]) -> Scenario:
    """The connector is killed while the journal holds a backlog, and something is done to the file."""
    return Scenario(
        *(name, does, partial(_harm_journal, harm=harm)),
        interrupts=True,
        oldest_age_seconds=3,
    )


async def _kill_at_each(stage: Stage, seconds: float, *, points: tuple[str, ...]) -> None:
    order = stage.chance.sample(points, len(points))
    for point in order:
        await asyncio.sleep(max(seconds / len(points) - 3, 0.5))
        async with stage.disturbing(f"killed: {point}", closes_door=True):
            await _end_at(stage, point)
    missed = set(points) - set(stage.connector.reached())
    if missed:
        raise ServerError(f"these points were never reached: {sorted(missed)}")


async def _end_at(stage: Stage, point: str) -> None:
    """Arm a point, bring the connector there, and start it again when it has ended."""
    connector = stage.connector
    connector.break_by(Control(point=point, pending=stage.chance.randint(1, 4) if ":" not in point else 1))
    if point.startswith("start"):
        await connector.kill()
        await connector.start()
    elif point.startswith("stop"):
        await asyncio.sleep(0.2)
        with contextlib.suppress(ServerError):
            await connector.terminate()
    else:
        await _come_and_go(stage)
    deadline = time.monotonic() + REACH_SECONDS
    while connector.process.running and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    connector.break_by(Control())
    await connector.kill()
    await connector.start()
    await connector.wait_until_up()


async def _come_and_go(stage: Stage) -> None:
    """Bring the connector by every point of its work: with load alone, or by way of the journal and replay."""
    await asyncio.sleep(0.5)
    for _ in range(5):
        if not stage.connector.process.running:
            return
        await asyncio.to_thread(stage.cluster.pause_all)
        await asyncio.sleep(1)
        await asyncio.to_thread(stage.cluster.resume_all)
        await asyncio.sleep(1)


async def _step_clock(stage: Stage, seconds: float) -> None:
    isolated = seconds / 8
    connector = stage.connector
    await asyncio.sleep(isolated)
    for off, outage in ((-HOUR, False), (HOUR * 5 / 6, True), (-HOUR, True), (0.0, False)):
        async with stage.disturbing(f"clock off by {off:g} s"), _frozen(stage, yes=outage):
            await asyncio.sleep(isolated / 2)
            connector.break_by(Control(clock_seconds=off))
            await asyncio.sleep(isolated)
    await asyncio.sleep(isolated)


async def _set_clock_ahead(stage: Stage, seconds: float) -> None:
    isolated = seconds / 8
    connector = stage.connector
    for restarts in (False, True):
        await asyncio.sleep(isolated)
        async with stage.disturbing("clock eight hours ahead"):
            connector.break_by(Control(clock_seconds=8 * HOUR))
            await asyncio.sleep(isolated)
            connector.break_by(Control())
        if restarts:
            async with stage.disturbing("killed", closes_door=True):
                await connector.kill()
                await connector.start()
                await connector.wait_until_up()
        await asyncio.sleep(isolated)


async def _break_disk(stage: Stage, seconds: float, *, state: Disk, outage: bool) -> None:
    await asyncio.sleep(seconds * 0.2)
    async with stage.disturbing(f"disk {state}"), _frozen(stage, yes=outage):
        await asyncio.sleep(seconds * 0.1)
        for _ in range(2):
            stage.connector.break_by(Control(disk=state))
            await asyncio.sleep(seconds * 0.1)
            stage.connector.break_by(Control())
            await asyncio.sleep(seconds * 0.1)
    await asyncio.sleep(seconds * 0.3)


async def _fill_journal(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.2)
    await stage.freeze_brokers(seconds * 0.5)
    await asyncio.sleep(seconds * 0.3)


async def _harm_journal(stage: Stage, seconds: float, *, harm: Callable[[Stage], None]) -> None:
    await asyncio.sleep(seconds * 0.2)
    async with stage.disturbing("journal harmed", closes_door=True), _frozen(stage, yes=True):
        await asyncio.sleep(seconds * 0.3)
        await stage.connector.kill()
        harm(stage)
        await stage.connector.start()
        await stage.connector.wait_until_up()
        await asyncio.sleep(seconds * 0.1)
    await asyncio.sleep(seconds * 0.3)


async def _lose_log(stage: Stage, seconds: float, *, state: Literal["gone", "stalled"]) -> None:
    pipe = stage.connector.log_pipe
    assert pipe is not None
    await asyncio.sleep(seconds * 0.2)
    async with stage.disturbing(f"log sink {state}"):
        await asyncio.to_thread(pipe.close if state == "gone" else pipe.stall)
        await asyncio.sleep(seconds * 0.1)
        await asyncio.to_thread(stage.cluster.kill_all)
        await asyncio.sleep(seconds * 0.2)
        await asyncio.to_thread(stage.cluster.start_all)
        await asyncio.sleep(seconds * 0.1)
        pipe.go_on()
    await stage.wait_until_ready([True])
    dropped = await stage.metric("log_lines_dropped_total")
    if state == "gone" and not dropped:
        raise ServerError("no line of the log was dropped: the run proves nothing")
    await asyncio.sleep(seconds * 0.3)


async def _lose_journal_file(stage: Stage, seconds: float) -> None:
    connector = stage.connector
    names = ("journal.db", "journal.db-wal")
    await asyncio.sleep(seconds * 0.1)
    async with stage.disturbing("journal file gone", closes_door=True), _frozen(stage, yes=True):
        await asyncio.sleep(3)
        older = [(connector.folder / name, connector.folder / f"older-{name}") for name in names]
        for there, copy in older:
            await asyncio.to_thread(shutil.copyfile, there, copy)
        await asyncio.sleep(3)
        for there, _ in older:
            there.unlink()
        await _until_written_again(stage)
        await asyncio.sleep(3)
        for there, copy in older:
            copy.replace(there)
        await _until_written_again(stage)
        await asyncio.sleep(3)
        connector.journal.unlink()
        await stage.wait_until_ready([False])
        await asyncio.sleep(1)
        await connector.kill()
        await connector.start()
        await connector.wait_until_up()
    await asyncio.sleep(seconds * 0.2)


async def _until_written_again(stage: Stage) -> None:
    """Until the connector has noticed, and until its journal is in its place again."""
    await stage.wait_until_ready([False])
    await stage.wait_until_ready([True])


def _tear(stage: Stage) -> None:
    """What a crash may leave behind the last commit: half a frame, or bytes of something else."""
    log = stage.connector.journal.with_name("journal.db-wal")
    with log.open("ab") as file:
        file.write(stage.chance.randbytes(stage.chance.randint(1, 3 * PAGE)))


def _scramble(stage: Stage) -> None:
    """Pages in the middle of the file, and frames in the middle of its log."""
    path = stage.connector.journal
    began = time.monotonic()
    pages = path.stat().st_size // PAGE
    _overwrite(path, [PAGE * page for page in _some(stage.chance, pages)], stage.chance)
    log = path.with_name("journal.db-wal")
    frames = (log.stat().st_size - 32) // (PAGE + 24)
    _overwrite(log, [56 + (PAGE + 24) * frame for frame in _some(stage.chance, frames // 2)], stage.chance)
    stage.damages.append(Disturbance("journal scrambled", began, time.monotonic()))
    stage.disturbances.append(stage.damages[-1])


def _some(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(1, count) for _ in range(3)] if count > 1 else []


def _overwrite(path: Path, offsets: list[int], chance: random.Random) -> None:
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(chance.randbytes(PAGE))


async def _lose_registry(stage: Stage, seconds: float) -> None:
    assert stage.registry is not None
    await asyncio.sleep(seconds * 0.15)
    async with stage.disturbing("registry hangs"):
        await asyncio.to_thread(stage.registry.pause)
        await asyncio.sleep(seconds * 0.15)
        await stage.restart_connector()
        await asyncio.to_thread(stage.registry.resume)
    await asyncio.sleep(seconds * 0.15)
    async with stage.disturbing("registry killed"), _frozen(stage, yes=True):
        await asyncio.to_thread(stage.registry.kill)
        await asyncio.sleep(seconds * 0.05)
        await stage.restart_connector()
        await asyncio.sleep(seconds * 0.1)
    await asyncio.sleep(seconds * 0.2)


async def _be_slow(stage: Stage, seconds: float) -> None:
    await asyncio.sleep(seconds * 0.2)
    async with stage.disturbing("slow senders"):
        until = time.monotonic() + seconds * 0.6
        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(_slow_sender(stage, number % 4, until))
    most = max(sample.resident_bytes for sample in stage.samples) >> 20
    if most > MOST_MIB:
        raise ServerError(f"slow senders took the connector to {most} MiB")
    await asyncio.sleep(seconds * 0.2)


async def _slow_sender(stage: Stage, kind: int, until: float) -> None:
    """0 stops in the headers, 1 trickles its body, 2 never reads, 3 hangs up in the middle; again and again."""
    address = urlsplit(stage.connector.url)
    head = f"POST /messageDeliver HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    while time.monotonic() < until:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(head + (b"" if kind == 0 else b"Content-Length: 100000\r\n\r\n"))
            for _ in range(20):
                if time.monotonic() > until or reader.at_eof():
                    break
                if kind == 1:
                    writer.write(b"x")
                await asyncio.sleep(0.05 if kind == 3 else 0.5)
                if kind == 3:
                    break
            writer.transport.abort()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _frozen(stage: Stage, *, yes: bool) -> AsyncIterator[None]:
    """Brokers that hang as long as the context lasts."""
    if not yes:
        yield
        return
    began = time.monotonic()
    await asyncio.to_thread(stage.cluster.pause_all)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.cluster.resume_all)
        stage.freezes.append(Disturbance("brokers frozen", began, time.monotonic()))
