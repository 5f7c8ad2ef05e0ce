"""The results of the fault runs, as ``docs/reliability.md``, rendered from the figures in the JSON file next to it.

Each row is independent, with its own date and machine, so a single scenario can be measured again and merged.
"""

import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka

from tests.faults.run import Report
from tests.faults.scenarios import Scenario

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
FIGURES = (
    *("sent", "accepted", "refused", "unknown", "requests", "records", "missing", "out_of_order", "repeats"),
    *("dead_letters", "lost_with_damage", "disturbed", "recover_seconds", "oldest_age", "most_waiting"),
)
MIB = 1 << 20

Row = dict[str, Any]
Rows = Mapping[str, Row]
"""By the scenario's name."""

COLUMNS = {
    "scenario": "scenario",
    "does": "fault",
    "brokers": "brokers",
    "sent": "sent",
    "accepted": "accepted",
    "refused": "refused",
    "missing": "missing",
    "out_of_order": "out of order",
    "repeats": "repeats",
    "lost_with_damage": "lost with the disk",
    "recover_seconds": "back after s",
    "oldest_age": "oldest s",
    "seed": "seed",
}
FOR_TERMINALS = (
    *("scenario", "accepted", "refused", "missing", "out_of_order", "repeats", "lost_with_damage"),
    *("recover_seconds", "oldest_age"),
)

HEAD = """# Reliability

Written by `make faults`; do not edit.

Each row is one run of the real connector process against real Apache Kafka. A sender, which knows the connector only
from its documents, sends messages of many workflow instances at once, one request at a time per instance, and records
the answers. Meanwhile faults are injected into the connector, its journal or the brokers. When everything works again
and the backlog is published, an independent consumer reads every topic to its end and looks for each accepted message:
it must be present, unchanged and in order. A second consumer follows the topics during the whole run, and a second
program checks the recorded run again, using Jepsen's names for the anomalies.
"""

WORDS = """## Columns

| column | meaning |
| --- | --- |
| brokers | number of brokers; with three, two must have each record (`min.insync.replicas=2`) |
| sent | different messages; each may have been sent several times |
| accepted | the sender read `{"code":0}`: from then on the connector must not lose the message |
| refused | answered 429 or 503 (retry later), and never accepted; the remaining messages got no answer |
| missing | accepted, but missing from one of its topics at the end |
| out of order | after a message of the same instance that was sent only after this one's answer had been read |
| repeats | duplicate records in a topic: the last records of an instance, published again after a crash; a message of \
the last second before a SIGKILL that is sent again; a message without `msgId` that is sent twice |
| lost with the disk | accepted, but lost with the bytes of the journal file that the scenario destroyed; the \
connector counts and reports them itself |
| back after s | seconds from the end of the last fault until the backlog was published; checked twice per second |
| oldest s | the highest age of the oldest waiting message that the connector reported during the run |
"""

LIMITS = """## What is not covered

- Everything runs on one machine: connector, brokers and load share its cores and its disk, and the network is the
  loopback interface. Networks that lose, delay or reorder packets, and distant brokers, are not covered.
- Processes are killed, and disks fill up or lie, but the power stays on. That synced data survives a power cut is a
  guarantee of the file system and is not tested here.
- One connector at a time, or three that share a journal. Connectors with separate journals behind one address are not
  covered.
- Only `registry-gone` uses a schema registry; all others use Avro single-object encoding.
- Runs take a minute or two, with a few hundred messages per second. Problems that take days to appear are not covered.
- One version of Kafka. A row is one run with one seed. Rare races need many runs, so repeat it with other seeds.
"""

PLOT = "![Seconds until the backlog was published, and the age of the oldest message, per scenario](reliability.svg)"

AGAIN = """## Run it again

```sh
make faults                                        # all scenarios; more than half an hour
make faults FAULTS_ARGS="{example} --write docs/reliability.md"
```

The second command repeats one row, with its seed, and merges it into this page. Without `--write` the page stays
unchanged. `--list` lists the scenarios, `--record FOLDER` saves the recorded run, and
`python -m tests.faults check FILE` checks it again.
"""


# --- rows ---


def row(scenario: Scenario, report: Report, options: Sequence[str]) -> Row:
    """What a run measured; ``options`` are those that changed its load."""
    figures = {name: report.figures.get(name, 0) for name in FIGURES}
    back = figures["recover_seconds"]
    command = " ".join((f"--scenario {scenario.name} --seed {report.seed}", *options))
    return {
        "scenario": scenario.name,
        "does": scenario.does,
        "ok": report.ok,
        "broken": sorted({f"{breach.promise} {breach.check}" for breach in report.breaches}),
        "seed": report.seed,
        "brokers": scenario.nodes,
        "command": command,
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        **figures,
        "recover_seconds": back if back is None or math.isfinite(back) else None,
    }


def machine() -> str:
    """What kind of machine this is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1024 * MIB)
    pom = (ROOT / "tests" / "servers" / "pom.xml").read_text()
    kafka = re.search(r"<kafka\.version>(.+)</kafka\.version>", pom)
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()} on {platform.machine()}, "
        f"CPython {platform.python_version()}, librdkafka {confluent_kafka.libversion()[0]}, "
        f"Apache Kafka {kafka[1] if kafka else 'unknown'}"
    )


def read(document: Path) -> dict[str, Row]:
    """The rows behind a document; none where it does not exist yet."""
    figures = document.with_suffix(".json")
    if not figures.exists():
        return {}
    return {each["scenario"]: each for each in json.loads(figures.read_text(encoding="utf-8"))}


def merge(document: Path, measured: Row) -> None:
    """Put a row in place of the scenario's older one, and write document, figures and picture."""
    rows = read(document) | {measured["scenario"]: measured}
    rows = {name: rows[name] for name in sorted(rows)}
    text = json.dumps([*rows.values()], ensure_ascii=False, indent=1)
    document.parent.mkdir(parents=True, exist_ok=True)
    document.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")
    document.with_suffix(".svg").write_text(picture(rows), encoding="utf-8")
    document.write_text(rendered(rows), encoding="utf-8")


# --- the document ---


def rendered(rows: Rows) -> str:
    """The document, of the rows alone."""
    lines = [_line(COLUMNS.values()), _line("---" for _ in COLUMNS)]
    lines += [_line(_cell(each, name) for name in COLUMNS) for each in rows.values()]
    failed = [f"- **{name}** failed: {', '.join(each['broken'])}" for name, each in rows.items() if not each["ok"]]
    example = next(iter(rows.values()))["command"]
    parts = [
        HEAD,
        _measured(rows),
        "\n".join(lines),
        "\n".join(failed),
        PLOT,
        WORDS,
        LIMITS,
        AGAIN.format(example=example),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _measured(rows: Rows) -> str:
    days = sorted({each["measured"] for each in rows.values()})
    machines = sorted({each["machine"] for each in rows.values()})
    sums = {name: sum(each[name] for each in rows.values()) for name in ("sent", "accepted", "missing", "out_of_order")}
    held = f"{len(rows)} scenarios: {sums['sent']:,} messages sent, {sums['accepted']:,} accepted, "
    held += f"{sums['missing']} missing, {sums['out_of_order']} out of order."
    return f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))} on {'; '.join(machines)}.\n\n**{held}**"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(each: Row, name: str) -> str:
    value = each.get(name)
    if value is None:
        return "never" if each["disturbed"] else "–"
    if isinstance(value, int) and name != "seed":
        return f"{value:,}"
    return str(value).replace("|", "\\|")


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    lines = [["", *(COLUMNS[name] for name in FOR_TERMINALS)]]
    lines += [["ok" if each["ok"] else "FAIL", *(_cell(each, name) for name in FOR_TERMINALS)] for each in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if at < 2 else cell.rjust(width) for at, (cell, width) in enumerate(cells)).rstrip()
        for cells in (zip(line, widths, strict=True) for line in lines)
    )


# --- the picture ---

LEFT, WIDE, STEP = 200, 460, 30
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.faint { fill: #656d76 } .back { fill: #0969da } .oldest { fill: #bf8700 } line { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #8d96a0 } .back { fill: #4493f8 } .oldest { fill: #d29922 }
  line { stroke: #3d444d }
}"""


def picture(rows: Rows) -> str:
    """Two bars a scenario on a logarithmic scale, as SVG that goes with light and dark pages."""
    high = 46 + STEP * len(rows)
    values = [each[name] or 0 for each in rows.values() for name in ("recover_seconds", "oldest_age")]
    most = max([10.0, *values])
    marks = [line for mark in (1, 3, 10, 30, 100) if mark <= most for line in _mark(mark, most, high)]
    bars = [line for number, each in enumerate(rows.values()) for line in _bars(each, 46 + STEP * number, most)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDE + 60} {high}" role="img">',
            "<title>Seconds until the backlog was published, and the highest age of a waiting message</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="back" x="{LEFT}" y="6" width="10" height="10"/>',
            f'<text x="{LEFT + 15}" y="15">back after, seconds</text>',
            f'<rect class="oldest" x="{LEFT + 150}" y="6" width="10" height="10"/>',
            f'<text x="{LEFT + 165}" y="15">oldest waiting, seconds</text>',
            *marks,
            *bars,
            "</svg>\n",
        ]
    )


def _mark(mark: int, most: float, high: int) -> list[str]:
    x = LEFT + _length(mark, most)
    return [
        f'<line x1="{x:.1f}" y1="30" x2="{x:.1f}" y2="{high - 6}"/>',
        f'<text class="faint" x="{x + 3:.1f}" y="38">{mark}</text>',
    ]


def _bars(each: Row, top: int, most: float) -> list[str]:
    lines = [f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{each["scenario"]}</text>']
    for name, kind, y in (("recover_seconds", "back", top), ("oldest_age", "oldest", top + 11)):
        wide = _length(each[name] or 0, most)
        lines.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{wide:.1f}" height="9"/>')
        lines.append(f'<text class="faint" x="{LEFT + wide + 4:.1f}" y="{y + 9}">{_cell(each, name)}</text>')
    return lines


def _length(seconds: float, most: float) -> float:
    return WIDE * math.log1p(seconds) / math.log1p(most)
