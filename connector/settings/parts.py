"""Variables that set one part of a setting: a property of the Kafka clients, or the tokens or secrets of a source.

``WEDA_KAFKA__PROPERTIES__SASL_PASSWORD`` is the property ``sasl.password``, ``WEDA_SOURCES__HR__TOKENS`` the tokens of
the source ``hr``; with the suffix ``_FILE`` each names a file that holds the value. A part may be given only once: it
is rejected if another variable, the whole setting or the configuration file gives it too.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from connector.settings.librdkafka import ENDING_IN_FILE, UNDERSCORED, check_promise, plain_name
from connector.settings.load import BY_FILE, RawSetting, environment_name, read_value
from connector.settings.types import nearest, rejection
from connector.values import DEFAULT_SOURCE

_PROPERTIES: Final = "kafka.properties"
_SOURCES: Final = "sources"
_CREDENTIALS: Final = ("tokens", "secrets")
_PROPERTY: Final = f"{environment_name(_PROPERTIES)}__"
_SOURCE: Final = f"{environment_name(_SOURCES)}__"
_UPPER_CASE: Final = re.compile(r"[A-Z0-9_]*[A-Z0-9]", re.ASCII)


def is_part(variable: str) -> bool:
    """Whether a variable has the form of one that sets a part of a setting."""
    return variable.startswith((_PROPERTY, _SOURCE))


def names_file(variable: str) -> bool:
    """Whether the value of a variable is the name of a file that holds the setting's value.

    Three librdkafka properties end in ``.file`` themselves; a variable with the name of one sets that property.
    """
    return variable.endswith(BY_FILE) and not (
        variable.startswith(_PROPERTY) and variable.removeprefix(_PROPERTY) in _IRREGULAR
    )


def _part(name: str) -> str:
    """The name of a property or a source as it is written in a variable."""
    return re.sub("[.-]", "_", name).upper()


_IRREGULAR: Final[Mapping[str, str]] = {_part(name): name for name in (*UNDERSCORED, *ENDING_IN_FILE)}
"""Part of a variable → the property, for properties whose name is not the part with dots in place of underscores."""


def _property_name(variable: str) -> str:
    part = variable.removeprefix(_PROPERTY)
    if names_file(variable):
        part = part.removesuffix(BY_FILE)
    if _UPPER_CASE.fullmatch(part) is None:
        raise rejection(variable, f"unknown setting; the name of a property is written as in {_PROPERTY}SASL_PASSWORD")
    return _IRREGULAR.get(part, part.lower().replace("_", "."))


def add_parts(
    written: Mapping[str, RawSetting], environment: Mapping[str, str], needed: Collection[str]
) -> dict[str, RawSetting]:
    """Return the written values with the parts that variables set.

    Args:
        written: Values by dotted name, from the file, the environment and the flags.
        environment: All variables.
        needed: Dotted names; parts of other settings are not read.

    Raises:
        ConfigurationError: A part is unknown, cannot be read, is empty or is set twice.
    """
    added = dict(written)
    for setting, prefix, add in ((_PROPERTIES, _PROPERTY, _with_properties), (_SOURCES, _SOURCE, _with_credentials)):
        variables = sorted(name for name in environment if name.startswith(prefix))
        if variables and setting in needed:
            whole = written.get(setting, RawSetting(environment_name(setting), _DEFAULTS[setting]))
            if isinstance(whole.value, dict):  # the model rejects anything else, and says why
                added[setting] = add(whole, {name: environment[name] for name in variables})
    return added


_DEFAULTS: Final[Mapping[str, dict[str, Any]]] = {_PROPERTIES: {}, _SOURCES: {DEFAULT_SOURCE: {}}}


def _with_properties(whole: RawSetting, variables: Mapping[str, str]) -> RawSetting:
    properties = dict(whole.value)  # type: ignore[call-overload] # add_parts has checked that it is a dict
    parts: dict[tuple[str, ...], str] = {}
    for variable, text in variables.items():
        name = _property_name(variable)
        for other in properties:
            # librdkafka knows some properties by two names, and would silently take one of the two values.
            if plain_name(other) == plain_name(name):
                where = parts.get((other,), whole.name)
                raise rejection(variable, f"{other} is set by {where} as well; keep one of the two")
        properties[name] = value = _value(variable, text)
        parts[name,] = variable
        try:
            # The model checks this again, but could not say which variable is to blame.
            check_promise(name, value.strip().lower())
        except ValueError as error:
            raise rejection(variable, str(error)) from None
    return replace(whole, value=properties, parts=parts)


def _with_credentials(whole: RawSetting, variables: Mapping[str, str]) -> RawSetting:
    sources = {name: dict(source) if isinstance(source, dict) else source for name, source in whole.value.items()}  # type: ignore[attr-defined] # add_parts has checked
    credentials = _credential_variables(sources)
    if not credentials:  # there are no sources, which the model rejects
        return whole
    parts: dict[tuple[str, ...], str] = {}
    for variable, text in variables.items():
        candidates = credentials.get(variable.removesuffix(BY_FILE), ())
        if not candidates:
            why = "a source is named in WEDA_SOURCES or in the file first"
            raise rejection(variable, f"unknown setting ({why}); {nearest(variable.upper(), credentials)}")
        if len(candidates) > 1:  # such as the sources `a-b` and `a_b`
            raise rejection(variable, f"stands for several sources: {', '.join(name for name, _ in candidates)}")
        [(name, credential)] = candidates
        source = sources[name]
        if not isinstance(source, dict):  # the model rejects it
            continue
        if credential in source:
            where = parts.get((name, credential), whole.name)
            raise rejection(variable, f"the {credential} of {name} are set by {where} as well; keep one of the two")
        lines = _value(variable, text).splitlines()
        source[credential] = tuple(line for line in map(str.strip, lines) if line)
        parts[name, credential] = variable
    return replace(whole, value=sources, parts=parts)


def _credential_variables(sources: Mapping[object, object]) -> dict[str, list[tuple[str, str]]]:
    """Variable without ``_FILE`` → the sources and fields that it can stand for."""
    variables: dict[str, list[tuple[str, str]]] = {}
    for name in map(str, sources):
        for credential in _CREDENTIALS:
            variables.setdefault(f"{_SOURCE}{_part(name)}__{credential.upper()}", []).append((name, credential))
    return variables


def _value(variable: str, text: str) -> str:
    value = read_value(variable, text) if names_file(variable) else text
    if not value.strip():
        raise rejection(variable, "must not be empty" + (f": {Path(text)} is" if names_file(variable) else ""))
    return value
