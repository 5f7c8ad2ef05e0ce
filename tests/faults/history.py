"""A second opinion: what a recorded run shows of the anomalies that Jepsen's Kafka workload has names for.

It shares no logic with ``checks.py``, reads nothing but the recording, and never looks at a clock or a broker::

    python -m tests.faults check RECORDING

| kind | promise | a finding says |
|---|---|---|
| lost | P1 | accepted, absent from one of its topics at the end, though something later is there |
| unseen | P1 | accepted and absent, and nothing later is there either: perhaps only late |
| phantom | P2 | a record that nobody sent: unknown, of another instance, with other content, or too early |
| inconsistent offsets | P2 | an offset with two records, or gone between the reads; a publication with two faces |
| nonmonotonic send | P3 | a message behind one that was sent after its answer had been read |
| nonmonotonic poll | P3 | the live consumer's offsets, or the ids of an instance's new records, went backwards |
| poll skip | P1 | the live consumer never got an offset that the final read has |
| duplicate | P4 | a publication at two offsets, a message under two ids, two messages under one id: uncalled for |

A *publication* is a message under one ``ingestId``. What P4 allows is counted and is no finding: a whole tail that
appears again, a message of the last second before a SIGKILL that is accepted again. So is what Jepsen calls an aborted
read (G1a), a refused message that is in the topics all the same: a refusal only says that it may be sent again.
Where a scenario makes a partition lose its end, nothing is asked of who follows it: that loss is the brokers'.
Where it destroys bytes of the journal, as many messages may be gone as the connector itself reported.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any

from tests.faults import recording as files
from tests.faults.recording import Recording, Seen, Sending

PROMISE_OF = {
    "lost": "P1",
    "unseen": "P1",
    "phantom": "P2",
    "inconsistent offsets": "P2",
    "nonmonotonic send": "P3",
    "nonmonotonic poll": "P3",
    "poll skip": "P1",
    "duplicate": "P4",
}
FORGETS_SECONDS = 2.0
"""What a killed connector may have kept of the index of repeats in memory only: one second, and one for noise."""
UNDER_WAY_SECONDS = 10.0
"""For how long a request that its sender has given up may still be taken in."""
SHOWN = 5
"""Findings of one kind that are printed in full."""
AROUND = 3
"""Operations before and behind that are printed with a finding."""

Partition = tuple[str, int]
Publication = tuple[str, str]
"""A message's identity and its ``ingestId``."""


@dataclass(frozen=True)
class Finding:
    """One anomaly: the promise that it breaks, and where."""

    kind: str
    what: str
    where: str
    """``stream/partition@offset``, or the stream where there is no record."""
    instance: str
    message: str

    @property
    def promise(self) -> str:
        """P1 to P4."""
        return PROMISE_OF[self.kind]

    def __str__(self) -> str:
        return f"{self.promise} {self.kind}: {self.what} [{self.where}, instance {self.instance}]"


@dataclass(frozen=True)
class Sent:
    """A message and its requests."""

    first: Sending
    attempts: Sequence[Sending]
    number: int
    """Place among all messages, by when they left for the first time."""

    @cached_property
    def accepted_at(self) -> float:
        """When the first acceptance had been read; infinity without one."""
        return min((one.ended for one in self.attempts if one.outcome == "accepted"), default=float("inf"))

    @property
    def accepted(self) -> bool:
        """Whether the sender ever read an acceptance."""
        return self.accepted_at < float("inf")


class History:
    """A recording with the indexes that the checks look things up in."""

    def __init__(self, recording: Recording) -> None:
        self.run = recording.run
        self.recording = recording
        self.sent: dict[str, Sent] = {}
        attempts: dict[str, list[Sending]] = {}
        for one in sorted(recording.attempts, key=lambda one: one.sent):
            attempts.setdefault(one.message, []).append(one)
        for number, (message, each) in enumerate(attempts.items()):
            self.sent[message] = Sent(each[0], each, number)
        self.kills = [one.began for one in recording.disturbances if one.kind == "kill"]
        self.damages = [one for one in recording.disturbances if one.kind == "damage"]
        self.cut = {(one.stream, one.partition) for one in recording.cuts}

    @cached_property
    def final(self) -> dict[str, list[Seen]]:
        """Instance → what the final read has of it, in the order of partitions and offsets."""
        return _by_instance(sorted(self.recording.final, key=lambda one: (one.stream, one.partition, one.place)))

    @cached_property
    def live(self) -> dict[str, list[Seen]]:
        """Instance → what the live consumer saw of it, in the order in which it did."""
        return _by_instance(self.recording.live)

    @cached_property
    def followed(self) -> list[Seen]:
        """What the live consumer saw of partitions that kept what they held."""
        return [one for one in self.recording.live if (one.stream, one.partition) not in self.cut]

    @cached_property
    def dead_lettered(self) -> set[str]:
        """Hashes of bodies that may be dead letters instead of records, and are."""
        return {one.body for one in self.recording.letters} if self.run.dead_letters_allowed else set()

    @cached_property
    def publications(self) -> dict[tuple[str, str], set[str]]:
        """Message and stream → the ids under which the final read has it there."""
        found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for one in self.recording.final:
            found[one.message, one.stream].add(one.ingest_id)
        return found

    @cached_property
    def stragglers(self) -> int:
        """How many records of an instance may break its tails: dead processes left them in frozen brokers' sockets."""
        frozen = [one for one in self.recording.disturbances if one.kind == "freeze"]
        late = sum(any(one.began <= kill <= one.ended + 1 for one in frozen) for kill in self.kills)
        return late + (self.run.lost_reported if self.damages else 0)  # a tail whose journal lost a row has a hole

    def newest(self, stream: str, instance: str) -> int:
        """Number of the last message that is in the stream for the instance, or beside it in its partition."""
        return max((self._newest[one.stream, one.partition] for one in self._places(stream, instance)), default=-1)

    def _places(self, stream: str, instance: str) -> Iterator[Seen]:
        return (one for one in self.final.get(instance, ()) if one.stream == stream)

    @cached_property
    def _newest(self) -> dict[Partition, int]:
        newest: dict[Partition, int] = {}
        for one in self.recording.final:
            place, sent = (one.stream, one.partition), self.sent.get(one.message)
            newest[place] = max(newest.get(place, -1), sent.number if sent else -1)
        return newest


def _by_instance(records: Iterable[Seen]) -> dict[str, list[Seen]]:
    found: defaultdict[str, list[Seen]] = defaultdict(list)
    for one in records:
        found[one.key].append(one)
    return found


def check(recording: Recording) -> list[Finding]:
    """Every anomaly of a run."""
    history = History(recording)
    return [finding for one in CHECKS for finding in one(history)]


# --- P1 ---


def absent(history: History) -> Iterator[Finding]:
    """Lost and unseen: an accepted message is in each of its topics, in all of them under one id."""
    damaged_until = max((one.ended for one in history.damages), default=0.0)
    may_be_lost = history.run.lost_reported
    for message, sent in history.sent.items():
        if not sent.accepted or sent.first.body in history.dead_lettered:
            continue
        instance, streams = sent.first.instance, sent.first.streams
        is_absent = any((message, stream) not in history.publications for stream in streams)
        if is_absent and may_be_lost and sent.accepted_at <= damaged_until:
            may_be_lost -= 1
            continue
        ids = [history.publications.get((message, stream), set[str]()) for stream in streams]
        for stream, found in zip(streams, ids, strict=True):
            if not found:
                yield _absent(history, sent, stream)
        if all(ids) and not set.intersection(*ids):
            what = f"{message} was accepted and is under no id in all of {', '.join(streams)}"
            yield Finding("lost", what, streams[0], instance, message)


def _absent(history: History, sent: Sent, stream: str) -> Finding:
    message, instance = sent.first.message, sent.first.instance
    what = f"{message} was accepted at {sent.accepted_at:.3f} and is not in {stream}"
    met = next((one for one in history.live.get(instance, ()) if (one.message, one.stream) == (message, stream)), None)
    if met is not None:
        return Finding("lost", f"{what}, though the live consumer saw it there", met.where, instance, message)
    if history.newest(stream, instance) > sent.number:
        return Finding("lost", f"{what}, though later ones are in its partition", stream, instance, message)
    return Finding("unseen", f"{what}, and nothing later is in its partition", stream, instance, message)


def poll_skips(history: History) -> Iterator[Finding]:
    """Whoever follows the topics gets every offset that they have in the end."""
    followed = _offsets(history.recording.live)
    for place, offsets in _offsets(history.recording.final).items():
        held = {offset for offset, one in offsets.items() if not one.gone}
        missed = set[int]() if place in history.cut else held - followed.get(place, {}).keys()
        for is_missed, stretch in groupby(sorted(offsets), key=missed.__contains__):
            if is_missed:
                yield _skip([offsets[offset] for offset in stretch])


def _skip(records: Sequence[Seen]) -> Finding:
    first, last = records[0], records[-1]
    what = f"the live consumer never got {len(records)} of the partition's records, @{first.offset} to @{last.offset}"
    return _at(first, "poll skip", what)


def _offsets(records: Iterable[Seen]) -> dict[Partition, dict[int, Seen]]:
    found: defaultdict[Partition, dict[int, Seen]] = defaultdict(dict)
    for one in records:
        found[one.stream, one.partition].setdefault(one.offset, one)
    return found


# --- P2 ---


def phantoms(history: History) -> Iterator[Finding]:
    """Whatever either consumer saw had been sent, and is what was sent."""
    rendered = set()
    for one in chain(history.recording.final, history.recording.live):
        wrong = _wrong(one, history.sent.get(one.message))
        if wrong and (one.where, wrong) not in rendered:
            rendered.add((one.where, wrong))
            yield Finding("phantom", wrong, one.where, one.key, one.message)


def _wrong(one: Seen, sent: Sent | None) -> str | None:
    if sent is None:
        return f"{one.message!r} was never sent"
    return next((what for is_wrong, what in _comparisons(one, sent.first) if is_wrong), None)


def _comparisons(one: Seen, sent: Sending) -> Iterator[tuple[bool, str]]:
    names = [one.ingest_id] if sent.message_id is None else [sent.message_id, _of_its_own(sent)]
    yield one.stream not in sent.streams, f"{one.message} is an {sent.kind} message"
    yield one.key != sent.instance, f"{one.message} is under the key {one.key!r}, not {sent.instance!r}"
    yield (
        one.fingerprint != sent.fingerprint,
        f"{one.message} has the fingerprint {one.fingerprint!r}, as sent it is {sent.fingerprint!r}",
    )
    yield one.ce_id not in names, f"{one.message} has the ce_id {one.ce_id!r}, it may be {' or '.join(names)}"
    if one.at is not None:
        yield one.at < sent.sent, f"{one.message} was seen at {one.at:.3f}, and sent at {sent.sent:.3f}"


def _of_its_own(sent: Sending) -> str:
    """The ``ce_id`` of a message whose ``msgId`` came before with other content."""
    return f"{sent.message_id}~{sent.fingerprint[:8]}"


def inconsistencies(history: History) -> Iterator[Finding]:
    """Both reads have one and the same record at each offset, and a publication has one face wherever it is."""
    final = _offsets(history.recording.final)
    followed = {one.where for one in history.recording.live}
    unfollowed = {_publication(one): one.where for one in history.recording.final if one.where not in followed}
    for one in history.followed:
        offsets = final.get((one.stream, one.partition), {})
        other, moved = offsets.get(one.offset), unfollowed.get(_publication(one))
        if other is not None and _content(other) != _content(one):
            yield _at(one, "inconsistent offsets", f"{_difference(one, other)} between the live and the final read")
        elif other is None and (moved or one.offset < max(offsets, default=-1)):
            what = f"the live consumer saw {one.message} here, the final read has nothing here"
            yield _at(one, "inconsistent offsets", what + (f", but the same at {moved}" if moved else ""))
    yield from _double_places(history.recording.final)
    yield from _two_faces(history.recording.final, has_one_time=not history.run.timestamps_replaced)


def _double_places(records: Iterable[Seen]) -> Iterator[Finding]:
    met: dict[str, Seen] = {}
    for one in records:
        other = met.setdefault(one.where, one)
        if other is not one and _content(other) != _content(one):
            yield _at(one, "inconsistent offsets", f"{_difference(other, one)} within one read")


def _two_faces(records: Iterable[Seen], *, has_one_time: bool) -> Iterator[Finding]:
    """Of the records of one publication, in whichever topics."""
    met: dict[Publication, Seen] = {}
    names = ("key", "ce_id", "fingerprint", *(("timestamp",) if has_one_time else ()))
    for one in records:
        other = met.setdefault(_publication(one), one)
        for name in names:
            if getattr(one, name) != getattr(other, name):
                what = f"{one.message} has the {name} {getattr(one, name)!r} here, {getattr(other, name)!r} at"
                yield _at(one, "inconsistent offsets", f"{what} {other.where}")


def _publication(one: Seen) -> Publication:
    return one.message, one.ingest_id


def _content(one: Seen) -> dict[str, Any]:
    return vars(one) | {"at": None, "gone": False}


def _difference(one: Seen, other: Seen) -> str:
    beside = _content(other)
    names = [name for name, value in _content(one).items() if value != beside[name]]
    return "; ".join(f"{name} {getattr(one, name)!r} became {getattr(other, name)!r}" for name in names)


def _at(one: Seen, kind: str, what: str) -> Finding:
    return Finding(kind, what, one.where, one.key, one.message)


# --- P3 ---


def nonmonotonic_sends(history: History) -> Iterator[Finding]:
    """Per instance, the order of acceptance is the order of the offsets, in one partition, and of the ids."""
    for records in history.final.values():
        for _, group in groupby(records, key=lambda one: one.stream):
            yield from _nonmonotonic_sends(history, list(group))


def _nonmonotonic_sends(history: History, records: Sequence[Seen]) -> Iterator[Finding]:
    """Play the sender's day again: at each acceptance note how far the topic has to be, at each sending look."""
    first: dict[str, Seen] = {}
    lowest: dict[str, str] = {}
    for one in records:
        first.setdefault(one.message, one)
        lowest[one.message] = min(one.ingest_id, lowest.get(one.message, one.ingest_id))
    known = [(history.sent[message], one) for message, one in first.items() if message in history.sent]
    moments = [(sent.first.sent, 1, sent, one) for sent, one in known]
    moments += [(sent.accepted_at, 0, sent, one) for sent, one in known if sent.accepted]
    farthest: Seen | None = None
    highest = ""
    # Of two moments that look the same nobody can tell which came first, so a sending goes before an acceptance.
    for _, is_sending, _, one in sorted(moments, key=lambda each: (each[0], -each[1])):
        if not is_sending:
            farthest = one if farthest is None or one.place > farthest.place else farthest
            highest = max(highest, lowest[one.message])
        elif farthest is not None and one.partition != farthest.partition:
            what = f"{one.message} is in another partition than {farthest.message} ({farthest.where})"
            yield _at(one, "nonmonotonic send", f"{what}: order does not cross them")
        elif farthest is not None and one.place < farthest.place:
            what = f"{one.message} was sent after the acceptance of {farthest.message} had been read, and is"
            yield _at(one, "nonmonotonic send", f"{what} before it ({farthest.where})")
        elif lowest[one.message] < highest and history.run.replicas == 1:
            what = f"{one.message} was sent after an acceptance with a higher ingestId had been read"
            yield _at(one, "nonmonotonic send", f"{what}: {lowest[one.message]} < {highest}")


def nonmonotonic_polls(history: History) -> Iterator[Finding]:
    """The live consumer's offsets only rise, and so do the ids of what is new to it in an instance."""
    latest: dict[Partition, Seen] = {}
    for one in history.followed:
        before = latest.get((one.stream, one.partition))
        if before is not None and one.offset <= before.offset:
            yield _at(one, "nonmonotonic poll", f"the live consumer got this after {before.where}")
        latest[one.stream, one.partition] = one
    for records in _by_instance(history.followed).values() if history.run.replicas == 1 else ():
        for stream in sorted({one.stream for one in records}):
            fallen = list(_fallen_ids(one for one in records if one.stream == stream))
            if len(fallen) > history.stragglers:
                yield from fallen


def _fallen_ids(records: Iterable[Seen]) -> Iterator[Finding]:
    met: set[str] = set()
    highest: Seen | None = None
    for one in records:
        if one.ingest_id in met:
            continue
        met.add(one.ingest_id)
        if highest is not None and one.ingest_id < highest.ingest_id:
            what = f"the ingestId of {one.message} is new, and below that of {highest.message} ({highest.where})"
            yield _at(one, "nonmonotonic poll", what)
        else:
            highest = one


# --- P4 ---


def duplicates(history: History) -> Iterator[Finding]:
    """Nothing is there twice, but where P4 allows it."""
    yield from _repeated(history)
    yield from _accepted_again(history)
    yield from _shared(history)


def _repeated(history: History) -> Iterator[Finding]:
    for stream, records in _with_repeats(history):
        faults = list(tail_faults([_publication(one) for one in records], history.stragglers))
        if not history.run.repeats_allowed:
            counted = Counter(map(_publication, records))
            faults = [at for at, one in enumerate(records) if counted[_publication(one)] > 1]
        for at in faults:
            one = records[min(at, len(records) - 1)]
            what = f"{one.message} or what is before it is there again"
            allowed = ", not as a whole tail in its order" if history.run.repeats_allowed else ", and nothing crashed"
            yield _at(one, "duplicate", f"{what} in {stream}{allowed}")


def _with_repeats(history: History) -> Iterator[tuple[str, list[Seen]]]:
    """An instance's records in a stream, where one of its publications is there more than once."""
    for records in history.final.values():
        for stream, group in groupby(records, key=lambda one: one.stream):
            listed = list(group)
            if len({*map(_publication, listed)}) < len(listed):
                yield stream, listed


def tail_faults(publications: Sequence[Publication], stragglers: int = 0) -> list[int]:
    """Where the publications of one instance cannot be what a lane leaves behind that crashed now and then.

    Between two crashes a lane publishes in order and without a gap. After a crash it goes back to its oldest
    unacknowledged publication, which is never older than after the crash before; and in the end it comes through to
    the newest. ``stragglers`` of them may stand anywhere.
    """
    place = {one: number for number, one in enumerate(dict.fromkeys(publications))}
    ranks = [place[one] for one in publications]
    for _ in range(stragglers):
        if (fault := _first_fault(ranks)) is None:
            return []
        # The one to leave out is the one without which the history holds the longest.
        ranks = max(
            (_renumbered(ranks[:at] + ranks[at + 1 :]) for at in range(min(fault + 1, len(ranks)))),
            key=lambda without: len(without) + 1 if (next_fault := _first_fault(without)) is None else next_fault,
        )
    fault = _first_fault(ranks)
    return [] if fault is None else [fault]


def _renumbered(ranks: Sequence[int]) -> list[int]:
    place = {one: number for number, one in enumerate(dict.fromkeys(ranks))}
    return [place[one] for one in ranks]


def _first_fault(ranks: Sequence[int]) -> int | None:
    """Where a sequence of ranks, by first appearance, stops to be a lane's: its length when it ends too early."""
    begun = 0
    for at, (before, now) in enumerate(pairwise(ranks), start=1):
        if now == before + 1:
            continue
        if now > before or now < begun:
            return at
        begun = now
    return len(ranks) if ranks and ranks[-1] != max(ranks) else None


def _accepted_again(history: History) -> Iterator[Finding]:
    ids: defaultdict[str, dict[str, Seen]] = defaultdict(dict)
    for one in history.recording.final:
        ids[one.message].setdefault(one.ingest_id, one)
    for message, found in ids.items():
        sent = history.sent.get(message)
        if sent is None or len(found) <= (allowed := _takings(sent, history)):
            continue
        last = found[max(found)]
        what = f"{message} is under {len(found)} ids ({', '.join(sorted(found))}), {allowed} can be accounted for"
        yield _at(last, "duplicate", what)


def _takings(sent: Sent, history: History) -> int:
    """How often a message may have been taken in: once, and once more for each sending again that was not recognised.

    It is recognised unless it has no ``msgId``, or the process that knew the message was killed so soon that it had
    not written the index of repeats, or the index itself was damaged.
    """
    if sent.first.message_id is None:
        return len(sent.attempts)
    takings = 1
    for number, again in enumerate(sent.attempts[1:], start=1):
        before = sent.attempts[number - 1]
        known_by = before.ended + FORGETS_SECONDS + (UNDER_WAY_SECONDS if before.outcome == "unknown" else 0)
        was_killed = any(before.sent <= kill <= min(known_by, again.ended) for kill in history.kills)
        takings += was_killed or any(before.sent <= one.ended and one.began <= again.ended for one in history.damages)
    return takings


def _shared(history: History) -> Iterator[Finding]:
    ingest_ids: dict[str, Seen] = {}
    ce_ids: dict[str, Seen] = {}
    for one in history.recording.final:
        other = ingest_ids.setdefault(one.ingest_id, one)
        if other.message != one.message:
            yield _at(one, "duplicate", f"{one.message} has the ingestId of {other.message} ({other.where})")
        other = ce_ids.setdefault(one.ce_id, one)
        if other.message != one.message and not _killed_since(history, other, one):
            yield _at(one, "duplicate", f"{one.message} has the ce_id of {other.message} ({other.where})")


def _killed_since(history: History, one: Seen, other: Seen) -> bool:
    """Whether the connector may have forgotten the one message when the other with its ``msgId`` came."""
    pair = [history.sent[each.message] for each in (one, other) if each.message in history.sent]
    if len(pair) < 2:
        return False
    began = min(sent.first.sent for sent in pair)
    ended = max(attempt.ended for sent in pair for attempt in sent.attempts)
    forgot = [*history.kills, *(one.began for one in history.damages)]
    return any(began <= at <= ended for at in forgot)


CHECKS: tuple[Callable[[History], Iterable[Finding]], ...] = (
    absent,
    poll_skips,
    phantoms,
    inconsistencies,
    nonmonotonic_sends,
    nonmonotonic_polls,
    duplicates,
)


# --- what people read ---


def counts(recording: Recording) -> dict[str, int]:
    """What the recording holds, and what of it P4 allows."""
    history = History(recording)
    outcomes = Counter("accepted" if sent.accepted else _best(sent) for sent in history.sent.values())
    appearances = Counter((one.stream, *_publication(one)) for one in recording.final)
    ids = Counter(message for message, _ in {_publication(one) for one in recording.final})
    refused = {message for message, sent in history.sent.items() if not sent.accepted and _best(sent) == "refused"}
    return {
        "messages": len(history.sent),
        "requests": len(recording.attempts),
        "accepted": outcomes["accepted"],
        "unknown": outcomes["unknown"],
        "refused": outcomes["refused"],
        "disturbances": sum(one.kind != "kill" for one in recording.disturbances),  # which are parts of others
        "records": len(recording.final),
        "seen_live": len(recording.live),
        "appeared_again": appearances.total() - len(appearances),
        "accepted_again": ids.total() - len(ids),
        "refused_and_read": len(refused & {one.message for one in recording.final}),
    }


def _best(sent: Sent) -> str:
    return "unknown" if any(one.outcome == "unknown" for one in sent.attempts) else "refused"


def operations(recording: Recording, finding: Finding) -> list[str]:
    """The few operations around a finding: what was sent for the instance, and what each consumer had of it."""
    sent = [one for one in recording.attempts if one.instance == finding.instance]
    lines = [
        f"sent {one.message} #{one.index} {one.kind} {one.sent:.3f}-{one.ended:.3f} {one.outcome} {one.code}"
        for one in _around(sent, finding)
    ]
    stream = finding.where.split("/")[0]
    for name, records in (("read", recording.final), ("live", recording.live)):
        beside = [one for one in records if (one.key, one.stream) == (finding.instance, stream)]
        lines += [
            f"{name} {one.where} {one.message} {one.ingest_id}" + ("" if one.at is None else f" at {one.at:.3f}")
            for one in _around(beside, finding)
        ]
    return lines


def _around(rows: Sequence[Any], finding: Finding) -> Sequence[Any]:
    """The rows around the finding's message; the last ones where it is not among them."""
    at = next((number for number, one in enumerate(rows) if one.message == finding.message), len(rows) - AROUND)
    return rows[max(0, at - AROUND) : at + AROUND + 1]


def rendered(recording: Recording, findings: Sequence[Finding]) -> Iterator[str]:
    """Lines for people: the first findings of each kind with the operations around them, and a summary."""
    kinds = Counter(finding.kind for finding in findings)
    for kind in kinds:
        for finding in [one for one in findings if one.kind == kind][:SHOWN]:
            yield f"  {finding}"
            yield from (f"      {line}" for line in operations(recording, finding))
    run = recording.run
    found = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    figures = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts(recording).items())
    yield f"{'FAIL' if findings else 'ok  '} {run.scenario} (seed {run.seed}): {found or 'no finding'}; {figures}"


def main(recorded: Sequence[Path], *, as_json: bool) -> int:
    """Check recordings: 0 when there is no finding in any, 1 when there is one, 2 when a file is none."""
    status = 0
    for file in recorded:
        try:
            recording = files.read(file)
        except (files.Unreadable, OSError) as error:
            sys.stderr.write(f"tests.faults: {error}\n")
            return 2
        findings = check(recording)
        status = status or int(bool(findings))
        lines = [_as_json(recording, findings)] if as_json else rendered(recording, findings)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    return status


def _as_json(recording: Recording, findings: Sequence[Finding]) -> str:
    listed = [
        {"promise": one.promise, **asdict(one), "operations": operations(recording, one)}
        for one in findings[: SHOWN * len(PROMISE_OF)]
    ]
    about = {"run": vars(recording.run), "ok": not findings, "counts": counts(recording)}
    kinds = Counter(one.kind for one in findings)
    return json.dumps({**about, "kinds": kinds, "findings": listed}, ensure_ascii=False)
