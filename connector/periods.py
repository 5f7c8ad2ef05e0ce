"""Periods and moments as people write them: ``90s``, ``30m``, ``36h``, ``14d``, ``8w``, or an ISO 8601 time. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

_PERIOD: Final = re.compile(r"(\d{1,6})\s*([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def period_seconds(value: object) -> int:
    """The seconds of a period, such as 1800 for ``30m``.

    Raises:
        ValueError: It is not a period, or it is 0.
    """
    match = _PERIOD.fullmatch(str(value).strip())
    if match is None or int(match[1]) == 0:
        raise ValueError("must be a number with s, m, h, d or w, as in 30m")
    return int(match[1]) * _SECONDS[match[2]]


def moment(text: str, now: float) -> int:
    """Epoch milliseconds of a period before now, or of an ISO 8601 time; one without a zone is in UTC.

    Args:
        text: As it was written.
        now: Epoch seconds.

    Raises:
        ValueError: It is neither.
    """
    try:
        return int((now - period_seconds(text)) * 1000)
    except ValueError:
        pass  # then it is a time
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("write 30m, 2h or 7d (ago), or a time such as 2026-01-31T08:00+08:00") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
