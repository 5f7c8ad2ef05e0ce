"""Finds a message: asks the running connector, and reads topics and journal in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from connector.admin.client import ask
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.intake.dead_letters import NOTE_PREFIX
from connector.journal.file import DamagedFile
from connector.journal.offline import detached
from connector.kafka.reader import ConsumerRecord
from connector.kafka.registry import schemas_by_id
from connector.kafka.topics import routes_of
from connector.lookup import journal
from connector.lookup.model import DEAD_LETTERS, TOPICS, Found, SearchQuery, SearchReport, unsearched
from connector.lookup.topics import OnProgress, TopicSearch, letter_found
from connector.settings import EMBEDDED, Settings

_NOTED_ERRORS: Final = (OutsideUnreachable,)
"""Errors that a report notes; others end the search."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a search.

    Attributes:
        since: Find only what was received at this time or later, in epoch milliseconds.
        all_partitions: Whether to read every partition, even if the partition of the key has records of the instance.
        timeout_seconds: How long the search may take; then it ends unfinished.
    """

    since: int | None
    all_partitions: bool
    timeout_seconds: float


def search(
    settings: Settings,
    text: str,
    bounds: Bounds,
    on_progress: OnProgress,
    on_event: Callable[[ConsumerRecord], None] = lambda _record: None,
) -> SearchReport:
    """Search an ``instanceId``, a ``msgId``, a part of a title or the id of a request.

    A running connector reports what waits in its journal, the state of dead letters, and the requests it remembers. If
    none answers, this process reads its journal. It also reads the topics of records, if the brokers are known.

    Args:
        settings: The effective settings.
        text: The text to find.
        bounds: Limits of the search.
        on_progress: Called after each batch.
        on_event: Called with each matching record of a whole message, if this process reads the topics.

    Raises:
        ConfigurationError: Neither brokers nor a connector are known, or the connector wants another token.
    """
    # Only their connector knows the address of embedded brokers.
    reads_topics = settings.kafka.bootstrap_servers not in {None, EMBEDDED}
    report = _asked(settings, text, bounds, with_records=not reads_topics)
    is_asked = report is not None
    if report is None:
        if not reads_topics:
            raise ConfigurationError(
                f"no connector answers at {settings.operations.url} (WEDA_OPERATIONS__URL), and "
                "WEDA_KAFKA__BOOTSTRAP_SERVERS is not set: give the brokers as host:port,host:port, or "
                "--bootstrap-servers"
            )
        report = SearchReport(text)
    if reads_topics:
        query = SearchQuery(text, bounds.since, report.request)
        with _topics(settings, bounds, on_progress, on_event) as topics:
            if not is_asked:
                _read_rest(report, settings, topics, query)
            if not query.is_nameless:
                with report.searching(TOPICS, _NOTED_ERRORS):
                    report.add(*topics.records(query, all_partitions=bounds.all_partitions))
    return report


def _asked(settings: Settings, text: str, bounds: Bounds, *, with_records: bool) -> SearchReport | None:
    """Return the report of a running connector, or None if none answers."""
    try:
        answer = ask(settings.operations, lambda client: client.messages(text, bounds.since, with_records=with_records))
    except OutsideUnreachable:
        return None
    return SearchReport.of(answer)


def _read_rest(report: SearchReport, settings: Settings, topics: TopicSearch, query: SearchQuery) -> None:
    """Add what the connector would have reported: its journal, and the dead letters."""
    notes: dict[str, int] | None = None
    path = settings.journal.path
    if settings.journal.url is not None:
        no_connector = OutsideUnreachable(f"no connector answers at {settings.operations.url}")
        report.add([], [unsearched("the shared journal", no_connector)])
    else:
        try:
            with detached(path) as file:
                matches, searched = journal.search_file(file, path, query)
                report.add(matches, [searched])
                notes = file.read_notes(NOTE_PREFIX)
        except (ConnectorError, DamagedFile) as error:
            reason = error.message if isinstance(error, ConnectorError) else str(error)
            note = f"no connector answers at {settings.operations.url}, and: {reason}"
            report.add([], [unsearched(f"{journal.PLACE} {path}", OutsideUnreachable(note))])
    with report.searching(DEAD_LETTERS, _NOTED_ERRORS):
        report.add(*_letters(topics, query, notes))


def _letters(topics: TopicSearch, query: SearchQuery, notes: dict[str, int] | None) -> Found:
    letters, searched = topics.dead_letters(query)
    # The notes of reprocessed dead letters are in the journal. Without it, nobody knows which were reprocessed.
    matches = [
        letter_found(letter, reprocessed=None if notes is None else letter.note.name in notes) for letter in letters
    ]
    return matches, searched


@contextmanager
def _topics(
    settings: Settings, bounds: Bounds, on_progress: OnProgress, on_event: Callable[[ConsumerRecord], None]
) -> Iterator[TopicSearch]:
    servers, properties = settings.kafka.bootstrap_servers or "", settings.kafka.properties

    with schemas_by_id(settings.registry) as by_id:
        yield TopicSearch(
            servers,
            properties,
            routes_of(settings),
            by_id=by_id,
            timeout_seconds=bounds.timeout_seconds,
            on_progress=on_progress,
            on_event=on_event,
        )
