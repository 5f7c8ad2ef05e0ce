"""Draws docs/dashboard.svg, the Grafana dashboard's panels with real data: ``python -m tools.dashboard_picture``.

No Grafana takes part: the layout, the titles and the queries are those of the dashboard's file, the numbers come from a
real Prometheus that has watched a real connector, a real Kafka broker and a played WeDa for two minutes, in the middle
of which the broker was frozen, and a notifier whose platform is played too; only the drawing is our own.
"""

import asyncio
import json
import math
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import count
from pathlib import Path
from typing import Any, Final

import trustme

from connector.app.connector import Connector
from connector.notify.metrics import Metrics
from connector.notify.rules import Target, read_rules
from connector.notify.sending import Failed
from connector.notify.service import ConsumerOptions, Notifier
from connector.settings import Settings
from connector.simulator import Plan, play
from tests.servers import KafkaCluster, Prometheus
from tests.servers.ports import free_ports
from tools import dashboard

PICTURE: Final = Path(__file__).parents[1] / "docs" / "dashboard.svg"
SECONDS: Final = 120
FROZEN: Final = (50, 80)
"""From when to when, in seconds, the broker is frozen."""

STEP: Final = 2
"""Seconds from one point to the next."""

LONG: Final = 120
"""Seconds from which on hours are shown."""

COLUMN: Final = 50
UNIT: Final = 27
"""Pixels of a column and of a unit of height in Grafana's grid."""

COLOURS: Final = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a", "#96d98d")
NAMED: Final = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "transparent": "none"}
STYLE: Final = """\
text { font: 11px system-ui, sans-serif; fill: #ccccdc } .title { font-size: 13px; font-weight: 500 }
.row { font-size: 15px; font-weight: 600 } .faint { fill: #8e8e99 } .big { font-size: 28px; font-weight: 600 }
.panel { fill: #181b1f; stroke: #2c3235 } .grid { stroke: #2c3235 } .page { fill: #111217 }"""

LABEL: Final = "The panels of the Grafana dashboard: two minutes of a simulated load, a broker frozen in the middle"

_RULES: Final = {
    "targets": {"chat": {"url": "json://localhost/{address}", "address": "chat"}},
    "people": {"*": {"chat": "{id}"}},
    "rules": [{"name": "todo", "when": {"type": ["Task"]}, "target": "chat", "title": "t", "text": "{{ flowTitle }}"}],
}
"""A message for each person of each task."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Box:
    """Where something is drawn, in pixels."""

    x: float
    y: float
    wide: float
    high: float

    def inner(self, left: float, top: float, right: float, bottom: float) -> "Box":
        """The box without these margins."""
        return Box(self.x + left, self.y + top, self.wide - left - right, self.high - top - bottom)


@dataclass(frozen=True, slots=True)
class Line:
    """A series of a panel: its legend, and its points (seconds since the start, value)."""

    name: str
    points: Points


def asked(query: str, *, rate: str = "4s", whole: str = "1m") -> str:
    """A query of the dashboard with its variables filled in, as Grafana would."""
    filled = query.replace("$job", "weda")
    for name in ("cluster", "namespace", "pod", "instance", "source"):
        filled = filled.replace(f"${name}", ".*")
    return filled.replace("$__rate_interval", rate).replace("$__range", whole)


def shown(text: str) -> str:
    """A text as the picture shows it."""
    return escape(text)


# --- watching ---


async def watched() -> Mapping[str, Any]:
    """The dashboard's panels and what Prometheus answers to each of their queries."""
    with KafkaCluster.start() as kafka, Prometheus.start() as prometheus, tempfile.TemporaryDirectory() as folder:
        connector = Connector(_settings(kafka, Path(folder)))
        await connector.start()
        notifier, port = _notifier(kafka, Path(folder))
        notifying = asyncio.create_task(asyncio.to_thread(notifier.run))
        try:
            prometheus.scrape([connector.operations_url, f"127.0.0.1:{port}"])
            began = time.time()
            await asyncio.gather(_load(connector.url), _freeze(kafka))
            return _answers(prometheus, began + 5, time.time())
        finally:
            notifier.stop()
            await notifying
            await connector.stop()


def _notifier(kafka: KafkaCluster, folder: Path) -> tuple[Notifier, int]:
    """A notifier with the port of its metrics; the platform is away now and then, and knows some people no longer."""
    rules = folder / "rules.yaml"
    rules.write_text(json.dumps(_RULES), encoding="utf-8")
    attempts = count(1)

    def send(_target: Target, _address: str, _title: str, _text: str) -> Failed | None:
        number = next(attempts)
        return Failed("played", is_final=number % 50 == 0) if number % 10 == 0 else None

    read = read_rules(rules)
    metrics, (port,) = Metrics([*read.targets]), free_ports(1)
    metrics.serve("127.0.0.1", port)
    options = ConsumerOptions(kafka.bootstrap_servers, {"prefix": "weda.workflow"}, "weda-notify", datetime.now(UTC))
    return Notifier(options, read, folder / "notify.db", send, metrics), port


def _settings(kafka: KafkaCluster, folder: Path) -> Settings:
    certificate = folder / "client.pem"
    made = trustme.CA().issue_cert("weda", not_after=datetime.now(UTC) + timedelta(days=20))
    made.private_key_and_cert_chain_pem.write_to_path(certificate)
    flags = {
        "kafka.properties": {"ssl.certificate.location": str(certificate)},
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "receiver.host": "127.0.0.1",
        "receiver.port": 0,
        "operations.port": 0,
        "journal.path": folder / "journal.db",
        "journal.max_bytes": "64MiB",
        "auth": "none",
        "canary.enabled": True,
        "canary.interval_seconds": 2,
    }
    return Settings.load(environment={}, flags=flags)


async def _load(url: str) -> None:
    await play(Plan(url=url, seed=7, instances=None, rate=40, seconds=SECONDS, repeats=0.05))


async def _freeze(kafka: KafkaCluster) -> None:
    begin, end = FROZEN
    await asyncio.sleep(begin)
    kafka.pause(1)
    try:
        await asyncio.sleep(end - begin)
    finally:
        kafka.resume(1)


def _answers(prometheus: Prometheus, start: float, end: float) -> Mapping[str, Any]:
    board: dict[str, Any] = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            found = prometheus.query_range(asked(target["expr"], rate="6s"), start=start, end=end, step=STEP)
            target["lines"] = [Line(_legend(target, one["metric"]), _points(one["values"], start)) for one in found]
    return board


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    legend = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), target.get("legendFormat") or "")
    name = "weda-notify-0" if "weda_notify" in target["expr"] else "weda-0"
    return re.sub(r"127\.0\.0\.1:\d+", name, legend).strip()


def _points(values: Iterable[tuple[float, str]], start: float) -> Points:
    return [(at - start, float(value)) for at, value in values if math.isfinite(float(value))]


# --- drawing ---


def drawn(board: Mapping[str, Any]) -> str:
    """The picture."""
    last = board["panels"][-1]["gridPos"]
    wide, high = 24 * COLUMN, (last["y"] + last["h"]) * UNIT + 8
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img" aria-label="{LABEL}">',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="page" width="{wide}" height="{high}"/>',
            *(part for panel in board["panels"] for part in _panel(panel)),
            "</svg>\n",
        ]
    )


def _panel(panel: Mapping[str, Any]) -> Iterator[str]:
    place = panel["gridPos"]
    box = Box(place["x"] * COLUMN, place["y"] * UNIT, place["w"] * COLUMN, place["h"] * UNIT).inner(4, 4, 4, 4)
    if panel["type"] == "row":
        yield _text(box.x + 4, box.y + 15, panel["title"], kind="row")
        return
    yield f'<rect class="panel" x="{box.x}" y="{box.y}" width="{box.wide}" height="{box.high}" rx="2"/>'
    yield _text(box.x + 10, box.y + 19, panel["title"], kind="title")
    lines = [line for target in panel["targets"] for line in target["lines"]]
    draw = {"stat": _number, "timeseries": _graph, "state-timeline": _states}[panel["type"]]
    yield from draw(panel, [_renamed(panel, line) for line in lines], box.inner(10, 30, 10, 8))


def _renamed(panel: Mapping[str, Any], line: Line) -> Line:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == line.name:
            return Line(override["properties"][0]["value"], line.points)
    return line


def _number(panel: Mapping[str, Any], lines: Sequence[Line], box: Box) -> Iterator[str]:
    value = lines[0].points[-1][1]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    value_text = _with_unit(value, panel["fieldConfig"]["defaults"]["unit"])
    place = f'x="{box.x + box.wide / 2}" y="{box.y + box.high / 2 + 12}"'
    yield f'<text class="big" text-anchor="middle" {place} style="fill: {NAMED[colour]}">{shown(value_text)}</text>'


def _graph(panel: Mapping[str, Any], lines: Sequence[Line], box: Box) -> Iterator[str]:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    area = box.inner(52, 4, 4, 34)
    drawn_lines = _stacked(lines) if stacked else [(line.points, ()) for line in lines]
    values = [value for points, _ in drawn_lines for _, value in points]
    low, high = min([0.0, *values]), max([*values, 0.0]) or 1.0
    yield from _axes(area, low, high, defaults["unit"])

    def at(points: Points) -> str:
        across, up = area.wide / SECONDS, area.high / (high - low)
        return " ".join(f"{area.x + x * across:.1f},{area.y + area.high - (y - low) * up:.1f}" for x, y in points)

    for number, (points, floor) in enumerate(drawn_lines):
        colour = COLOURS[number % len(COLOURS)]
        if stacked:
            yield f'<polygon points="{at([*points, *reversed(floor)])}" fill="{colour}" fill-opacity="0.45"/>'
        yield f'<polyline points="{at(points)}" fill="none" stroke="{colour}" stroke-width="1.3"/>'
    yield from _legends([line.name for line in lines], box)


def _stacked(lines: Sequence[Line]) -> list[tuple[Points, Points]]:
    """Each line on top of the ones before, with the one under it."""
    under = dict.fromkeys(sorted({x for line in lines for x, _ in line.points}), 0.0)
    piled: list[tuple[Points, Points]] = []
    for line in lines:
        values = dict(line.points)
        floor = list(under.items())
        under = {x: base + values.get(x, 0.0) for x, base in under.items()}
        piled.append((list(under.items()), floor))
    return piled


def _states(_: Mapping[str, Any], lines: Sequence[Line], box: Box) -> Iterator[str]:
    step = (box.high - 18) / len(lines)
    left = box.x + 150
    across = (box.wide - 150) / SECONDS
    for number, line in enumerate(lines):
        top = box.y + number * step
        yield _text(left - 8, top + step / 2 + 4, line.name, anchor="end")
        for x, value in line.points:
            colour = NAMED["green" if value >= 1 else "red"]
            wide = STEP * across + 0.4
            place = f'x="{left + x * across:.1f}" y="{top + 2:.1f}" width="{wide:.1f}" height="{step - 4:.1f}"'
            yield f'<rect {place} fill="{colour}"/>'
    yield from _times(Box(left, box.y, box.wide - 150, box.high - 18))


def _axes(area: Box, low: float, high: float, unit: str) -> Iterator[str]:
    for share in (0, 0.5, 1):
        y = area.y + area.high * (1 - share)
        yield f'<line class="grid" x1="{area.x}" y1="{y:.1f}" x2="{area.x + area.wide}" y2="{y:.1f}"/>'
        yield _text(area.x - 6, y + 4, _with_unit(low + share * (high - low), unit), anchor="end", kind="faint")
    yield from _times(area)


def _times(area: Box) -> Iterator[str]:
    for second in range(0, SECONDS + 1, 30):
        x = area.x + area.wide * second / SECONDS
        anchor = "end" if second == SECONDS else "middle"
        yield _text(x, area.y + area.high + 14, f"{second // 60}:{second % 60:02}", anchor=anchor, kind="faint")


def _legends(names: Sequence[str], box: Box) -> Iterator[str]:
    x = box.x
    for number, name in enumerate(names):
        wide = 24 + sum(12 if ord(letter) > 0x2E80 else 6.4 for letter in name)  # noqa: PLR2004 - where Chinese begins
        if x + wide > box.x + box.wide:
            yield _text(x, box.y + box.high, "…", kind="faint")
            return
        y = box.y + box.high
        yield f'<rect x="{x:.0f}" y="{y - 5:.0f}" width="12" height="3" fill="{COLOURS[number % len(COLOURS)]}"/>'
        yield _text(x + 16, y, name)
        x += wide


def _with_unit(value: float, unit: str) -> str:
    """A value as people read it: three figures and its unit."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    if unit == "s":
        return f"{value:.3g} s" if value < LONG else f"{value / 3600:.3g} h"
    scale = 1024 if unit in {"bytes", "Bps"} else 1000
    power = 0 if abs(value) < scale else min(int(math.log(abs(value), scale)), 3)
    ending = {"bytes": "B", "Bps": "B/s", "reqps": "req/s", "cps": "/s"}.get(unit, "")
    return f"{value / scale**power:.3g} {' kMG'[power].strip()}{ending}".strip()


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(drawn(asyncio.run(watched())), encoding="utf-8")
