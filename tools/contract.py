"""Renders `docs/data-contract.yaml`, the data contract.

It is in the Open Data Contract Standard. What the records hold comes from the schemas, what is promised of them from
README.md's guarantees, and figures from the settings' defaults, so that it says what those say.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from connector.message.routes import STREAMS, Routes, Stream
from connector.message.schemas import load
from connector.settings import Settings
from tools.descriptions.notation import generated

ROOT: Final = Path(__file__).parents[1]
_GUARANTEE: Final = re.compile(r"^- \*\*(P\d) ([^*]+)\.\*\* (.+?)(?=^- |^\n)", re.DOTALL | re.MULTILINE)
_TYPES: Final = {"string": "string", "int": "integer", "boolean": "boolean", "long": "timestamp"}
_DAY_MS: Final = 86_400_000
_PUBLISHED_THROUGH: Final = (
    "weda_connector_published_through_timestamp_seconds: everything accepted before it is in Kafka. "
    "A job that needs a whole day waits until it is past the day's end."
)


def render() -> str:
    """The whole contract, as YAML."""
    return generated(contract())


def contract() -> dict[str, Any]:
    """The contract as the standard has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    routes = Routes(STREAMS, Settings().topics.prefix)
    return {
        "apiVersion": "v3.2.0",
        "kind": "DataContract",
        "id": project["name"],
        "name": "WeDa workflow messages in Kafka",
        "version": project["version"],
        "status": "active",
        "description": {"purpose": project["description"]},
        "servers": [{"server": "kafka", "type": "kafka", "host": "localhost:9092", "format": "avro"}],
        "schema": [_object(stream, routes.topic(stream.name)) for stream in STREAMS.values()],
        "slaProperties": [*_levels(), *_guarantees()],
    }


def _object(stream: Stream, topic: str) -> dict[str, Any]:
    definition = json.loads(load(stream.record_type).text)
    return {
        "name": stream.name,
        "physicalName": topic,
        "physicalType": "topic",
        "logicalType": "object",
        "description": definition["doc"],
        "properties": [_property(field) for field in definition["fields"]],
    }


def _property(field: Mapping[str, Any]) -> dict[str, Any]:
    meaning, _, example = field["doc"].rpartition(" Example: ")
    is_optional = isinstance(field["type"], list)
    return {
        "name": field["name"],
        **_type(field["type"][1] if is_optional else field["type"]),
        "required": not is_optional,
        "description": meaning,
        "examples": [example],
    }


def _type(declared: Any) -> dict[str, Any]:
    name = declared["type"] if isinstance(declared, dict) else declared
    if name == "array":
        return {"logicalType": "array", "physicalType": "array", "items": _type(declared["items"])}
    if name == "map":
        return {
            "logicalType": "map",
            "physicalType": "map",
            "map": {"key": _type("string"), "value": _type(declared["values"])},
        }
    return {"logicalType": _TYPES[name], "physicalType": name}


def _levels() -> Iterator[dict[str, Any]]:
    settings = Settings()
    yield {"property": "retention", "value": settings.topics.retention_ms // _DAY_MS, "unit": "d"}
    yield {
        "property": "latency",
        "value": settings.receiver.reply_deadline_seconds,
        "unit": "s",
        "description": "Until WeDa has its answer, and the message is durable.",
    }
    yield {"property": "completeness", "value": "published_through", "description": _PUBLISHED_THROUGH}


def _guarantees() -> Iterator[dict[str, Any]]:
    for number, name, text in _GUARANTEE.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        yield {"property": number, "value": name, "description": " ".join(text.split())}
