"""One search over everything that a running connector has: its requests, its journal, the topics."""

from typing import Final

from connector.errors import ConfigurationError, OutsideUnreachable, Unavailable
from connector.lookup import journal
from connector.lookup.model import DEAD_LETTERS, TOPICS, Found, SearchQuery, SearchReport
from connector.lookup.topics import letter_found
from connector.operations.context import Context

_NOT_NOW: Final = (Unavailable, OutsideUnreachable, ConfigurationError)


async def search(context: Context, text: str, *, since: int | None = None, with_records: bool = True) -> SearchReport:
    """Look for an ``instanceId``, a ``msgId``, a part of a title or the id of a request.

    What cannot be searched now is named in the report.

    Args:
        context: The connector.
        text: One of these.
        since: Only what was received at this time or later, in epoch milliseconds.
        with_records: Search the topics of records too, not the dead letters alone.
    """
    request = context.recent.seen(text)
    query = SearchQuery(text, since, request)
    report = SearchReport(text, request)
    with report.searching(journal.PLACE, _NOT_NOW):
        report.add(*await _waiting(context, query))
    with report.searching(DEAD_LETTERS, _NOT_NOW):
        report.add(*await _letters(context, query))
    if with_records and not query.is_nameless:
        with report.searching(TOPICS, _NOT_NOW):
            report.add(*await context.read(lambda reader: reader.messages(query)))
    return report


async def _waiting(context: Context, query: SearchQuery) -> Found:
    found, searched = await journal.search(context.journal, query)
    searched.total = searched.records = context.health.backlog
    return found, [searched]


async def _letters(context: Context, query: SearchQuery) -> Found:
    letters, searched = await context.read(lambda reader: reader.letters(query))
    return [letter_found(one, reprocessed=await context.letters.is_reprocessed(one)) for one in letters], searched
