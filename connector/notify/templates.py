"""Renders texts from Jinja2 templates in its sandbox; they see an event's fields and the persons, nothing else."""

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
"""Characters of a text; longer ones are cut, because platforms refuse them."""

_EVENT_NAMES: Final = frozenset({"person", "persons", "starter", "page", "receivedAt", "source", "ingestId", "extras"})
_DIGEST_NAMES: Final = frozenset({"lines", "count", "more"})
_KINDS: Final = kinds(load(WORKFLOW_EVENT))
_ZONE: Final = "_zone"
_NAMES: Final = frozenset(_KINDS) | _EVENT_NAMES | _DIGEST_NAMES


class Unrenderable(ValueError):
    """A template cannot be rendered."""


def check_template(text: str) -> None:
    """Check a template's syntax and names, and render it once with empty fields.

    Raises:
        Unrenderable: The template has an error; the message says which.
    """
    try:
        unknown = meta.find_undeclared_variables(_environment().parse(text)) - _NAMES
        # `parse` accepts filters and tests that do not exist; compiling does not.
        _environment().from_string(text)
    except TemplateError as error:
        raise Unrenderable(f"is no template: {error}") from error
    if unknown:
        raise Unrenderable(f"{', '.join(sorted(unknown))}: no event has a field of that name")
    nobody = Person("", "")
    fields = dict.fromkeys(_NAMES, "") | {"person": nobody, "persons": (nobody,), "starter": nobody}
    render(text, fields | {"lines": ("",), "count": 1, "more": 0, "extras": {}} | _lists(), ZoneInfo("UTC"))


def fields_of(event: Event, person: Person, persons: tuple[Person, ...]) -> dict[str, Any]:
    """Return the variables of a template for an event and a person; missing fields are empty texts or lists."""
    value = event.value or {}
    fields = {name: value.get(name) for name in _NAMES - _DIGEST_NAMES}
    # Every name is defined: StrictUndefined reports misspelt names, not fields that a message lacks.
    fields = {name: _empty(name) if content is None else content for name, content in fields.items()}
    starters = event.persons(weda.STARTER)
    return fields | {
        "person": person,
        "persons": persons,
        "starter": starters[0] if starters else Person("", ""),
        "page": _page(value),
    }


def render(text: str, fields: Mapping[str, Any], zone: ZoneInfo) -> str:
    """Render a template.

    Raises:
        Unrenderable: The template cannot be rendered with these fields.
    """
    try:
        rendered = _compiled(text).render(fields, **{_ZONE: zone})
    # Expressions of a template run as Python: "{{ actionName + 1 }}" raises TypeError, not TemplateError.
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise Unrenderable(f"cannot be rendered: {error}") from error
    return cut(without_controls(rendered).strip(), MAX_CHARS)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.clear()  # `range` and `lipsum` make long texts, and no template needs the others
    environment.filters["time"] = _time
    return environment


@cache
def _compiled(text: str) -> Template:
    # Unbounded, because templates come from the rules file only.
    return _environment().from_string(text)


@pass_context
def _time(context: Context, moment: object, form: str = "%Y-%m-%d %H:%M") -> str:
    """Format epoch milliseconds as a date and time in the rules' time zone; anything else becomes an empty text."""
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
    """Return the first link in ``pageUrlMap``, or an empty text."""
    texts = [text for entry in value.get("pageUrlMap") or () for text in entry.values()]
    return next((text for text in texts if text.startswith(("https://", "http://"))), "")
