"""The table of docs/sinks.md says what a run of the recipes measured, and leaves none out."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.servers.artifacts import SPARK, SPARK_SOURCES, products
from tools import sinks

ROOT = Path(__file__).parents[2]
FIGURES = json.loads(sinks.FIGURES.read_text(encoding="utf-8"))
SUPPORT = {"connect/worker.properties", "gate.py", "iceberg.py"}
"""What recipes are run with, and what looks at their tables."""


@pytest.mark.parametrize("name", sinks.DOCUMENTS)
def test_a_document_has_one_place_for_the_figures(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")

    assert [text.count(mark) for mark in (sinks.BEGIN, sinks.END)] == [1, 1]


def test_every_recipe_has_its_row_and_was_run():
    # What Maven leaves beside its files is ignored by Git.
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "."]
    names = subprocess.run(listed, cwd=ROOT / "sinks", check=True, capture_output=True, text=True).stdout.split()
    files = {name for name in names if not name.endswith(".xml")}

    assert set(sinks.RECIPES) == set(FIGURES["runs"]) == files - SUPPORT
    assert all(run["rows"] > 0 and run["artifacts"] for run in FIGURES["runs"].values())
    others = {"connect/postgresql-state.properties", "spark.sql"}  # a row an instance; rows of views
    rows = {run["rows"] for file, run in FIGURES["runs"].items() if file not in others}
    assert rows == {FIGURES["messages"]}


def test_spark_its_sources_and_its_client_are_of_one_version():
    versions = {products(SPARK)["spark"], products(SPARK_SOURCES)["spark-sources"], version("pyspark-client")}

    assert len(versions) == 1
