"""Reads settings from the environment, a YAML file and flags; every error names the setting as the user wrote it.

The functions take the model whose settings they read: its groups and fields define the known names.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from connector.errors import ConfigurationError
from connector.settings.types import KIB, SIZE_READER, Group, nearest, rejection

PREFIX: Final = "WEDA_"
BY_FILE: Final = "_FILE"
CONFIG: Final = "WEDA_CONFIG"
"""The variable that names the YAML file with settings, unless a flag does."""


def config_file(environment: Mapping[str, str], file: Path | None) -> Path | None:
    """The YAML file with settings: ``file``, which a flag names, else the one that the environment names."""
    path = environment.get(CONFIG)
    return Path(path) if file is None and path else file


def environment_name(setting: str) -> str:
    """The variable of a dotted setting: ``kafka.properties`` → ``WEDA_KAFKA__PROPERTIES``."""
    return PREFIX + setting.replace(".", "__").upper()


@dataclasses.dataclass(frozen=True, slots=True)
class RawSetting:
    """A value and the name under which the user wrote it.

    Attributes:
        name: The variable, ``flag: …`` or ``file: …``, for messages.
        value: The value, not validated yet.
        parts: Path of a part within the value → the variable that set this part alone.
    """

    name: str
    value: object
    parts: Mapping[tuple[str, ...], str] = dataclasses.field(default_factory=dict)


@cache
def known_settings(model: type[Group]) -> dict[str, FieldInfo]:
    """Every setting by its dotted name, in the order in which the models declare them."""
    return dict(_walk(model, ""))


def _walk(group: type[Group], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in group.model_fields.items():
        if _is_group(field):
            yield from _walk(field.annotation, f"{name}.")  # type: ignore[arg-type] # _is_group has checked it
        else:
            yield prefix + name, field


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Group)


def show_default(field: FieldInfo) -> str:
    """The default as it would be written in the environment; empty if there is none."""
    default = field.default
    if default is None:
        return ""
    if SIZE_READER in field.metadata:
        return _show_size(default)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, dict):
        return json.dumps(
            {name: value.model_dump(mode="json", exclude_defaults=True) for name, value in default.items()}
        )
    return str(default)


def _show_size(count: int) -> str:
    """Bytes in the largest unit that divides them: 524288 → ``512KiB``."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count % KIB**power == 0:
            return f"{count // KIB**power}{unit}"
    return str(count)


def read_environment(
    model: type[Group], environment: Mapping[str, str], needed: Collection[str]
) -> dict[str, RawSetting]:
    """The settings that the environment sets, as written.

    Raises:
        ConfigurationError: A variable with the prefix ``WEDA_`` is unknown, or one is set twice.
    """
    settings = {environment_name(setting): setting for setting in known_settings(model)}
    written = {}
    # Over the variables, not over the settings: a misspelt variable must not be ignored.
    for variable in sorted(name for name in environment if name.startswith(PREFIX) and name != CONFIG):
        name = variable if variable in settings else variable.removesuffix(BY_FILE)
        if name not in settings:
            raise rejection(variable, f"unknown setting; {_guess(name.upper(), settings)}")
        if name != variable and name in environment:
            raise rejection(variable, f"{name} is set as well; keep one of the two")
        if settings[name] not in needed:  # its file need not exist for a command that does not use it
            continue
        text = environment[variable] if name == variable else read_value(variable, environment[variable])
        written[settings[name]] = RawSetting(variable, _parse_text(model, variable, settings[name], text))
    return written


def _guess(variable: str, known: Collection[str]) -> str:
    """Suggest the variables that were probably meant: those of this name in a group, else the nearest one."""
    ending = f"__{variable.removeprefix(PREFIX)}"
    in_groups = [name for name in known if name.endswith(ending)]
    return f"its group is missing: {' or '.join(in_groups)}" if in_groups else nearest(variable, known)


def read_flags(model: type[Group], flags: Mapping[str, object]) -> dict[str, RawSetting]:
    """The settings that flags set; a flag with the value None was not given."""
    known = known_settings(model)
    written = {}
    for setting, value in flags.items():
        name = f"flag: {setting}"
        if setting not in known:
            raise rejection(name, f"unknown setting; {nearest(setting, known)}")
        if value is not None:
            parsed = _parse_text(model, name, setting, value) if isinstance(value, str) else value
            written[setting] = RawSetting(name, parsed)
    return written


def read_file(model: type[Group], file: Path | None) -> dict[str, RawSetting]:
    """The settings in a YAML file; empty without a file."""
    if file is None:
        return {}
    known = known_settings(model)
    written = {}
    for setting, value in _flatten(model, _load_yaml(file)):
        name = f"file: {setting}"
        if setting not in known:
            group, dot, _ = setting.rpartition(".")
            beside = [other for other in known if other.startswith(group + dot)] if dot else model.model_fields
            raise rejection(name, f"unknown setting; {nearest(setting, beside)}")
        written[setting] = RawSetting(name, value)
    return written


def _load_yaml(file: Path) -> Mapping[object, object]:
    """The tree in a configuration file; empty if the file is."""
    text = _read_text("file", file)
    try:
        _reject_repeated(yaml.compose(text, Loader=yaml.SafeLoader))
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # The library's message may quote the text around the problem, which may be a secret.
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise rejection("file", f"{file} is not YAML{where}; quote values that hold special characters") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise rejection("file", f"{file} is not YAML that can be read; quote values that are no numbers") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise rejection("file", f"{file} must hold settings by name, such as `kafka:`")
    return tree


def _reject_repeated(root: yaml.Node | None) -> None:
    """Reject a name that is written twice: PyYAML would let the last one win, and drop the settings of the first."""
    waiting = [("file: ", root)]
    seen = set()  # a YAML alias can refer to a node that contains it
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, yaml.MappingNode) or id(node) in seen:
            continue
        seen.add(id(node))
        names = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):  # the loader rejects it
                continue
            if key.value in names:
                raise rejection(f"{path}{key.value}", f"is written twice, again at line {key.start_mark.line + 1}")
            names.add(key.value)
            waiting.append((f"{path}{key.value}.", value))


def _flatten(model: type[Group], tree: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """The dotted names and values in a file's tree, in its order; an empty group has none."""
    for name, value in tree.items():
        if "." in str(name):
            raise rejection(
                f"file: {name}", "write the name after the dot on a line of its own, indented below its group"
            )
        field = model.model_fields.get(str(name))
        if field is None or not _is_group(field):
            yield str(name), value
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", nested) for inner, nested in value.items())
        elif value is not None:
            raise rejection(f"file: {name}", "must hold settings by name, indented below it")


def read_value(variable: str, path: str) -> str:
    """The text of the file that a ``…_FILE`` variable names, without a newline at its end."""
    return _read_text(variable, Path(path)).removesuffix("\n").removesuffix("\r")


def _read_text(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError:
        raise rejection(name, f"{path} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise rejection(name, f"{path} cannot be read: {reason}") from None


def _parse_text(model: type[Group], name: str, setting: str, text: str) -> object:
    """The value of a text from the environment or a flag: parsed for lists and mappings, else the text itself."""
    kind = get_origin(known_settings(model)[setting].annotation)
    if kind is tuple and not text.lstrip().startswith("["):
        return tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if kind not in {tuple, dict}:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise rejection(name, f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        raise rejection(name, "is not JSON that can be read") from None


def build_tree(written: Mapping[str, RawSetting]) -> dict[str, Any]:
    """The values as the tree that the models validate."""
    tree: dict[str, Any] = {}
    for setting, raw in written.items():
        group, _, name = setting.rpartition(".")
        branch = tree.setdefault(group, {}) if group else tree
        branch[name] = raw.value
    return tree


def translate(
    model: type[Group], problem: ErrorDetails, written: Mapping[str, RawSetting], *, parts: Iterable[str]
) -> ConfigurationError:
    """Pydantic's error as ours: it names the setting as the user wrote it, and leaves out the value, maybe a secret."""
    if problem["type"] == "between_settings":
        pair = problem["ctx"]["settings"]
        # Blame a setting that the user wrote: the other one may be a default.
        guilty = next((setting for setting in pair if setting in written), pair[0])
        return rejection(name_as_written(guilty, written), problem["msg"])
    place = [str(step) for step in problem["loc"] if step != "[key]"]  # pydantic marks an invalid key of a dict so
    depth = 1 if place[0] in known_settings(model) else 2
    setting, inner = ".".join(place[:depth]), tuple(place[depth:])
    name = name_as_written(setting, written)
    for part, variable in (written[setting].parts if setting in written else {}).items():
        if inner[: len(part)] == part:
            name, inner = variable, inner[len(part) :]
            break
    return rejection(name, f"{'.'.join(inner)} {_say(problem, parts)}".strip())


def _say(problem: ErrorDetails, parts: Iterable[str]) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":  # only a source has parts that can be unknown this deep
        return f"is unknown; {nearest(str(problem['loc'][-1]), parts)}"
    text = problem["msg"].removeprefix("Input ")
    return text[:1].lower() + text[1:]


def name_as_written(setting: str, written: Mapping[str, RawSetting]) -> str:
    """The name under which the user wrote a setting, or its variable if the user did not write it."""
    return written[setting].name if setting in written else environment_name(setting)
