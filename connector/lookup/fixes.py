"""Advice on a request that was not accepted, by the ``code`` of its answer."""

from typing import Final

_FIXES: Final = {
    400: "Use the template below, the placeholder without quotes, and Content-Type: application/json.",
    401: "Send the header X-WeDa-Token with the token of this source.",
    413: "Send less, or raise the limit that the answer names.",
    422: "Pass the whole msgContext on, unchanged; what the answer names is missing or of the wrong type.",
    429: "Send it again a second later.",
    500: "Report this to the connector's operator: it is a bug.",
    503: "Bring Kafka back, or give the journal room: see the overview.",
}
_QUOTED_OBJECT: Final = b'"{'
_UNQUOTE: Final = "The quotes inside the placeholder were not escaped: take the quotes around the placeholder away."
_ALLOW_ENV: Final = "Allow this envType for the source (env_types in WEDA_SOURCES), or send from another environment."
_BAD_JSON: Final = 40003
_BAD_ENVIRONMENT: Final = 42201


def fix_of(code: int, body: bytes) -> str:
    """Return what to do, as a sentence; empty if there is nothing to do.

    Args:
        code: The ``code`` of the answer; 0 means accepted.
        body: The request's bytes.
    """
    # The first quote inside the object that replaced the placeholder ended the text in quotes around it.
    if code == _BAD_JSON and _QUOTED_OBJECT in body:
        return _UNQUOTE
    # The first three digits are the HTTP status, which is enough for everything else.
    return _ALLOW_ENV if code == _BAD_ENVIRONMENT else _FIXES.get(code // 100, "")
