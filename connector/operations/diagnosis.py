"""What a request looked like, what was missing in it, how to mend it, and the template to paste."""

import json
from dataclasses import dataclass
from typing import Any, Final

from connector.errors import ConnectorError
from connector.lookup.fixes import fix_of
from connector.message.parsing import BodyKind, parse
from connector.message.weda import ENVELOPE
from connector.telemetry.recent import RecentRequest

_WANTED: Final = ("msgId", "msgType", "instanceId", "action", "envType", "processKey")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What can be said of a request.

    Attributes:
        shape: How it was written, in words.
        missing: Fields that WeDa sends and that are not there.
        fix: What to do, in words; empty where nothing is.
    """

    shape: str
    missing: tuple[str, ...]
    fix: str


def diagnose(request: RecentRequest) -> Diagnosis:
    """Look at a request as it arrived."""
    kind = request.kind
    try:
        fields = parse(request.body, kind).fields
    except ConnectorError:
        return Diagnosis("not readable", (), fix_of(request.code, request.body))
    missing = tuple(name for name in _WANTED if fields.get(name) in (None, ""))
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
