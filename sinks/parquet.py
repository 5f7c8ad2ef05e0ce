"""The stream `flat` as Parquet files of 100,000 rows at most: ``python parquet.py /lake/parquet``.

The folder may be an address of an object store, such as ``s3://bucket/weda?region=eu-west-1``. The whole topic is read
each time, and files of the same rows get the same names.
"""

import json
import sys
import urllib.request
from itertools import count, islice

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from connector.consuming import Events

BROKERS = "localhost:9092"
REGISTRY = "http://localhost:8081/apis/ccompat/v7"
PREFIX = "weda.workflow"
ROWS = 100_000
TYPES = {"string": pa.string(), "int": pa.int32(), "boolean": pa.bool_(), "long": pa.timestamp("ms")}


def arrow_type(declared: list | dict | str) -> pa.DataType:
    """The Arrow type of a field of the record: a scalar, a list of texts, or a time in UTC."""
    inner = declared[1] if isinstance(declared, list) else declared
    name = inner["type"] if isinstance(inner, dict) else inner
    return pa.list_(pa.string()) if name == "array" else TYPES[name]


with urllib.request.urlopen(f"{REGISTRY}/subjects/{PREFIX}.flat-value/versions/latest") as answer:
    fields = json.loads(json.load(answer)["schema"])["fields"]
columns = [(field["name"], arrow_type(field["type"])) for field in fields]
schema = pa.schema([*columns, ("kafkaPartition", pa.int32()), ("kafkaOffset", pa.int64())])

store, folder = pyarrow.fs.FileSystem.from_uri(sys.argv[1])
store.create_dir(folder)
with Events(BROKERS, stream="flat", prefix=PREFIX, registry=REGISTRY, repeats_kept=0, until_end=True) as events:
    rows = ({**event.value, "kafkaPartition": event.partition, "kafkaOffset": event.offset} for event in events)
    for number in count():
        batch = list(islice(rows, ROWS))
        if not batch:
            break
        pq.write_table(pa.Table.from_pylist(batch, schema), f"{folder}/{number:06}.parquet", filesystem=store)
        print(f"{number:06}.parquet", len(batch))
