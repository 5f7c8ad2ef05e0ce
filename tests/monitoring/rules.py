"""The rule file as it stands, and with its times cut short: a real Prometheus then raises its alerts in seconds."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm" / "rules" / "weda-connector.rules.yaml"
RUNBOOKS = "https://example.com/weda-kafka-connector/docs/runbooks.md"
"""What is in the file where users put the address of their runbooks."""

SHORT = {
    "1m": "1s",
    "2m": "3s",
    "5m": "3s",
    "10m": "5s",
    "15m": "6s",
    "30m": "4s",
    "1h": "6s",
    "2h": "4s",
    "6h": "6s",
    "1d": "8s",
    "3d": "10s",
    "1w": "24s",
    "2w": "27s",
}
"""The windows of the rules, and what stands for each where an alert is raised for real."""

SHORT_WAIT = "2s"
"""The same for every `for`."""

SMALL = {"> 60": "> 1", "> 300": "> 2", "> 1000": "> 20"}
"""Bounds in seconds or messages, the same."""

_WINDOW = re.compile(r"(?<=\[)\d+[mhdw](?=\])|(?<=offset )\d+[mhdw]")


def rules() -> dict[str, Any]:
    return yaml.safe_load(RULES.read_text(encoding="utf-8"))


def alerts() -> Iterator[dict[str, Any]]:
    for group in rules()["groups"]:
        yield from (rule for rule in group["rules"] if "alert" in rule)


def cut_short() -> dict[str, Any]:
    """The rules with their times and bounds cut short; names and labels stay."""
    short = deepcopy(rules())
    for rule in (rule for group in short["groups"] for rule in group["rules"]):
        rule["expr"] = _WINDOW.sub(lambda found: SHORT[found[0]], rule["expr"])
        for bound, small in SMALL.items():
            rule["expr"] = re.sub(rf"{re.escape(bound)}(?![\d.])", small, rule["expr"])
        if "for" in rule:
            rule["for"] = SHORT_WAIT
    return short
