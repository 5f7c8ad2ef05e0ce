"""The rules file: targets, people, and who is notified of what; an error in it stops the start with one line."""

import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from connector import supervision
from connector.errors import ConfigurationError
from connector.message import weda
from connector.message.schemas import WORKFLOW_EVENT, codes, load
from connector.notify.templates import check_template
from connector.periods import period_seconds
from connector.settings.types import check_timezone

ADDRESS: Final = "{address}"
"""Placeholder in a target's URL for the address of the notified person. A target without it is a room."""

EVERYBODY: Final = "*"

Recipients = Literal["approvers", "starter", "turnedTo", "added", "copied"]
FIELDS: Final[Mapping[Recipients, str]] = {
    "approvers": weda.APPROVERS,
    "starter": weda.STARTER,
    "turnedTo": weda.TURNED_TO,
    "added": weda.ADDED,
    "copied": weda.COPIED_TO,
}
"""Recipients → the field of an event that names them."""

_TIME_OF_DAY: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_ACTIONS: Final = {code.name: code.value for code in codes(load(WORKFLOW_EVENT), "action")}


def _time_of_day(value: object) -> time:
    # YAML reads an unquoted 8:00 as the number 480, in base 60.
    match = _TIME_OF_DAY.fullmatch(str(value))
    if match is None:
        raise ValueError('must be a time of day in quotes, as in "08:00"')
    return time(int(match[1]), int(match[2]))


def _action(value: object) -> int:
    # A number may be one that the schema does not know yet; a bool is an int in Python.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value not in _ACTIONS:
        raise ValueError(f"is no action of WeDa: give its number, or one of {', '.join(_ACTIONS)}")
    return _ACTIONS[str(value)]


def _template(text: str) -> str:
    check_template(text)
    return text


Duration = Annotated[float, BeforeValidator(period_seconds)]
Clock = Annotated[time, BeforeValidator(_time_of_day)]
Action = Annotated[int, BeforeValidator(_action)]
Template = Annotated[str, Field(min_length=1), AfterValidator(_template)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Patterns = tuple[str, ...]


class _Part(BaseModel):
    # A misspelt key would otherwise be a condition that nobody checks.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Part):
    """Where notifications go: an Apprise URL, given directly or in a file, which keeps its token in a Secret."""

    url: str | None = None
    url_file: Path | None = None
    address: Name | None = None
    per_minute: Annotated[int, Field(ge=1)] | None = None
    format: Literal["text", "markdown", "html"] = "text"

    @model_validator(mode="after")
    def _have_one(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("needs either url or url_file")
        return self


class Quiet(_Part):
    """The hours in which only urgent notifications are sent; they span midnight if ``from`` is later than ``to``."""

    begin: Clock = Field(alias="from")
    end: Clock = Field(alias="to")

    def until(self, now: datetime) -> datetime | None:
        """Return when the current quiet hours end, or None outside quiet hours."""
        clock = now.time()
        is_quiet = self.begin <= clock < self.end if self.begin <= self.end else clock >= self.begin or clock < self.end
        if not is_quiet:
            return None
        end = now.replace(hour=self.end.hour, minute=self.end.minute, second=0, microsecond=0)
        return end if end > now else end + timedelta(days=1)


class Digest(_Part):
    """Many notifications sent as one, at a time of day or at an interval.

    The template ``text`` may use ``lines``, ``count`` and ``more``.
    """

    at: Clock | None = None
    every: Duration | None = None
    title: Template = "{{ count }} 条通知"
    text: Template = "{% for line in lines %}{{ line }}\n{% endfor %}{% if more %}……还有 {{ more }} 条{% endif %}"

    @model_validator(mode="after")
    def _have_one(self) -> Self:
        if (self.at is None) == (self.every is None):
            raise ValueError("needs either at or every")
        return self

    def due(self, now: datetime) -> datetime:
        """Return when a digest that gathers now is sent."""
        if self.at is not None:
            due = now.replace(hour=self.at.hour, minute=self.at.minute, second=0, microsecond=0)
            return due if due > now else due + timedelta(days=1)
        # Multiples of the interval since the epoch: the same time for all that are gathered, also across a restart.
        # In epoch seconds: adding to a `datetime` moves its clock, and is off by an hour when the clock is changed.
        every, moment = self.every or 1.0, now.timestamp()
        return datetime.fromtimestamp(moment + every - moment % every, now.tzinfo)


class Conditions(_Part):
    """Conditions on an event; an empty one holds for every event. Texts are patterns with ``*``."""

    action: tuple[Action, ...] = ()
    process: Patterns = ()
    node: Patterns = ()
    person: Patterns = ()
    type: tuple[Literal["Instance", "Task"], ...] = ()
    status: tuple[int, ...] = ()
    environment: Patterns = ()
    source: Patterns = ()

    def hold(self, value: Mapping[str, Any]) -> bool:
        """Whether an event meets all conditions except ``person``."""
        return (
            (not self.action or value.get("action") in self.action)
            and (not self.type or value.get("msgType") in self.type)
            and (not self.status or value.get("instanceStatus") in self.status)
            and _fits(self.process, value, "processName", "processKey")
            and _fits(self.node, value, "elementName", "elementId")
            and _fits(self.environment, value, "envType")
            and _fits(self.source, value, "source")
        )

    def admit(self, identity: str, name: str) -> bool:
        """Whether a person meets the condition ``person``."""
        texts = identity, name
        return not self.person or any(fnmatchcase(text, pattern) for text in texts for pattern in self.person)


class Rule(_Part):
    """One rule: which events notify whom, with what text, and where."""

    name: Name
    when: Conditions = Conditions()
    to: Recipients = "approvers"
    target: Name
    title: Template
    text: Template
    after: Duration | None = None
    digest: Digest | None = None
    urgent: bool = False

    @model_validator(mode="after")
    def _be_one_of_two(self) -> Self:
        if self.after is not None and self.digest is not None:
            raise ValueError("has after and digest: a reminder is sent by itself")
        return self


class Retry(_Part):
    """How often a notification is tried, and the first and longest wait between attempts."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 8
    first: Duration = 1.0
    longest: Duration = 300.0

    def wait(self, attempts: int) -> float:
        """Seconds to wait before the next attempt, after this many."""
        return supervision.back_off_seconds(attempts - 1, self.first, self.longest)


class Rules(_Part):
    """The content of a rules file."""

    timezone: Annotated[str, AfterValidator(check_timezone)] = "Asia/Shanghai"
    targets: dict[Name, Target]
    people: dict[str, dict[Name, str]] = {}
    quiet: Quiet | None = None
    retry: Retry = Retry()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]

    @property
    def zone(self) -> ZoneInfo:
        """The time zone for times of day, and for dates in texts."""
        return ZoneInfo(self.timezone)

    def address(self, target: Target, identity: str) -> str | None:
        """Return a person's address at a target's platform, or None if ``people`` has none."""
        kind = target.address or ""
        address = self.people.get(identity, {}).get(kind)
        if address is None and (pattern := self.people.get(EVERYBODY, {}).get(kind)) is not None:
            address = pattern.replace("{id}", identity)
        return address

    def some_address(self, target: Target) -> str:
        """Return any address at a target's platform, to check the target's URL with."""
        addresses = (self.address(target, identity) for identity in self.people)
        return next((address for address in addresses if address is not None), "1")


def read_rules(path: Path) -> Rules:
    """Read and check a rules file.

    Raises:
        ConfigurationError: The file cannot be read, or something in it is wrong; one line names the rule and the field.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not readable ({getattr(error, 'strerror', error)})") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path}: must have targets and rules")
    try:
        rules = Rules.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        # `from None`: Pydantic's own text quotes the input, which may be a URL with a token.
        raise ConfigurationError(f"{path}: {_path_in(tree, problem['loc'])}: {_message(problem)}") from None
    return _checked(path, _with_urls(path, rules))


def example() -> str:
    """Return an example of a rules file, with the five common cases."""
    return files("connector.notify").joinpath("example.yaml").read_text(encoding="utf-8")


def _with_urls(path: Path, rules: Rules) -> Rules:
    """Return the rules with the URLs that are in files."""
    targets = {}
    for name, target in rules.targets.items():
        url = target.url
        if target.url_file is not None:
            try:
                url = target.url_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{path}: target {name}: url_file: not readable ({error})") from error
        targets[name] = target.model_copy(update={"url": url})
    return rules.model_copy(update={"targets": targets})


def _checked(path: Path, rules: Rules) -> Rules:
    """Check that the parts of the rules fit together, and return them."""
    names = [rule.name for rule in rules.rules]
    for rule in rules.rules:
        if names.count(rule.name) > 1:
            raise ConfigurationError(f"{path}: rule {rule.name}: name: another rule has it too")
        if rule.target not in rules.targets:
            targets = ", ".join(rules.targets)
            raise ConfigurationError(f"{path}: rule {rule.name}: target: {rule.target} is none of {targets}")
    for name, target in rules.targets.items():
        if (ADDRESS in (target.url or "")) != (target.address is not None):
            raise ConfigurationError(
                f"{path}: target {name}: address: goes with {ADDRESS} in the URL, which says where the person's is put"
            )
    return rules


def _path_in(tree: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Return where an error is, with a rule's name instead of its index."""
    parts = [str(part) for part in location]
    if len(location) > 1 and location[0] == "rules" and isinstance(location[1], int):
        rule = tree["rules"][location[1]]
        name = rule.get("name") if isinstance(rule, dict) else None
        parts = [f"rule {name or location[1] + 1}", ".".join(parts[2:])]
    elif len(location) > 1 and location[0] == "targets":
        parts = [f"target {parts[1]}", ".".join(parts[2:])]
    return ": ".join(part for part in parts if part)


def _message(problem: Any) -> str:
    return " ".join(str(problem["msg"]).removeprefix("Value error, ").split())


def _fits(patterns: Patterns, value: Mapping[str, Any], *names: str) -> bool:
    texts = [str(value.get(name) or "") for name in names]
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns for text in texts)
