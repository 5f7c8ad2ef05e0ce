"""Events as an Apache Arrow table with the schemas' types, which polars, DuckDB and pyarrow take without conversion."""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from connector.consuming.event import Event
from connector.errors import missing_extra
from connector.message.routes import STREAMS
from connector.message.schemas import Schema, load

_BATCH_ROWS: Final = 10_000
_ORIGIN_COLUMNS: Final = ("fingerprint", "topic", "partition", "offset")


def table_of(events: Iterable[Event], streams: Sequence[str]) -> Any:
    """A ``pyarrow.Table`` of all the events: the fields of the streams' schemas, then each record's origin.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """
    pa = _imported("pyarrow", "to_arrow")
    columns = _schema(pa, [load(STREAMS[stream].record_type) for stream in streams])
    rows, batches = (_row(event) for event in events), []
    # In batches: a column takes a fraction of the memory of its Python objects.
    while batch := list(islice(rows, _BATCH_ROWS)):
        batches.append(pa.RecordBatch.from_pylist(batch, schema=columns))
    return pa.Table.from_batches(batches, schema=columns)


def frame_of(events: Iterable[Event], streams: Sequence[str]) -> Any:
    """A ``polars.DataFrame`` of all the events.

    Raises:
        ConfigurationError: polars or pyarrow is not installed.
    """
    polars = _imported("polars", "to_polars")
    return polars.from_arrow(table_of(events, streams))


def _imported(name: str, method: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise missing_extra(f"{method}: {name}", "arrow") from error


def _schema(pa: Any, schemas: Sequence[Schema]) -> Any:
    fields: dict[str, Any] = {}
    for schema in schemas:
        for field in json.loads(schema.text)["fields"]:
            fields.setdefault(field["name"], _type(pa, field["type"]))  # streams share fields, of the same type
    origin = {"fingerprint": pa.string(), "topic": pa.string(), "partition": pa.int32(), "offset": pa.int64()}
    return pa.schema(list((fields | origin).items()))


def _type(pa: Any, declared: Any) -> Any:
    """The Arrow type of an Avro type; a union is of null and one other type."""
    if isinstance(declared, list):
        return _type(pa, next(branch for branch in declared if branch != "null"))
    if isinstance(declared, str):
        simple = {"string": pa.string, "int": pa.int32, "long": pa.int64, "boolean": pa.bool_, "double": pa.float64}
        return simple[declared]()
    if declared["type"] == "array":
        return pa.list_(_type(pa, declared["items"]))
    if declared["type"] == "map":
        return pa.map_(pa.string(), _type(pa, declared["values"]))
    if declared.get("logicalType") == "timestamp-millis":
        return pa.timestamp("ms", tz="UTC")
    return _type(pa, declared["type"])


def _row(event: Event) -> dict[str, Any]:
    fields = event.value or {"instanceId": event.instance_id}
    row = {name: _with_pairs(value) for name, value in fields.items()}
    return row | {name: getattr(event, name) for name in _ORIGIN_COLUMNS}


def _with_pairs(value: Any) -> Any:
    """The value with lists of pairs in place of maps, as Arrow takes them."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        return [_with_pairs(item) for item in value]
    return value
