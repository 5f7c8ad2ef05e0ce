"""Lists the dead letters of the topics: those received last, and all of them counted by reason."""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from connector.intake.dead_letters import DeadLetter, ReadTopic, Selection, from_record, position_in_body

MAX_NAMES: Final = 100_000
"""Identities of dead letters that are kept while the topics are read, some 25 MiB; those read last."""

_SHOWN_BYTES: Final = 2_048
_MAX_POSITIONS: Final = 1_000
_POSITIONS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Reason:
    """Why requests became dead letters, and how many did.

    Attributes:
        code: The ``code`` of the answer.
        stage: The step that failed.
        reason: What is wrong and what to do, without the position in the body.
        source: Who sent them.
        waiting: How many are not reprocessed yet.
        replayed: How many were reprocessed; named as in the API.
        positions: The most frequent positions in their bodies.
    """

    code: int
    stage: str
    reason: str
    source: str
    waiting: int
    replayed: int
    positions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListedLetter:
    """A dead letter, and whether it was reprocessed."""

    letter: DeadLetter
    reprocessed: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """The dead letters that match a selection.

    Attributes:
        letters: The latest ones, newest first, each with the first two kilobytes of its body.
        reasons: All of them by reason, the most frequent first.
        total: How many there are in the topics. A second copy, published before the connector was killed, is left out
            of all figures if at most :data:`MAX_NAMES` letters were read since the first one; otherwise it counts as
            another letter.
        in_journal: How many dead letters, of any reason, still wait in the journal; they are not in the other figures.
    """

    letters: list[ListedLetter]
    reasons: list[Reason]
    total: int
    in_journal: int = 0


def list_letters(
    read: ReadTopic, noted: Mapping[str, int], selection: Selection, limit: int, *, only_waiting: bool
) -> Listing:
    """Count the letters of a selection by reason, and list the latest; blocking.

    Args:
        read: Reads the topics of dead letters.
        noted: The journal's notes of letters that were reprocessed.
        selection: Which letters.
        limit: How many are listed.
        only_waiting: Leave out those that were reprocessed, in the counts too.

    Raises:
        OutsideUnreachable, ConfigurationError: Kafka cannot be read.
    """
    counts: Counter[tuple[int, str, str, str, bool]] = Counter()
    positions: defaultdict[tuple[int, str, str, str], Counter[str]] = defaultdict(Counter)
    latest: list[ListedLetter] = []
    names: OrderedDict[str, None] = OrderedDict()
    for letter in filter(selection.matches, map(from_record, read())):
        name = letter.note.name
        reprocessed = name in noted
        if name in names or (reprocessed and only_waiting):
            continue  # a second copy, or not asked for
        names[name] = None
        if len(names) > MAX_NAMES:
            names.popitem(last=False)
        why = letter.code, letter.stage, letter.general_reason, letter.source
        counts[*why, reprocessed] += 1
        where = position_in_body(letter.reason)
        if where and (where in positions[why] or len(positions[why]) < _MAX_POSITIONS):
            positions[why][where] += 1
        latest.append(ListedLetter(replace(letter, body=letter.body[:_SHOWN_BYTES]), reprocessed))
        if len(latest) > 2 * limit + 100:
            latest = _latest(latest, limit)
    return Listing(_latest(latest, limit), _reasons(counts, positions), counts.total())


def _latest(letters: list[ListedLetter], limit: int) -> list[ListedLetter]:
    return sorted(letters, key=lambda one: one.letter.received_order, reverse=True)[:limit]


def _reasons(
    counts: Counter[tuple[int, str, str, str, bool]], positions: Mapping[tuple[int, str, str, str], Counter[str]]
) -> list[Reason]:
    reasons = [
        Reason(
            *why,
            waiting=counts[*why, False],
            replayed=counts[*why, True],
            positions=tuple(where for where, _ in positions.get(why, Counter()).most_common(_POSITIONS_SHOWN)),
        )
        for why in {(code, stage, reason, source) for code, stage, reason, source, _ in counts}
    ]
    return sorted(reasons, key=lambda one: (-one.waiting, -one.replayed, one.code, one.reason))
