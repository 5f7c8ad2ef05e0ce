"""Prints the reference pages: `python -m tools.reference settings > docs/settings.md`, and `metrics`."""

import sys

from connector import settings
from connector.telemetry import metrics

if __name__ == "__main__":
    sys.stdout.write({"settings": settings, "metrics": metrics}[sys.argv[1]].documentation())
