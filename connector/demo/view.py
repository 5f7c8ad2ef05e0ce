"""Prints the output of a demo: addresses, the events of one instance after another, counts, and a summary."""

import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from connector import endpoints
from connector.demo.reader import Event
from connector.demo.state import DemoState
from connector.message import weda
from connector.operations.console import ROOT as CONSOLE
from connector.text import counted, one_line

SUMMARY_SECONDS: Final = 3.0
_MAX_CHARS: Final = 60
_SHORT_ID: Final = 8
_OWN_MESSAGE: Final = {
    "msgId": "my-1",
    "msgType": weda.INSTANCE,
    "instanceId": "my-instance",
    "action": 22,
    "actionName": "触发流程实例",
    "processName": "请假申请",
    "instanceStatus": 0,
    "instanceStatusName": "审批中",
}


def print_now(text: str) -> None:
    """Print a line and flush, so that it appears at once in a pipe too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def introduction(url: str, operations_url: str, bootstrap_servers: str, seed: int, *, is_embedded: bool) -> str:
    """Return the addresses of the demo, and a message to send."""
    broker = "in memory, gone with this demo" if is_embedded else "yours; what the demo publishes stays there"
    message = msgspec.json.encode({weda.ENVELOPE: _OWN_MESSAGE}).decode()
    return "\n".join(
        (
            f"POST here        {url}{endpoints.DELIVER_PATH}",
            f"console          {operations_url}{CONSOLE}",
            f"metrics          {operations_url}/metrics",
            f"readiness        {operations_url}/readyz",
            f"API documents    {operations_url}/api/docs",
            f"Kafka            {bootstrap_servers} ({broker})",
            f"seed             {seed}",
            "",
            "Send a message of your own (twice: it is published once):",
            f"curl {url}{endpoints.DELIVER_PATH} -H 'Content-Type: application/json' -d {shlex.quote(message)}",
            "",
        )
    )


class View:
    """Prints new events, notes and counts, without colour."""

    def __init__(self, state: DemoState) -> None:
        self._state = state
        self._next_counts = time.monotonic() + SUMMARY_SECONDS
        self._noted = ""

    def show(self, backlog: int) -> None:
        """Print new events, a new note, and every few seconds the counts.

        Args:
            backlog: The number of messages in the journal.
        """
        for new in self._state.new_events():
            sender = "instance" if new.is_own else "another sender's"
            print_now(f"{sender} {_line(new.event)}")
        if self._state.note != self._noted:
            self._noted = self._state.note
            print_now(self._noted)
        if time.monotonic() >= self._next_counts:
            self._next_counts = time.monotonic() + SUMMARY_SECONDS
            print_now(_counts(self._state, backlog))


def summary(state: DemoState) -> str:
    """Return the numbers of a demo that has ended, in words."""
    ledger = state.ledger
    fast, slow = (state.latency(share) * 1000 for share in (0.5, 0.99))
    lines = [
        "",
        f"{counted(ledger.sent, 'message')} sent, {ledger.accepted:,} accepted.",
        f"Half of the last answers came within {fast:.1f} ms, 99 % within {slow:.1f} ms.",
        f"{ledger.published:,} in Kafka. Lost: {ledger.lost}. Out of order: {ledger.out_of_order}.",
    ]
    if ledger.sent and not ledger.published:
        lines.append("Nothing was published. Check Kafka; see the log above.")
    if ledger.lost:
        lines.append("What Kafka did not take in time was in the demo's journal, which is gone with the demo.")
    return "\n".join(lines)


def _counts(state: DemoState, backlog: int) -> str:
    counts = state.ledger.counts()
    text = "  ".join(f"{name} {counts[name]:,}" for name in ("sent", "accepted", "published"))
    milliseconds = f"{state.latency(0.5) * 1000:.1f}/{state.latency(0.99) * 1000:.1f} ms"
    return f"{text} ({state.rate():.1f}/s)  answers p50/p99 {milliseconds}  journal {backlog:,}"


def _line(event: Event) -> str:
    value = event.value
    at = time.strftime("%H:%M:%S", time.localtime(value["receivedAt"] / 1000))
    instance, process = one_line(value["instanceId"])[:_SHORT_ID], one_line(value["processName"], _MAX_CHARS)
    return f"{instance}  {at}  {process}  {_step(value)}  [{event.partition}:{event.offset}]"


def _step(value: Mapping[str, Any]) -> str:
    """Describe an event in WeDa's words: 同意 · 财务复核 · 已处理 · “同意，请尽快办理。”."""
    status = value["taskStatusName"] or value["instanceStatusName"]
    parts = (value["actionName"] or value["action"], value["elementName"], status)
    comment = [f"“{one_line(value['comment'], _MAX_CHARS)}”"] if value["comment"] else []
    return " · ".join([*(one_line(part, _MAX_CHARS) for part in parts if part), *comment])
