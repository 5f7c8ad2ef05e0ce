"""``schemas``: list, show, check and register the schemas of the records."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from connector.cli.commands import Command, group
from connector.cli.exits import failed_if
from connector.cli.options import REGISTRY_URL, File, Json, RegistryUrl
from connector.cli.output import print_json
from connector.errors import ConfigurationError
from connector.kafka.registry import Registry
from connector.kafka.topics import canaries, routes_of
from connector.message import schemas as our_schemas
from connector.message.compatibility import incompatibilities
from connector.message.routes import Route
from connector.settings import Settings

REGISTERED: Final = "registered"
COMPATIBLE: Final = "compatible, not registered"
NO_VERSION: Final = "not registered, the subject has no version"
INCOMPATIBLE: Final = "incompatible"
NO_REGISTRY: Final = "no registry is set"

schemas = group("List, show, check and register the schemas of the records.")


@dataclass(frozen=True, slots=True)
class SubjectState:
    """The state of one subject, or of the schemas against one released version.

    Attributes:
        subject: The registry's subject, or the released version.
        schema: The full name of the schema, or the names of the released ones.
        id: The id of the schema in the registry, or None.
        state: One of the constants above.
        problems: The incompatibilities, by field.
    """

    subject: str
    schema: str
    id: int | None
    state: str
    problems: tuple[str, ...] = ()


@schemas.command("list", cls=Command)
def list_command(*, file: File = None, registry_url: RegistryUrl = None, as_json: Json = False) -> None:
    """List the subjects that the topics need, with their schemas and, if there is a registry, their ids.

    \b
    Examples:
      weda-connector schemas list
      weda-connector schemas list --registry-url http://registry:8081 --json

    Exit codes: 0 listed, 2 bad usage or configuration, 3 the registry is not reachable.
    """
    settings = Settings.load(file=file, flags={REGISTRY_URL: registry_url})
    if settings.registry.url is None:
        lines = [SubjectState(route.subject, route.schema.name, None, NO_REGISTRY) for route in _routes(settings)]
    else:
        with Registry(settings.registry) as registry:
            lines = [_listed(registry, route) for route in _routes(settings)]
    _print(lines, as_json=as_json)


@schemas.command("show", cls=Command)
def show_command(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A schema: WorkflowEvent, or its full name.")],
    release: Annotated[
        str | None, typer.Option(metavar="VERSION", help="As it was in this released version; else as it is now.")
    ] = None,
) -> None:
    """Print a schema as JSON.

    \b
    Examples:
      weda-connector schemas show WorkflowEvent
      weda-connector schemas show TaskEvent --release 0.1.0 > TaskEvent.avsc

    Exit codes: 0 printed, 2 there is no such schema or release.
    """
    print_json(json.loads(_schema(name, release).text), indent=2)


@schemas.command("check", cls=Command)
def check_command(*, file: File = None, registry_url: RegistryUrl = None, as_json: Json = False) -> None:
    """Check that every version of each schema reads every other: the released ones, and the registry's if there is one.

    \b
    Examples:
      weda-connector schemas check                    # against the released versions only, without a registry
      weda-connector schemas check --registry-url http://registry:8081

    Exit codes: 0 all fit (or nothing is registered yet), 1 one does not: the field is named, 2 bad usage or
    configuration, 3 the registry is not reachable.
    """
    settings = Settings.load(file=file, flags={REGISTRY_URL: registry_url})
    lines = list(_against_the_released())
    if settings.registry.url is not None:
        with Registry(settings.registry) as registry:
            lines += [_checked(registry, route) for route in _routes(settings)]
    _print(lines, as_json=as_json)
    if settings.registry.url is None and not as_json:
        print("no registry is set (WEDA_REGISTRY__URL): registered schemas were not checked", file=sys.stderr)
    raise typer.Exit(failed_if(any(line.problems for line in lines)))


@schemas.command("register", cls=Command)
def register_command(*, file: File = None, registry_url: RegistryUrl = None, as_json: Json = False) -> None:
    """Register the schemas of all topics; a new subject is held to FULL_TRANSITIVE compatibility.

    \b
    Examples:
      weda-connector schemas register
      WEDA_REGISTRY__URL=http://registry:8081 weda-connector schemas register --json

    Exit codes: 0 all are registered, 1 the registry rejects one: the field is named, 2 bad usage or configuration,
    3 the registry is not reachable.
    """
    with _registry(file, registry_url) as (registry, routes):
        lines = [
            SubjectState(route.subject, route.schema.name, registry.register(route), REGISTERED) for route in routes
        ]
    _print(lines, as_json=as_json)


@contextmanager
def _registry(file: Path | None, url: str | None) -> Iterator[tuple[Registry, tuple[Route, ...]]]:
    settings = Settings.load(file=file, flags={REGISTRY_URL: url})
    if settings.registry.url is None:
        raise ConfigurationError("WEDA_REGISTRY__URL is not set: give the registry's address, or --registry-url")
    with Registry(settings.registry) as registry:
        yield registry, _routes(settings)


def _routes(settings: Settings) -> tuple[Route, ...]:
    # The canary's topics have subjects of their own.
    return (*routes_of(settings).all, *canaries(settings))


def _listed(registry: Registry, route: Route) -> SubjectState:
    schema_id = registry.id_of(route)
    return SubjectState(
        route.subject, route.schema.name, schema_id, REGISTERED if schema_id is not None else "not registered"
    )


def _checked(registry: Registry, route: Route) -> SubjectState:
    schema_id = registry.id_of(route)
    problems = tuple(registry.incompatibilities(route))
    if problems:
        state = INCOMPATIBLE
    elif schema_id is not None:
        state = REGISTERED
    else:
        state = COMPATIBLE if registry.versions(route.subject) else NO_VERSION
    return SubjectState(route.subject, route.schema.name, schema_id, state, problems)


def _schema(name: str, release: str | None) -> our_schemas.Schema:
    if release is None:
        by_name = {full_name: our_schemas.load(full_name) for full_name in our_schemas.ALL}
    elif release in our_schemas.released():
        by_name = dict(our_schemas.released()[release])
    else:
        raise ConfigurationError(f"--release: there is no {release}; released: {', '.join(our_schemas.released())}")
    schema = next((by_name[full] for full in by_name if name in {full, full.rpartition(".")[2]}), None)
    if schema is None:
        names = ", ".join(full.rpartition(".")[2] for full in by_name)
        raise ConfigurationError(f"there is no schema {name}; there are {names}")
    return schema


def _against_the_released() -> Sequence[SubjectState]:
    return [_compared(version, released) for version, released in our_schemas.released().items()]


def _compared(version: str, released: Mapping[str, our_schemas.Schema]) -> SubjectState:
    problems = tuple(
        f"{name}: {why}"
        for name, old in released.items()
        for why in incompatibilities(our_schemas.load(name).text, old.text)
    )
    state = INCOMPATIBLE if problems else "compatible"
    return SubjectState(
        f"released {version}", ", ".join(name.rpartition(".")[2] for name in released), None, state, problems
    )


def _print(lines: Sequence[SubjectState], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(line) for line in lines])
    elif sys.stdout.isatty():
        _print_rich(lines)
    else:
        for line in lines:
            print(_plain(line))
    # On standard error, one a line: the table has no room for them, and JSON has them already.
    if not as_json:
        for line in lines:
            for problem in line.problems:
                print(f"{line.subject}: {problem}", file=sys.stderr)


def _print_rich(lines: Sequence[SubjectState]) -> None:
    table = Table("subject", "schema", "id", "state")
    for line in lines:
        table.add_row(line.subject, line.schema, "" if line.id is None else str(line.id), line.state)
    Console().print(table)


def _plain(line: SubjectState) -> str:
    schema_id = "" if line.id is None else f" (id {line.id})"
    return f"{line.subject}: {line.schema}{schema_id}: {line.state}"
