"""Diagnosis of a request: how its body was written, which fields are missing, and what to do."""

import json
from dataclasses import dataclass
from typing import Any, Final

from connector.errors import ConnectorError
from connector.lookup.fixes import fix_of
from connector.message.parsing import BodyKind, parse
from connector.message.weda import ENVELOPE
from connector.telemetry.recent import RecentRequest

_EXPECTED_FIELDS: Final = ("msgId", "msgType", "instanceId", "action", "envType", "processKey")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The diagnosis of a request.

    Attributes:
        shape: How the body was written, in words.
        missing: Fields that WeDa sends but this request lacks.
        fix: What to do, in words; empty if nothing.
    """

    shape: str
    missing: tuple[str, ...]
    fix: str


def diagnose(request: RecentRequest) -> Diagnosis:
    """Diagnose a request from its body as received."""
    kind = request.kind
    try:
        fields = parse(request.body, kind).fields
    except ConnectorError:
        return Diagnosis("not readable", (), fix_of(request.code, request.body))
    missing = tuple(name for name in _EXPECTED_FIELDS if fields.get(name) in (None, ""))
    return Diagnosis(_shape(request.body, kind), missing, fix_of(request.code, request.body))


def _shape(body: bytes, kind: BodyKind) -> str:
    if kind is not BodyKind.JSON:
        return "a form" if kind is BodyKind.FORM else "a query"
    try:
        value: Any = json.loads(body.decode("utf-8-sig"))
    except ValueError:
        return "JSON"
    if not isinstance(value, dict):
        return "JSON text of JSON text"
    if ENVELOPE not in value:
        return "the message alone"
    return "an envelope with JSON text" if isinstance(value[ENVELOPE], str) else "an envelope with an object"
