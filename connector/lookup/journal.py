"""Searches the messages that wait in the journal."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from connector.journal.model import Admission, Journal
from connector.journal.offline import DetachedJournal
from connector.lookup.fixes import fix_of
from connector.lookup.model import MAX_FOUND, Coverage, Match, SearchQuery, fields_of
from connector.message.headers import as_text, error_of

PLACE: Final = "the journal"
_PART_ROWS: Final = 500
"""Rows searched by one command: messages are written between two of them, so none waits longer than that."""


async def search(journal: Journal, query: SearchQuery) -> tuple[list[Match], Coverage]:
    """Search an open journal.

    Raises:
        Unavailable: The journal does not answer.
    """
    matches: list[Match] = []
    coverage = Coverage(PLACE)
    after: int | None = 0
    # The journal compares bytes before anything is decoded. A request without an id matches by time, so every row is
    # decoded: an empty text is in all of them.
    texts = (b"",) if query.is_nameless else query.forms
    while after is not None:
        admissions, after = await journal.search(texts, after, _PART_ROWS)
        matches += _matches(admissions, query)
        if len(matches) >= MAX_FOUND:
            coverage.is_whole, coverage.note = False, f"ended at {len(matches)} of them"
            break
    return matches, coverage


def search_file(journal: DetachedJournal, path: Path, query: SearchQuery) -> tuple[list[Match], Coverage]:
    """Search a journal that no process holds.

    Raises:
        DamagedFile: A row is not as it was written.
    """
    coverage = Coverage(f"{PLACE} {path}")
    coverage.records = coverage.total = journal.count()
    matches: list[Match] = []
    for match in _matches(journal.admissions(), query):
        matches.append(match)
        if len(matches) >= MAX_FOUND:
            coverage.is_whole, coverage.note = False, f"ended at {len(matches)} of them"
            break
    return matches, coverage


def _matches(admissions: Iterable[Admission], query: SearchQuery) -> Iterable[Match]:
    for admission in admissions:
        request = admission.request
        is_requested = query.is_received_with(request.received_at, request.source)
        if is_requested or (_is_of(admission, query) and query.matches(_match_of(admission))):
            yield _match_of(admission)


def _is_of(admission: Admission, query: SearchQuery) -> bool:
    request = admission.request
    is_of_instance = query.key in {admission.lane.encode(), *(record.key for record in admission.records)}
    is_named = is_of_instance or query.is_of_body(request.body, request.content_type)
    return is_named or query.is_of_request(request.request_id)


def _match_of(admission: Admission) -> Match:
    # A message's records carry no Kafka headers of an error: its code is 0 then.
    request, error = admission.request, error_of(as_text(admission.records[0].headers))
    fields = fields_of(request.body, request.content_type) or {}
    key = admission.records[0].key
    return Match(
        "waiting",
        None if key is None else key.decode(errors="replace"),
        request.received_at,
        request.source,
        message_id=None if fields.get("msgId") is None else str(fields["msgId"]),
        what=f"{fields.get('msgType') or ''} {fields.get('actionName') or ''}".strip(),
        code=error.code,
        stage=error.stage,
        reason=error.message,
        fix=fix_of(error.code, request.body),
        attempt=request.attempt,
    )
