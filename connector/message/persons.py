"""Reads the persons in WeDa's maps, for the console, commands, columns of `flat` and readers alike. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from connector.errors import Unreadable
from connector.message import weda
from connector.message.parsing import load_json

# What JSON text of anything but a name begins with: a text, object, list, number, true, false, null, or white space.
_JSON_FIRST_CHARS: Final = frozenset('"{[-0123456789tfn \t\r\n')


@dataclass(frozen=True, slots=True)
class Person:
    """A person whom an event names, with WeDa's id."""

    id: str
    name: str


class Persons(NamedTuple):
    """The persons of a field of maps: ids and names in the same order, and the ids of entries that are not persons."""

    ids: list[str]
    names: list[str]
    others: list[str]

    def add(self, key: str, name: Any) -> None:
        """Add an entry, as a person if its name is text."""
        if isinstance(name, str):
            self.ids.append(key)
            self.names.append(name)
        else:
            self.others.append(key)


def named_in(maps: Iterable[Mapping[str, Any]], names: weda.IdAndName = weda.PERSON) -> Persons:
    """Return the persons that a list of maps names; each map is one person with an id and a name, or many, id → name.

    An entry whose name is text is a person, and so is an id without a name. An entry with any other value is not a
    person, such as ``"active": true`` beside the persons of a map.
    """
    persons = Persons([], [], [])
    for entry in maps:
        pair = next((id_and_name for id_and_name in names if id_and_name[0] in entry), None)
        if pair is None:
            for key, name in entry.items():
                persons.add(key, name)
        else:
            key = entry[pair[0]]
            is_id = isinstance(key, str | int) and not isinstance(key, bool)
            persons.add(key if isinstance(key, str) else json.dumps(key), entry.get(pair[1], "") if is_id else None)
    return persons


def named_in_record(maps: Iterable[Mapping[str, str]], names: weda.IdAndName = weda.PERSON) -> Persons:
    """Return the persons that the maps of a record name. A value that was not sent as text is JSON text there.

    A name that was sent as text but reads as a number, ``true``, ``false`` or ``null`` is taken for that value, because
    a record does not tell them apart.
    """
    ids = {key for key, _ in names}
    return named_in(({key: _as_sent(text, is_id=key in ids) for key, text in entry.items()} for entry in maps), names)


def persons(value: Mapping[str, Any], field: str) -> tuple[Person, ...]:
    """Return the persons that a field of maps names, each once, in order; a person without a name has the id as name.

    In records of the stream ``flat`` they are read from the columns, such as ``approverIds`` and ``approverNames`` for
    ``approverMap``; in other records from the maps, with the same result.
    """
    columns = weda.PERSON_FIELDS.get(field, "")
    if f"{columns}Ids" in value:
        ids, names = value[f"{columns}Ids"], value[f"{columns}Names"]
    else:
        ids, names, _ = named_in_record(value.get(field) or ())
    return _distinct(ids, names)


def nodes(value: Mapping[str, Any]) -> tuple[Person, ...]:
    """Return the nodes that a message about an instance names, read as persons are."""
    ids, names, _ = named_in_record(value.get(weda.NODES) or (), weda.NODE)
    return _distinct(ids, names)


def _distinct(ids: Iterable[str], names: Iterable[str]) -> tuple[Person, ...]:
    return tuple({key: Person(key, name.strip() or key) for key, name in zip(ids, names, strict=True)}.values())


def _as_sent(text: str, *, is_id: bool) -> Any:
    """Return a value of a record's map as it was sent; an id of digits may have been text, and stays an id."""
    # Nearly every value is a name. JSON text begins with one of a few characters, so most names need no parsing.
    if text[:1] not in _JSON_FIRST_CHARS:
        return text
    try:
        value = load_json(text)
    except Unreadable:
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if isinstance(value, str) or (is_id and is_number) else value
