"""Writes what docs/sinks.md and its Chinese edition say was run, from docs/sinks.json.

``SINKS_FIGURES=docs/sinks.json python -m pytest tests/integration/test_sinks.py`` runs every recipe and writes that
file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HOME: Final = Path(__file__).parents[1] / "docs"
FIGURES: Final = HOME / "sinks.json"
BEGIN: Final = "<!-- figures -->\n"
END: Final = "<!-- end of the figures -->\n"


@dataclass(frozen=True)
class Recipe:
    """A file of sinks/ in the words of the table."""

    english: str
    chinese: str
    command: str


RECIPES: Final[Mapping[str, Recipe]] = {
    "connect/postgresql-events.properties": Recipe(
        "PostgreSQL, events", "PostgreSQL，事件", "connect-standalone.sh worker.properties postgresql-events.properties"
    ),
    "connect/postgresql-state.properties": Recipe(
        "PostgreSQL, state", "PostgreSQL，状态", "connect-standalone.sh worker.properties postgresql-state.properties"
    ),
    "connect/iceberg.properties": Recipe(
        "Iceberg", "Iceberg", "connect-standalone.sh worker.properties iceberg.properties"
    ),
    "spark.py": Recipe("Spark", "Spark", "python spark.py /lake/spark"),
    "flink.sql": Recipe("Flink SQL", "Flink SQL", "sql-client.sh -f flink.sql"),
    "clickhouse.sql": Recipe("ClickHouse", "ClickHouse", "chdb.session.Session().query(…)"),
    "parquet.py": Recipe("Parquet", "Parquet", "python parquet.py /lake/parquet"),
    "duckdb.sql": Recipe("DuckDB", "DuckDB", "duckdb.connect().execute(…)"),
    "spark.sql": Recipe("Spark SQL, models", "Spark SQL，数据模型", "SparkSession.sql(…)"),
}
"""File → how it is run, in the order of the table."""


def english(figures: Mapping[str, Any]) -> str:
    """The table and what it is of."""
    rows = [(recipe.english, *_cells(file, recipe, run, ", ")) for file, recipe, run in _runs(figures)]
    head = ("engine", "file", "run by", "artifacts", "rows, all equal", "seconds")
    return (
        f"{_table(head, rows)}\nOne run with {figures['instances']} instances, {figures['messages']:,} messages, on "
        f"{figures['measured']}: {figures['machine']}, with a load of {figures['load']}.\n"
    )


def chinese(figures: Mapping[str, Any]) -> str:
    """The same in Chinese."""
    rows = [(recipe.chinese, *_cells(file, recipe, run, "、")) for file, recipe, run in _runs(figures)]
    head = ("引擎", "文件", "运行方式", "组件", "行数，全部一致", "秒")
    return (
        f"{_table(head, rows)}\n一次运行：{figures['instances']} 个流程实例、{figures['messages']:,} 条消息，日期 "
        f"{figures['measured']}，负载 {figures['load']}，机器：`{figures['machine']}`。\n"
    )


def _cells(file: str, recipe: Recipe, run: Mapping[str, Any], comma: str) -> tuple[str, ...]:
    """The cells of a run after its engine's name."""
    artifacts = comma.join(run["artifacts"])
    return _link(file), f"`{recipe.command}`", artifacts, f"{run['rows']:,}", _took(run)


def document(name: str) -> str:
    """One of `DOCUMENTS` with the figures of the last run between its two marks."""
    text = (HOME / name).read_text(encoding="utf-8")
    figures = DOCUMENTS[name](json.loads(FIGURES.read_text(encoding="utf-8")))
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def _runs(figures: Mapping[str, Any]) -> list[tuple[str, Recipe, Mapping[str, Any]]]:
    return [(file, recipe, figures["runs"][file]) for file, recipe in RECIPES.items()]


def _link(file: str) -> str:
    return f"[`{file}`](../sinks/{file})"


def _took(run: Mapping[str, Any]) -> str:
    return f"{run['seconds']:,.0f}" if run["seconds"] >= 1 else "< 1"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sides = [*["---"] * (len(head) - 2), "---:", "---:"]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, sides, *rows))


DOCUMENTS: Final = {"sinks.md": english, "sinks.zh-CN.md": chinese}
"""Each document with what puts the figures into its words."""
