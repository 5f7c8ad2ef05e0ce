"""Generates runs, the messages of whole process instances, lazily; the same seed generates the same runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from random import Random
from typing import Any, Final

from connector.simulator.messages import InstanceFields, write
from connector.simulator.processes import PEOPLE, PROCESSES, Person, Process
from connector.simulator.scenarios import SCENARIOS, steps

SPREAD_MS: Final = 3_600_000
"""The time in which the instances start."""


@dataclass(frozen=True, slots=True)
class Run:
    """One instance and its messages in the order in which WeDa would send them."""

    instance_id: str
    messages: tuple[dict[str, Any], ...]


def runs(
    seed: int, instances: int | None, start_ms: int, *, spread_ms: int = SPREAD_MS, until_ms: int | None = None
) -> Iterator[Run]:
    """Generate ``instances`` runs (None: without end), each started within ``spread_ms`` after ``start_ms`` (epoch ms).

    Steps after ``until_ms`` are left out; such a run is open, and may have no message yet. Any ``len(SCENARIOS)``
    consecutive whole runs contain every action and every status. Instance ids differ between seeds.
    """
    for index in count() if instances is None else range(instances):
        yield _run(seed, index, start_ms, spread_ms, until_ms)


def seeded_random(*parts: object) -> Random:
    """Return a random generator seeded by the parts."""
    # As text: `Random` takes no tuple, and hashes of texts differ between processes.
    return Random("/".join(map(str, parts)))  # noqa: S311 - repeatable on purpose, not a secret


def _run(seed: int, index: int, start_ms: int, spread_ms: int, until_ms: int | None) -> Run:
    random = seeded_random(seed, index)
    instance_id = blake2b(f"{seed}/{index}".encode(), digest_size=16).hexdigest()
    # With the seed as an offset, even the first instance differs between seeds. 7 and the number of scenarios have no
    # common factor: every scenario has its turn before one comes again, and similar ones are not neighbours.
    scenario = SCENARIOS[(7 * index + seed) % len(SCENARIOS)]
    process = PROCESSES[(index + index // len(SCENARIOS) + seed) % len(PROCESSES)]
    starter = random.choice(PEOPLE)
    instance = InstanceFields(
        instance_id=instance_id,
        process=process,
        title=_title(process, starter, random),
        version=random.randint(1, 9),
        env_type=random.choices(("prod", "pre"), (9, 1))[0],
        source_type=random.choice(("PC", "H5", "MINI_PROGRAM", "OPEN_API")),
        starter=starter,
        start_ms=start_ms + random.randrange(spread_ms),
    )
    instance_steps = steps(process, scenario, starter, random, instance.start_ms)
    written = ((step.at_ms, write(step, instance, random)) for step in instance_steps)
    return Run(instance_id, tuple(message for at_ms, message in written if until_ms is None or at_ms <= until_ms))


def _title(process: Process, starter: Person, random: Random) -> str:
    return f"{starter.name}的{process.name}-{random.choice(process.subjects)}"
