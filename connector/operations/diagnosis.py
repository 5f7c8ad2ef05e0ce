"""What a request looked like, what was missing in it, how to mend it, and the template to paste."""

import json
from dataclasses import dataclass
from typing import Any, Final

from connector.errors import ConnectorError
from connector.message.parsing import BodyKind, parse
from connector.message.weda import ENVELOPE
from connector.telemetry.recent import RecentRequest

_WANTED: Final = ("msgId", "msgType", "instanceId", "action", "envType", "processKey")
_QUOTED: Final = b'"{'

_FIXES: Final = {
    400: "Use the template below, the placeholder without quotes, and Content-Type: application/json.",
    401: "Send the header X-WeDa-Token with the token of this source.",
    413: "Send less, or raise the limit that the answer names.",
    422: "Pass the whole msgContext on, unchanged; what the answer names is missing or of the wrong type.",
    429: "Send it again a second later.",
    500: "Tell whoever looks after the connector: this is a defect.",
    503: "Bring Kafka back, or give the journal room: see the overview.",
}
_QUOTES: Final = "The quotes inside the placeholder were not escaped: take the quotes around the placeholder away."
_ENVIRONMENT: Final = "Allow this envType for the source (env_types in WEDA_SOURCES), or send from another environment."


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
        return Diagnosis("not readable", (), _fix(request))
    missing = tuple(name for name in _WANTED if fields.get(name) in (None, ""))
    return Diagnosis(_shape(request.body, kind), missing, _fix(request))


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


def _fix(request: RecentRequest) -> str:
    if request.code == 0:
        return ""
    if request.code == 40003 and _QUOTED in request.body:  # noqa: PLR2004 - bad JSON
        return _QUOTES
    return _ENVIRONMENT if request.code == 42201 else _FIXES.get(request.code // 100, "")  # noqa: PLR2004 - envType
