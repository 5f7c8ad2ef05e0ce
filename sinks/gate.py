"""A gate before a daily job: ``python gate.py 3600 && daily-job``.

Waits so many seconds at most until everything that connectors received before last midnight in Shanghai is in Kafka;
the exit code is then 0, and 1 where it is not. A connector that does not answer counts as not complete.
"""

import re
import sys
import time
import urllib.request
from datetime import datetime, timedelta, timezone

METRICS = ("http://localhost:9464/metrics",)
NAME = "weda_connector_published_through_timestamp_seconds"
SHANGHAI = timezone(timedelta(hours=8))
ALLOWANCE_SECONDS = 60
"""A message is received a little before it is accepted."""


def published_through(address: str) -> float:
    """Everything that a connector accepted before this moment (epoch seconds) is in Kafka; 0 where it does not say."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            found = re.search(rf"^{NAME} (\S+)", answer.read().decode(), re.MULTILINE)
    except OSError:
        return 0
    return float(found[1]) if found else 0


midnight = datetime.now(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
deadline = time.monotonic() + float(sys.argv[1])
while min(map(published_through, METRICS)) < midnight + ALLOWANCE_SECONDS:
    if time.monotonic() > deadline:
        sys.exit("not complete")
    time.sleep(1)
