"""The topics, searched: the partition of a key, or everything; bytes are checked before anything is decoded."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, cast

from confluent_kafka import Message

from connector.intake.dead_letters import DeadLetter, from_record
from connector.kafka.partitions import partition_of
from connector.kafka.reader import ConsumerRecord, OffsetRange, TopicReader, decode_record
from connector.lookup.fixes import fix_of
from connector.lookup.model import MAX_FOUND, TITLE, Coverage, Found, Location, Match, SearchQuery, fields_of
from connector.message.headers import EVENT_ID, FINGERPRINT, REQUEST_ID, source_of
from connector.message.routes import DEAD_LETTERS, Routes
from connector.message.schemas import Schema

EVENTS: Final = "events"
"""The stream that has every message."""

OnProgress = Callable[[int, int], None]
"""Called with the records that were read so far, and those that are to be read."""


class ReadProgress:
    """How far some topics were read."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, int], int] = {}
        self._oldest: dict[tuple[str, int], int] = {}
        self._cut: set[tuple[str, int]] = set()

    @property
    def since(self) -> int | None:
        """The time from which on nothing was left out, in epoch milliseconds; None: everything there was is read."""
        return max(self._oldest.values(), default=None)

    def unread(self, topic: str, part: OffsetRange, most: int) -> OffsetRange:
        """What is still to be read of a range."""
        partition = topic, part.partition
        known = self._next.get(partition, part.first)
        if known > part.end:  # the topic was deleted and created again
            known = part.first
        first = max(known, part.end - most)
        if first > max(known, part.first):
            self._cut.add(partition)
        return OffsetRange(part.partition, max(first, part.first), part.end)

    def note(self, topic: str, batch: Iterable[Message]) -> None:
        """These were read."""
        for message in batch:
            partition = topic, cast("int", message.partition())
            self._next[partition] = cast("int", message.offset()) + 1
            if partition in self._cut:
                self._cut.discard(partition)
                self._oldest[partition] = message.timestamp()[1]


class TopicSearch:
    """The topics of one connector. Every call blocks.

    Every method raises OutsideUnreachable where Kafka does not answer, and ConfigurationError where it refuses.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        routes: Which topics there are.
        by_id: Gives the schema that a registry has under an id; None where there is no registry.
        give_up_seconds: When a search that is not at its end is given up.
        rest: Seconds of rest for each second of work: the process may have other work.
        on_progress: Called after each batch.
        on_event: Called with each record of the messages that are found which tells everything of its message.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, Any],
        routes: Routes,
        *,
        by_id: Callable[[int], Schema] | None = None,
        give_up_seconds: float,
        rest: float = 0.0,
        on_progress: OnProgress = lambda _read, _total: None,
        on_event: Callable[[ConsumerRecord], None] = lambda _record: None,
    ) -> None:
        self._where = bootstrap_servers, properties
        self._letters = routes.dead_letter_topics
        self._streams = {route.topic: route.stream.name for route in routes.all}
        is_everywhere = EVENTS in self._streams.values()
        self._main = {topic: name for topic, name in self._streams.items() if name == EVENTS or not is_everywhere}
        self._by_id = by_id
        self._give_up_at = time.monotonic() + give_up_seconds
        self._give_up_seconds = give_up_seconds
        self._rest = rest
        self._on_progress = on_progress
        self._on_event = on_event

    def records(self, query: SearchQuery, *, all_partitions: bool = False) -> Found:
        """Messages that are published.

        An ``instanceId`` is looked for in the partition of its key. Where that has nothing the text may be something
        else, or the topic have had another number of partitions: every partition is read.

        Args:
            query: What is looked for.
            all_partitions: Read every partition for an ``instanceId`` too.
        """
        key = None if all_partitions else query.key
        found, searched = self._collect(self._streams, query, _has_key(query), key)
        if found:
            return found, searched
        return self._collect(self._main, query, _has_text(query), None)

    def history(self, instance_id: str, *, all_partitions: bool = False) -> Iterator[ConsumerRecord]:
        """The records of one instance that tell everything of it, in their order."""
        query = SearchQuery(instance_id)
        for topic, stream in self._main.items():
            key = None if all_partitions else query.key
            for message in self._scan(Coverage(topic), None, _has_key(query), key):
                yield decode_record(stream, topic, message, self._by_id)

    def read_on(self, read: "ReadProgress", most: int) -> Iterator[list[ConsumerRecord]]:
        """The records that tell everything and were not read before, in batches.

        Args:
            read: How far they were read; it is carried on.
            most: Records of each partition that are read at most: of more the last ones, which ``read`` notes.
        """
        for topic, stream in self._main.items():
            with closing(TopicReader(*self._where, topic, is_bulk=True)) as reader:
                ranges = [read.unread(topic, part, most) for part in reader.offset_ranges(reader.partitions())]
                for batch in reader.batches(ranges):
                    began = time.monotonic()
                    if batch:
                        read.note(topic, batch)
                        yield [decode_record(stream, topic, message, self._by_id) for message in batch]
                    if began >= self._give_up_at:
                        return
                    time.sleep(self._rest * (time.monotonic() - began))

    def dead_letters(self, query: SearchQuery) -> tuple[list[DeadLetter], list[Coverage]]:
        """Dead letters; the topics of those are read whole, for many have no key."""
        letters: list[DeadLetter] = []
        searched = []
        for topic in self._letters:
            coverage = Coverage(topic)
            searched.append(coverage)
            for message in self._scan(coverage, query.since, _is_letter(query), None):
                letter = from_record(decode_record(DEAD_LETTERS, topic, message))
                if _is_meant(letter, query):
                    letters.append(letter)
                    if _is_enough(letters, coverage):
                        break
        return letters, searched

    def _collect(
        self, streams: Mapping[str, str], query: SearchQuery, is_match: Callable[[Message], bool], key: bytes | None
    ) -> Found:
        """The messages of the records that match; records of one message are one."""
        found: dict[tuple[str, str], Match] = {}
        searched = []
        for topic, stream in streams.items():
            coverage = Coverage(topic)
            searched.append(coverage)
            for message in self._scan(coverage, query.since, is_match, key):
                record = decode_record(stream, topic, message, self._by_id)
                one = _found(record)
                if key is None and not _is_of(record, one, query):
                    continue
                if not query.matches(one):
                    continue
                if topic in self._main:
                    self._on_event(record)
                identity = record.headers.get(EVENT_ID, ""), record.headers.get(FINGERPRINT, "")
                known = found.get(identity, one)
                found[identity] = one if known is one else replace(known, places=known.places + one.places)
                if _is_enough(found, coverage):
                    break
        return list(found.values()), searched

    def _scan(
        self, coverage: Coverage, since: int | None, is_match: Callable[[Message], bool], key: bytes | None
    ) -> Iterator[Message]:
        """The records of a topic that match; ``coverage`` is filled in meanwhile."""
        with closing(TopicReader(*self._where, coverage.place, is_bulk=True)) as reader:
            there = reader.partitions()
            if not there:
                coverage.note = "the topic does not exist"
                return
            chosen = sorted(there) if key is None else [partition_of(key, len(there))]
            ranges = reader.offset_ranges(chosen, since)
            coverage.partitions, coverage.of_partitions = tuple(chosen), len(there)
            coverage.total = sum(max(part.end - part.first, 0) for part in ranges)
            unseen = {part.partition for part in ranges}
            for batch in reader.batches(ranges):
                began = time.monotonic()
                if unseen:
                    _note_oldest(coverage, batch, unseen)
                yield from filter(is_match, batch)
                coverage.records += len(batch)
                self._on_progress(coverage.records, coverage.total)
                if time.monotonic() >= self._give_up_at:
                    coverage.is_whole, coverage.note = False, f"given up after {self._give_up_seconds:g} s"
                    return
                if self._rest:
                    time.sleep(self._rest * (time.monotonic() - began))


def letter_found(letter: DeadLetter, *, reprocessed: bool | None) -> Match:
    """A dead letter as it is reported.

    Args:
        letter: The letter.
        reprocessed: Whether its message went through the pipeline again; None where nobody knows.
    """
    fields = fields_of(letter.body, letter.content_type) or {}
    return Match(
        "replayed" if reprocessed else "dead letter",
        letter.instance_id,
        letter.received_at,
        letter.source,
        message_id=_text(fields.get("msgId")),
        code=letter.code,
        places=(Location(letter.topic, letter.partition, letter.offset),),
        stage=letter.stage,
        reason=letter.reason,
        fix="" if reprocessed else fix_of(letter.code, letter.body),
        attempt=letter.attempt,
    )


def _found(record: ConsumerRecord) -> Match:
    value = record.value if isinstance(record.value, dict) else {}
    kind = value.get("msgType") or ("deleted" if record.value is None else "")
    return Match(
        "published",
        record.key,
        value.get("receivedAt") or record.timestamp,
        value.get("source") or source_of(record.headers),
        message_id=value.get("msgId") or record.headers.get(EVENT_ID),
        what=f"{kind} {value.get('actionName') or ''}".strip(),
        title=value.get(TITLE) or "",
        places=(Location(record.topic, record.partition, record.offset),),
    )


def _has_key(query: SearchQuery) -> Callable[[Message], bool]:
    key = query.key
    return lambda message: message.key() == key


def _has_text(query: SearchQuery) -> Callable[[Message], bool]:
    """By the bytes of key, value and the request's id: in Avro text is UTF-8 as it stands."""
    key, request_id = query.key, _request_id(query)

    def has_text(message: Message) -> bool:
        return key in (message.value() or b"") or key == message.key() or request_id in (message.headers() or ())

    return has_text


def _request_id(query: SearchQuery) -> tuple[str, bytes]:
    """The Kafka header of the records of the request that has this id."""
    return REQUEST_ID, query.text.encode(errors="replace")


def _is_of(record: ConsumerRecord, found: Match, query: SearchQuery) -> bool:
    is_named = record.key == query.name or query.is_of(None, found.message_id, found.title)
    return is_named or query.is_of_request(record.headers.get(REQUEST_ID))


def _is_letter(query: SearchQuery) -> Callable[[Message], bool]:
    key, request, request_id = query.key, query.request, _request_id(query)
    if request is not None and query.is_nameless:
        return lambda message: message.timestamp()[1] == request.received_at

    def is_letter(message: Message) -> bool:
        is_named = message.key() == key or query.is_in(message.value() or b"")
        return is_named or request_id in (message.headers() or ())

    return is_letter


def _is_meant(letter: DeadLetter, query: SearchQuery) -> bool:
    if query.request is not None:
        return query.is_received_with(letter.received_at, letter.source)
    is_named = letter.instance_id == query.name or query.is_of_body(letter.body, letter.content_type)
    return is_named or query.is_of_request(letter.request_id)


def _is_enough(found: Sized, coverage: Coverage) -> bool:
    if len(found) < MAX_FOUND:
        return False
    coverage.is_whole, coverage.note = False, f"ended at {MAX_FOUND} of them: give a longer text, or a time"
    return True


def _note_oldest(coverage: Coverage, batch: Iterable[Message], unseen: set[int]) -> None:
    """The first record of each partition says since when it has any."""
    for message in batch:
        number = cast("int", message.partition())
        if number in unseen:
            unseen.discard(number)
            at = message.timestamp()[1]
            coverage.oldest = at if coverage.oldest is None else min(coverage.oldest, at)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
