"""The stream `flat` → Parquet files, by Spark: ``python spark.py /lake/spark`` appends what came since the last run.

``python spark.py /lake/spark whole`` reads the whole topic, and replaces the files. Records without a registry are read
where the working directory has the folder ``avro`` of the repository.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from fastavro.schema import fingerprint, to_parsing_canonical_form
from pyspark.sql import Column, SparkSession
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.functions import coalesce, concat, expr, hex, lit, raise_error, when  # noqa: A004 - Spark's own

BROKERS = "localhost:9092"
REGISTRY = "http://localhost:8081/apis/ccompat/v7"
TOPIC = "weda.workflow.flat"
SCHEMAS = Path("avro")


def framings() -> dict[str, str]:
    """The bytes before a record, in hex → the schema that it was written with; the newest schema is the last.

    With a registry they are five: a zero and the schema's id. Without one they are ten: C3 01 and its fingerprint.
    """
    found = {}
    for path in sorted(SCHEMAS.rglob("*.FlatEvent.avsc"), key=lambda each: -len(each.parts)):
        text = path.read_text(encoding="utf-8")
        found["C301" + fingerprint(to_parsing_canonical_form(json.loads(text)), "CRC-64-AVRO").upper()] = text
    for version in answer("versions") if REGISTRY else ():
        schema = answer(f"versions/{version}")
        found[f"00{schema['id']:08X}"] = schema["schema"]
    return found


def answer(path: str) -> Any:
    """What the registry says of the topic's subject."""
    with urllib.request.urlopen(f"{REGISTRY}/subjects/{TOPIC}-value/{path}", timeout=60) as response:
        return json.load(response)


def decoded(framings: dict[str, str]) -> Column:
    """The record of each value, by its own schema, with the columns of the newest; an unknown framing is an error."""
    *_, newest = framings.values()
    options = {"mode": "FAILFAST", "avroSchema": newest}
    records = []
    for framing, schema in framings.items():
        size = len(framing) // 2
        record = from_avro(expr(f"substring(value, {size + 1})"), schema, options)
        records.append(when(expr(f"hex(substring(value, 1, {size}))") == framing, record))
    return coalesce(*records, raise_error(concat(lit("no schema for "), hex(expr("substring(value, 1, 10)")))))


spark = SparkSession.builder.appName("weda").getOrCreate()
spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
folder, *how = sys.argv[1:]
source = spark.read if how == ["whole"] else spark.readStream
topic = {"kafka.bootstrap.servers": BROKERS, "subscribe": TOPIC, "startingOffsets": "earliest"}
records = source.format("kafka").options(**topic).load()
rows = records.select(decoded(framings()).alias("record"), "partition", "offset").selectExpr(
    "record.*", "partition AS kafkaPartition", "offset AS kafkaOffset"
)
if how == ["whole"]:
    rows.write.mode("overwrite").parquet(folder)
else:
    written = rows.writeStream.format("parquet").option("checkpointLocation", f"{folder}/_checkpoint")
    written.trigger(availableNow=True).start(folder).awaitTermination()
