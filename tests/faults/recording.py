"""A run as one file that anybody can check again: JSON Lines, gzipped, read with ``zcat FILE | head``.

Each line is an object whose ``is`` says what it tells; all times are seconds since the run began:

| ``is`` | how often | tells |
|---|---|---|
| ``run`` | once, the first line | ``version`` of this format, and the fields of :class:`Run` |
| ``attempt`` | each request that left the sender, in the order of sending | the fields of :class:`Sending` |
| ``disturbance`` | each thing that was broken | the fields of :class:`Break` |
| ``cut`` | each partition that a fault made lose its end | the fields of :class:`Cut` |
| ``letter`` | each dead letter | the fields of :class:`Letter` |
| ``final`` | each record, read once all was over; each partition in its own order | :class:`Seen` |
| ``live`` | each record, by a consumer that followed the topics all along, in its order | :class:`Seen` |
| ``end`` | once, the last line | ``lines`` before it: a file without it is cut off |

A newer version is refused; what a line has besides the fields of its kind is an error too.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tests.faults.consumer import DeadLetter, Record
from tests.faults.ledger import Disturbance, Issued, Ledger, Outcome
from tests.faults.messages import Message

VERSION = 1
SUFFIX = ".jsonl.gz"
KINDS = ("attempt", "disturbance", "cut", "letter", "final", "live")


class Unreadable(ValueError):
    """A file that holds no recorded run, or not a whole one."""


@dataclass(frozen=True)
class Run:
    """What was played, and what the promises allow in it."""

    run: str
    scenario: str
    seed: int
    instances: int
    rate: float
    """Messages a second that the sender meant to send."""
    seconds: float
    brokers: int
    repeats_allowed: bool = True
    """Whether anything crashed, was rebuilt or restarted: else not even a tail may appear again."""
    dead_letters_allowed: bool = False
    """Whether Kafka rejected records for their own sake: an accepted message may then be a dead letter."""
    timestamps_replaced: bool = False
    """Whether Kafka rejected times of receipt: records of one publication may have different timestamps."""
    replicas: int = 1
    """Connectors that shared the load; among several the offsets alone are the order, ids are not."""
    lost_reported: int = 0
    """Messages that the connector itself reported as lost with bytes of its journal's file."""


@dataclass(frozen=True)
class Sending:
    """One request, and the message that it carried."""

    message: str
    """The message's identity: unique in the run, and in the record's ``requestId``."""
    instance: str
    index: int
    """The message's place in its instance."""
    kind: str
    message_id: str | None
    """Its ``msgId``: not always there, not always unique."""
    streams: Sequence[str]
    body: str
    """First 16 bytes, hex, of the body's SHA-256."""
    fingerprint: str
    """What the header ``weda.fingerprint`` must say."""
    sent: float
    ended: float
    outcome: Outcome
    code: int | None


@dataclass(frozen=True)
class Break:
    """Something that was broken; ``ended`` is when it was whole again."""

    name: str
    kind: Literal["kill", "freeze", "damage", "other"]
    """``kill``: the connector's process was ended by SIGKILL. ``freeze``: brokers stood still under SIGSTOP.
    ``damage``: bytes of the journal's file, or of the index of repeats, were destroyed."""
    began: float
    ended: float


@dataclass(frozen=True)
class Cut:
    """A partition that lost what it held from an offset on, on purpose: what is written there next is of a new era."""

    stream: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Letter:
    """A dead letter: the hash of what was received, and why it was dead-lettered."""

    body: str
    code: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Seen:
    """One record as one of the two consumers saw it."""

    stream: str
    partition: int
    offset: int
    key: str
    message: str
    """The ``requestId`` in it."""
    ce_id: str
    ingest_id: str
    fingerprint: str
    """What its header says."""
    timestamp: int
    """Epoch milliseconds."""
    digest: str
    """Of all that the record holds: key, value, headers."""
    at: float | None = None
    """When the live consumer had it; None in the final read."""
    era: int = 0
    """How often its partition had lost its end there before; the live consumer cannot tell."""
    gone: bool = False
    """In the final read: it was read earlier, before the scenario made its topic lose it."""

    @property
    def where(self) -> str:
        """For people: which record this is."""
        return f"{self.stream}/{self.partition}@{self.offset}" + "'" * self.era

    @property
    def place(self) -> tuple[int, int]:
        """Where in its partition's history it is."""
        return self.era, self.offset


@dataclass(frozen=True)
class Recording:
    """A whole run."""

    run: Run
    attempts: Sequence[Sending]
    disturbances: Sequence[Break]
    final: Sequence[Seen]
    live: Sequence[Seen]
    cuts: Sequence[Cut] = ()
    letters: Sequence[Letter] = ()


# --- out of the oracle's own words ---


def sendings(ledger: Ledger, began: float) -> list[Sending]:
    """Every request of the ledger, in the order of sending."""
    found = [one for issued in ledger.issued.values() for one in _sendings(issued, began)]
    return sorted(found, key=lambda one: one.sent)


def _sendings(issued: Issued, began: float) -> Iterator[Sending]:
    message = issued.message
    body, fingerprint = _short_hash(message.body), _fingerprint(message)
    for attempt in issued.attempts:
        yield Sending(
            message=message.identity,
            instance=message.instance,
            index=message.index,
            kind=message.kind,
            message_id=message.message_id,
            streams=message.streams,
            body=body,
            fingerprint=fingerprint,
            sent=_since(began, attempt.sent),
            ended=_since(began, attempt.ended),
            outcome=attempt.outcome,
            code=attempt.code,
        )


def breaks(
    disturbances: Iterable[Disturbance],
    kills: Iterable[float],
    *,
    freezes: Sequence[Disturbance] = (),
    damages: Sequence[Disturbance] = (),
    began: float,
) -> list[Break]:
    """What was broken, in the order of time; ``freezes`` and ``damages`` are among the disturbances."""

    def as_break(one: Disturbance, kind: Literal["freeze", "damage", "other"]) -> Break:
        return Break(one.name, kind, _since(began, one.began), _since(began, one.ended))

    found = [
        as_break(one, "freeze" if one in freezes else "damage" if one in damages else "other") for one in disturbances
    ]
    found += [Break("SIGKILL to the connector", "kill", at, at) for at in (_since(began, kill) for kill in kills)]
    return sorted(found, key=lambda one: one.began)


def cuts(found: Mapping[tuple[str, int], Iterable[int]]) -> list[Cut]:
    """Of partitions and the offsets from which on they lost what they held."""
    return [Cut(stream, partition, offset) for (stream, partition), each in found.items() for offset in each]


def letters(found: Iterable[DeadLetter]) -> list[Letter]:
    """Dead letters, without what was received."""
    return [
        Letter(_short_hash(one.body), one.headers.get("weda.error.code", ""), one.partition, one.offset)
        for one in found
    ]


def final(records: Iterable[Record], *, left: Iterable[Record]) -> list[Seen]:
    """What the topics hold in the end (``left``) or held before a scenario made them lose it."""
    places = {one.where for one in left}
    return [replace(_seen(one), gone=one.where not in places) for one in records]


def _seen(record: Record) -> Seen:
    return Seen(
        *(record.stream, record.partition, record.offset, record.key),
        message=str(record.value.get("requestId")),
        ce_id=record.headers.get("ce_id", ""),
        ingest_id=record.ingest_id,
        fingerprint=record.headers.get("weda.fingerprint", ""),
        timestamp=record.timestamp,
        digest=record.digest,
        era=record.era,
    )


def followed(records: Iterable[tuple[float, Record]], began: float) -> list[Seen]:
    """What the live consumer saw, and when."""
    return [replace(_seen(record), at=_since(began, at)) for at, record in records]


def _since(began: float, at: float) -> float:
    return round(at - began, 6)


def _short_hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]


def _fingerprint(message: Message) -> str:
    """Of the message's canonical JSON, as the contract has it; written out here so that nothing is shared."""
    return _short_hash(
        json.dumps(message.wire, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(),
    )


# --- the file ---


def write(recording: Recording, file: Path) -> None:
    """Write a run; the folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        count = 0
        for count, line in enumerate(_lines(recording), start=1):  # noqa: B007 - the last line tells it
            lines.write(_json(line))
        lines.write(_json({"is": "end", "lines": count}))


def read(file: Path) -> Recording:
    """Read a run back; :class:`Unreadable` says what is wrong with the file."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as text:
            lines = [json.loads(line) for line in text]
    except (EOFError, gzip.BadGzipFile, ValueError) as error:
        raise Unreadable(f"{file} is no recorded run, or is cut off: {error}") from None
    try:
        return _recording(lines)
    except (Unreadable, KeyError, TypeError) as error:
        raise Unreadable(f"{file}: {error}") from None


def _lines(recording: Recording) -> Iterator[dict[str, Any]]:
    yield {"is": "run", "version": VERSION, **vars(recording.run)}
    yield from ({"is": "attempt", **vars(one)} for one in recording.attempts)
    yield from ({"is": "disturbance", **vars(one)} for one in recording.disturbances)
    yield from ({"is": "cut", **vars(one)} for one in recording.cuts)
    yield from ({"is": "letter", **vars(one)} for one in recording.letters)
    yield from ({"is": "final", **vars(one)} for one in recording.final)
    yield from ({"is": "live", **vars(one)} for one in recording.live)


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _recording(lines: Sequence[dict[str, Any]]) -> Recording:
    if not lines or lines[0].pop("is", None) != "run":
        raise Unreadable("the first line is not that of a run")
    if (version := lines[0].pop("version")) != VERSION:
        raise Unreadable(f"the format's version is {version}, known is {VERSION}")
    if lines[-1] != {"is": "end", "lines": len(lines) - 1}:
        raise Unreadable("the file is cut off: it has no last line, or not as many as that says")
    by_kind: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for line in lines[1:-1]:
        by_kind[line.pop("is")].append(line)
    return Recording(
        Run(**lines[0]),
        [Sending(**{**line, "streams": tuple(line["streams"])}) for line in by_kind["attempt"]],
        [Break(**line) for line in by_kind["disturbance"]],
        [Seen(**line) for line in by_kind["final"]],
        [Seen(**line) for line in by_kind["live"]],
        [Cut(**line) for line in by_kind["cut"]],
        [Letter(**line) for line in by_kind["letter"]],
    )
