"""Sample requests, run through the connector's own steps: what becomes of them is what the descriptions show."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from zoneinfo import ZoneInfo

from connector.errors import ConnectorError, Defect, EmptyBody, Rejected, Unconvertible, Unreadable
from connector.intake import dead_letters
from connector.message import events, parsing
from connector.message.headers import headers
from connector.message.parsing import BodyKind
from connector.message.routes import Routes
from connector.message.schemas import INSTANCE_EVENT, TASK_EVENT, load
from connector.receiver.authentication import Authentication, Credentials
from connector.simulator import OutgoingRequest, Shape, render
from connector.testing import record_value
from connector.values import Headers, IngestId, Request
from tools import dictionary

SHAPES: Final = (Shape.TEXT, Shape.OBJECT, Shape.BARE, Shape.FORM, Shape.QUERY)
"""Every way in which a request template can carry a message."""

ALLOWED_ENVIRONMENTS: Final = ("prod",)
"""The environments of the sample source: a message of another one is refused."""

UNNAMED: Final = b'{"msgContext":{"msgType":"Task"}}'
"""A request that names no instance: a dead letter without a key."""

TOKENS: Final = {"default": "the-token-of-default", "hr": "the-token-of-hr"}
"""A token of each of two sources."""

_REQUEST: Final = "5f2c81d0-1a"
_TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ZONE: Final = ZoneInfo("Asia/Shanghai")


def _task(fields: str) -> bytes:
    return b'{"msgContext":{"msgType":"Task","instanceId":"i-1",%s}}' % fields.encode()


REFUSED: Final[Mapping[int, tuple[BodyKind, bytes]]] = MappingProxyType(
    {
        40000: (BodyKind.JSON, b""),
        40001: (BodyKind.FORM, b"a=&" * 1000 + b"msgContext="),
        40002: (BodyKind.JSON, b'{"msgContext":"\xff"}'),
        40003: (BodyKind.JSON, b'{"msgContext":}'),
        40004: (BodyKind.JSON, b'{"message":{}}'),
        40005: (BodyKind.JSON, b"[" * (parsing.MAX_NESTING + 1)),
        40006: (BodyKind.JSON, _task('"action":1e999')),
        40007: (BodyKind.JSON, b"[%s0]" % (b"0," * parsing.MAX_VALUES)),
        42201: (BodyKind.JSON, _task('"envType":"pre"')),
        42202: (BodyKind.JSON, b'{"msgContext":{"instanceId":"i-1"}}'),
        42203: (BodyKind.JSON, UNNAMED),
        42204: (BodyKind.JSON, _task('"action":"approve"')),
        42205: (BodyKind.JSON, _task(r'"comment":"\ud800"')),
        42206: (BodyKind.JSON, _task('"startTime":"1969-12-31"')),
        42207: (BodyKind.JSON, _task(f'"msgId":"{"0" * (events.MAX_IDENTIFIER_CHARS + 1)}"')),
    }
)
"""Code → a request that is answered with it, by what is in its body."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a consumer reads: the Kafka headers as text, in their order, and the decoded value."""

    headers: Mapping[str, str]
    value: Mapping[str, Any]


def request_of(record_type: str, shape: Shape) -> OutgoingRequest:
    """The sample message of a record type, as the simulator sends it in a shape."""
    return render(dictionary.sample_message(record_type), shape)


def record_of(record_type: str) -> Record:
    """The record of a sample message: parsed, converted, encoded and decoded for real."""
    known = dictionary.sample_record(INSTANCE_EVENT if record_type == INSTANCE_EVENT else TASK_EVENT)
    body = request_of(record_type, Shape.TEXT).body
    request = Request(known["source"], body, "application/json", known["receivedAt"], _TRACE, request_id=_REQUEST)
    event = events.convert(parsing.parse(body, BodyKind.JSON), _ZONE)
    ingest_id = IngestId(known["ingestId"])
    value = record_value(event, load(record_type), request, ingest_id)
    return Record(_as_text(headers(event, request, ingest_id)), value)


def dead_letter_headers(topic: str) -> dict[str, str]:
    """The Kafka headers of the dead letter of `UNNAMED`, as text, in their order."""
    received_at = dictionary.sample_record(TASK_EVENT)["receivedAt"]
    request = Request("default", UNNAMED, "application/json", received_at)
    return _as_text(dead_letters.for_error(topic, request, refusal(BodyKind.JSON, UNNAMED), None).headers)


def refusal(kind: BodyKind, body: bytes) -> ConnectorError:
    """Why a request of the sample source becomes no record.

    Raises:
        Defect: It does become one.
    """
    try:
        event = events.convert(parsing.parse(body, kind), _ZONE)
        routes = Routes(("events",), "weda.workflow", {"default": ALLOWED_ENVIRONMENTS})
        routes.of(event.message_type, "default", event.environment)
    except (EmptyBody, Unreadable, Unconvertible) as error:
        return error
    raise Defect("a sample of what is refused is accepted")


def stranger(presented: str | None) -> ConnectorError:
    """Why a request to the source ``default`` with that token, or with none, is turned away.

    Raises:
        Defect: It is not.
    """
    sources = {name: Credentials(tokens=(token,)) for name, token in TOKENS.items()}
    try:
        Authentication(sources, allow_anonymous=False).authenticate("default", presented)
    except Rejected as error:
        return error
    raise Defect("a sample of what is turned away is let in")


def _as_text(pairs: Headers) -> dict[str, str]:
    return {name: value.decode() for name, value in pairs}
