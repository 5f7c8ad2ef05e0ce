"""One search over the requests, the journal and the topics of a running connector."""

from typing import Final

from connector.errors import ConfigurationError, OutsideUnreachable, Unavailable
from connector.lookup import journal
from connector.lookup.model import DEAD_LETTERS, TOPICS, Found, SearchQuery, SearchReport
from connector.lookup.topics import letter_found
from connector.operations.context import Context

_UNAVAILABLE: Final = (Unavailable, OutsideUnreachable, ConfigurationError)


async def search(context: Context, text: str, *, since: int | None = None, with_records: bool = True) -> SearchReport:
    """Search for a message; the report names the places that cannot be searched now.

    Args:
        context: The connector.
        text: An ``instanceId``, a ``msgId``, a part of a title or the id of a request.
        since: Earliest time of receipt, in epoch milliseconds, or None.
        with_records: Search the topics of records as well as the dead letters.
    """
    # If the text is the id of a recent request, that request names the instance and the message.
    request = context.recent.seen(text)
    query = SearchQuery(text, since, request)
    report = SearchReport(text, request)
    with report.searching(journal.PLACE, _UNAVAILABLE):
        report.add(*await _waiting(context, query))
    with report.searching(DEAD_LETTERS, _UNAVAILABLE):
        report.add(*await _letters(context, query))
    if with_records and not query.is_nameless:
        with report.searching(TOPICS, _UNAVAILABLE):
            report.add(*await context.read(lambda reader: reader.messages(query)))
    return report


async def _waiting(context: Context, query: SearchQuery) -> Found:
    matches, coverage = await journal.search(context.journal, query)
    coverage.total = coverage.records = context.health.backlog
    return matches, [coverage]


async def _letters(context: Context, query: SearchQuery) -> Found:
    letters, coverage = await context.read(lambda reader: reader.letters(query))
    matches = [letter_found(letter, reprocessed=await context.letters.is_reprocessed(letter)) for letter in letters]
    return matches, coverage
