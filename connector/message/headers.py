"""The Kafka headers of records: CloudEvents 1.0 in Kafka's binary mode, the fingerprint, what names the request."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from connector.message.encoding import CONTENT_TYPE
from connector.message.events import Event
from connector.values import Headers, IngestId, Request

REQUEST_ID: Final = "weda.request-id"
"""The Kafka header of records and dead letters with the request's ``x-request-id``; absent where it had none."""

EVENT_ID: Final = "ce_id"
EVENT_SOURCE: Final = "ce_source"
FINGERPRINT: Final = "weda.fingerprint"
"""The Kafka headers of records that readers of the topics look at."""

ERROR_CODE: Final = "weda.error.code"
ERROR_STAGE: Final = "weda.error.stage"
ERROR_MESSAGE: Final = "weda.error.message"
SOURCE: Final = "weda.source"
RECEIVED_AT: Final = "weda.received-at"
REQUEST_CONTENT_TYPE: Final = "weda.content-type"
ATTEMPT: Final = "weda.attempt"
"""The Kafka headers of dead letters; the code is that of the answer, in digits."""

_SOURCES: Final = "/sources/"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ErrorHeaders(NamedTuple):
    """Why a request became a dead letter; 0 and empty if others wrote to the topic without these headers."""

    code: int
    stage: str
    message: str


def error_of(headers: Mapping[str, str]) -> ErrorHeaders:
    """Why a dead letter is one, from its Kafka headers."""
    code = headers.get(ERROR_CODE, "")
    return ErrorHeaders(
        int(code) if code.isdecimal() else 0, headers.get(ERROR_STAGE, ""), headers.get(ERROR_MESSAGE, "")
    )


def source_of(headers: Mapping[str, str]) -> str:
    """The source of a record, from its Kafka headers."""
    return headers.get(EVENT_SOURCE, "").removeprefix(_SOURCES).partition("/")[0]


def as_text(headers: Headers) -> dict[str, str]:
    """Kafka headers as they are read from a topic."""
    return {name: value.decode(errors="replace") for name, value in headers}


def headers(event: Event, request: Request, ingest_id: IngestId, *, conflict: bool = False) -> Headers:
    """CloudEvents headers (Kafka binary mode), the fingerprint, and the request's id and trace context if it has them.

    Args:
        event: The event.
        request: When and from whom it came.
        ingest_id: Its ``ingestId``.
        conflict: Its ``msgId`` came before with other content.
    """
    fingerprint = event.fingerprint.hex()
    version, kind, source, content_type = _fixed_headers(event.message_type, request.source, event.environment)
    made: Headers = (
        version,
        (EVENT_ID, _event_id(event, ingest_id, fingerprint, conflict=conflict).encode()),
        kind,
        source,
        ("ce_subject", event.instance_id.encode()),
        ("ce_time", timestamp_text(request.received_at).encode()),
        content_type,
        (FINGERPRINT, fingerprint.encode()),
    )
    if request.request_id is not None:
        made += ((REQUEST_ID, request.request_id.encode()),)
    if request.traceparent is not None:
        made += (("traceparent", request.traceparent.encode()),)
    return made


@lru_cache(maxsize=1_024)
def _fixed_headers(message_type: str, source: str, environment: str | None) -> Headers:
    """The headers that many records share."""
    place = f"{_SOURCES}{source}" + (f"/{quote(environment, safe='')}" if environment else "")
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"io.weda.workflow.{message_type.lower()}.v1".encode()),
        (EVENT_SOURCE, place.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    )


def timestamp_text(milliseconds: int) -> str:
    """RFC 3339 text, in UTC, of epoch milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second_text(seconds)}.{rest:03}Z"


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")


def _event_id(event: Event, ingest_id: IngestId, fingerprint: str, *, conflict: bool) -> str:
    message_id = event.message_id
    if not message_id:
        return ingest_id
    return f"{message_id}~{fingerprint[:8]}" if conflict else message_id
