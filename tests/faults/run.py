"""One fault run: start the parts, send while the scenario breaks them, let them mend, read everything, check."""

import asyncio
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import checks, consumer, recording
from tests.faults.checks import Breach, History, excerpt
from tests.faults.consumer import Record
from tests.faults.history import check as second_opinion
from tests.faults.ledger import Ledger
from tests.faults.live import LiveConsumer
from tests.faults.recording import Recording
from tests.faults.replicas import Replicas
from tests.faults.scenarios import Scenario
from tests.faults.sender import Load, Sender
from tests.faults.stage import TOKEN, Connector, Stage
from tests.servers import KafkaCluster, SchemaRegistry
from tests.servers.access import USER, as_user

RECOVER_SECONDS = 180
"""How long a backlog may take after the last fault ended."""
BREACHES_SHOWN = 5
DEADLINE_SECONDS = 0.8
"""What the connector promises; on a machine that is busy with the brokers too it is reported, not checked."""


@dataclass(frozen=True)
class Report:
    """What a run found."""

    scenario: str
    seed: int
    figures: dict[str, Any]
    breaches: list[Breach]
    complaints: list[str]
    """Error lines of the connector's log."""
    evidence: list[str]
    """Excerpts of the ledger and of the topics around the first breaches."""
    folder: Path | None
    """The connector's log and journal, kept after a run that failed."""
    recording: Recording
    """All that the run was judged by."""

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return not self.breaches

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        counted = Counter(f"{breach.promise} {breach.check}" for breach in self.breaches)
        about = {"scenario": self.scenario, "seed": self.seed, "ok": self.ok}
        return about | self.figures | {"breaches": counted, "first": [str(one) for one in self.breaches[:20]]}

    def __str__(self) -> str:
        figures = ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in self.figures.items())
        lines = [f"{'ok  ' if self.ok else 'FAIL'} {self.scenario} (seed {self.seed}): {figures}"]
        counted = Counter((breach.promise, breach.check) for breach in self.breaches)
        lines += [f"  {promise} {name}: {count}" for (promise, name), count in counted.items()]
        lines += self.evidence
        lines += [f"  connector: {line}" for line in self.complaints[:BREACHES_SHOWN]]
        return "\n".join([*lines, f"  kept: {self.folder}"] if self.folder else lines)


async def perform(
    scenario: Scenario,
    cluster: KafkaCluster,
    *,
    seed: int,
    seconds: float | None = None,
    instances: int | None = None,
    rate: float | None = None,
    record: Path | None = None,
) -> Report:
    """Play one scenario on a cluster that is whole, and is whole again afterwards.

    The run is recorded (`tests.faults.recording`) in the folder ``record``, and in the folder that is kept when it
    failed.
    """
    began = time.monotonic()
    run = f"{scenario.name}-{seed}-{int(time.time()) % 10**6}"
    folder = Path(tempfile.mkdtemp(prefix=f"weda-faults-{scenario.name}-"))
    load = Load(
        *(
            run,
            seed,
            instances or scenario.instances,
            rate or scenario.rate,
            seconds or scenario.seconds,
            scenario.large,
        )
    )
    if scenario.kafka_is_late:
        await asyncio.to_thread(cluster.kill_all)
    with ExitStack() as stack:
        registry = stack.enter_context(SchemaRegistry.start()) if scenario.registered else None
        connector = _connector(scenario, cluster, stack, folder=folder, run=run, registry=registry)
        stage = Stage(cluster, connector, random.Random(f"{seed}/{scenario.name}"), registry)
        await connector.start()
        try:
            with LiveConsumer(cluster.bootstrap_servers, run, cluster.client_properties) as live:
                await connector.wait_until_up()
                ledger, found = await _play(scenario, stage, load)
                report = await asyncio.to_thread(_judge, scenario, stage, load, ledger, found, live=live, began=began)
        finally:
            await connector.kill()
    for where in (record, report.folder):
        if where is not None:
            recording.write(report.recording, where / f"{scenario.name}-{seed}{recording.SUFFIX}")
    if report.ok:
        shutil.rmtree(folder)
    return report


def _connector(
    scenario: Scenario,
    cluster: KafkaCluster,
    stack: ExitStack,
    *,
    folder: Path,
    run: str,
    registry: SchemaRegistry | None,
) -> Connector | Replicas:
    if scenario.replicas > 1:
        return stack.enter_context(Replicas.of(scenario.replicas, folder, cluster, run, scenario.settings))
    return Connector(
        *(folder, cluster.bootstrap_servers, run, as_user(USER) if scenario.secured else {}),
        breakable=scenario.breakable,
        piped=scenario.piped,
        more={**scenario.settings, **_of_registry(registry)},
    )


def _of_registry(registry: SchemaRegistry | None) -> dict[str, str]:
    if registry is None:
        return {}
    return {"WEDA_REGISTRY__URL": registry.url, "WEDA_REGISTRY__AUTO_REGISTER": "true"}


async def _play(scenario: Scenario, stage: Stage, load: Load) -> tuple[Ledger, list[Breach]]:
    """Send while the scenario breaks things; then wait for the backlog and send a fresh message."""
    watching = asyncio.create_task(stage.watch())
    try:
        async with Sender(stage.connector.urls, TOKEN, load) as sender:
            stage.sender = sender
            sending = asyncio.create_task(sender.run())
            await scenario.play(stage, load.seconds)
            sender.stop()
            await sending
            found = await _settle(stage, "the backlog")
            fresh = await sender.send_fresh(scenario.name)
            if not fresh.accepted:
                found.append(Breach("P8", "not back up", f"a fresh message was not accepted: {fresh.attempts}"))
            found += await _settle(stage, "a fresh message")
    finally:
        watching.cancel()
    return sender.ledger, found


async def _settle(stage: Stage, what: str) -> list[Breach]:
    if await stage.wait_until_published(seconds=RECOVER_SECONDS):
        return []
    state = stage.connector.state
    return [
        Breach(
            "P8", "not back up", f"{what} was not published in {RECOVER_SECONDS} s; the connector {state}", str(each)
        )
        for each in stage.samples[-1:]
    ]


def _judge(
    scenario: Scenario,
    stage: Stage,
    load: Load,
    ledger: Ledger,
    found: list[Breach],
    *,
    live: LiveConsumer,
    began: float,
) -> Report:
    cluster, kills = stage.cluster, stage.connector.kills
    left: list[Record] = []
    followed: list[tuple[float, Record]] = []
    try:
        left = consumer.read(cluster.bootstrap_servers, load.run, cluster.client_properties)
        followed = live.finish(_ends(left))
        records = stage.history_of(left)
        dead_letters = consumer.read_dead_letters(cluster.bootstrap_servers, load.run, cluster.client_properties)
    except ValueError as error:
        records, dead_letters = [], []
        found.append(Breach("P2", "not decodable", str(error)))
    history = History(
        *(ledger, records, scenario.wanted(load.rate * load.seconds)),
        connector_kills=list(kills),
        disturbances=stage.disturbances,
        freezes=stage.freezes,
        dead_letters=dead_letters,
        oldest_age_seen=max((sample.oldest_age or 0 for sample in stage.samples), default=0),
        lost_reported=stage.lost_reported,
        damages=stage.damages,
        rebuilds_seen=int(max((sample.rebuilds or 0 for sample in stage.samples), default=0)),
    )
    recorded = Recording(
        _run(scenario, load, stage.lost_reported),
        recording.sendings(ledger, began),
        recording.breaks(stage.disturbances, kills, freezes=stage.freezes, damages=stage.damages, began=began),
        recording.final(records, left=stage.with_eras(left)),
        recording.followed(followed, began),
        recording.cuts(stage.cuts),
        recording.letters(dead_letters),
    )
    breaches = [*found, *_imbalance(stage), *checks.check(history), *_second_opinion(recorded)]
    return Report(
        scenario.name,
        load.seed,
        _figures(history, stage),
        breaches,
        list(stage.connector.complaints()),
        list(_evidence(history, breaches)),
        stage.connector.folder if breaches else None,
        recorded,
    )


def _run(scenario: Scenario, load: Load, lost_reported: int) -> recording.Run:
    return recording.Run(
        run=load.run,
        scenario=scenario.name,
        seed=load.seed,
        instances=load.instances,
        rate=load.rate,
        seconds=load.seconds,
        brokers=scenario.nodes,
        repeats_allowed=scenario.repeats_allowed,
        dead_letters_allowed=scenario.large_refused,
        timestamps_replaced=scenario.timestamps_replaced,
        replicas=scenario.replicas,
        lost_reported=lost_reported,
    )


def _ends(records: Iterable[Record]) -> dict[tuple[str, int], int]:
    """Stream and partition → the offset behind its last record."""
    return {(one.stream, one.partition): one.offset + 1 for one in sorted(records, key=lambda one: one.offset)}


def _second_opinion(recorded: Recording) -> list[Breach]:
    return [
        Breach(one.promise, f"{one.kind} (history)", one.what, one.where, one.instance)
        for one in second_opinion(recorded)
    ]


def _imbalance(stage: Stage) -> list[Breach]:
    last = stage.samples[-1] if stage.samples else None
    if last is None or last.imbalance == stage.lost_reported:
        return []
    lost = stage.lost_reported
    what = f"at rest the connector's own ledger is off by {last.imbalance}, lost with a damaged journal: {lost}"
    return [Breach("ledger", "imbalance", what)]


def _evidence(history: History, breaches: list[Breach]) -> list[str]:
    first: dict[str, list[Breach]] = {}
    for breach in breaches:
        first.setdefault(breach.check, []).append(breach)
    lines: list[str] = []
    for found in first.values():
        lines += [f"  {breach}" for breach in found[:BREACHES_SHOWN]]
        if (instance := found[0].instance) is not None:
            lines += [f"  {line}" for line in excerpt(history, instance, around=found[0].what)]
    return lines


def _figures(history: History, stage: Stage) -> dict[str, Any]:
    ledger = history.ledger
    away = [disturbance for disturbance in history.disturbances if disturbance.closes_door]
    answered = [
        one
        for one in ledger.attempts()
        if one.outcome != "unknown" and not any(each.overlaps(one.sent, one.ended) for each in away)
    ]
    answers = sorted(one.ended - one.sent for one in answered) or [0.0]
    return {
        "sent": len(ledger.issued),
        "accepted": ledger.count("accepted"),
        "refused": ledger.count("refused"),
        "unknown": ledger.count("unknown"),
        "requests": sum(1 for _ in ledger.attempts()),
        "refusals": dict(Counter(_without_numbers(one.said) for one in ledger.attempts() if one.outcome == "refused")),
        "never_sent": ledger.never_sent,
        "records": len(history.records),
        "missing": sum(1 for _ in checks.missing(history)),
        "lost_with_damage": history.lost_reported,
        "out_of_order": sum(1 for _ in checks.out_of_order(history)),
        "repeats": checks.repeats(history),
        "dead_letters": len(history.dead_letters),
        "rebuilds": history.rebuilds_seen,
        "disturbed": len(history.disturbances),
        "recover_seconds": _recover_seconds(stage),
        "oldest_age": round(history.oldest_age_seen, 1),
        "most_waiting": int(max((sample.waiting or 0 for sample in stage.samples), default=0)),
        "late_answers": sum(seconds > DEADLINE_SECONDS for seconds in answers),
        "answer_p99": round(answers[int(len(answers) * 0.99)], 3),
        "answer_max": round(answers[-1], 3),
        "resident_mib": max((sample.resident_bytes for sample in stage.samples), default=0) >> 20,
    }


def _without_numbers(said: str) -> str:
    """One refusal for all records that are too large, whatever their sizes."""
    return re.sub(r"\b\d+ bytes", "... bytes", said)


def _recover_seconds(stage: Stage) -> float | None:
    """From the end of the last fault to the first sight of an empty journal."""
    ended = max((disturbance.ended for disturbance in stage.disturbances), default=None)
    if ended is None:
        return None
    empty = (sample.at - ended for sample in stage.samples if sample.at >= ended and sample.waiting == 0)
    return round(next(empty, float("nan")), 1)
