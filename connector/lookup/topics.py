"""Searches topics: the partition of a key, or all partitions; bytes are compared before anything is decoded."""

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
"""The stream that contains every message."""

OnProgress = Callable[[int, int], None]
"""Called with the number of records read so far, and of all records to read."""


class ReadProgress:
    """How far topics were read."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, int], int] = {}
        self._oldest: dict[tuple[str, int], int] = {}
        self._cut: set[tuple[str, int]] = set()

    @property
    def since(self) -> int | None:
        """The time since when nothing was skipped, in epoch milliseconds, or None if nothing was skipped at all."""
        return max(self._oldest.values(), default=None)

    def unread(self, topic: str, offsets: OffsetRange, limit: int) -> OffsetRange:
        """Return the last ``limit`` unread offsets of a partition's range."""
        partition = topic, offsets.partition
        following = self._next.get(partition, offsets.first)
        if following > offsets.end:  # the topic was deleted and created again
            following = offsets.first
        first = max(following, offsets.end - limit)
        # Offsets that retention has deleted are not skipped by us.
        if first > max(following, offsets.first):
            self._cut.add(partition)
        return OffsetRange(offsets.partition, max(first, offsets.first), offsets.end)

    def note(self, topic: str, batch: Iterable[Message]) -> None:
        """Record that these messages were read."""
        for message in batch:
            partition = topic, cast("int", message.partition())
            self._next[partition] = cast("int", message.offset()) + 1
            # The first record behind skipped ones: its time is when the partition is complete from.
            if partition in self._cut:
                self._cut.discard(partition)
                self._oldest[partition] = message.timestamp()[1]


class TopicSearch:
    """Searches the topics of one connector. Every call blocks.

    Every method raises OutsideUnreachable if Kafka does not answer, and ConfigurationError if it rejects the client.

    Args:
        bootstrap_servers: Brokers as ``host:port``, comma-separated.
        properties: librdkafka properties.
        routes: The topics.
        by_id: Returns the registry's schema of an id; None without a registry.
        timeout_seconds: How long a search may take, counted from now; then it ends unfinished.
        rest: Seconds of rest for each second of work, for a process that has other work.
        on_progress: Called after each batch.
        on_event: Called with each matching record of a stream that contains whole messages.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, Any],
        routes: Routes,
        *,
        by_id: Callable[[int], Schema] | None = None,
        timeout_seconds: float,
        rest: float = 0.0,
        on_progress: OnProgress = lambda _read, _total: None,
        on_event: Callable[[ConsumerRecord], None] = lambda _record: None,
    ) -> None:
        self._connection = bootstrap_servers, properties
        self._dead_letter_topics = routes.dead_letter_topics
        self._streams = {route.topic: route.stream.name for route in routes.all}
        # Every message is in the events; without that stream, each of the others may have the only record of one.
        has_events = EVENTS in self._streams.values()
        self._main = {topic: name for topic, name in self._streams.items() if name == EVENTS or not has_events}
        self._by_id = by_id
        self._ends_at = time.monotonic() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._rest = rest
        self._on_progress = on_progress
        self._on_event = on_event

    def records(self, query: SearchQuery, *, all_partitions: bool = False) -> Found:
        """Find published messages.

        An ``instanceId`` is searched in the partition of its key. If nothing is there, every partition is read: the
        text may be something else, or the topic may have had another number of partitions.

        Args:
            query: The query.
            all_partitions: Read every partition for an ``instanceId`` too.
        """
        key = None if all_partitions else query.key
        matches, searched = self._collect(self._streams, query, _has_key(query), key)
        if matches:
            return matches, searched
        return self._collect(self._main, query, _has_text(query), None)

    def history(
        self, instance_id: str, searched: list[Coverage], *, all_partitions: bool = False
    ) -> Iterator[ConsumerRecord]:
        """Yield the records of one instance, in their order, from a stream that contains whole messages.

        Args:
            instance_id: The instance.
            searched: How much of each topic was read is added to it.
            all_partitions: Read every partition, not only that of the key.
        """
        query = SearchQuery(instance_id)
        for topic, stream in self._main.items():
            coverage = Coverage(topic)
            searched.append(coverage)
            key = None if all_partitions else query.key
            for message in self._scan(coverage, None, _has_key(query), key):
                yield decode_record(stream, topic, message, self._by_id)

    def read_on(self, progress: "ReadProgress", limit: int) -> Iterator[list[ConsumerRecord]]:
        """Yield records of whole messages that were not read before, in batches.

        Args:
            progress: How far the topics were read; it is updated.
            limit: Records read of each partition; if there are more, the last ones.
        """
        for topic, stream in self._main.items():
            with closing(TopicReader(*self._connection, topic, is_bulk=True)) as reader:
                offset_ranges = reader.offset_ranges(reader.partitions())
                unread = [progress.unread(topic, offsets, limit) for offsets in offset_ranges]
                for batch in reader.batches(unread):
                    began = time.monotonic()
                    if batch:
                        # Before the yield: a caller that does not resume has taken the batch.
                        progress.note(topic, batch)
                        yield [decode_record(stream, topic, message, self._by_id) for message in batch]
                    if began >= self._ends_at:
                        return
                    time.sleep(self._rest * (time.monotonic() - began))

    def dead_letters(self, query: SearchQuery) -> tuple[list[DeadLetter], list[Coverage]]:
        """Find dead letters; their topics are read completely, because many dead letters have no key."""
        letters: list[DeadLetter] = []
        searched = []
        for topic in self._dead_letter_topics:
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
        """Find matching records, and merge the records of one message into one match."""
        matches: dict[tuple[str, str], Match] = {}
        searched = []
        for topic, stream in streams.items():
            coverage = Coverage(topic)
            searched.append(coverage)
            for message in self._scan(coverage, query.since, is_match, key):
                record = decode_record(stream, topic, message, self._by_id)
                match = _match_of(record)
                # Bytes match more than they should, such as a part of a longer id. A key matches exactly.
                if key is None and not _is_of(record, match, query):
                    continue
                if not query.matches(match):
                    continue
                if topic in self._main:
                    self._on_event(record)
                # The records of one message have both headers in common, in every stream, and so have its duplicates.
                identity = record.headers.get(EVENT_ID, ""), record.headers.get(FINGERPRINT, "")
                first = matches.get(identity, match)
                matches[identity] = match if first is match else replace(first, places=first.places + match.places)
                if _is_enough(matches, coverage):
                    break
        return list(matches.values()), searched

    def _scan(
        self, coverage: Coverage, since: int | None, is_match: Callable[[Message], bool], key: bytes | None
    ) -> Iterator[Message]:
        """Yield the matching records of a topic, and update its coverage along the way."""
        with closing(TopicReader(*self._connection, coverage.place, is_bulk=True)) as reader:
            partitions = reader.partitions()
            if not partitions:
                coverage.note = "the topic does not exist"
                return
            chosen = sorted(partitions) if key is None else [partition_of(key, len(partitions))]
            offset_ranges = reader.offset_ranges(chosen, since)
            coverage.partitions, coverage.of_partitions = tuple(chosen), len(partitions)
            coverage.total = sum(max(offsets.end - offsets.first, 0) for offsets in offset_ranges)
            unseen = {offsets.partition for offsets in offset_ranges}
            for batch in reader.batches(offset_ranges):
                began = time.monotonic()
                if unseen:
                    _note_oldest(coverage, batch, unseen)
                coverage.records += len(batch)  # before the yield: a caller that has enough does not resume
                yield from filter(is_match, batch)
                self._on_progress(coverage.records, coverage.total)
                if time.monotonic() >= self._ends_at:
                    coverage.is_whole, coverage.note = False, f"given up after {self._timeout_seconds:g} s"
                    return
                # In the connector's own process, answers to sources come first.
                if self._rest:
                    time.sleep(self._rest * (time.monotonic() - began))


def letter_found(letter: DeadLetter, *, reprocessed: bool | None) -> Match:
    """Return the match of a dead letter.

    Args:
        letter: The dead letter.
        reprocessed: Whether it was reprocessed, or None if that is unknown.
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


def _match_of(record: ConsumerRecord) -> Match:
    # No value is a tombstone; bytes are a record that no schema reads, of which only the Kafka headers are known.
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
    """Compare bytes of key, value and request id: Avro writes a text as plain UTF-8."""
    key, request_id = query.key, _request_id(query)

    def has_text(message: Message) -> bool:
        return key in (message.value() or b"") or key == message.key() or request_id in (message.headers() or ())

    return has_text


def _request_id(query: SearchQuery) -> tuple[str, bytes]:
    """Return the Kafka header that the records of this request have."""
    return REQUEST_ID, query.text.encode(errors="replace")


def _is_of(record: ConsumerRecord, match: Match, query: SearchQuery) -> bool:
    is_named = record.key == query.name or query.is_of(None, match.message_id, match.title)
    return is_named or query.is_of_request(record.headers.get(REQUEST_ID))


def _is_letter(query: SearchQuery) -> Callable[[Message], bool]:
    key, request, request_id = query.key, query.request, _request_id(query)
    # A dead letter's record has the time of receipt as its timestamp.
    if request is not None and query.is_nameless:
        return lambda message: message.timestamp()[1] == request.received_at

    def is_letter(message: Message) -> bool:
        is_named = message.key() == key or query.is_in(message.value() or b"")
        return is_named or request_id in (message.headers() or ())

    return is_letter


def _is_meant(letter: DeadLetter, query: SearchQuery) -> bool:
    # A request that is remembered is known exactly: another dead letter of its instance is not it.
    if query.request is not None:
        return query.is_received_with(letter.received_at, letter.source)
    is_named = letter.instance_id == query.name or query.is_of_body(letter.body, letter.content_type)
    return is_named or query.is_of_request(letter.request_id)


def _is_enough(matches: Sized, coverage: Coverage) -> bool:
    if len(matches) < MAX_FOUND:
        return False
    coverage.is_whole, coverage.note = False, f"ended at {MAX_FOUND} of them: give a longer text, or a time"
    return True


def _note_oldest(coverage: Coverage, batch: Iterable[Message], unseen: set[int]) -> None:
    """Update the oldest timestamp from the first record of each partition."""
    for message in batch:
        partition = cast("int", message.partition())
        if partition in unseen:
            unseen.discard(partition)
            timestamp = message.timestamp()[1]
            coverage.oldest = timestamp if coverage.oldest is None else min(coverage.oldest, timestamp)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
