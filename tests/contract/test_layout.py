"""The package is laid out as CONTRIBUTING says: imports point downwards, and what is pure stays pure."""

import ast
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "connector"

LAYERS = (
    {"errors"},
    {"values", "text", "clock", "periods", "endpoints", "supervision", "handshake"},
    {"message"},
    {"answers"},
    {"settings"},
    {"journal"},
    {"kafka"},
    {"telemetry"},
    {"delivery"},
    {"replicas"},
    {"intake"},
    {"lookup"},
    {"receiver", "operations"},
    {"app"},
    {"admin", "consuming", "testing", "simulator"},
    {"demo", "notify"},
    {"cli"},
    {"__main__"},
)
"""The packages, lowest first: each imports from those below it, and never from one beside or above it."""

PURE = (
    "errors",
    "values",
    "text",
    "periods",
    "endpoints",
    "message.weda",
    "message.parsing",
    "message.conversion",
    "message.decoding",
    "message.persons",
    "message.events",
    "message.records",
    "message.headers",
    "message.avro",
    "message.routes",
    "message.redact",
    "delivery.lanes",
    "receiver.client_address",
    "receiver.head",
    "receiver.signatures",
)
"""Modules without I/O, clock, log or metric."""

IMPURE_MODULES = {
    *("asyncio", "threading", "time", "socket", "os", "pathlib", "io", "random", "secrets", "subprocess", "tempfile"),
    *(
        "logging",
        "structlog",
        "prometheus_client",
        "confluent_kafka",
        "apsw",
        "psycopg",
        "sqlite3",
        "aiohttp",
        "fastapi",
        "uvicorn",
    ),
}
IMPURE_CALLS = {"open", "print", "input", "now", "today", "utcnow", "sleep", "create_task"}
THREADS = {
    "app.canary": {"concurrent"},
    "consuming.events": {"concurrent"},
    "delivery.duplicates": {"concurrent"},
    "journal.sqlite": {"threading", "queue", "concurrent"},
    "kafka.publisher": {"threading"},
    "notify.delivery": {"concurrent"},
    "notify.service": {"threading"},
    "kafka.topics": {"concurrent"},
    "telemetry.logs": {"threading", "queue"},
}
"""The modules that own a thread, and the modules that serve threads which they may import."""
READERS_OF_THE_ENVIRONMENT = {
    "settings.models",
    "demo.options",  # chooses which of the user's variables `Settings.load` gets to see
}


def part_of(path: Path) -> str:
    """The package, or the module beside the packages, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """The dotted name of a module within the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@cache
def files() -> tuple[tuple[str, Path, ast.Module], ...]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return tuple((part_of(path), path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that are imported, wherever in the file; of ``from a import b`` also ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{one.name}" for one in node.names)


def ours(tree: ast.AST) -> set[str]:
    """The parts of the package that are imported."""
    parts = {name.split(".")[1] for name in imported(tree) if name.startswith("connector.")}
    return parts & {part for part, _, _ in files()}


def theirs(tree: ast.AST) -> set[str]:
    """The packages outside that are imported."""
    return {name.split(".")[0] for name in imported(tree)} - {"connector"}


def layer(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_every_module_has_its_layer():
    assert {part for part, _, _ in files()} - {"__init__"} - set().union(*LAYERS) == set()


def test_imports_point_downwards_only():
    others = [
        f"{path.relative_to(ROOT)} imports {other}"
        for part, path, tree in files()
        for other in ours(tree) - {part}
        if part != "__init__" and layer(other) >= layer(part)
    ]

    assert others == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("admin", "app"),
        ("admin", "operations"),
        ("cli", "operations"),
    ],
)
def test_parts_that_share_what_is_below_them_do_not_import_each_other(one, other):
    assert [path for part, path, tree in files() if part == one and other in ours(tree)] == []


def test_the_simulator_knows_nothing_of_the_connector_but_errors_and_schemas():
    """What it sends must not come from the code that reads it; the schemas are what both have been given."""
    modules = set().union(*(set(imported(tree)) for part, _, tree in files() if part == "simulator"))
    known = {name for name in modules if name.startswith("connector.") and not name.startswith("connector.simulator")}

    assert {name for name in known if not name.startswith(("connector.errors", "connector.message.schemas"))} == set()


def test_what_is_for_tests_is_used_by_tests_only():
    assert [path for part, path, tree in files() if part != "testing" and "testing" in ours(tree)] == []


def test_settings_alone_reads_the_environment():
    names = {"environ", "environb", "getenv", "getenvb"}
    readers = {
        name_of(path)
        for _, path, tree in files()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.alias) and node.name in names)
    }

    assert readers == READERS_OF_THE_ENVIRONMENT


def test_few_modules_have_threads():
    threaded = {
        f"{path.relative_to(ROOT)} imports {name}"
        for _, path, tree in files()
        for name in theirs(tree) & {"threading", "queue", "multiprocessing", "_thread", "concurrent"}
        if name not in THREADS.get(name_of(path), set())
    }

    assert threaded == set()


def test_publisher_alone_makes_a_producer_that_publishes():
    """The embedded broker is owned by a producer too, which produces nothing."""
    produces = {
        name_of(path)
        for _, path, tree in files()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "produce"
    }

    assert produces == {"kafka.publisher"}


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_has_no_io_clock_log_or_metric(name):
    (tree,) = [tree for _, path, tree in files() if name_of(path) == name]
    calls = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }

    assert theirs(tree) & IMPURE_MODULES == set()
    assert calls & IMPURE_CALLS == set()
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


def public_definitions(path: Path, tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The module, its public functions and classes, and their public methods."""
    yield where(path, tree), tree
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in (tree, *classes):
        for node in owner.body:
            is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_definition and not node.name.startswith("_"):
                yield where(path, node), node


def test_every_public_module_class_and_function_has_a_docstring():
    bare = [
        place
        for _, path, tree in files()
        for place, node in public_definitions(path, tree)
        if not ast.get_docstring(node)
    ]

    assert bare == []


def named_in(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every ``connector.x.y`` that a docstring names in backquotes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node, name) for name in re.findall(r"`~?(connector(?:\.\w+)+)`", node.value))


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def test_what_docstrings_name_exists():
    named = [(where(path, node), name) for _, path, tree in files() for node, name in named_in(tree)]

    assert len(named) > 10
    assert [(place, name) for place, name in named if not exists(name)] == []


def test_what_contributing_names_exists():
    """The answers to what people ask first name modules, classes and functions of the package."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    packages = "|".join(path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "__pycache__")
    named = re.findall(rf"`((?:{packages})(?:\.(?!py`)\w+)+)`", text)

    assert len(named) > 10
    assert [name for name in named if not exists(f"connector.{name}")] == []


@pytest.mark.parametrize("package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_the_docstring_of_a_package_names_all_its_modules(package):
    """It is what a newcomer reads first, so no module may be missing."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {f"connector.{package}.{module.name}" for module in pkgutil.iter_modules([str(PACKAGE / package)])}

    assert modules - set(re.findall(r"`(connector\.[\w.]+)`", docstring)) == set()
