"""``schemas``: the records' schemas against the registry and against those that were released."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from connector.cli.output import print_json
from connector.errors import ConfigurationError
from connector.kafka.registry import Registry, Subject, subjects
from connector.kafka.topics import canaries, routes_of
from connector.message import schemas as our_schemas
from connector.message.compatibility import breaks
from connector.settings import Settings

EXIT_CHECK_FAILED: Final = 1
REGISTERED: Final = "registered"
COMPATIBLE: Final = "compatible, not registered"
FIRST: Final = "not registered, no version there yet"
INCOMPATIBLE: Final = "incompatible"

schemas = typer.Typer(no_args_is_help=True, help="The records' schemas: list, check, register.")

File = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Url = Annotated[str | None, typer.Option("--registry-url", help="Address of the schema registry.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, slots=True)
class Line:
    """What there is to say of one subject (or of one schema and one released version).

    Attributes:
        subject: The registry's subject, or the schema's full name.
        schema: The schema's full name.
        id: Its id in the registry, where it has one.
        state: One of this module's words.
        problems: What is incompatible, by field.
    """

    subject: str
    schema: str
    id: int | None
    state: str
    problems: tuple[str, ...] = ()


@schemas.command("list")
def list_command(*, file: File = None, registry_url: Url = None, as_json: Json = False) -> None:
    """List the subjects that the topics need, with their schemas and ids.

    \b
    Examples:
      weda-connector schemas list
      weda-connector schemas list --registry-url http://registry:8081 --json

    Exit codes: 0 listed, 2 bad usage or configuration, 3 the registry is not reachable.
    """
    with _asked(file, registry_url) as (registry, wanted):
        lines = [_line(registry, subject) for subject in wanted]
    _print(lines, as_json=as_json)


@schemas.command("check")
def check_command(*, file: File = None, registry_url: Url = None, as_json: Json = False) -> None:
    """Check that every version of each schema reads every other: the released ones, and the registry's if there is one.

    \b
    Examples:
      weda-connector schemas check                    # against the released versions; with a registry, against it too
      weda-connector schemas check --registry-url http://registry:8081

    Exit codes: 0 all fit (or nothing is registered yet), 1 one does not: the field is named, 2 bad usage or
    configuration, 3 the registry is not reachable.
    """
    settings = Settings.load(file=file, flags={"registry.url": registry_url})
    lines = list(_against_the_released())
    if settings.registry.url is not None:
        with Registry(settings.registry) as registry:
            lines += [_checked(registry, subject) for subject in _subjects(settings)]
    _print(lines, as_json=as_json)
    raise typer.Exit(EXIT_CHECK_FAILED if any(line.problems for line in lines) else 0)


@schemas.command("register")
def register_command(*, file: File = None, registry_url: Url = None, as_json: Json = False) -> None:
    """Register the schemas of all topics; a new subject is held to FULL_TRANSITIVE compatibility.

    \b
    Examples:
      weda-connector schemas register
      WEDA_REGISTRY__URL=http://registry:8081 weda-connector schemas register --json

    Exit codes: 0 all are registered, 1 the registry refuses one: the field is named, 2 bad usage or configuration,
    3 the registry is not reachable.
    """
    with _asked(file, registry_url) as (registry, wanted):
        lines = [Line(each.name, each.schema.name, registry.register(each), REGISTERED) for each in wanted]
    _print(lines, as_json=as_json)


@contextmanager
def _asked(file: Path | None, url: str | None) -> Iterator[tuple[Registry, tuple[Subject, ...]]]:
    settings = Settings.load(file=file, flags={"registry.url": url})
    if settings.registry.url is None:
        raise ConfigurationError("WEDA_REGISTRY__URL is not set: give the registry's address, or --registry-url")
    with Registry(settings.registry) as registry:
        yield registry, _subjects(settings)


def _subjects(settings: Settings) -> tuple[Subject, ...]:
    return subjects((*routes_of(settings).all, *canaries(settings)))


def _line(registry: Registry, subject: Subject) -> Line:
    schema_id = registry.id_of(subject)
    return Line(subject.name, subject.schema.name, schema_id, REGISTERED if schema_id is not None else "not registered")


def _checked(registry: Registry, subject: Subject) -> Line:
    schema_id = registry.id_of(subject)
    problems = tuple(registry.incompatibilities(subject))
    if problems:
        state = INCOMPATIBLE
    elif schema_id is not None:
        state = REGISTERED
    else:
        state = COMPATIBLE if registry.versions(subject.name) else FIRST
    return Line(subject.name, subject.schema.name, schema_id, state, problems)


def _against_the_released() -> Sequence[Line]:
    return [_compared(version, released) for version, released in our_schemas.released().items()]


def _compared(version: str, released: Mapping[str, our_schemas.Schema]) -> Line:
    problems = tuple(
        f"{name}: {why}" for name, old in released.items() for why in breaks(our_schemas.load(name).text, old.text)
    )
    state = INCOMPATIBLE if problems else "compatible"
    return Line(f"released {version}", ", ".join(name.rpartition(".")[2] for name in released), None, state, problems)


def _print(lines: Sequence[Line], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(line) for line in lines])
    elif sys.stdout.isatty():
        _print_rich(lines)
    else:
        for line in lines:
            print(_plain(line))
    if not as_json:
        for line in lines:
            for problem in line.problems:
                print(f"{line.subject}: {problem}", file=sys.stderr)


def _print_rich(lines: Sequence[Line]) -> None:
    table = Table("subject", "schema", "id", "state")
    for line in lines:
        table.add_row(line.subject, line.schema, "" if line.id is None else str(line.id), line.state)
    Console().print(table)


def _plain(line: Line) -> str:
    known = "" if line.id is None else f" (id {line.id})"
    return f"{line.subject}: {line.schema}{known}: {line.state}"
