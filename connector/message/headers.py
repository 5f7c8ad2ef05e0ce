"""The Kafka headers of records: CloudEvents 1.0 in Kafka's binary mode, the fingerprint, and the request's ids."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from connector.message.encoding import CONTENT_TYPE
from connector.message.events import Event
from connector.values import Headers, IngestId, Request

REQUEST_ID: Final = "weda.request-id"
"""The Kafka header of records and dead letters with the request's ``x-request-id``; absent if it had none."""

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
    """The reason why a request became a dead letter; 0 and empty texts if the record lacks the headers."""

    code: int
    stage: str
    message: str


def error_of(headers: Mapping[str, str]) -> ErrorHeaders:
    """Read the error of a dead letter from its Kafka headers."""
    # Others may write to the topic too, without these headers or with anything in them.
    code = headers.get(ERROR_CODE, "")
    return ErrorHeaders(
        int(code) if code.isdecimal() else 0, headers.get(ERROR_STAGE, ""), headers.get(ERROR_MESSAGE, "")
    )


def source_of(headers: Mapping[str, str]) -> str:
    """Read the source of a record from its Kafka headers."""
    return headers.get(EVENT_SOURCE, "").removeprefix(_SOURCES).partition("/")[0]


def as_text(headers: Headers) -> dict[str, str]:
    """Return Kafka headers as readers of a topic get them."""
    return {name: value.decode(errors="replace") for name, value in headers}


def headers(event: Event, request: Request, ingest_id: IngestId, *, conflict: bool = False) -> Headers:
    """Return the CloudEvents headers, the fingerprint, and the request's id and trace context if it has them.

    Args:
        event: The event.
        request: The request that the event came with.
        ingest_id: The ``ingestId`` of the event's records.
        conflict: Whether the ``msgId`` came before with other content.
    """
    fingerprint = event.fingerprint.hex()
    version, kind, source, content_type = _fixed_headers(event.message_type, request.source, event.environment)
    kafka_headers: Headers = (
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
        kafka_headers += ((REQUEST_ID, request.request_id.encode()),)
    if request.traceparent is not None:
        kafka_headers += (("traceparent", request.traceparent.encode()),)
    return kafka_headers


# Bounded: ``envType`` is whatever a source sends, unless the source allows only certain ones.
@lru_cache(maxsize=1_024)
def _fixed_headers(message_type: str, source: str, environment: str | None) -> Headers:
    """Return the headers that many records share: version, type, source and content type."""
    place = f"{_SOURCES}{source}" + (f"/{quote(environment, safe='')}" if environment else "")
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"io.weda.workflow.{message_type.lower()}.v1".encode()),
        (EVENT_SOURCE, place.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    )


def timestamp_text(milliseconds: int) -> str:
    """Format epoch milliseconds as RFC 3339 in UTC."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second_text(seconds)}.{rest:03}Z"


# Messages that arrive together share their second, and so its text.
@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")


def _event_id(event: Event, ingest_id: IngestId, fingerprint: str, *, conflict: bool) -> str:
    message_id = event.message_id
    if not message_id:
        return ingest_id
    # CloudEvents calls equal ids of one source duplicates, and consumers may drop the second event.
    return f"{message_id}~{fingerprint[:8]}" if conflict else message_id
