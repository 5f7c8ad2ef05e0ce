"""Writes docs/questions.md, its Chinese edition and their plots: ``python -m tools.questions``.

The words are in ``docs/questions/*.md.tmpl``, each question as a file of SQL beside them. The SQL is run over a
simulated fortnight (`tools.fortnight`) and gives the tables and the plots. The same code gives the same bytes: the
machine's clock is not used.

``--to FOLDER`` writes elsewhere; ``--data FOLDER`` also leaves the topic and the loads there, to try other questions.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb

from connector.message.schemas import WORKFLOW_EVENT, Kind, kinds, load
from tools import charts
from tools.charts import Caption
from tools.fortnight import Fortnight

HOME: Final = Path(__file__).parents[1] / "docs"
FOLDER: Final = "questions"
DOCUMENTS: Final = ("questions.md", "questions.zh-CN.md")
"""Each from the template of its name."""

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

SET_UP: Final = ("load", "loads", "clean", "lives")
"""The files of SQL that make the tables and the views, in their order."""

_MARKER: Final = re.compile(r"{{(\w+)(?: ([a-z-]+))?}}")
_QUESTION: Final = re.compile(r"^## (?P<heading>.+)\n\n\*\*(?P<asked>.+)\*\*\\?$", re.MULTILINE)

Row = Mapping[str, Any]
Rows = Sequence[Row]


# --- plots ---


def _day(moment: date) -> str:
    return f"{DAYS[moment.weekday()]} {moment.day}"


def _series(rows: Rows, **names: str) -> charts.Series:
    """Columns of the rows under the names that people read."""
    return {shown: [float(row[column]) for row in rows] for column, shown in names.items()}


def _per_day(rows: Rows) -> str:
    caption = Caption(
        title="Instances started and ended each day",
        description="Two columns for each working day: how many instances started, and how many ended.",
        unit="instances",
    )
    return charts.columns(
        caption, [_day(row["workday"]) for row in rows], _series(rows, started="started", ended="ended")
    )


def _open(rows: Rows) -> str:
    caption = Caption(
        title="Open instances at six in the evening, by age",
        description="A column for each evening; its parts: open for less than a day, one to three days, longer.",
        unit="instances",
    )
    series = _series(rows, underOneDay="under a day", oneToThreeDays="one to three days", older="older")
    return charts.columns(caption, [_day(row["evening"]) for row in rows], series, stacked=True)


def _steps(rows: Rows) -> str:
    caption = Caption(
        title="Hours until an approver decides",
        description="For each approval node, the median and the 90th percentile of the hours until a decision.",
        unit="hours by the calendar",
    )
    labels = [f"{row['processName']} · {row['elementName']}" for row in rows]
    return charts.ranges(caption, labels, _series(rows, medianHours="median", p90Hours="90th percentile"))


def _people(rows: Rows) -> str:
    caption = Caption(
        title="Sent back and rejected, by the person who decided alone",
        description="For each of ten persons, how many decisions sent the instance back and how many rejected it.",
        unit="decisions",
    )
    return charts.bars(
        caption, [row["userName"] for row in rows], _series(rows, sentBack="sent back", rejected="rejected")
    )


def _endings(rows: Rows) -> str:
    caption = Caption(
        title="How the instances of each process ended",
        description="A bar for each process, its parts the instances approved, rejected, given up and still open.",
        unit="instances",
    )
    series = _series(rows, approved="approved", rejected="rejected", givenUp="given up", stillOpen="still open")
    return charts.bars(caption, [row["processName"] for row in rows], series)


def _complete(rows: Rows) -> str:
    caption = Caption(
        title="What a report five minutes after the hour saw of that hour",
        description="A column for each hour of the afternoon: what the report saw, and what came later.",
        unit="records",
    )
    series = _series(rows, seenThen="seen then", cameLater="came later")
    return charts.columns(caption, [f"{row['hourUntil']:%H:%M}" for row in rows], series, stacked=True)


def _hours(rows: Rows) -> str:
    caption = Caption(
        title="Records by the hour of receipt, all days together",
        description="A column for each hour from six in the morning to eight in the evening, Shanghai time.",
        unit="records",
    )
    return charts.columns(caption, [f"{row['hourOfDay']}:00" for row in rows], _series(rows, records="records"))


# --- questions ---

PLOTS: Final[Mapping[str, Callable[[Rows], str]]] = {
    "per-day": _per_day,
    "open": _open,
    "steps": _steps,
    "people": _people,
    "endings": _endings,
    "complete": _complete,
    "hours": _hours,
}
"""By the name of the question's file; the other answers are read, not looked at."""


# --- answers ---

_TYPES: Final[Mapping[Kind, str]] = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "boolean": "BOOLEAN",
    "date": "BIGINT",
    "maps": "MAP(VARCHAR, VARCHAR)[]",
}


def load_sql() -> str:
    """The statement that makes the table ``events`` of ``events.jsonl``, from the schema's fields."""
    fields = dict(kinds(load(WORKFLOW_EVENT)))
    types = {name: _TYPES[kind] for name, kind in fields.items()}
    types |= {"source": "VARCHAR", "receivedAt": "BIGINT", "ingestId": "VARCHAR", "extras": "MAP(VARCHAR, VARCHAR)"}
    times = {name for name, type_ in types.items() if type_ == _TYPES["date"]}
    picked = [f"epoch_ms(value.{name}) AS {name}" if name in times else f"value.{name}" for name in types]
    own = ("partition AS kafka_partition", '"offset" AS kafka_offset', "headers['weda.fingerprint'] AS fingerprint")
    struct = _filled([f"{name} {type_}" for name, type_ in types.items()])
    return "\n".join(
        [
            "CREATE TABLE events AS",
            f"SELECT\n  {_filled([*picked, *own])}",
            "FROM read_json('events.jsonl', format = 'newline_delimited', columns = {",
            "  partition: 'INTEGER', 'offset': 'BIGINT', headers: 'MAP(VARCHAR, VARCHAR)', value: 'STRUCT(",
            f"  {struct})'",
            "});",
        ]
    )


def sql(name: str) -> str:
    """The statement of one file, without the line end; that of the table ``events`` from the schema itself."""
    if name == "load":
        return load_sql()
    return (HOME / FOLDER / f"{name}.sql").read_text(encoding="utf-8").rstrip("\n")


def tables(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database with the tables of ``events.jsonl`` and ``loads.csv`` in a folder, and the views over them."""
    database = duckdb.connect()
    database.execute("SET file_search_path = $folder", {"folder": str(folder)})
    for name in SET_UP:
        database.execute(sql(name))
    return database


def answer(database: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    """The rows that a question's SQL gives, column → value."""
    result = database.execute(sql(name))
    columns = [column[0] for column in result.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]


# --- the document ---


def write(folder: Path, data: Path) -> None:
    """Write the documents and the plots into a folder, from the records that this leaves in ``data``."""
    fortnight = Fortnight()
    fortnight.write(data)
    database = tables(data)
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / FOLDER / "load.sql").write_text(f"{load_sql()}\n", encoding="utf-8")
    for name in DOCUMENTS:
        (folder / name).write_text(document(name, fortnight, database), encoding="utf-8")
    for name, plot in PLOTS.items():
        (folder / FOLDER / f"{name}.svg").write_text(plot(answer(database, name)), encoding="utf-8")


def document(name: str, fortnight: Fortnight, database: duckdb.DuckDBPyConnection) -> str:
    """The template of a document with its markers filled."""
    template = (HOME / FOLDER / f"{name}.tmpl").read_text(encoding="utf-8")
    words = {
        "recognised": f"{fortnight.recognised:,}",
        "records": f"{len(fortnight.published):,}",
        "instances": f"{len({each.arrival.simulated.instance_id for each in fortnight.published}):,}",
        "contents": _contents(template),
    }
    return _MARKER.sub(partial(_filling, words, database), template)


def _filling(words: Mapping[str, str], database: duckdb.DuckDBPyConnection, marker: re.Match[str]) -> str:
    kind, name = marker.groups()
    if name is None:
        return words[kind]
    shown = f"```sql\n{sql(name)}\n```"
    return f"{shown}\n\n{table(answer(database, name))}" if kind == "answer" else shown


def _contents(template: str) -> str:
    """A link to each question."""
    found = _QUESTION.finditer(template)
    return "\n".join(f"- [{each['asked']}](#{each['heading'].lower().replace(' ', '-')})" for each in found)


def table(rows: Rows) -> str:
    """The rows in Markdown; figures to the right."""
    first = rows[0]
    sides = ("---:" if isinstance(value, int | float) else "---" for value in first.values())
    lines = [first.keys(), sides, *([cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """A value as the tables show it: times to the second."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return "" if value is None else str(value)


def _filled(words: Sequence[str], width: int = 110) -> str:
    """The words with commas between them, in lines of at most so many letters."""
    lines = [""]
    for word in (f"{each}," for each in words):
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n  ".join(lines).removesuffix(",")


def main() -> None:
    """Write everything; see the module."""
    options = argparse.ArgumentParser(description="Writes docs/questions.md and its plots.")
    options.add_argument("--to", type=Path, default=HOME, help="the folder that gets the document and the plots")
    options.add_argument("--data", type=Path, help="a folder that also gets events.jsonl and loads.csv")
    chosen = options.parse_args()
    with TemporaryDirectory() as temporary:
        write(chosen.to, chosen.data or Path(temporary))


if __name__ == "__main__":
    main()
