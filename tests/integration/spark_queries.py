"""SQL by Spark: on standard input ``{"statements": [SQL…], "queries": {name: SQL}}``; prints ``{name: rows}`` as JSON.

Times are epoch milliseconds. ``SPARK_REMOTE`` names the server.
"""

import json
import sys
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession


def main() -> None:
    order = json.load(sys.stdin)
    spark = SparkSession.builder.getOrCreate()
    for statement in order["statements"]:
        spark.sql(statement)
    found = {name: spark.sql(sql).toArrow().to_pylist() for name, sql in order["queries"].items()}
    json.dump(found, sys.stdout, default=plain)


def plain(value: Any) -> int | float:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else float(value)


if __name__ == "__main__":
    main()
