"""What waits in the journal for Kafka, searched."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from connector.journal.model import Admission, Journal
from connector.journal.offline import DetachedJournal
from connector.lookup.fixes import fix_of
from connector.lookup.model import MAX_FOUND, Coverage, Match, SearchQuery, fields_of
from connector.message.headers import as_text, error_of

PLACE: Final = "the journal"
_PART: Final = 500
"""Rows that are searched at once: a message that has to be written waits for no more."""


async def search(journal: Journal, query: SearchQuery) -> tuple[list[Match], Coverage]:
    """What waits in an open journal.

    Raises:
        Unavailable: It does not answer.
    """
    found: list[Match] = []
    coverage = Coverage(PLACE)
    after: int | None = 0
    texts = (b"",) if query.is_nameless else query.forms
    while after is not None:
        part, after = await journal.search(texts, after, _PART)
        found += _found(part, query)
        if len(found) >= MAX_FOUND:
            coverage.is_whole, coverage.note = False, f"ended at {len(found)} of them"
            break
    return found, coverage


def search_file(journal: DetachedJournal, path: Path, query: SearchQuery) -> tuple[list[Match], Coverage]:
    """What waits in a journal that nobody owns.

    Raises:
        DamagedFile: A row is not as it was written.
    """
    coverage = Coverage(f"{PLACE} {path}")
    coverage.records = coverage.total = journal.count()
    found: list[Match] = []
    for one in _found(journal.admissions(), query):
        found.append(one)
        if len(found) >= MAX_FOUND:
            coverage.is_whole, coverage.note = False, f"ended at {len(found)} of them"
            break
    return found, coverage


def _found(admissions: Iterable[Admission], query: SearchQuery) -> Iterable[Match]:
    for admission in admissions:
        request = admission.request
        is_asked = query.is_received_with(request.received_at, request.source)
        if is_asked or (_is_of(admission, query) and query.matches(_as_found(admission))):
            yield _as_found(admission)


def _is_of(admission: Admission, query: SearchQuery) -> bool:
    request = admission.request
    is_of_instance = query.key in {admission.lane.encode(), *(record.key for record in admission.records)}
    is_named = is_of_instance or query.is_of_body(request.body, request.content_type)
    return is_named or query.is_of_request(request.request_id)


def _as_found(admission: Admission) -> Match:
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
