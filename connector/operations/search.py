"""One search over everything that a running connector has: its requests, its journal, the topics."""

from collections.abc import Awaitable, Callable

from connector.errors import ConfigurationError, OutsideUnreachable, Unavailable
from connector.lookup import journal
from connector.lookup.model import Coverage, Match, SearchQuery, SearchReport, unsearched
from connector.lookup.topics import letter_found
from connector.operations.context import Context

_Result = tuple[list[Match], list[Coverage]]


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
    report.add(*await _tried(journal.PLACE, lambda: _waiting(context, query)))
    report.add(*await _tried("the dead letters", lambda: _letters(context, query)))
    if with_records and not query.is_nameless:
        report.add(*await _tried("the topics", lambda: context.read(lambda reader: reader.messages(query))))
    return report


async def _tried(where: str, look: Callable[[], Awaitable[_Result]]) -> _Result:
    try:
        return await look()
    except (Unavailable, OutsideUnreachable, ConfigurationError) as error:
        return [], [unsearched(where, error)]


async def _waiting(context: Context, query: SearchQuery) -> _Result:
    found, searched = await journal.search(context.journal, query)
    searched.total = searched.records = context.health.backlog
    return found, [searched]


async def _letters(context: Context, query: SearchQuery) -> _Result:
    letters, searched = await context.read(lambda reader: reader.letters(query))
    return [letter_found(one, reprocessed=await context.letters.is_reprocessed(one)) for one in letters], searched
