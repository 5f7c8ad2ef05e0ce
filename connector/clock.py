"""The time, in the unit of Kafka's timestamps."""

import time


def now_ms() -> int:
    """The time as epoch milliseconds."""
    return time.time_ns() // 1_000_000
