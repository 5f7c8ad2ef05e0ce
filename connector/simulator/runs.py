"""Runs: the messages of whole process instances, generated lazily and the same for the same seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from random import Random
from typing import Any, Final

from connector.simulator.processes import PEOPLE, PROCESSES, Person, Process
from connector.simulator.stories import PLOTS, steps
from connector.simulator.wording import Heading, write

SPREAD_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Run:
    """One instance: its messages in the order in which WeDa would send them."""

    instance_id: str
    messages: tuple[dict[str, Any], ...]


def runs(seed: int, instances: int | None, start_ms: int) -> Iterator[Run]:
    """Tell ``instances`` runs (None: without end), each started within an hour after ``start_ms`` (epoch ms).

    Every ``len(PLOTS)`` neighbouring runs hold every action and every status. Instance ids differ between seeds.
    """
    for index in count() if instances is None else range(instances):
        yield _run(seed, index, start_ms)


def dice_for(*parts: object) -> Random:
    """Return dice that fall the same way for the same parts."""
    return Random("/".join(map(str, parts)))  # noqa: S311 - repeatable on purpose, not a secret


def _run(seed: int, index: int, start_ms: int) -> Run:
    dice = dice_for(seed, index)
    instance_id = blake2b(f"{seed}/{index}".encode(), digest_size=16).hexdigest()
    # the offset by the seed lets one instance of each seed differ; 7 has no factor in common with the plots
    plot = PLOTS[(7 * index + seed) % len(PLOTS)]
    process = PROCESSES[(index + index // len(PLOTS) + seed) % len(PROCESSES)]
    starter = dice.choice(PEOPLE)
    heading = Heading(
        instance_id=instance_id,
        process=process,
        title=_title(process, starter, dice),
        version=dice.randint(1, 9),
        env_type=dice.choices(("prod", "pre"), (9, 1))[0],
        source_type=dice.choice(("PC", "H5", "MINI_PROGRAM", "OPEN_API")),
        starter=starter,
        start_ms=start_ms + dice.randrange(SPREAD_MS),
    )
    story = steps(process, plot, starter, dice, heading.start_ms)
    return Run(instance_id, tuple(write(step, heading, dice) for step in story))


def _title(process: Process, starter: Person, dice: Random) -> str:
    return f"{starter.name}的{process.name}-{dice.choice(process.subjects)}"
