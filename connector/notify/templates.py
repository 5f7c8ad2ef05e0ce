"""Texts from templates of Jinja2, in its sandbox: they see an event's fields and who is notified, and nothing else."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from jinja2 import StrictUndefined, Template, TemplateError, meta, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from connector.consuming import Event, Person
from connector.message import weda
from connector.message.schemas import WORKFLOW_EVENT, kinds, load
from connector.text import cut, without_controls

MAX_CHARS: Final = 4_000
"""Characters of a text; what is longer is cut, since platforms refuse it."""

_OF_EVENTS: Final = frozenset({"person", "persons", "starter", "page", "receivedAt", "source", "ingestId", "extras"})
_OF_DIGESTS: Final = frozenset({"lines", "count", "more"})
_KINDS: Final = kinds(load(WORKFLOW_EVENT))
_ZONE: Final = "_zone"
_KNOWN: Final = frozenset(_KINDS) | _OF_EVENTS | _OF_DIGESTS


class Unrenderable(ValueError):
    """A template that cannot be rendered."""


def check_template(text: str) -> None:
    """Raise where a template has a fault, or names what no event has.

    Raises:
        Unrenderable: Says what.
    """
    try:
        unknown = meta.find_undeclared_variables(_environment().parse(text)) - _KNOWN
        _environment().from_string(text)
    except TemplateError as error:
        raise Unrenderable(f"is no template: {error}") from error
    if unknown:
        raise Unrenderable(f"{', '.join(sorted(unknown))}: no event has a field of that name")
    nobody = Person("", "")
    fields = dict.fromkeys(_KNOWN, "") | {"person": nobody, "persons": (nobody,), "starter": nobody}
    render(text, fields | {"lines": ("",), "count": 1, "more": 0, "extras": {}} | _lists(), ZoneInfo("UTC"))


def fields_of(event: Event, person: Person, persons: tuple[Person, ...]) -> dict[str, Any]:
    """What a template sees of an event that a person is notified of; what is missing is an empty text or list."""
    value = event.value or {}
    known = {name: value.get(name) for name in _KNOWN - _OF_DIGESTS}
    filled = {name: _empty(name) if each is None else each for name, each in known.items()}
    starters = event.persons(weda.STARTER)
    return filled | {
        "person": person,
        "persons": persons,
        "starter": starters[0] if starters else Person("", ""),
        "page": _page(value),
    }


def render(text: str, fields: Mapping[str, Any], zone: ZoneInfo) -> str:
    """The text that a template makes.

    Raises:
        Unrenderable: It cannot, with these fields.
    """
    try:
        made = _compiled(text).render(fields, **{_ZONE: zone})
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise Unrenderable(f"cannot be rendered: {error}") from error
    return cut(without_controls(made).strip(), MAX_CHARS)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.clear()  # range and its like: a text needs none
    environment.filters["time"] = _time
    return environment


@cache
def _compiled(text: str) -> Template:
    """A template of the rules, of which there are few."""
    return _environment().from_string(text)


@pass_context
def _time(context: Context, moment: object, form: str = "%Y-%m-%d %H:%M") -> str:
    """Epoch milliseconds as a date and time in the rules' zone; an empty text for none."""
    if not isinstance(moment, int):
        return ""
    return datetime.fromtimestamp(moment / 1000, context[_ZONE]).strftime(form)


def _lists() -> dict[str, Any]:
    return {name: () for name, kind in _KINDS.items() if kind == "maps"}


def _empty(name: str) -> Any:
    if name == "extras":
        return {}
    return () if _KINDS.get(name) == "maps" else ""


def _page(value: Mapping[str, Any]) -> str:
    """The first link among ``pageUrlMap``."""
    texts = [text for entry in value.get("pageUrlMap") or () for text in entry.values()]
    return next((text for text in texts if text.startswith(("https://", "http://"))), "")
