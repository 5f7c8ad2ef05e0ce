"""The views of a demo: a live one for a terminal, plain lines for everything else."""

import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connector.demo.reader import Event
from connector.demo.scene import Scene
from connector.message import weda

SUMMARY_SECONDS: Final = 3.0
STORIES_IN_LINES: Final = 2
"""How many instances are shown event by event where there is no terminal."""

_LONGEST: Final = 60
_SHORT_ID: Final = 8


class View(Protocol):
    """Shows a scene for as long as it is entered."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the scene as it is now, and end."""

    def show(self, backlog: int) -> None:
        """Show the scene as it is now, with so many messages in the journal."""


def view_of(scene: Scene) -> View:
    """The view that suits standard output."""
    is_terminal = sys.stdout.isatty() and not Console().is_dumb_terminal
    return LiveView(scene) if is_terminal else PlainView(scene)


def say(text: str) -> None:
    """A line, or several, on standard output at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def introduction(url: str, operations_url: str, bootstrap_servers: str, seed: int, *, is_embedded: bool) -> str:
    """Where everything is, and how to take part."""
    broker = "in memory, gone with this demo" if is_embedded else "yours; what the demo publishes stays there"
    message = msgspec.json.encode({weda.ENVELOPE: _OWN_MESSAGE}).decode()
    return "\n".join(
        (
            f"POST here        {url}{weda.PATH}",
            f"metrics          {operations_url}/metrics",
            f"readiness        {operations_url}/readyz",
            f"API documents    {operations_url}/api/docs",
            f"Kafka            {bootstrap_servers} ({broker})",
            f"seed             {seed}",
            "",
            "Send a message of your own (twice: it is published once):",
            f"curl {url}{weda.PATH} -H 'Content-Type: application/json' -d {shlex.quote(message)}",
            "",
        )
    )


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


class PlainView:
    """Lines without colour: the first instances event by event, a summary every few seconds, other senders' events."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._next_summary = 0.0
        self._noted = ""

    def __enter__(self) -> Self:
        self._next_summary = time.monotonic() + SUMMARY_SECONDS
        return self

    def __exit__(self, *_: object) -> None:
        self._tell_news()

    def show(self, backlog: int) -> None:
        """Print what is new."""
        self._tell_news()
        if self._scene.note != self._noted:
            self._noted = self._scene.note
            say(self._noted)
        if time.monotonic() >= self._next_summary:
            self._next_summary = time.monotonic() + SUMMARY_SECONDS
            say(_pace(self._scene, backlog))

    def _tell_news(self) -> None:
        for news in self._scene.news():
            if news.story <= STORIES_IN_LINES:
                sender = "instance" if news.story else "another sender's"
                say(f"{sender} {_line(news.event)}")


class LiveView:
    """One picture, redrawn in place."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._backlog = 0
        # What is logged meanwhile goes above the picture, unless it goes elsewhere.
        self._live = Live(auto_refresh=False, redirect_stderr=sys.stderr.isatty(), vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()
        self._live.stop()

    def show(self, backlog: int) -> None:
        """Redraw the picture."""
        self._backlog = backlog
        self._draw()

    def _draw(self) -> None:
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Group:
        scene = self._scene
        beside = Table.grid(padding=(0, 3, 0, 0), expand=True)
        beside.add_column(ratio=1)
        beside.add_column(ratio=1)
        beside.add_row(_titled("latest events", map(_line, scene.latest)), self._story())
        parts: list[RenderableType] = [Text(_pace(scene, self._backlog), style="bold"), Text(""), beside]
        if scene.strangers:
            parts += [Text(""), _titled("from other senders", map(_line, scene.strangers))]
        return Group(*parts, Text(""), Text(scene.note or "Ctrl-C ends the demo", style="dim"))

    def _story(self) -> Text:
        story = self._scene.story
        if story is None:
            return Text("")
        first = story.steps[0].value
        title = f"one instance: {_plain(story.instance_id)[:_SHORT_ID]} {_plain(first['flowTitle'])}"
        return _titled(title, (_step(event.value) for event in story.steps))


def _pace(scene: Scene, backlog: int) -> str:
    rates = scene.rates()
    counts = scene.ledger.counts()
    text = "  ".join(f"{name} {counts[name]} ({rate:.1f}/s)" for name, rate in rates.items())
    milliseconds = f"{scene.latency(0.5) * 1000:.1f}/{scene.latency(0.99) * 1000:.1f} ms"
    return f"{text}  answers p50/p99 {milliseconds}  journal {backlog}"


def summary(scene: Scene) -> str:
    """The numbers of a demo that has ended, in words."""
    ledger = scene.ledger
    fast, slow = (scene.latency(share) * 1000 for share in (0.5, 0.99))
    lines = [
        "",
        f"{ledger.sent} messages were sent; {ledger.accepted} were accepted.",
        f"Half of the last answers came within {fast:.1f} ms, 99 % within {slow:.1f} ms.",
        f"{ledger.published} are in Kafka. Lost: {ledger.lost}. Out of order: {ledger.out_of_order}.",
    ]
    if ledger.sent and not ledger.published:
        lines.append("Nothing was published: is Kafka well? What the connector logged stands above.")
    if ledger.lost:
        lines.append("What Kafka did not take in time was in the demo's journal, which is gone with the demo.")
    return "\n".join(lines)


def _titled(title: str, lines: Iterable[str]) -> Text:
    text = Text(title, style="bold", no_wrap=True, overflow="ellipsis")
    for line in lines:
        text.append(f"\n{line}", style="not bold")
    return text


def _line(event: Event) -> str:
    value = event.value
    at = time.strftime("%H:%M:%S", time.localtime(value["receivedAt"] / 1000))
    instance = _plain(value["instanceId"])[:_SHORT_ID]
    return f"{instance}  {at}  {_plain(value['processName'])}  {_step(value)}  [{event.partition}:{event.offset}]"


def _step(value: Mapping[str, Any]) -> str:
    """What happened, in WeDa's words: 同意 · 财务复核 · 已处理 · “同意，请尽快办理。”."""
    status = value["taskStatusName"] or value["instanceStatusName"]
    parts = [_plain(part) for part in (value["actionName"] or value["action"], value["elementName"], status) if part]
    return " · ".join([*parts, *([f"“{_plain(value['comment'])}”"] if value["comment"] else [])])


def _plain(part: Any) -> str:
    """Text that keeps to its line and cannot steer a terminal: it comes from who sent the message."""
    text = "-" if part is None else str(part)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "".join(letter if letter.isprintable() else " " for letter in shown)
