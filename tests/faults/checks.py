"""What must hold between what was sent and what was read: pure functions, each of which names the promise it breaks.

A *publication* is a message under one ``ingestId``: the connector took it in once. The same publication may stand in a
topic more than once (P4: the unacknowledged tail appears again); one message is published more than once only where
the index of repeats was lost with a killed connector and the sender had sent the message again.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from tests.faults.consumer import DeadLetter, Record, field_names
from tests.faults.ledger import Attempt, Disturbance, Issued, Ledger
from tests.faults.messages import OURS, Message, write_json
from tests.faults.sender import IMPATIENCE_SECONDS, PATIENCE_SECONDS

INDEX_LAG_SECONDS = 2.0
"""P4 says that a killed connector may forget the last second's messages; one more for the machine's noise."""
RETRIABLE_CODES = {42900, 50300, 50301}
TOO_LARGE = 41300
SOURCE = "default"

Publication = tuple[str, str]
"""A message's identity and its ``ingestId``."""


@dataclass(frozen=True)
class Breach:
    """A promise that did not hold, and where to see it."""

    promise: str
    check: str
    what: str
    where: str = ""
    instance: str | None = None

    def __str__(self) -> str:
        return f"{self.promise} {self.check}: {self.what}" + (f" [{self.where}]" if self.where else "")


@dataclass(frozen=True)
class Wanted:
    """The least that a run must have been through to prove anything."""

    accepted: int = 1
    interrupted: int = 0
    """Requests without an answer, and tries that found no connection."""
    refusals_allowed: bool = True
    repeats_allowed: bool = True
    """Without a crash, a rebuilt producer or a restart, not even a tail may appear again."""
    oldest_age_seconds: float = 0
    """The metric must have shown a message that waited for so long."""
    large_refused: bool = False
    """A topic refused large messages for a while: they were refused at the door, or are dead letters."""
    rebuilds: int = 0
    """Producers that a fatal error must have cost."""
    timestamps_replaced: bool = False
    """Kafka rejected times of receipt: those records have another timestamp, and some must."""
    replicas: int = 1
    """Among several the offset alone is the order: ids are drawn by clocks that differ."""


@dataclass(frozen=True)
class History:
    """Everything that is known of one run."""

    ledger: Ledger
    records: Sequence[Record]
    wanted: Wanted = field(default_factory=Wanted)
    connector_kills: Sequence[float] = ()
    """When the connector was ended with SIGKILL."""
    disturbances: Sequence[Disturbance] = ()
    freezes: Sequence[Disturbance] = ()
    """When brokers were stopped with SIGSTOP."""
    dead_letters: Sequence[DeadLetter] = ()
    oldest_age_seen: float = 0
    rebuilds_seen: int = 0
    lost_reported: int = 0
    """Messages that the connector says a damaged journal did not give back."""
    damages: Sequence[Disturbance] = ()
    """When bytes of the journal were destroyed."""

    @cached_property
    def known(self) -> list[tuple[Record, Issued]]:
        """The records whose message is in the ledger, with it."""
        issued = self.ledger.issued
        return [(record, issued[_identity(record)]) for record in self.records if _identity(record) in issued]

    @cached_property
    def by_instance(self) -> dict[tuple[str, str], list[tuple[Record, Issued]]]:
        """Stream and instance → its records in the order in which they were written."""
        found: defaultdict[tuple[str, str], list[tuple[Record, Issued]]] = defaultdict(list)
        for record, issued in self.known:
            found[record.stream, issued.message.instance].append((record, issued))
        return {place: sorted(records, key=lambda one: one[0].place) for place, records in found.items()}

    @cached_property
    def large_bodies(self) -> frozenset[bytes]:
        """What was sent as large messages."""
        return frozenset(issued.message.body for issued in self.ledger.issued.values() if issued.message.is_large)

    def stragglers(self) -> int:
        """How many requests a killed connector may have left in the sockets of frozen brokers, per instance."""
        return sum(any(freeze.overlaps(kill - 1, kill) for freeze in self.freezes) for kill in self.connector_kills)


def check(history: History) -> list[Breach]:
    """Every breach of every promise."""
    return [breach for one in CHECKS for breach in one(history)]


# --- P1 ---


def missing(history: History) -> Iterator[Breach]:
    """Every accepted message is in each of its topics, under one ingestId, or a dead letter where one may be."""
    dead_lettered = {letter.body for letter in history.dead_letters if _may_be_dead_lettered(history, letter)}
    seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for record, issued in history.known:
        seen[issued.message.identity, record.stream].add(record.ingest_id)
    may_be_lost = history.lost_reported
    damaged_until = max((one.ended for one in history.damages), default=0.0)
    for identity, issued in history.ledger.issued.items():
        message = issued.message
        if not issued.accepted or message.body in dead_lettered:
            continue
        ids = [seen[identity, stream] for stream in message.streams]
        absent = [stream for stream, found in zip(message.streams, ids, strict=True) if not found]
        if absent and may_be_lost and issued.accepted_at <= damaged_until:
            may_be_lost -= 1  # the connector has reported as many
        elif absent:
            yield Breach("P1", "missing", f"{identity} was accepted", f"not in {absent}", message.instance)
        elif not set.intersection(*ids):
            yield Breach(
                "P1", "missing", f"{identity} is in no two topics under one ingestId", str(ids), message.instance
            )


def dead_lettered(history: History) -> Iterator[Breach]:
    """The sender's messages are all well-formed, so only what Kafka rejected for its size may be dead-lettered."""
    for letter in history.dead_letters:
        if not _may_be_dead_lettered(history, letter):
            yield Breach("P1", "dead-lettered", "a well-formed message became a dead letter", str(letter))


def _may_be_dead_lettered(history: History, letter: DeadLetter) -> bool:
    is_large = letter.body in history.large_bodies and letter.headers.get("weda.error.code") == str(TOO_LARGE)
    return history.wanted.large_refused and is_large


# --- P2 ---


def unissued(history: History) -> Iterator[Breach]:
    """Every record was sent, and is in a topic that its message belongs to."""
    for record in history.records:
        issued = history.ledger.issued.get(_identity(record))
        if issued is None or not issued.attempts:
            yield Breach("P2", "unissued", f"{_identity(record)!r} was never sent", record.where)
        elif record.stream not in issued.message.streams:
            what = f"{_identity(record)} is an {issued.message.kind} message"
            yield Breach("P2", "unissued", what, record.where, issued.message.instance)


def unequal(history: History) -> Iterator[Breach]:
    """What is read is what was sent, field by field, and what the connector adds is well-formed."""
    for record, issued in history.known:
        differences = [*_differences(record, issued.message)]
        if not history.wanted.timestamps_replaced and record.timestamp != record.value["receivedAt"]:
            differences.append(f"the record's timestamp is {record.timestamp}, receivedAt {record.value['receivedAt']}")
        for difference in differences:
            yield Breach("P2", "unequal", difference, record.where, issued.message.instance)


def _differences(record: Record, message: Message) -> Iterator[str]:
    fields = field_names(record.stream)
    for name in fields - {*OURS}:
        expected, got = message.known.get(name), record.value[name]
        if got != expected or type(got) is not type(expected):
            yield f"{name} is {got!r}, sent {message.wire.get(name)!r}, expected {expected!r}"
    unknown = {name: write_json(value) for name, value in message.wire.items() if name not in fields - {*OURS}}
    extras = {name: _rewritten(text) for name, text in record.value["extras"].items()}
    if extras != unknown:
        yield f"extras are {record.value['extras']}, expected {unknown}"
    if record.key != message.instance:
        yield f"the key is {record.key!r}, the instance {message.instance!r}"
    if record.value["source"] != SOURCE:
        yield f"source is {record.value['source']!r}"
    yield from _header_differences(record, message)


def _header_differences(record: Record, message: Message) -> Iterator[str]:
    environment = message.known.get("envType")
    mark = fingerprint(message)
    expected = {
        "ce_specversion": "1.0",
        "ce_type": f"io.weda.workflow.{message.kind.lower()}.v1",
        "ce_subject": message.instance,
        "content-type": "application/avro",
        "weda.fingerprint": mark,
    }
    for name, text in expected.items():
        if record.headers.get(name) != text:
            yield f"the header {name} is {record.headers.get(name)!r}, expected {text!r}"
    source = record.headers.get("ce_source", "")
    if not source.startswith(f"/sources/{SOURCE}") or (environment is None and source != f"/sources/{SOURCE}"):
        yield f"the header ce_source is {source!r}, envType {environment!r}"
    if "ce_time" not in record.headers:
        yield "the header ce_time is missing"
    message_id = message.message_id
    wanted = {record.ingest_id} if message_id is None else {message_id, f"{message_id}~{mark[:8]}"}
    if record.headers.get("ce_id") not in wanted:
        yield f"the header ce_id is {record.headers.get('ce_id')!r}, expected one of {wanted}"


def fingerprint(message: Message) -> str:
    """First 16 bytes, hex, of SHA-256 over the canonical JSON: sorted keys, no spaces."""
    canonical = json.dumps(message.wire, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _rewritten(text: str) -> str:
    try:
        return write_json(json.loads(text))
    except ValueError:
        return f"not JSON: {text}"


# --- P3 ---


def out_of_order(history: History) -> Iterator[Breach]:
    """If the answer to A was read before B was sent, A is before B, and was taken in before B."""
    for records in history.by_instance.values():
        yield from _overtakings(records, across_replicas=history.wanted.replicas > 1)


def _overtakings(records: list[tuple[Record, Issued]], *, across_replicas: bool) -> Iterator[Breach]:
    seen: set[str] = set()
    last: tuple[Record, Issued] | None = None  # of those that stand already, the one that was sent last
    for record, issued in records:
        message = issued.message
        if message.identity in seen:
            continue
        seen.add(message.identity)
        if last and issued.accepted_at < last[1].first_sent:
            what = f"{message.identity} was answered before {last[1].message.identity} was sent, and is behind it"
            yield Breach("P3", "out of order", what, f"{last[0].where} {record.where}", message.instance)
        follows = last is not None and not across_replicas and last[1].accepted_at < issued.first_sent
        if last and follows and record.ingest_id <= last[0].ingest_id:
            what = f"the ingestId of {message.identity} is not above that of {last[1].message.identity}"
            yield Breach("P3", "ingestId went backwards", what, f"{last[0].where} {record.where}", message.instance)
        if last is None or issued.first_sent > last[1].first_sent:
            last = record, issued


def scattered(history: History) -> Iterator[Breach]:
    """The records of an instance are in one partition of a topic: order does not cross partitions."""
    for (stream, instance), records in history.by_instance.items():
        partitions = {record.partition for record, _ in records}
        if len(partitions) > 1:
            yield Breach("P3", "scattered", f"{instance} is in partitions {sorted(partitions)}", stream, instance)


# --- P4 ---


def broken_tails(history: History) -> Iterator[Breach]:
    """A publication appears again only in a tail: whole, in order, before anything newer."""
    for records in history.by_instance.values():
        publications = [(issued.message.identity, record.ingest_id) for record, issued in records]
        breaks = list(tail_breaks(publications))
        holes = history.lost_reported  # a tail whose journal lost a row has a hole
        for position, what in breaks[history.stragglers() + holes :]:
            record, issued = records[min(position, len(records) - 1)]
            yield Breach("P4", "broken tail", what, record.where, issued.message.instance)


def tail_breaks(publications: Sequence[Publication]) -> Iterator[tuple[int, str]]:
    """Where one instance's publications in one topic are not a history with tails: position and reason.

    Legal: 1 2 3, then 2 3 again, then 4; a tail that is broken off and begins again, no earlier than it had begun.
    Illegal: 1 2 3 2 4 (not whole), 1 2 3 4 2 (not whole at the end), 1 2 3 1 3 (a gap).
    """
    place: dict[Publication, int] = {}
    begun = following = 0  # where the tail began, and which publication has to be next in it
    for position, publication in enumerate(publications):
        if publication not in place:
            if following < len(place):
                yield position, f"{publication} is new, before the tail was whole again ({following} of {len(place)})"
            place[publication] = len(place)
            begun = following = len(place)
            continue
        again = place[publication]
        is_whole, goes_on, begins_again = following == len(place), again == following, begun <= again < following
        if not (is_whole or goes_on or begins_again):
            yield position, f"{publication} appears again out of order"
        if is_whole:
            begun = again
        following = again + 1
    if following < len(place):
        yield len(publications), f"the last tail is not whole: {following} of {len(place)}"


def uncalled_repeats(history: History) -> Iterator[Breach]:
    """In a run in which nothing crashed, was rebuilt or restarted, each publication is in a topic once."""
    if history.wanted.repeats_allowed:
        return
    counted = Counter((one.stream, issued.message.identity, one.ingest_id) for one, issued in history.known)
    for (stream, identity, _), count in counted.items():
        if count > 1:
            instance = history.ledger.issued[identity].message.instance
            yield Breach("P4", "uncalled repeat", f"{identity} is there {count} times", stream, instance)


def published_again(history: History) -> Iterator[Breach]:
    """A message has a second ingestId only if it was sent again after a SIGKILL that lost the index's last second."""
    ids: defaultdict[str, set[str]] = defaultdict(set)
    for record, issued in history.known:
        ids[issued.message.identity].add(record.ingest_id)
    for identity, found in ids.items():
        issued = history.ledger.issued[identity]
        allowed = _publications_allowed(issued, history.connector_kills)
        if len(found) > allowed:
            what = f"{identity} has {len(found)} ingestIds, {allowed} can be accounted for"
            yield Breach("P4", "published again", what, str(sorted(found)), issued.message.instance)


def _publications_allowed(issued: Issued, kills: Sequence[float]) -> int:
    attempts = issued.attempts
    if issued.message.message_id is None:  # no msgId, no detection of repeats
        return len(attempts)
    again = pairwise(attempts)
    return 1 + sum(any(_forgotten(first, second, kill) for kill in kills) for first, second in again)


def _forgotten(first: Attempt, second: Attempt, kill: float) -> bool:
    """Whether a kill may have cost the index what the first attempt had put there, before the second came."""
    # A request that nobody waited for any more may have been taken in after its sender had given up.
    taken_in = first.ended + (PATIENCE_SECONDS if first.outcome == "unknown" else 0)
    return first.sent <= kill <= min(second.ended, taken_in + INDEX_LAG_SECONDS)


def changed_between_appearances(history: History) -> Iterator[Breach]:
    """Wherever a publication appears, in whichever topic, it is the same: ce_id, fingerprint, receivedAt."""
    faces: defaultdict[Publication, dict[tuple[str | None, ...], str]] = defaultdict(dict)
    for record, issued in history.known:
        face = (record.headers.get("ce_id"), record.headers.get("weda.fingerprint"), str(record.value["receivedAt"]))
        faces[issued.message.identity, record.ingest_id].setdefault(face, record.where)
    for (identity, _), found in faces.items():
        if len(found) > 1:
            instance = history.ledger.issued[identity].message.instance
            yield Breach(
                "P4", "changed repeat", f"{identity} appears as {sorted(map(str, found))}", str(found), instance
            )


def shared_ids(history: History) -> Iterator[Breach]:
    """Two messages never have one ingestId, nor one ce_id unless a SIGKILL made the connector forget the first."""
    ingest_ids: dict[str, Issued] = {}
    ce_ids: dict[str, Issued] = {}
    for record, issued in history.known:
        other = ingest_ids.setdefault(record.ingest_id, issued)
        if other is not issued:
            what = f"{other.message.identity} and {issued.message.identity} have one ingestId"
            yield Breach("P4", "shared ingestId", what, record.where, issued.message.instance)
        other = ce_ids.setdefault(record.headers.get("ce_id", ""), issued)
        if other is not issued and not _killed_between(history, other, issued):
            what = f"{other.message.identity} and {issued.message.identity} have one ce_id"
            yield Breach("P4", "shared ce_id", what, record.where, issued.message.instance)


def _killed_between(history: History, one: Issued, other: Issued) -> bool:
    began, ended = sorted((one.first_sent, other.first_sent))
    last = max(attempt.ended for issued in (one, other) for attempt in issued.attempts)
    return any(began <= kill <= max(ended, last) for kill in history.connector_kills)


# --- P6, P8 ---


def refused_for_good(history: History) -> Iterator[Breach]:
    """What is refused is refused for now: the sender's messages are all well-formed."""
    codes: dict[int | None, Issued] = {}
    for issued in history.ledger.issued.values():
        for attempt in issued.attempts:
            if attempt.outcome == "refused" and not _is_refused_for_size(history, issued, attempt):
                codes.setdefault(attempt.code, issued)
    allowed = RETRIABLE_CODES if history.wanted.refusals_allowed else set()
    for code, issued in codes.items():
        if code not in allowed:
            what = f"{issued.message.identity} was answered with code {code}"
            yield Breach("P6", "refused", what, write_json(issued.message.wire), issued.message.instance)


def _is_refused_for_size(history: History, issued: Issued, attempt: Attempt) -> bool:
    return history.wanted.large_refused and issued.message.is_large and attempt.code == TOO_LARGE


def unanswered(history: History) -> Iterator[Breach]:
    """While the connector lives, no request hangs, and no connection breaks."""
    away = [disturbance for disturbance in history.disturbances if disturbance.closes_door]
    for issued in history.ledger.issued.values():
        for attempt in issued.attempts:
            if _left_alone(attempt) and not any(each.overlaps(attempt.sent, attempt.ended) for each in away):
                what = f"{issued.message.identity} had no answer from {attempt.sent:.3f} to {attempt.ended:.3f}"
                yield Breach("P6", "unanswered", what, instance=issued.message.instance)


def _left_alone(attempt: Attempt) -> bool:
    """Whether it was the connector that ended the request, or that did nothing; not an impatient sender."""
    lasted = attempt.ended - attempt.sent
    return attempt.outcome == "unknown" and not IMPATIENCE_SECONDS <= lasted < PATIENCE_SECONDS


def age_not_visible(history: History) -> Iterator[Breach]:
    """While messages wait, the age of the oldest can be seen."""
    wanted = history.wanted.oldest_age_seconds
    if history.oldest_age_seen < wanted:
        what = f"the oldest age seen is {history.oldest_age_seen:.1f} s, {wanted:.1f} s or more were due"
        yield Breach("P8", "age not visible", what)


# --- the run itself ---


def vacuous(history: History) -> Iterator[Breach]:
    """The run means something: enough was accepted, before, after and in spite of each disturbance."""
    ledger, wanted = history.ledger, history.wanted
    accepted = sorted(issued.accepted_at for issued in ledger.issued.values() if issued.accepted)
    if len(accepted) < wanted.accepted:
        yield _nothing_proven(f"{len(accepted)} messages were accepted, {wanted.accepted} are the least")
    interrupted = ledger.never_sent + sum(attempt.outcome == "unknown" for attempt in ledger.attempts())
    if interrupted < wanted.interrupted:
        yield _nothing_proven(f"{interrupted} requests were interrupted, {wanted.interrupted} are the least")
    if history.rebuilds_seen < wanted.rebuilds:
        yield _nothing_proven(f"{history.rebuilds_seen} producers were rebuilt, {wanted.rebuilds} are the least")
    if wanted.timestamps_replaced and all(one.timestamp == one.value["receivedAt"] for one, _ in history.known):
        yield _nothing_proven("no record's timestamp was replaced")
    if wanted.large_refused and not any(_may_be_dead_lettered(history, letter) for letter in history.dead_letters):
        yield _nothing_proven("no large message became a dead letter")
    for disturbance in history.disturbances:
        if not accepted or accepted[0] > disturbance.began:
            yield _nothing_proven(f"nothing was accepted before {disturbance.name}")
        if not accepted or accepted[-1] < disturbance.ended:
            yield _nothing_proven(f"nothing was accepted after {disturbance.name}")
        if not any(_alive(attempt, disturbance) for attempt in ledger.attempts()):
            yield _nothing_proven(f"nothing was sent around {disturbance.name}")


def _alive(attempt: Attempt, disturbance: Disturbance) -> bool:
    return disturbance.overlaps(attempt.sent - 0.5, attempt.ended + 0.5)


def _nothing_proven(what: str) -> Breach:
    return Breach("run", "vacuous", what)


def _identity(record: Record) -> str:
    return str(record.value.get("requestId"))


CHECKS: tuple[Callable[[History], Iterable[Breach]], ...] = (
    vacuous,
    missing,
    dead_lettered,
    unissued,
    unequal,
    out_of_order,
    scattered,
    broken_tails,
    uncalled_repeats,
    published_again,
    changed_between_appearances,
    shared_ids,
    refused_for_good,
    unanswered,
    age_not_visible,
)


def repeats(history: History) -> int:
    """How many records say what another record of their stream has said."""
    counted = Counter((record.stream, issued.message.identity) for record, issued in history.known)
    return sum(count - 1 for count in counted.values())


def excerpt(history: History, instance: str, *, around: str = "", most: int = 14) -> Iterator[str]:
    """What was sent for an instance and what was read of it, for people."""
    sent = [issued for issued in history.ledger.issued.values() if issued.message.instance == instance]
    yield from (
        f"  sent {_reported(issued)}"
        for issued in _near(sent, lambda one: one.message.identity in around.split(), most)
    )
    for (stream, name), records in history.by_instance.items():
        if name == instance:
            near = _near(records, lambda one: one[1].message.identity in around.split(), most)
            yield from (f"  read {one.where} #{issued.message.index} {one.ingest_id}" for one, issued in near)
            yield f"  ({len(records)} in {stream})"


def _reported(issued: Issued) -> str:
    attempts = ", ".join(f"{one.sent:.3f}-{one.ended:.3f} {one.outcome} {one.code}" for one in issued.attempts)
    return f"#{issued.message.index} {issued.message.kind} {issued.message.identity}: {attempts}"


def _near(rows: Sequence[Any], wanted: Callable[[Any], bool], most: int) -> Sequence[Any]:
    """The rows around the first that is wanted."""
    at = next((number for number, row in enumerate(rows) if wanted(row)), 0)
    begin = max(0, at - most // 2)
    return rows[begin : begin + most]
