"""Where a message is: asked of the running connector, and read from the topics and the journal by this process."""

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

_NOT_NOW: Final = (OutsideUnreachable,)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a search goes.

    Attributes:
        since: Only what was received at this time or later, in epoch milliseconds.
        all_partitions: Read every partition, also where an instance has records in that of its key.
        give_up_seconds: When it is given up.
    """

    since: int | None
    all_partitions: bool
    give_up_seconds: float


def search(
    settings: Settings,
    text: str,
    bounds: Bounds,
    on_progress: OnProgress,
    on_event: Callable[[ConsumerRecord], None] = lambda _record: None,
) -> SearchReport:
    """Look for an ``instanceId``, a ``msgId``, a part of a title or the id of a request.

    A running connector reports what waits in its journal, what became of dead letters and which requests it remembers.
    Where none answers, its journal is read. The topics of records are read by this process, if it knows the brokers.

    Args:
        settings: The effective settings.
        text: What is looked for.
        bounds: How far the search goes.
        on_progress: Called after each batch.
        on_event: Called with each record found that tells everything of its message, where this process reads them.

    Raises:
        ConfigurationError: Neither brokers nor a connector are known, or the connector wants another token.
    """
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
                with report.searching(TOPICS, _NOT_NOW):
                    report.add(*topics.records(query, all_partitions=bounds.all_partitions))
    return report


def _asked(settings: Settings, text: str, bounds: Bounds, *, with_records: bool) -> SearchReport | None:
    """What a running connector says; None where none answers."""
    try:
        answer = ask(settings.operations, lambda client: client.messages(text, bounds.since, with_records=with_records))
    except OutsideUnreachable:
        return None
    return SearchReport.of(answer)


def _read_rest(report: SearchReport, settings: Settings, topics: TopicSearch, query: SearchQuery) -> None:
    """What the connector would have answered: its journal, and the dead letters."""
    noted: dict[str, int] | None = None
    path = settings.journal.path
    if settings.journal.url is not None:
        no_connector = OutsideUnreachable(f"no connector answers at {settings.operations.url}")
        report.add([], [unsearched("the shared journal", no_connector)])
    else:
        try:
            with detached(path) as file:
                found, searched = journal.search_file(file, path, query)
                report.add(found, [searched])
                noted = file.read_notes(NOTE_PREFIX)
        except (ConnectorError, DamagedFile) as error:
            note = error.message if isinstance(error, ConnectorError) else str(error)
            why = f"no connector answers at {settings.operations.url}, and: {note}"
            report.add([], [unsearched(f"{journal.PLACE} {path}", OutsideUnreachable(why))])
    with report.searching(DEAD_LETTERS, _NOT_NOW):
        report.add(*_letters(topics, query, noted))


def _letters(topics: TopicSearch, query: SearchQuery, noted: dict[str, int] | None) -> Found:
    letters, searched = topics.dead_letters(query)
    found = [letter_found(one, reprocessed=None if noted is None else one.note.name in noted) for one in letters]
    return found, searched


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
            give_up_seconds=bounds.give_up_seconds,
            on_progress=on_progress,
            on_event=on_event,
        )
