"""The listener's own API as a page shows it: one entry an operation, read from its OpenAPI document."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Argument:
    """What an operation is given.

    Attributes:
        name: Its name.
        place: ``path``, ``query`` or ``body``.
        kind: JSON Schema's words for its type.
        default: What it is if it is not given, as JSON would write it; empty where nothing is.
        is_needed: Whether it has to be given.
        description: What it means.
    """

    name: str
    place: str
    kind: str
    default: str
    is_needed: bool
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    description: str
    arguments: tuple[Argument, ...]
    statuses: tuple[str, ...]


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """Every operation, in the document's order."""
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            arguments = (*_parameters(told), *_members(document, told))
            yield Operation(method.upper(), path, told["description"], arguments, tuple(told["responses"]))


def _parameters(told: Mapping[str, Any]) -> Iterator[Argument]:
    for one in told.get("parameters", ()):
        yield _argument(one["name"], one["in"], one["schema"], is_needed=one["required"])


def _members(document: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Argument]:
    """The members of a body, which is a JSON object."""
    if "requestBody" not in told:
        return
    reference = told["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    for name, member in schema["properties"].items():
        yield _argument(name, "body", member, is_needed=name in schema.get("required", ()))


def _argument(name: str, place: str, schema: Mapping[str, Any], *, is_needed: bool) -> Argument:
    default = schema.get("default")
    shown = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    return Argument(name, place, _kind(schema), shown, is_needed, schema.get("description", ""))


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = [one for one in schema.get("anyOf", [schema]) if one["type"] != "null"]
    return " | ".join(f"array of {_kind(one['items'])}" if one["type"] == "array" else one["type"] for one in kinds)
